"""Train: train a model on a pool with weighted samples, and compare what the runs have learned."""

from __future__ import annotations

import streamlit as st

from app.components.data.pool import pool_chooser, pool_preview
from app.components.shared.errors import errors_shown
from app.components.shared.jobs import active_jobs, ended_jobs
from app.components.train.curves import curves_panel
from app.components.train.form import training_form
from app.components.train.start import CURVES, start_panel, view_chooser
from app.library import runs_root
from mimic_core.jobs.store import JOBS_FILE, JobStore

store = JobStore(runs_root() / JOBS_FILE)
st.title("Train", anchor=False)

active_jobs(store, "training")
if view_chooser(store) == CURVES:
    with st.container(key="curves"):
        curves_panel(store)
else:
    with st.container(border=True, key="pool"):
        st.subheader("1 · Pool", anchor=False)
        source = seen = None
        with errors_shown():
            source = pool_chooser()
            seen = pool_preview(source) if source is not None else None
    if source is not None and seen is not None:
        with st.container(border=True, key="settings"), errors_shown():
            st.subheader("2 · Models and settings", anchor=False)
            config, options = training_form(source, seen)
            start_panel(store, config, options)

st.subheader("Ended training jobs", anchor=False)
ended_jobs(store, "training")
