"""Two recipes compared: how far they agree, and the samples on which they do not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import streamlit as st

from app.cache import filters, tables
from app.choices import comparing
from app.choices.ranking import page_of
from app.components.shared.choosers import column_box, page_turner, segments
from app.components.shared.gallery import tiles_of
from app.components.shared.sample import sample_dialog
from app.components.shared.tiles import tile_grid
from app.library import runs_root
from app.shown import Shown
from app.state import session
from app.state.filters import BEFORE, EVERYTHING, PRESENT, QUADRANTS
from app.text import count, number, plain, share
from mimic_core.base.errors import MimicError
from mimic_core.filters.recipe import Recipe
from mimic_core.stats.agreement import Agreement, Quadrant

PAGE = 24
_NAMES: dict[Quadrant, str] = {
    "both": "A and B keep",
    "only_a": "only A keeps",
    "only_b": "only B keeps",
    "neither": "neither keeps",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two recipes and their YAML, which is what results are kept under."""

    a: Recipe
    b: Recipe
    a_yaml: str
    b_yaml: str


def compare_panel(shown: Shown) -> None:
    """Which two, how far they agree, the quadrants, the samples of one of them."""
    options = _options(shown)
    head, squares = st.columns([5, 7], gap="medium", vertical_alignment="center")
    with head, st.container(key="compare_head"):
        st.subheader("Compare", anchor=False)
        left, right = st.columns(2)
        with left:
            a = _pick("a", "A", options, PRESENT)
        with right:
            b = _pick("b", "B", options, BEFORE)
        pair = Pair(options[a], options[b], options[a].to_yaml(), options[b].to_yaml())
        found = filters.agreement(shown.key, pair.a_yaml, pair.b_yaml)
        _agreement(found)
    with squares:
        _quadrants(found, shown.total)
    quadrant = session.state().filters.quadrant
    if quadrant is not None:
        _samples(shown, pair, quadrant)


def _options(shown: Shown) -> dict[str, Recipe]:
    """What can be compared, by name."""
    found = {PRESENT: shown.recipe}
    past = session.state().past
    if past and _fits(shown, past[-1]):  # a recipe from a link need not fit the run
        found[BEFORE] = past[-1]
    found[EVERYTHING] = Recipe()
    return found | {one.name: one.recipe for one in filters.recipes(runs_root()).saved}


def _fits(shown: Shown, recipe: Recipe) -> bool:
    try:
        tables.selection(shown.key, recipe.to_yaml())
    except MimicError:
        return False
    return True


def _pick(field: str, label: str, options: dict[str, Recipe], default: str) -> str:
    key = f"compare_{field}"
    now = getattr(session.state().filters, field)
    if now not in options:
        now = default if default in options else EVERYTHING
    st.selectbox(
        label,
        list(options),
        key=session.bind(key, now),
        on_change=lambda: session.change_filters(**{field: session.value(key)}, page=1),
    )
    return str(now)


def _agreement(found: Agreement) -> None:
    kept_a, kept_b = found.both + found.only_a, found.both + found.only_b
    with st.container(horizontal=True, gap="medium", key="agreement"):
        st.metric("A keeps", count(kept_a), width="content")
        st.metric("B keeps", count(kept_b), width="content")
        st.metric(
            "Jaccard",
            number(found.jaccard),
            help="Kept by both over kept by either: 1 is the same selection.",
            width="content",
        )
        st.metric(
            "Rank correlation",
            number(found.rank_correlation),
            help="Spearman's, of the two decisions: 1 is the same, 0 is chance.",
            width="content",
        )


def _quadrants(found: Agreement, total: int) -> None:
    """A 2 x 2 of buttons: rows are A, columns are B."""
    chosen = session.state().filters.quadrant
    for row in (QUADRANTS[:2], QUADRANTS[2:]):
        for place, quadrant in zip(st.columns(2, gap="small"), row, strict=True):
            size = getattr(found, quadrant)
            with place, st.container(key=f"quadrant-{quadrant}"):
                st.button(
                    f"**{count(size)}** {_NAMES[quadrant]}, {plain(share(size, total))}",
                    key=f"show-{quadrant}",
                    type="primary" if quadrant == chosen else "secondary",
                    width="stretch",
                    on_click=_choose,
                    args=(quadrant,),
                )


def _choose(quadrant: Quadrant) -> None:
    now = session.state().filters.quadrant
    session.change_filters(quadrant=None if quadrant == now else quadrant, page=1)


def _samples(shown: Shown, pair: Pair, quadrant: Quadrant) -> None:
    """The samples of a quadrant, a page at a time."""
    state = session.state().filters
    ranks = tables.numbers(shown.key)
    rank = state.rank if state.rank in ranks else ranks[0]
    rows = filters.quadrant_rows(
        shown.key, pair.a_yaml, pair.b_yaml, quadrant, rank=rank, highest=state.highest
    )
    page = page_of(rows, state.page, size=PAGE)
    with st.container(horizontal=True, vertical_alignment="center", key="quadrant_bar"):
        st.markdown(
            f"What **{_NAMES[quadrant]}**: {count(page.first)}–{count(page.last)} of "
            f"{count(page.total)}",
            width="content",
        )
        _order(ranks, rank, highest=state.highest)
        st.space("stretch")
        st.button(
            "Make this the selection",
            key="take_quadrant",
            icon=":material/filter_alt:",
            disabled=not page.total,
            help="Selects these samples on all pages.",
            on_click=_take,
            args=(shown, pair, quadrant),
        )
    if not page.total:
        st.caption("No sample lies in this quadrant.")
        return
    badges = [number(value) for value in shown.table[rank].gather(page.rows)]
    tiles = [replace(tile, state="") for tile in tiles_of(shown, page.rows, badges)]
    tile_grid(tiles, key="quadrant_tiles", on_open=_open)
    page_turner(page, "quadrant_page", lambda number: session.change_filters(page=number))
    if session.state().opened is not None:
        sample_dialog(shown, rows)


def _order(ranks: list[str], rank: str, *, highest: bool) -> None:
    column_box(
        "Ranked by",
        ranks,
        key="quadrant_rank",
        value=rank,
        change=lambda: session.change_filters(rank=session.value("quadrant_rank"), page=1),
    )
    segments(
        "From",
        {"lowest": "Lowest", "highest": "Highest"},
        key="quadrant_end",
        value="highest" if highest else "lowest",
        change=lambda: session.change_filters(
            highest=session.value("quadrant_end") == "highest", page=1
        ),
    )


def _open(uid: str) -> None:
    session.change(opened=uid)


def _take(shown: Shown, pair: Pair, quadrant: Quadrant) -> None:
    """Select the quadrant by a recipe that says it, or else by naming its samples."""
    recipe = comparing.quadrant_recipe(pair.a, pair.b, quadrant)
    names = (shown.key, pair.a_yaml, pair.b_yaml, quadrant)
    if recipe is None or not filters.says_quadrant(*names, recipe.to_yaml()):
        uids = filters.quadrant_uids(*names)
        if len(uids) > comparing.UID_LIMIT:
            st.toast(
                f"No recipe can say this quadrant: some of its {count(len(uids))} samples have no "
                "value in a column that A or B asks for, and they are too many to be named one by "
                "one.",
                icon=":material/warning:",
            )
            return
        recipe = comparing.uids_recipe(uids)
    session.set_recipe(recipe)
    session.change_filters(editor=None, renaming=None, saved_as=None)
