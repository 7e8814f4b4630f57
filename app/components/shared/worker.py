"""Waiting for one job from any page: its progress, and what happens when it is done."""

from __future__ import annotations

import streamlit as st

from app.components.shared.errors import errors_shown
from app.components.shared.jobs import POLL_SECONDS, show_job
from app.state import session
from mimic_core.jobs.store import Job, JobStore


def watch(job_id: str) -> None:
    """Let this tab wait for the job and then look at its run."""
    session.change(watched=job_id)


def watching(store: JobStore) -> Job | None:
    """The job that this tab waits for, if it is one of ``store``."""
    wanted = session.state().watched
    return next((job for job in store.jobs() if job.job_id == wanted), None)


def watched_job(store: JobStore) -> None:
    """Show the job that this tab waits for; once it is done, show its run."""
    if watching(store) is not None:
        st.fragment(run_every=POLL_SECONDS)(_poll)(store)


def _poll(store: JobStore) -> None:
    with errors_shown():  # a fragment runs outside of the page's own
        job = watching(store)
        if job is None:
            return
        if job.status == "done" and job.run_dir is not None:
            session.go_on_with(job.run_dir.name)
            st.rerun()
        with st.container(border=True, key=f"watched-{job.job_id}"):
            show_job(store, job, notes=0)
