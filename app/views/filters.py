"""Filters: build a recipe, see what each condition keeps and drops, compare it with others."""

from __future__ import annotations

import streamlit as st

from app.components.filters.cards import recipe_cards
from app.components.filters.compare import compare_panel
from app.components.filters.outcome import curve_panel, outcome
from app.components.filters.shelf import recipe_bar, repair_bar
from app.components.filters.take_away import take_away
from app.components.shared.errors import errors_shown
from app.components.shared.shell import nothing_yet
from app.shown import active_run, shown

if active_run() is None:
    st.title("Filters", anchor=False)
    nothing_yet(
        "No finished run yet", "Score a pool first, then build a recipe.", icon=":material/tune:"
    )

view = None
with errors_shown():
    view = shown()
if view is None:
    repair_bar()
    st.stop()

recipe_bar(view)

left, right = st.columns([5, 7], gap="medium")
with left, st.container(key="recipe"):
    recipe_cards(view)
with right:
    with st.container(border=True, key="panel_outcome"), errors_shown():
        outcome(view)
    with st.container(border=True, key="panel_curve"), errors_shown():
        curve_panel(view)
with st.container(border=True, key="panel_compare"), errors_shown():
    compare_panel(view)
take_away(view)
