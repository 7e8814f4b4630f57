"""The gallery of pairs: a ranking of the table, sixty tiles a page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from app.cache import tables
from app.choices import selecting
from app.choices.ranking import (
    ORDERED_MODES,
    PAGE_SIZE,
    GalleryMode,
    GalleryOrder,
    Page,
    page_of,
)
from app.components.shared.choosers import page_turner, segments
from app.components.shared.errors import empty_state
from app.components.shared.panels import panel
from app.components.shared.sample import sample_dialog
from app.components.shared.tiles import Following, Tile, tile_grid
from app.drawing import pictures
from app.shown import Shown, scope_of
from app.state import session
from app.text import count, number, plain, spoken, text_of
from mimic_core.base.schema import IMAGE_COLUMNS

_LABELS: dict[GalleryMode, str] = {
    "lowest": "Lowest",
    "highest": "Highest",
    "cutoff": "Around the cutoff",
    "kept": "Selection",
    "dropped": "Dropped",
    "lasso": "Inside the lasso",
}
_ORDERS: dict[GalleryOrder, str] = {"highest": "Highest first", "lowest": "Lowest first"}


@panel
def gallery(shown: Shown, *, cutoff: float | None) -> None:
    """Mode and page, the tiles, and the opened sample."""
    state = session.state()
    mode = _mode(shown)
    if state.near is not None:
        cutoff = state.near
    rows = tables.ranked(
        shown.key,
        shown.recipe_yaml,
        column=state.column,
        mode=mode,
        first=state.first,
        cutoff=cutoff,
    )
    page = page_of(rows, state.page)
    with st.container(horizontal=True, vertical_alignment="center", key="gallery_bar"):
        _modes(shown, mode)
        st.markdown(
            f"rank **{count(page.first)}–{count(page.last)}** of {count(page.total)}",
            help=f"Ranked by {plain(spoken(state.column))}, ties by uid.",
            width="content",
        )
        st.space("stretch")
        page_turner(page, "gallery_page", lambda number: session.change(page=number))
        if page.pages > 1:
            _go_to_rank(page.total)
    if not page.total:
        _nothing(mode)
        return
    badges = [number(value) for value in shown.table[state.column].gather(page.rows)]
    tile_grid(
        tiles_of(shown, page.rows, badges),
        key="gallery_tiles",
        on_open=_open,
        following=_following(shown) if mode == "cutoff" else None,
    )
    _prepare(shown, rows, page)
    if state.opened is not None:
        sample_dialog(shown, rows)


def _following(shown: Shown) -> Following:
    """The samples around the cutoff change with it, while it is still in the hand."""
    column = session.state().column
    return Following(
        scope_of(shown), column, on_near=lambda value: session.change(near=value, page=1)
    )


def _prepare(shown: Shown, rows: np.ndarray, page: Page) -> None:
    """Make the pictures of the pages before and after, so that turning to them need not wait."""
    start = (page.number - 1) * PAGE_SIZE
    beside = np.concatenate(
        [rows[start + PAGE_SIZE :][:PAGE_SIZE], rows[max(0, start - PAGE_SIZE) : start]]
    )
    tables.prepare_pictures(shown.run, shown.table, beside, side=pictures.THUMB_SIDE)


def _mode(shown: Shown) -> GalleryMode:
    """What is shown: as chosen, or the selection once the lasso that was looked into is gone."""
    mode = session.state().gallery
    lassoed = mode != "lasso" or selecting.regions(shown.recipe)
    return mode if lassoed else "kept"


def _modes(shown: Shown, mode: GalleryMode) -> None:
    """Which samples, and where there is a choice, which end of them first."""
    lassoed = selecting.regions(shown.recipe)
    segments(
        "Gallery",
        {one: said for one, said in _LABELS.items() if one != "lasso" or lassoed},
        key="gallery_mode",
        value=mode,
        change=session.binder("gallery_mode", "gallery", page=1),
    )
    if mode in ORDERED_MODES:
        segments(
            "Order",
            _ORDERS,
            key="gallery_first",
            value=session.state().first,
            change=session.binder("gallery_first", "first", page=1),
        )


def _go_to_rank(total: int) -> None:
    def go() -> None:
        rank = session.value("gallery_rank")
        if rank is not None:
            session.change(page=(int(rank) - 1) // PAGE_SIZE + 1)

    st.number_input(
        "Go to rank",
        min_value=1,
        max_value=total,
        value=None,
        placeholder="rank…",
        key="gallery_rank",
        on_change=go,
        label_visibility="collapsed",
        width=120,
    )


def _open(uid: str) -> None:
    session.change(opened=uid)


def _nothing(mode: GalleryMode) -> None:
    if mode == "kept":
        empty_state(
            "Nothing is selected",
            "The conditions drop every sample. Move the cutoff, remove a condition, or undo.",
            icon=":material/filter_alt_off:",
        )
    elif mode == "dropped":
        empty_state(
            "Nothing is dropped", "All samples are kept so far.", icon=":material/done_all:"
        )
    elif mode == "lasso":
        empty_state(
            "Nothing is inside the lasso",
            "It encloses no sample that has a value of this column.",
            icon=":material/gesture:",
        )
    else:
        empty_state("No values", "No sample has a value here.", icon=":material/block:")


def tiles_of(shown: Shown, rows: np.ndarray, badges: Sequence[str]) -> list[Tile]:
    """Tiles of the table's ``rows`` (M,), each with its badge (M,)."""
    table = shown.table[rows, ["uid", "caption", "label", *IMAGE_COLUMNS]]
    tiles = []
    for row_number, badge, row in zip(rows, badges, table.iter_rows(named=True), strict=True):
        uri, reason = tables.picture_of(shown.run, row, side=pictures.THUMB_SIDE)
        tiles.append(
            Tile(
                uid=row["uid"],
                uri=uri,
                reason=reason,
                value=badge,
                caption=text_of(row),
                state="" if shown.selected[row_number] else "dropped",
            )
        )
    return tiles
