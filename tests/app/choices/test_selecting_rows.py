"""What a drag over the heat map writes into the recipe, and that it keeps what was dragged over."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.choices.selecting_rows import (
    BROUGHT_BACK,
    ROWS_NAME,
    UID_LIMIT,
    drop_rows,
    keep_rows,
    rows_condition,
)
from app.components.dynamics.charts import clicked_bar
from app.components.dynamics.heatmap import dragged_ranks
from app.state.dynamics import Order, over, sort_name, sorts
from mimic_core.filters.conditions import Absolute, Percentile, Uids
from mimic_core.filters.recipe import Recipe, apply

scores = st.lists(
    st.one_of(st.none(), st.integers(0, 4), st.floats(-2, 2, width=32)), min_size=1, max_size=30
)


def table(values: list[float | None]) -> pl.DataFrame:
    uids = [f"{i:02d}" for i in range(len(values))]
    return pl.DataFrame({"uid": uids, "score": pl.Series(values, dtype=pl.Float32)})


def in_order(frame: pl.DataFrame) -> np.ndarray:
    """Rows by rising score, those without one left out."""
    order = frame.with_row_index("row").drop_nulls("score").sort("score", "uid")
    return order["row"].to_numpy().astype(np.int64)


def everybody(frame: pl.DataFrame) -> np.ndarray:
    return np.ones(len(frame), bool)


def test_a_range_of_a_column_becomes_short_percentiles() -> None:
    frame = table([float(i) for i in range(200)])
    chosen = rows_condition(
        frame, np.arange(20, 50), column="score", scope="all", among=everybody(frame)
    )
    assert chosen.condition == Percentile(column="score", lower=10, upper=25)
    assert chosen.note == ""


@given(scores, st.data())
def test_percentiles_keep_the_rows_and_their_equals(
    values: list[float | None], data: st.DataObject
) -> None:
    frame = table(values)
    order = in_order(frame)
    if not len(order):
        return
    start = data.draw(st.integers(0, len(order) - 1))
    stop = data.draw(st.integers(start + 1, len(order)))
    rows = order[start:stop]
    chosen = rows_condition(frame, rows, column="score", scope="all", among=everybody(frame))
    assert chosen.condition is not None
    kept = apply(keep_rows(Recipe(), chosen.condition, scope="all"), frame)
    low, high = frame["score"][rows].min(), frame["score"][rows].max()
    expected = frame["score"].is_between(low, high).fill_null(value=False).to_numpy()
    assert (kept.mask == expected).all()
    assert ("Equal values" in chosen.note) == (kept.kept > len(rows))
    missing = frame["score"].null_count()
    assert (f"{missing} samples have no score" in chosen.note) == (missing > 0)
    # As the note says: what has no value is dropped by the rows' opposite too.
    others = apply(drop_rows(Recipe(), chosen.condition), frame)
    assert others.kept == len(frame) - kept.kept - missing
    dropped = apply(drop_rows(Recipe(), chosen.condition), frame)
    assert (dropped.mask == (~expected & frame["score"].is_not_null().to_numpy())).all()


@given(scores, st.integers(0, 4), st.data())
def test_rows_of_the_selection_are_cut_by_value(
    values: list[float | None], seed: int, data: st.DataObject
) -> None:
    frame = table(values)
    among = np.random.default_rng(seed).random(len(frame)) < 0.7
    before = Recipe().with_condition(
        "mine", Uids.parse({"uids": frame["uid"].filter(pl.Series(among)).to_list()})
    )
    order = in_order(frame)
    order = order[among[order]]
    if not len(order):
        return
    start = data.draw(st.integers(0, len(order) - 1))
    rows = order[start : data.draw(st.integers(start + 1, len(order)))]
    chosen = rows_condition(frame, rows, column="score", scope="kept", among=among)
    assert isinstance(chosen.condition, Absolute)
    kept = apply(keep_rows(before, chosen.condition, scope="kept"), frame)
    low, high = frame["score"][rows].min(), frame["score"][rows].max()
    inside = frame["score"].is_between(low, high).fill_null(value=False).to_numpy()
    assert (kept.mask == (inside & among)).all()


def test_dropped_rows_are_brought_back_beside_what_is_kept() -> None:
    frame = table([0.0, 1.0, 2.0, None, 4.0])
    before = Recipe().with_condition("cut", Absolute(column="score", min=2.0))
    selected = apply(before, frame).mask
    chosen = rows_condition(frame, np.array([1]), column="score", scope="dropped", among=~selected)
    assert chosen.condition is not None
    after = keep_rows(before, chosen.condition, scope="dropped")
    assert after.names == (BROUGHT_BACK,)
    assert apply(after, frame).mask.tolist() == [False, True, True, False, True]


def test_rows_without_a_column_are_named_by_uid_up_to_a_limit() -> None:
    frame = table([float(i) for i in range(UID_LIMIT + 1)])
    few = rows_condition(frame, np.array([5, 2]), column=None, scope="all", among=everybody(frame))
    assert few.condition == Uids(uids=("02", "05"))
    many = rows_condition(
        frame, np.arange(UID_LIMIT + 1), column=None, scope="all", among=everybody(frame)
    )
    assert many.condition is None
    assert "2,001" in many.note
    assert "2,000" in many.note


def test_no_rows_are_nothing_to_select() -> None:
    frame = table([1.0])
    none = rows_condition(
        frame, np.zeros(0, np.int64), column="score", scope="all", among=everybody(frame)
    )
    assert none.condition is None
    assert none.note


def test_keeping_again_replaces_and_dropping_again_adds() -> None:
    one, two = Absolute(column="score", min=1), Absolute(column="score", min=2)
    assert keep_rows(keep_rows(Recipe(), one, scope="all"), two, scope="all").names == (ROWS_NAME,)
    assert len(drop_rows(drop_rows(Recipe(), one), two).names) == 2


@pytest.mark.parametrize(
    ("drag", "ranks"),
    [
        ((0.6, 3.4), (0, 3)),
        ((3.4, 0.6), (0, 3)),
        ((-50, 500), (0, 10)),
        ((4.2, 4.4), (3, 4)),
        ((1.2, 2.1), (1, 2)),
        ((-9, -8), (0, 1)),
        ((99, 100), (9, 10)),
    ],
)
def test_a_drag_takes_the_rows_whose_middle_it_holds(
    drag: tuple[float, float], ranks: tuple[int, int]
) -> None:
    assert dragged_ranks(drag, (0, 10)) == ranks


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.integers(0, 100), st.integers(1, 100))
def test_a_drag_always_is_some_of_the_rows_shown(
    low: float, high: float, first: int, count: int
) -> None:
    start, stop = dragged_ranks((low, high), (first, first + count))
    assert first <= start < stop <= first + count


@pytest.mark.parametrize(
    ("event", "bar"),
    [
        (None, None),
        ({"selection": {"points": []}}, None),
        ({"selection": {"points": [{"point_index": 2}]}}, 2),
        ({"selection": {"points": [{"point_index": 7}]}}, None),
    ],
)
def test_a_click_names_its_bar(event: object, bar: int | None) -> None:
    assert clicked_bar(event, 3) == bar


def test_everything_that_sorts_has_a_name() -> None:
    found = sorts(["mimic_score", "clip_score", "loss", "last"])
    assert found[:2] == ["mimic_score", over("last")]
    assert found[-2:] == ["loss", "last"]
    names = [sort_name(one) for one in found]
    assert names[:2] == ["mean score", "last score"]
    assert "CLIP score" in names
    assert names[-1] == "last"  # a column of the pool, not the measure
    assert len(set(names)) == len(names)


def test_an_order_is_by_a_column_or_over_the_steps() -> None:
    assert (Order().column, Order().over) == ("mimic_score", None)
    assert (Order(over("flips")).column, Order(over("flips")).over) == (None, "flips")
