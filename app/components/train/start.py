"""The end of the training form: the same as a command, and the button that starts the job."""

from __future__ import annotations

import streamlit as st

from app.components.shared.controls import same_as_command
from app.components.shared.errors import errors_shown
from app.components.shared.jobs import any_active
from app.library import require_allowed_config, runs_root, tidy_path
from app.state import session
from mimic_core.base.config import RunConfig
from mimic_core.cli.commands import run_command
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.store import JobStore
from mimic_core.jobs.worker import start_job

NEW, CURVES = "New training", "Learning curves"
_VIEW = "train_view"


def view_chooser(store: JobStore) -> str:
    """Which part of the page is shown: the form, or the curves, which an active job begins with."""
    training = any_active(store, "training")
    chosen: str = st.segmented_control(
        "Part of the page",
        [NEW, CURVES],
        default=CURVES if training else NEW,
        required=True,
        key=_VIEW,
        label_visibility="collapsed",
        persist_state="session",
    )
    return chosen


def start_panel(store: JobStore, config: RunConfig, options: JobOptions) -> None:
    """The command, copyable, and the button."""
    same_as_command(run_command(config, options, out=tidy_path(runs_root())))
    st.button(
        "Start training",
        type="primary",
        icon=":material/play_arrow:",
        key="train_go",
        on_click=_start,
        args=(store, config, options),
    )


def _start(store: JobStore, config: RunConfig, options: JobOptions) -> None:
    with errors_shown():
        start_job(store, require_allowed_config(config), options)
        session.bind(_VIEW, CURVES)  # where its progress is looked at
