from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base.errors import FilterError
from mimic_core.filters.conditions import Absolute, Percentile
from mimic_core.filters.recipe import Recipe, apply
from mimic_core.stats.cutoffs import Cutoff, Keep, rank_below, rank_up_to, sorted_values

TIED = np.array([1.0, 2.0, 2.0, 2.0, 5.0])
keeps = st.sampled_from(["high", "low"])
columns = st.lists(st.integers(-4, 4).map(lambda v: v / 3), min_size=1, max_size=25)
dtypes = st.sampled_from([pl.Float32, pl.Float64])


def three(cutoff: Cutoff) -> tuple[float, float, int]:
    return cutoff.score, cutoff.percentile, cutoff.kept


@pytest.mark.parametrize(
    ("score", "keep", "expected"),
    [
        (2.0, "high", (2.0, 20.0, 4)),
        (2.0, "low", (2.0, 80.0, 4)),
        (3.0, "high", (3.0, 80.0, 1)),
        (0.0, "low", (0.0, 0.0, 0)),
        (9.0, "high", (9.0, 100.0, 0)),
    ],
)
def test_a_score_keeps_what_reaches_it(score: float, keep: Keep, expected: object) -> None:
    assert three(Cutoff.from_score(TIED, score, keep=keep)) == expected


@pytest.mark.parametrize(
    ("percentile", "keep", "expected"),
    [
        (0.0, "high", (1.0, 0.0, 5)),
        (40.0, "high", (2.0, 20.0, 4)),  # the tie stays together
        (80.0, "high", (5.0, 80.0, 1)),
        (81.0, "high", (np.nextafter(5.0, 6), 100.0, 0)),
        (20.0, "low", (1.0, 20.0, 1)),
        (40.0, "low", (2.0, 80.0, 4)),
        (19.0, "low", (np.nextafter(1.0, 0), 0.0, 0)),
    ],
)
def test_a_percentile_cuts_between_ranks(percentile: float, keep: Keep, expected: object) -> None:
    assert three(Cutoff.from_percentile(TIED, percentile, keep=keep)) == expected


@pytest.mark.parametrize(
    ("kept", "keep", "expected"),
    [
        (1, "high", (5.0, 80.0, 1)),
        (2, "high", (2.0, 20.0, 4)),
        (5, "high", (1.0, 0.0, 5)),
        (1, "low", (1.0, 20.0, 1)),
        (3, "low", (2.0, 80.0, 4)),
    ],
)
def test_a_count_keeps_the_ties_of_the_last_one(kept: int, keep: Keep, expected: object) -> None:
    assert three(Cutoff.from_kept(TIED, kept, keep=keep)) == expected


@given(columns, dtypes, keeps, st.data())
def test_the_three_units_always_mean_the_same_samples(
    column: list[float], dtype: type[pl.DataType], keep: Keep, data: st.DataObject
) -> None:
    values = sorted_values(pl.Series(column, dtype=dtype))
    start = data.draw(
        st.one_of(
            st.floats(-2, 2).map(lambda score: Cutoff.from_score(values, score, keep=keep)),
            st.floats(0, 100).map(lambda p: Cutoff.from_percentile(values, p, keep=keep)),
            st.integers(0, len(column)).map(lambda k: Cutoff.from_kept(values, k, keep=keep)),
        )
    )
    passes = values >= start.score if keep == "high" else values <= start.score
    assert start.kept == passes.sum()
    for again in (
        Cutoff.from_score(values, start.score, keep=keep),
        Cutoff.from_percentile(values, start.percentile, keep=keep),
        Cutoff.from_kept(values, start.kept, keep=keep),
    ):
        assert (again.kept, again.percentile) == (start.kept, start.percentile)


@given(columns, dtypes, keeps, st.floats(0, 100))
def test_a_cutoff_keeps_what_the_conditions_of_a_recipe_keep(
    column: list[float], dtype: type[pl.DataType], keep: Keep, percentile: float
) -> None:
    uids = [str(i) for i in range(len(column))]
    table = pl.DataFrame({"uid": uids, "x": pl.Series(column, dtype=dtype)})
    cutoff = Cutoff.from_percentile(sorted_values(table["x"]), percentile, keep=keep)
    ends = ("min", "lower") if keep == "high" else ("max", "upper")
    absolute = Absolute.parse({"column": "x", ends[0]: cutoff.score})
    by_percentile = Percentile.parse({"column": "x", ends[1]: percentile})
    for condition in (absolute, by_percentile):
        found = apply(Recipe().with_condition("cut", condition), table)
        assert found.kept == cutoff.kept


@pytest.mark.parametrize("count", [1, 3, 7, 97, 1_000_003])
def test_ranks_survive_the_round_trip_through_percent(count: int) -> None:
    for rank in {0, 1, count // 3, count // 2, count - 1, count}:
        assert rank_below(100 * rank / count, count) == rank
        assert rank_up_to(100 * rank / count, count) == rank


def test_float32_scores_are_compared_as_float32() -> None:
    values = np.array([0.28], np.float32)
    assert Cutoff.from_score(values, 0.28, keep="high").kept == 1
    assert Cutoff.from_score(values, 0.28, keep="low").kept == 1
    assert Cutoff.from_score(values, 1e300, keep="low").kept == 1


def test_integers_are_cut_between_integers() -> None:
    values = sorted_values(pl.Series([3, 1, 2, None]))
    assert three(Cutoff.from_score(values, 1.5)) == (1.5, pytest.approx(100 / 3), 2)
    assert Cutoff.from_kept(values, 0).score > 3


def test_nulls_are_no_values() -> None:
    assert sorted_values(pl.Series([2.0, None, 1.0])).tolist() == [1.0, 2.0]
    with pytest.raises(FilterError, match="no value to cut"):
        Cutoff.from_score(sorted_values(pl.Series([None], dtype=pl.Float64)), 0.0)


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(FilterError, match="got 101"):
        Cutoff.from_percentile(TIED, 101.0)
    with pytest.raises(FilterError, match="allowed: 0 to 5"):
        Cutoff.from_kept(TIED, 6)
