"""Explore: distribution, map and extremes of a run, and the selection made on them."""

from __future__ import annotations

import streamlit as st

from app.cache import tables
from app.components.explore.header import direction, header, metrics
from app.components.explore.histogram import cutoff_score, histogram_panel
from app.components.explore.joins import join_panel
from app.components.explore.map import map_panel
from app.components.explore.skipped import skipped_samples
from app.components.explore.tune import tune_panel
from app.components.shared.conditions import condition_bar
from app.components.shared.errors import errors_shown
from app.components.shared.gallery import gallery
from app.components.shared.shell import nothing_yet
from app.shown import active_run, shown

run = active_run()
if run is None:
    st.title("Explore", anchor=False)
    nothing_yet(
        "No finished run yet",
        "Score a pool first; the demo pool takes about a minute.",
        icon=":material/scatter_plot:",
    )

with st.sidebar, errors_shown():
    tune_panel(run)
    join_panel(run)

view = shown()
assert view is not None  # there is a run
heading, figures = st.columns([5, 4], vertical_alignment="center")
with heading:
    header(view)
with figures:
    metrics(view)
condition_bar(view)
left, right = st.columns(2, gap="medium")
with left, st.container(border=True, key="panel_histogram"), errors_shown():
    histogram_panel(view)
with right, st.container(border=True, key="panel_map"):
    map_panel(view)
direction(view)
skipped_samples(view)
gallery(view, cutoff=cutoff_score(view))
if run.record.config.probe is not None:
    tables.prepare_tuning()  # last, so that the page is there first
