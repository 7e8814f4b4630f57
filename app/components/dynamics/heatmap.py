"""The heat map of samples by epochs: sorted, zoomed, and dragged over to choose rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from app.cache import dynamics, tables
from app.cache.served import png_address
from app.choices import selecting_rows
from app.choices.selecting_rows import Scope
from app.components.shared.choosers import column_box, drags, segments, zoom_buttons
from app.components.shared.errors import empty_state
from app.components.shared.shell import theme
from app.drawing import dynamics as figures_dynamics
from app.drawing.dynamics import Hover
from app.drawing.figures import hover_text
from app.drawing.heat_picture import Painted
from app.shown import Dynamics
from app.state import session
from app.state.dynamics import sort_name, sorts
from app.text import count, plain, spoken, text_of

_KEY = "dyn_heat"
_SCOPES: dict[Scope, str] = {"all": "All", "kept": "Selection", "dropped": "Dropped"}


def heat_panel(view: Dynamics, marked: int | None) -> None:
    """Order, chart and what to do with the rows; ``marked`` is the table row of a trajectory."""
    _controls(view)
    if not len(view.rows):
        _nothing(view)
        return
    _chart(view, marked)
    _dragged_rows(view)


def _controls(view: Dynamics) -> None:
    order = view.state.order

    def reorder(**changes: Any) -> None:
        session.change_dynamics(order=replace(order, **changes), page=1)

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        column_box(
            "Sorted by",
            sorts(tables.numbers(view.shown.key)),
            key="dyn_sort",
            value=order.sort,
            change=lambda: reorder(sort=session.value("dyn_sort")),
            words=sort_name,
            width=190,
            hint="What the rows are sorted by",
        )
        st.button(
            ":material/arrow_upward:" if order.highest_first else ":material/arrow_downward:",
            key="dyn_turn",
            help=("Highest" if order.highest_first else "Lowest") + " on top; turn round",
            on_click=lambda: reorder(highest_first=not order.highest_first),
        )
        segments(
            "Samples",
            _SCOPES,
            key="dyn_scope",
            value=order.scope,
            change=lambda: reorder(scope=session.value("dyn_scope")),
        )
        st.space("stretch")
        zoom_buttons(
            "dyn_",
            lambda out=False: session.change_dynamics(zoom=None if out else view.state.rows),
            zoomed=view.zoomed,
            possible=view.band not in (None, view.zoom),
            words=("rows that were dragged over", "all rows"),
        )


def _nothing(view: Dynamics) -> None:
    if view.state.order.scope == "dropped":
        empty_state("Nothing is dropped", "All samples are kept.", icon=":material/done_all:")
    elif view.state.order.scope == "kept":
        empty_state(
            "Nothing is selected",
            "The conditions drop every sample. Remove one, or undo.",
            icon=":material/filter_alt_off:",
        )
    else:
        empty_state("No values", "No sample has a value of that.", icon=":material/block:")


def _chart(view: Dynamics, marked: int | None) -> None:
    state, tones = view.state, theme()
    start, stop = view.zoom
    painted = dynamics.painted(
        view.shown.key,
        state.order,
        view.recipe_yaml,
        state.ensemble,
        zoom=view.zoom,
        show=state.show,
        truth=view.shown.truth,
        dark=tones.dark,
    )
    place = np.flatnonzero(view.rows[start:stop] == (-1 if marked is None else marked))
    name = "share of votes to keep" if state.show == "vote" else spoken(state.show)
    figure = figures_dynamics.heat_figure(
        painted,
        first=start,
        picture=png_address(painted.png),
        labels=figures_dynamics.step_labels(view.history.epochs, painted.heat.step_edges),
        hover=_hover(view, painted),
        name=name,
        unit=view.unit,
        band=view.band,
        marked=start + int(place[0]) if len(place) else None,
        theme=tones,
    )
    st.plotly_chart(
        figure,
        key=_KEY,
        on_select=lambda: _dragged(view),
        selection_mode="box",
        config={"displayModeBar": False, "scrollZoom": False, "doubleClick": False},
        alt=f"Heat map of {count(stop - start)} samples by {view.history.steps} {view.unit}s, "
        f"coloured by {name}, sorted by {sort_name(state.order.sort)}",
    )
    missing = int(view.scope.sum()) - len(view.rows)
    if missing:
        what = plain(sort_name(state.order.sort))
        st.caption(f"{count(missing)} samples have no {what} and are left out.")


def _hover(view: Dynamics, painted: Painted) -> Hover:
    """Captions or labels of the rows that are one sample, the number of samples of the others."""
    bins = figures_dynamics.hover_bins(painted)
    edges = painted.heat.row_edges
    sizes = np.diff(edges)[bins]
    rows = view.rows[view.zoom[0] + edges[:-1][bins]]
    shown = view.shown.table[rows, ["caption", "label"]].iter_rows(named=True)
    texts = (
        hover_text(text_of(row)) if size == 1 else f"{count(int(size))} samples"
        for row, size in zip(shown, sizes, strict=True)
    )
    return Hover(bins, tuple(texts))


def _dragged(view: Dynamics) -> None:
    boxes = drags(session.value(_KEY), "box")
    if boxes:
        _choose(view, *dragged_ranks(boxes[-1]["y"], view.zoom))


def dragged_ranks(drag: Any, zoom: tuple[int, int]) -> tuple[int, int]:
    """Ranks (from 0) whose middle lies in a drag along the axis, at least one of those shown."""
    low, high = sorted(float(end) for end in drag)
    start, stop = int(np.ceil(low)) - 1, int(np.floor(high))
    if stop <= start:  # inside a single row
        start = round((low + high) / 2) - 1
        stop = start + 1
    start = min(max(start, zoom[0]), zoom[1] - 1)
    return start, max(start + 1, min(stop, zoom[1]))


def _choose(view: Dynamics, start: int, stop: int) -> None:
    session.change_dynamics(rows=view.ranks(start, stop), gallery="rows", page=1, sample=None)


def _dragged_rows(view: Dynamics) -> None:
    """The rows as numbers, and the buttons that make them the selection."""
    total = len(view.rows)
    band = view.band

    def typed() -> None:
        first, last = session.value("dyn_from"), session.value("dyn_to")
        if first is None and last is None:
            session.change_dynamics(rows=None, page=1)
        else:
            first, last = sorted((first or 1, last or total))
            _choose(view, first - 1, last)

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="dyn_rows"):
        for label, key, value in [
            ("From rank", "dyn_from", None if band is None else band[0] + 1),
            ("To rank", "dyn_to", None if band is None else band[1]),
        ]:
            st.number_input(
                label,
                min_value=1,
                max_value=total,
                value=None,
                placeholder="rank…",
                step=1,
                key=session.bind(key, value),
                on_change=typed,
                width=150,  # a rank of seven digits beside the stepper
            )
        _select_buttons(view, band)


def _select_buttons(view: Dynamics, band: tuple[int, int] | None) -> None:
    order = view.state.order
    chosen = selecting_rows.RowsCondition(None, "Drag over rows of the heat map first.")
    if band is not None:
        chosen = selecting_rows.rows_condition(
            view.shown.table.head(view.history.samples),
            view.rows[slice(*band)],
            column=order.column,
            scope=order.scope,
            among=view.scope,
        )
    condition, recipe = chosen.condition, view.shown.recipe
    many = "" if band is None else f" {count(band[1] - band[0])}"
    again = order.scope == "dropped"

    def keep() -> None:
        assert condition is not None  # the button is disabled without
        session.set_recipe(selecting_rows.keep_rows(recipe, condition, scope=order.scope))

    def drop() -> None:
        assert condition is not None  # as above
        session.set_recipe(selecting_rows.drop_rows(recipe, condition))

    st.button(
        ("Bring back" if again else "Keep only") + many,
        key="dyn_keep",
        icon=":material/filter_alt:",
        help=plain(chosen.note) or "Makes these samples the selection of all pages.",
        disabled=condition is None,
        on_click=keep,
    )
    st.button(
        "Drop" + many,
        key="dyn_drop",
        icon=":material/filter_alt_off:",
        help=plain(chosen.note) or "Takes these samples out of the selection of all pages.",
        disabled=condition is None or again,
        on_click=drop,
    )
