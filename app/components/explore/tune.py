"""Live tuning of a probe run: other settings on the same cached features, in about a second."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.cache import tables
from app.components.shared.controls import config_field
from app.components.shared.jobs import watch, watched_job, watching
from app.library import located, require_allowed_config, runs_root
from app.state import session
from app.text import duration
from mimic_core.base.config import ProbeConfig
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.store import JOBS_FILE, JobStore
from mimic_core.jobs.worker import start_job
from mimic_core.runs.run import Run

LIVE_SECONDS = 5.0
_NUMBERS = ("temperature", "epochs", "batch_size", "seed")


def tune_panel(run: Run) -> None:
    """The controls of the probe; nothing for a run that is no probe."""
    own = run.record.config.probe
    if own is None:
        return
    state = session.state()
    st.markdown("**Tune**", help="Scores again from the cached features; no image is read.")
    applied = state.tuned or own
    asked = state.asked or applied
    _controls(asked, labelled=run.record.reference_head is not None)
    if asked != applied:
        seconds = tables.tuning_seconds(str(run.path), asked.model_dump_json())
        if seconds <= LIVE_SECONDS:
            session.tune(asked, own)
        else:
            _offer(asked, own, seconds)
    if session.state().tuned is not None:
        _unsaved(run)


def _offer(asked: ProbeConfig, own: ProbeConfig, seconds: float) -> None:
    st.caption(f"Scoring with these settings takes about {duration(seconds)}.")
    st.button(
        "Apply",
        key="tune_apply",
        type="primary",
        icon=":material/play_arrow:",
        on_click=session.tune,
        args=(asked, own),
    )


def _controls(asked: ProbeConfig, *, labelled: bool) -> None:
    def set_to(name: str) -> None:
        value = session.value(_key(name))
        if value is not None:
            session.change(asked=asked.model_copy(update={name: value}))

    def control(name: str, place: Any, **own: Any) -> None:
        key = session.bind(_key(name), getattr(asked, name))
        config_field(ProbeConfig, name, key=key, place=place, on_change=set_to, args=(name,), **own)

    if not labelled:
        control("side", st, segmented=True, width="stretch")
    left, right = st.columns(2)
    for place, name in zip((left, right, left, right), _NUMBERS, strict=True):
        control(name, place)


def _key(name: str) -> str:
    return f"tune_{name}"


def _unsaved(run: Run) -> None:
    """What to do with tuned settings: throw them away or make a run of them."""
    store = JobStore(runs_root() / JOBS_FILE)
    st.warning(
        "Tuned, not saved. Only this tab has these scores: reloading the page goes back to the "
        "saved run.",
        icon=":material/tune:",
    )
    with st.container(horizontal=True):
        st.button("Reset", key="tune_reset", icon=":material/undo:", on_click=session.untune)
        if watching(store) is None and st.button(
            "Save as run", key="tune_save", icon=":material/save:", type="primary"
        ):
            config = located(run.record.config)
            tuned = config.model_copy(update={"probe": session.state().tuned})
            watch(start_job(store, require_allowed_config(tuned), JobOptions(map=True)))
            st.rerun()
    watched_job(store)
