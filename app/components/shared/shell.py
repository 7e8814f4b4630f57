"""What every page has: the style sheet and the sidebar with the run picker."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import NoReturn

import streamlit as st

from app.components.shared.errors import empty_state, errors_shown
from app.drawing import colours
from app.drawing.colours import Theme
from app.library import DEMO_POOL, DEMO_REFERENCE, located
from app.shown import Shown, library
from app.state import session
from app.text import count, plain
from mimic_core.runs.run import Run

STYLE = Path(__file__).resolve().parents[2] / "style.css"


def page_style() -> None:
    """Tighten streamlit's spacing."""
    st.html(STYLE)


def theme() -> Theme:
    """The tones for the theme that the browser shows."""
    return colours.DARK if st.context.theme.type == "dark" else colours.LIGHT


def sidebar() -> None:
    """The run picker; a run that the address names but nobody has is said to be missing."""
    with errors_shown():
        session.follow_address()
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
    if not session.keep_in_address():
        st.sidebar.caption(
            ":material/link_off: The selection is too long for the page's address: reloading the "
            "page loses it. Download the recipe on Export or save it on Filters to keep it."
        )
    if done:
        st.sidebar.selectbox(
            "Run",
            list(done),
            key=session.bind("run_picker", current),
            format_func=lambda run_id: run_label(done[run_id]),
            on_change=lambda: session.choose_run(session.value("run_picker")),
            help="Finished runs, newest first. Score another pool under Data and scoring.",
        )
        assert current is not None  # one was chosen above
        _reading(done[current])
    for path, error in found.damaged:
        st.sidebar.caption(f":material/warning: {plain(path.name)}: {plain(error.problem)}")


def _reading(run: Run) -> None:
    """What of the run's pool was not read, on every page; runs made before it was kept say none."""
    _, kept, unread = run.record.reading.rpartition(", not read: ")
    if kept:
        st.sidebar.caption(f"Not read of the pool: {plain(unread)}", help=plain(run.record.reading))


def nothing_yet(heading: str, body: str, *, icon: str) -> NoReturn:
    """What a page shows until a run is finished, and where to get one; the page ends here."""
    empty_state(heading, body, icon=icon)
    st.page_link("views/data.py", label="Score a pool", icon=":material/play_arrow:")
    st.stop()


def run_label(run: Run) -> str:
    """A run in the picker: pool, mode, and when it was made (UTC), which tells twins apart.

    A training run is known by its weighting, which is shorter and says more.
    """
    made = datetime.fromisoformat(run.record.created_at)
    training = run.record.config.training
    kind = run.record.config.mode if training is None else training.weighting
    return f"{pool_title(run)}, {kind}, {made:%d %b %H:%M}"


def pool_title(run: Run) -> str:
    """The pool's name as a heading; of several pools the first one's, and how many more."""
    source = located(run.record.config).source
    demo = Path(source.path).resolve() == DEMO_POOL
    first = "Demo pool" if demo else run.id.rsplit("-", 2)[0]
    return f"{first} and {len(source.also)} more" if source.also else first


def sample_counts(shown: Shown) -> list[str]:
    """How many samples the run has, and rows without an image, if there are any."""
    bare = shown.without_image
    counts = [f"{count(shown.total - bare)} samples"]
    return [*counts, f"{count(bare)} rows without an image"] if bare else counts


def reference_title(run: Run) -> str:
    """The reference model's name: for files and folders, the last part of the path."""
    reference = located(run.record.config).reference
    if Path(reference).resolve() == DEMO_REFERENCE:
        return "of the demo"
    return Path(reference).name if Path(reference).exists() else reference


def model_title(model: str) -> str:
    """What training started from: fresh weights by their seed, files by their last part."""
    start, fresh, seed = model.partition(":random")
    if fresh:
        return f"fresh weights, seed {seed.removeprefix(':') or 0}"
    return Path(start).name or start
