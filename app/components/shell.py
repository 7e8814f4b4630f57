"""What every page has: the style sheet and the sidebar with the run picker."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import colours, session
from app.colours import Theme
from app.library import Library, open_library, runs_root
from app.text import count, plain
from mimic_core.runs import Run

STYLE = Path(__file__).resolve().parents[1] / "style.css"


def page_style() -> None:
    """Tighten streamlit's spacing."""
    st.html(STYLE)


def theme() -> Theme:
    """The tones for the theme that the browser shows."""
    return colours.DARK if st.context.theme.type == "dark" else colours.LIGHT


def library() -> Library:
    """The runs there are now."""
    return open_library(runs_root())


def sidebar() -> None:
    """The run picker; a run that the address names but nobody has is said to be missing."""
    found = library()
    done = {run.id: run for run in found.runs if run.done}
    current = session.state().run_id
    if current not in done:
        if current is not None:
            st.sidebar.warning(
                f"There is no finished run {plain(current)}.", icon=":material/help:"
            )
        current = next(iter(done), None)
        session.choose_run(current)
    session.keep_run_in_address()
    if done:
        st.sidebar.selectbox(
            "Run",
            list(done),
            key=session.bind("run_picker", current),
            format_func=lambda run_id: run_label(done[run_id]),
            on_change=lambda: session.choose_run(session.value("run_picker")),
            help="Finished runs, newest first. Score another pool under Data and scoring.",
        )
    for path, error in found.damaged:
        st.sidebar.caption(f":material/warning: {plain(path.name)}: {plain(error.problem)}")


def run_label(run: Run) -> str:
    """A run in the picker: pool, mode, size, and the end of its id, which tells twins apart."""
    pool, mode, identity = run.id.rsplit("-", 2)
    return f"{pool} · {mode} · {count(run.record.samples)} · {identity[-4:]}"


def active_run() -> Run | None:
    """The run that the pages show."""
    return library().find(session.state().run_id)
