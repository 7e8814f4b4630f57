"""Dynamics: how the scores of a run's samples move over its epochs, and how the epochs vote."""

from __future__ import annotations

import streamlit as st

from app.components.dynamics.bar import decision, votes_bar
from app.components.dynamics.charts import distributions, flips
from app.components.dynamics.gallery import gallery_panel, gallery_rows
from app.components.dynamics.heading import dynamics_heading, no_history
from app.components.dynamics.heatmap import heat_panel
from app.components.dynamics.sample import sample_panel, sample_row
from app.components.explore.header import metrics
from app.components.explore.tune import tune_panel
from app.components.shared.conditions import condition_bar
from app.components.shared.errors import errors_shown
from app.components.shared.shell import nothing_yet
from app.shown import active_run, dynamics_of, shown, steps_of

run = active_run()
if run is None:
    st.title("Dynamics", anchor=False)
    nothing_yet(
        "No history yet",
        "Score a pool first; a probe of five epochs records a score for every sample and epoch.",
        icon=":material/timeline:",
    )

with st.sidebar, errors_shown():
    tune_panel(run)

page = shown()
assert page is not None  # there is a run
heading, figures = st.columns([5, 4], vertical_alignment="center")
with heading:
    dynamics_heading(page)
with figures:
    metrics(page)
steps = steps_of(page)
condition_bar(page, hint="Drag over rows of the heat map." if steps > 1 else "")
if steps < 2:
    no_history(page)
    st.stop()

with errors_shown():
    bar = st.container(horizontal=True, vertical_alignment="center", key="dyn_bar")
    with bar:
        votes_bar(steps)
    view = dynamics_of(page)
    with bar:
        decision(view)
    rows = gallery_rows(view)
    row = sample_row(view, rows)
    left, right = st.columns([6, 5], gap="medium")
    with left, st.container(border=True, key="panel_heat"):
        heat_panel(view, row)
    with right, st.container(border=True, key="panel_pool"):
        distributions(view)
        flips(view)
    left, right = st.container(key="dyn_detail").columns([6, 5], gap="medium")
    with left:
        gallery_panel(view, rows)
    with right, st.container(border=True, key="panel_sample"):
        sample_panel(view, rows, row)
