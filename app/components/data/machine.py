"""How a job is carried out: on which device, by how many workers, with a map or not."""

from __future__ import annotations

import streamlit as st

from mimic_core.base.config import Task
from mimic_core.jobs.record import JobOptions

_AUTOMATIC = "automatic"


def device_field(key: str) -> str | None:
    """The device to compute on; None chooses one."""
    device = st.selectbox(
        "Device",
        [_AUTOMATIC, "cpu", "cuda", "mps"],
        accept_new_options=True,
        key=key,
        help="Automatic takes CUDA, then MPS, then the CPU. Another one, such as cuda:1, can be "
        "typed.",
        persist_state="session",
    )
    return None if device in (None, _AUTOMATIC) else device


def options_form(task: Task) -> JobOptions:
    """Everything about a scoring job that does not change its scores."""
    with st.container(horizontal=True):
        with_map = st.toggle(
            "Make the map",
            value=True,
            key="set_map",
            help="A 2-D picture of the pool (UMAP). Takes a minute or more after scoring.",
            persist_state="session",
        )
        sweep = task == "pairs" and st.toggle(
            "Compare mimic layers",
            key="set_sweep",
            help="Extends the direction check: scores a small part of the pool with several "
            "candidate mimic layers.",
            persist_state="session",
        )
    with st.expander("Device and workers", icon=":material/memory:"):
        one, two = st.columns(2)
        with one:
            device = device_field("set_device")
        workers = two.number_input(
            "Workers",
            min_value=0,
            max_value=256,
            value=None,
            placeholder="automatic",
            key="set_workers",
            help="Processes that read and decode images. Automatic goes by the size of the pool; "
            "0 reads them in the job's own process. Scores do not depend on it.",
            persist_state="session",
        )
    return JobOptions(
        map=with_map, sweep=sweep, device=device, workers=None if workers is None else int(workers)
    )
