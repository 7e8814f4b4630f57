"""How a job is carried out: on which device, by how many workers, with a map or not."""

from __future__ import annotations

import streamlit as st

from app.components.shared.controls import config_field
from app.library import expanded, require_allowed
from mimic_core.base.config import Task
from mimic_core.jobs.options import JobOptions
from mimic_core.sources.joining import require_joinable


def device_field(key: str) -> str | None:
    """The device to compute on; None chooses one."""
    chosen: str | None = config_field(
        JobOptions,
        "device",
        key=key,
        options=[None, "cpu", "cuda", "mps"],
        accept_new_options=True,
    )
    return chosen


def epochs_used_field(key: str) -> int | None:
    """How many first epochs a run shows; None for all of them."""
    chosen: int | None = config_field(JobOptions, "epochs_used", key=key)
    return chosen


def options_form(task: Task) -> JobOptions:
    """Everything about a scoring job that does not change its scores."""
    with st.container(horizontal=True):
        with_map = config_field(JobOptions, "map", key="set_map", value=True)
        sweep = task == "pairs" and config_field(JobOptions, "sweep", key="set_sweep")
    join = config_field(JobOptions, "join", key="set_join")
    for path in join:  # here, so that it is a message and not a job that fails at its end
        require_joinable(require_allowed(expanded(path)))
    with st.expander("Device, workers and epochs used", icon=":material/memory:"):
        one, two = st.columns(2)
        with one:
            device = device_field("set_device")
            used = epochs_used_field("set_epochs_used")
        workers = config_field(JobOptions, "workers", key="set_workers", place=two)
    return JobOptions(
        map=with_map,
        sweep=sweep,
        device=device,
        workers=workers,
        join=join,
        epochs_used=used,
    )
