"""The list of background jobs: progress, cancel, resume. All of it is read from the job table."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from app.components.shared.errors import empty_state, errors_shown, show_failure
from app.state import session
from app.text import count, duration, per_second, plain
from mimic_core.base.config import Mode, RunConfig
from mimic_core.export.record import ExportRequest
from mimic_core.jobs import worker
from mimic_core.jobs.record import Job, JobStatus
from mimic_core.jobs.store import JobStore
from mimic_core.proofs.record import ProofRequest

POLL_SECONDS = 1.0
_Colour = Literal["blue", "green", "red", "gray", "orange"]
_LOOKS: dict[JobStatus, tuple[str, _Colour]] = {
    "queued": (":material/schedule:", "blue"),
    "running": (":material/progress_activity:", "blue"),
    "done": (":material/check_circle:", "green"),
    "failed": (":material/error:", "red"),
    "cancelled": (":material/cancel:", "gray"),
    "stale": (":material/heart_broken:", "orange"),
}


def active_jobs(store: JobStore, mode: Mode | None = None) -> None:
    """The jobs that are active, refreshed every second for as long as there are any.

    Args:
        store: Where the jobs are.
        mode: Only those of this mode.
    """
    if any_active(store, mode):
        st.fragment(run_every=POLL_SECONDS)(_poll)(store, mode)


def any_active(store: JobStore, mode: Mode | None = None) -> bool:
    """Whether a job (of that mode) is queued or running."""
    return any(job.active for job in _of(store, mode))


def _of(store: JobStore, mode: Mode | None) -> list[Job]:
    return [job for job in store.jobs() if mode is None or _mode(job) == mode]


def _mode(job: Job) -> Mode | None:
    """How the job scores; None for a proof or an export."""
    return job.config.mode if isinstance(job.config, RunConfig) else None


def _poll(store: JobStore, mode: Mode | None) -> None:
    with errors_shown():  # a fragment runs outside of the page's own
        found = [job for job in _of(store, mode) if job.active]
        if not found:
            st.rerun()  # the whole page, which stops polling and lists the job among the ended ones
        _cards(store, found)


def ended_jobs(store: JobStore, mode: Mode | None = None, *, limit: int = 8) -> None:
    """The jobs that are not active, newest first; of one ``mode`` where it is given."""
    found = [job for job in _of(store, mode) if not job.active]
    if not found:
        what = "training" if mode == "training" else "scoring"
        empty_state(
            "No ended jobs",
            f"Choose a pool and start {what}. A job runs on its own: close the page or the server, "
            "and it goes on.",
            icon=":material/schedule:",
        )
    _cards(store, found[:limit])
    if len(found) > limit:
        st.caption(f"{limit} of {count(len(found))} jobs")


def _cards(store: JobStore, found: list[Job]) -> None:
    for job in found:
        with st.container(border=True, key=f"job-{job.job_id}"), errors_shown():
            show_job(store, job)


def show_job(store: JobStore, job: Job, *, notes: int = 2) -> None:
    """One job: what it does, how far it is, what can be done about it, its newest ``notes``."""
    icon, colour = _LOOKS[job.status]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(job_title(job))
        st.badge(job.status, icon=icon, color=colour)
        st.space("stretch")
        _buttons(store, job)
    if job.active:
        _progress(job)
    if job.failure is not None:
        failure = job.failure
        show_failure(
            failure.problem, got=failure.got, allowed=failure.allowed, next_step=failure.next_step
        )
        if tail := store.log_tail(job):
            with st.expander("What the worker printed"):
                st.code(tail, language=None)
    elif job.status == "stale":
        st.warning(
            "The worker has not been heard of for a while. What is finished is kept; resume it.",
            icon=":material/heart_broken:",
        )
    for note in job.report.notes[::-1][:notes]:
        st.caption(plain(note))


def job_title(job: Job) -> str:
    """What a job is about: the pool and the mode, the recipes that are proved, what is written."""
    if isinstance(job.config, ProofRequest):
        names = ", ".join(name for name, _ in job.config.recipes)
        return f"**{plain(names)}** · proof"
    if isinstance(job.config, ExportRequest):
        return (
            f"**{plain(pool_name(job.config.out))}** · export as {plain(job.config.config.format)}"
        )
    training = job.config.training
    if job.options.map_of is not None:
        return f"**{plain(pool_name(job.config.source.path))}** · map"
    mode = job.config.mode if training is None else f"training, {training.weighting}"
    return f"**{plain(pool_name(job.config.source.path))}** · {plain(mode)}"


def pool_name(path: str) -> str:
    """The last part of the pool's path."""
    return path.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1] or path


def _progress(job: Job) -> None:
    report = job.report
    fraction = min(1.0, report.done / report.total) if report.total else 0.0
    parts = [plain(report.phase) if report.phase else "starting"]
    if report.total:
        parts.append(f"{count(report.done)} of {count(report.total)} {report.unit}")
    if report.rate:
        parts.append(per_second(report.rate))
    if report.remaining is not None:
        parts.append(f"{duration(report.remaining)} left")
    if report.skipped:
        parts.append(f"{count(report.skipped)} skipped")
    st.progress(fraction, text=" · ".join(parts))


def _buttons(store: JobStore, job: Job) -> None:
    if job.active:
        if job.cancel_requested:
            st.caption("stopping…")
        elif st.button("Cancel", key=f"cancel-{job.job_id}", icon=":material/stop_circle:"):
            store.cancel(job.job_id)
            st.rerun()
    if job.resumable and st.button("Resume", key=f"resume-{job.job_id}", icon=":material/replay:"):
        worker.resume(store, job.job_id)
        st.rerun()
    if (
        job.status == "done"
        and job.run_dir is not None
        and not isinstance(job.config, ExportRequest)  # its last note says where it is
        and st.button(
            "Open", key=f"open-{job.job_id}", icon=":material/arrow_forward:", type="primary"
        )
    ):
        session.choose_run(job.run_dir.name)
        proof = isinstance(job.config, ProofRequest)
        st.switch_page("views/prove.py" if proof else "views/explore.py")


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
        st.fragment(run_every=POLL_SECONDS)(_poll_watched)(store)


def _poll_watched(store: JobStore) -> None:
    with errors_shown():  # a fragment runs outside of the page's own
        job = watching(store)
        if job is None:
            return
        if job.status == "done" and job.run_dir is not None:
            session.go_on_with(job.run_dir.name)
            st.rerun()
        with st.container(border=True, key=f"watched-{job.job_id}"):
            show_job(store, job, notes=0)
