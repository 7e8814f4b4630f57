"""The histogram with its cutoff: dragged on the chart, or typed as score, percentile or count."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import streamlit as st

from app.cache import tables
from app.choices import selecting
from app.choices.selecting import Band
from app.components.explore.charts import live_histogram
from app.components.shared.choosers import column_box, drags, segments
from app.components.shared.shell import theme
from app.drawing import explore
from app.drawing.explore import Span
from app.shown import Shown
from app.state import session
from app.text import count, plain, spoken
from mimic_core.filters.recipe import Recipe
from mimic_core.stats.cutoffs import Keep

_KEY = "histogram"
_SIDES: dict[str, str] = {"high": "Keep above", "low": "Keep below", "band": "Keep between"}


def histogram_panel(shown: Shown) -> None:
    """Column, chart and cutoff."""
    column = session.state().column
    values = tables.sorted_values(shown.key, column)
    condition = selecting.cutoff_of(shown.recipe, column)
    ends = selecting.band(condition, values)
    _top(shown, values, ends)
    if session.state().plain:
        _chart(shown, column, ends)
    elif len(values):
        _live(shown, column, ends)
    missing = tables.histogram(shown.key, column).missing
    if missing:
        st.caption(f"{count(missing)} samples have no {plain(spoken(column))}.")
    if len(values):
        _typed(shown, column, values, ends)


def cutoff_score(shown: Shown) -> float | None:
    """The value that "around the cutoff" means, in the column shown."""
    column = session.state().column
    values = tables.sorted_values(shown.key, column)
    ends = selecting.band(selecting.cutoff_of(shown.recipe, column), values)
    one = ends.low or ends.high
    return None if one is None else one.score


def _top(shown: Shown, values: np.ndarray, ends: Band) -> None:
    column = session.state().column
    with st.container(horizontal=True, vertical_alignment="center"):
        column_box(
            "Column",
            tables.numbers(shown.key),
            key="column",
            value=column,
            change=session.binder("column", "column", page=1),
        )
        side = "band" if ends.low and ends.high else _side(shown, column)
        segments(
            "Keep",
            {one: said for one, said in _SIDES.items() if one != "band" or side == "band"},
            key="keep_side",
            value=side,
            change=lambda: _change_side(shown.recipe, column, values, ends),
        )


def _side(shown: Shown, column: str) -> Keep:
    """The side that is kept, or would be once there is a cutoff."""
    condition = selecting.cutoff_of(shown.recipe, column)
    return selecting.keep_side(condition) or session.state().keep


def _change_side(recipe: Recipe, column: str, values: np.ndarray, ends: Band) -> None:
    side = session.value("keep_side")
    if side == "band":
        return
    session.change(keep=side)
    if ends.low is not None and ends.high is not None:
        score = ends.low.score if side == "high" else ends.high.score
        session.set_recipe(selecting.set_score(recipe, column, score, keep=side))
    else:
        session.set_recipe(selecting.flip(recipe, column, values))


def _live(shown: Shown, column: str, ends: Band) -> None:
    recipe = shown.recipe
    live_histogram(
        shown,
        column,
        ends,
        others=selecting.without_cutoff(recipe, column).to_yaml(),
        theme=theme(),
        on_span=lambda low, high: session.set_recipe(selecting.set_band(recipe, column, low, high)),
    )


def _chart(shown: Shown, column: str, ends: Band) -> None:
    counts = tables.histogram(shown.key, column)
    kept = shown.table[column].filter(pl.Series(shown.selected)).drop_nulls()
    figure = explore.histogram(
        counts.edges,
        counts.counts,
        np.histogram(kept.to_numpy(), counts.edges)[0],
        column=column,
        span=Span(
            None if ends.low is None else ends.low.score,
            None if ends.high is None else ends.high.score,
        ),
        theme=theme(),
    )
    axis = (float(counts.edges[0]), float(counts.edges[-1]))
    st.plotly_chart(
        figure,
        key=_KEY,
        on_select=_dragged(shown.recipe, column, axis),
        selection_mode="box",
        config={"displayModeBar": False, "scrollZoom": False, "doubleClick": False},
        alt=f"Histogram of {column}: {shown.kept} of {shown.total} samples kept",
    )


def _dragged(recipe: Recipe, column: str, axis: tuple[float, float]) -> Callable[[], None]:
    def store() -> None:
        boxes = drags(session.value(_KEY), "box")
        if boxes:
            low, high = boxes[-1]["x"]
            session.set_recipe(selecting.paint(recipe, column, (low, high), axis=axis))

    return store


def _typed(shown: Shown, column: str, values: np.ndarray, ends: Band) -> None:
    if ends.low is not None and ends.high is not None:
        _typed_band(shown.recipe, column, values, ends)
    else:
        _typed_cutoff(shown, column, values, ends)


def _typed_cutoff(shown: Shown, column: str, values: np.ndarray, ends: Band) -> None:
    """The cutoff in three linked units: changing one changes the others."""
    recipe, keep = shown.recipe, _side(shown, column)
    now = ends.low or ends.high

    def typed(key: str, change: Callable[..., Recipe]) -> None:
        session.set_recipe(change(recipe, column, session.value(key), keep=keep))

    score, percentile, kept = st.columns(3, vertical_alignment="bottom")
    score.number_input(
        "Cutoff",
        value=None,
        placeholder="no cutoff",
        step=_step(values),
        format="%.5g",
        key=session.bind("cut_score", None if now is None else now.score),
        on_change=typed,
        args=("cut_score", selecting.set_score),
        help="Samples at the cutoff are kept.",
    )
    percentile.number_input(
        "Percentile",
        min_value=0.0,
        max_value=100.0,
        value=None,
        placeholder="–",
        step=1.0,
        format="%.4g",
        key=session.bind("cut_percentile", None if now is None else now.percentile),
        on_change=typed,
        args=("cut_percentile", selecting.set_percentile),
        help="Share of the samples below the cutoff, in per cent.",
    )
    kept.number_input(
        f"Kept of {count(len(values))}",
        min_value=1,
        max_value=len(values),
        value=None,
        placeholder=count(len(values)),
        step=1,
        key=session.bind("cut_kept", None if now is None else max(1, now.kept)),
        on_change=typed,
        args=("cut_kept", selecting.set_kept),
        help="Samples that this cutoff alone keeps.",
    )


def _typed_band(recipe: Recipe, column: str, values: np.ndarray, ends: Band) -> None:
    assert ends.low is not None  # the caller has looked
    assert ends.high is not None

    def typed() -> None:
        low, high = session.value("cut_from"), session.value("cut_to")
        if low is not None and high is not None and low > high:
            low, high = high, low
        session.set_recipe(selecting.set_band(recipe, column, low, high))

    low, high, kept = st.columns(3, vertical_alignment="bottom")
    for place, label, key, cutoff in [
        (low, "From", "cut_from", ends.low),
        (high, "To", "cut_to", ends.high),
    ]:
        place.number_input(
            label,
            value=None,
            placeholder="open",
            step=_step(values),
            format="%.5g",
            key=session.bind(key, cutoff.score),
            on_change=typed,
        )
    inside = max(0, ends.low.kept + ends.high.kept - len(values))
    kept.metric("Kept by the band", f"{count(inside)} of {count(len(values))}")


def _step(values: np.ndarray) -> float:
    """A step of the score's input: about a hundredth of the range, a power of ten."""
    span = float(values[-1]) - float(values[0])
    return float(10.0 ** np.floor(np.log10(span / 50))) if span > 0 else 1.0
