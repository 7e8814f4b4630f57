"""The samples behind the charts: the rows dragged over, the undecided, those of one bar."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app.cache import dynamics
from app.choices.ranking import page_of
from app.components.shared.choosers import page_turner, segments
from app.components.shared.errors import empty_state
from app.components.shared.gallery import tiles_of
from app.components.shared.tiles import tile_grid
from app.shown import Dynamics
from app.state import session
from app.state.dynamics import Source
from app.text import count, number

PAGE_SIZE = 20  # the trajectory stands beside, and has to stay in sight


def gallery_rows(view: Dynamics) -> np.ndarray:
    """Rows of the table (K,) that the gallery shows, in its order."""
    state = view.state
    if state.gallery == "rows":
        return view.rows[slice(*(view.band or view.zoom))]
    order = dynamics.undecided(view.shown.key, state.ensemble)
    rows: np.ndarray = order[view.scope[order]]
    if state.gallery == "flips" and state.flips is not None:
        changes = dynamics.flips(view.shown.key, state.ensemble)[rows]
        rows = rows[(changes >= state.flips[0]) & (changes <= state.flips[1])]
    return rows


def gallery_panel(view: Dynamics, rows: np.ndarray) -> None:
    """Source and page, the tiles; a click on one shows its trajectory."""
    page = page_of(rows, view.state.page, size=PAGE_SIZE)
    _sources(view)
    with st.container(horizontal=True, vertical_alignment="center", key="dyn_gallery_bar"):
        st.markdown(
            f"**{count(page.first)}–{count(page.last)}** of {count(page.total)} samples"
            f"{_what(view)}",
            width="content",
        )
        st.space("stretch")
        page_turner(
            page, "dyn_page", lambda number: session.change_dynamics(page=number, sample=None)
        )
    if not page.total:
        empty_state("No samples", "None of these samples are shown here.", icon=":material/block:")
        return
    tile_grid(
        tiles_of(view.shown, page.rows, _badges(view, page.rows)),
        key="dyn_tiles",
        on_open=lambda uid: session.change_dynamics(sample=uid, missed=None),
    )


def _sources(view: Dynamics) -> None:
    sources: dict[Source, str] = {"rows": "Rows", "undecided": "Most undecided"}
    if view.state.flips is not None:
        sources["flips"] = _flips_name(*view.state.flips)
    segments(
        "Gallery",
        sources,
        key="dyn_gallery",
        value=view.state.gallery,
        change=lambda: session.change_dynamics(
            gallery=session.value("dyn_gallery"), page=1, sample=None
        ),
    )


def _flips_name(low: int, high: int) -> str:
    if low == high == 1:
        return "1 flip"
    return f"{low} flips" if low == high else f"{low}–{high} flips"


def _what(view: Dynamics) -> str:
    """Which samples these are, behind their number."""
    if view.state.gallery != "rows":
        return ", most flips first, then the closest votes"
    start, stop = view.band or view.zoom
    return f": ranks {count(start + 1)}–{count(stop)} of {count(len(view.rows))}"


def _badges(view: Dynamics, rows: np.ndarray) -> list[str]:
    """What each tile says: its place in the sorted column, or its votes."""
    if view.state.gallery != "rows":
        in_favour = view.ensemble.votes[:, rows].sum(axis=0)
        return [f"{int(n)} of {view.history.steps} keep" for n in in_favour]
    values = dynamics.sort_values(view.shown.key, view.state.order, view.state.ensemble)
    return [number(value) for value in values.gather(rows)]
