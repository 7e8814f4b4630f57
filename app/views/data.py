"""Data and scoring: choose a pool, look at it, start scoring it, follow the jobs."""

from __future__ import annotations

import streamlit as st

from app.components.data.pool import pool_chooser, pool_preview
from app.components.data.settings import settings_form
from app.components.shared.controls import same_as_command
from app.components.shared.errors import errors_shown
from app.components.shared.jobs import active_jobs, ended_jobs
from app.library import require_allowed_config, runs_root, tidy_path
from mimic_core.cli.commands import run_command
from mimic_core.jobs.store import JOBS_FILE, JobStore
from mimic_core.jobs.worker import start_job

store = JobStore(runs_root() / JOBS_FILE)
st.title("Data and scoring", anchor=False)

active_jobs(store)
with st.container(border=True, key="pool"):
    st.subheader("1 · Pool", anchor=False)
    source = seen = None
    with errors_shown():
        source = pool_chooser()
        seen = pool_preview(source) if source is not None else None

if source is not None and seen is not None:
    with st.container(border=True, key="settings"), errors_shown():
        st.subheader("2 · Reference and settings", anchor=False)
        counted = seen.samples if seen.complete else None
        config, options = settings_form(source, counted, seen.task)
        started = st.button(
            "Start scoring",
            type="primary",
            icon=":material/play_arrow:",
            key="start",
            disabled=config is None,
        )
        if config is not None:
            same_as_command(run_command(config, options, out=tidy_path(runs_root())))
        if started and config is not None:
            start_job(store, require_allowed_config(config), options)
            st.rerun()  # the job is shown at the top, and polled from now on

st.subheader("Ended jobs", anchor=False)
ended_jobs(store)
