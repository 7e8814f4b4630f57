"""Export: the selection as a file that training code reads, with its manifest."""

from __future__ import annotations

import streamlit as st

from app.components.export import counts, downloads, recipe_text
from app.components.shared.conditions import condition_bar
from app.components.shared.shell import nothing_yet
from app.shown import shown
from app.state import session

st.title("Export", anchor=False)
view = shown()
if view is None:
    nothing_yet(
        "Nothing to export yet", "Score a pool first, then select.", icon=":material/download:"
    )

condition_bar(view)
left, right = st.columns(2, gap="large")
with left, st.container(border=True):
    st.subheader("What is kept", anchor=False)
    counts(view)
    recipe_text(view)
with right, st.container(border=True):
    st.subheader("Take it away", anchor=False)
    if view.key.tuned is not None:
        st.warning(
            "These scores are tuned and not saved, so no run could prove where the selection came "
            "from. Save them as a run on the Explore page, or reset them.",
            icon=":material/tune:",
        )
        st.button("Reset to the saved run", icon=":material/undo:", on_click=session.untune)
    else:
        downloads(view)
