"""The top of the Dynamics page, and what it shows where a run has no history."""

from __future__ import annotations

import streamlit as st

from app.components.shared.errors import empty_state
from app.components.shared.shell import pool_title, run_label, sample_counts
from app.shown import Shown, library, step_unit, steps_of
from app.state import session
from app.text import count, plain

_MOST_RUNS = 6


def dynamics_heading(shown: Shown) -> None:
    """Pool, size and number of steps in two lines."""
    record = shown.run.record
    tuned = session.state().tuned
    steps = steps_of(shown)
    samples = shown.total - shown.without_image
    batch_size = record.batch_size if tuned is None else min(tuned.batch_size, samples)
    with st.container(key="heading"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.title("Dynamics", anchor=False, width="content")
            if tuned is not None:
                st.badge("tuned, not saved", icon=":material/tune:", color="orange")
        unit = step_unit(shown)
        parts = [
            plain(pool_title(shown.run)),
            *sample_counts(shown),
            f"{count(steps)} {unit}{'' if steps == 1 else 's'}",
            f"batches of B = {count(batch_size)}",
        ]
        st.caption(" · ".join(parts))


def no_history(shown: Shown) -> None:
    """A run of one step: what would give it a history, and which runs have one."""
    config = shown.run.record.config
    if config.probe is not None:
        way = "Set more epochs under Tune in the sidebar, or score the pool with more epochs."
    else:
        way = "Score the pool again with two or more repeats: each is a column here."
    empty_state(
        f"One {step_unit(shown)} has no history",
        f"This run scored every sample once, so nothing can move and nothing can vote. {way}",
        icon=":material/timeline:",
    )
    if session.state().tuned is not None:
        st.button("Reset to the saved run", icon=":material/undo:", on_click=session.untune)
    others = [run for run in library().runs if run.done and run.record.epochs > 1]
    if not others:
        st.caption("No other run has a history yet.")
        return
    st.caption("Runs with a history:")
    with st.container(horizontal=True):
        for run in others[:_MOST_RUNS]:
            st.button(
                f"{plain(run_label(run))} · {count(run.record.epochs)} steps",
                key=f"dyn_run-{run.id}",
                icon=":material/timeline:",
                on_click=session.choose_run,
                args=(run.id,),
            )
