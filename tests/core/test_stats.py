from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from mimic_core import stats
from mimic_core.errors import FilterError, ScoreError

finite = st.floats(allow_nan=False, allow_infinity=False)
few_values = st.integers(-3, 3).map(float)  # many ties
pairs = st.lists(st.tuples(few_values, few_values), min_size=2, max_size=30)
labelled = st.lists(st.tuples(few_values, st.booleans()), min_size=1, max_size=40)


def edges_and_counts(values: pl.Series, bins: int) -> tuple[list[float], list[int], int]:
    found = stats.histogram(values, bins)
    return found.edges.tolist(), found.counts.tolist(), found.missing


def test_histogram_of_floats_leaves_out_nulls_and_counts_them() -> None:
    values = pl.Series([0.0, 0.5, 1.0, 1.0, None, 2.0], dtype=pl.Float32)
    assert edges_and_counts(values, 2) == ([0.0, 1.0, 2.0], [2, 3], 1)


def test_histogram_of_integers_has_one_bin_per_integer_while_they_fit() -> None:
    assert edges_and_counts(pl.Series([3, 5, 5, 4]), 50) == ([2.5, 3.5, 4.5, 5.5], [1, 1, 2], 0)


def test_histogram_of_many_integers_has_bins_of_equally_many_integers() -> None:
    edges, counts, _ = edges_and_counts(pl.Series(range(10)), 4)
    assert edges == [-0.5, 2.5, 5.5, 8.5, 11.5]
    assert counts == [3, 3, 3, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series([True, False, True, None]), ([-0.5, 0.5, 1.5], [1, 2], 1)),
        (pl.Series([7.0, 7.0]), ([6.5, 7.5], [2], 0)),
        (pl.Series([1e9, 1e9]), ([0.99e9, 1.01e9], [2], 0)),
        (pl.Series([None, None], dtype=pl.Float64), ([0.0, 1.0], [0], 2)),
        (pl.Series([], dtype=pl.Int64), ([0.0, 1.0], [0], 0)),
    ],
)
def test_histogram_of_unusual_columns(values: pl.Series, expected: Any) -> None:
    assert edges_and_counts(values, 50) == expected


@given(st.lists(finite, min_size=1, max_size=30), st.integers(1, 20))
def test_every_value_is_in_exactly_one_bin(values: list[float], bins: int) -> None:
    found = stats.histogram(pl.Series(values, dtype=pl.Float64), bins)
    assert found.counts.sum() == len(values)
    assert len(found.edges) == len(found.counts) + 1 <= bins + 1
    assert (found.edges[1:] > found.edges[:-1]).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    values = pl.Series([0.0, bad])
    with pytest.raises(ScoreError, match="row 1 holds a number that is not finite"):
        stats.histogram(values)
    with pytest.raises(ScoreError, match="not finite"):
        stats.rank_agreement(np.array([0.0, bad]), np.array([0.0, 1.0]))
    with pytest.raises(ScoreError, match="not finite"):
        stats.auroc(values, np.array([True, False]))


def test_text_and_no_bins_are_refused() -> None:
    with pytest.raises(ScoreError, match="needs numbers"):
        stats.histogram(pl.Series(["a"]))
    with pytest.raises(FilterError, match="at least one bin"):
        stats.histogram(pl.Series([1.0]), 0)


def test_category_counts_are_sorted_by_size_then_value_and_count_the_missing() -> None:
    found = stats.category_counts(pl.Series("topic", ["b", "a", None, "b", "c"]))
    assert found.rows() == [("b", 2), ("a", 1), ("c", 1), (None, 1)]
    assert found.columns == ["value", "count"]


def test_category_counts_of_a_column_named_like_the_result() -> None:
    assert stats.category_counts(pl.Series("count", [True, True])).rows() == [(True, 2)]


@given(pairs)
def test_rank_agreement_is_spearmans(rows: list[tuple[float, float]]) -> None:
    a, b = (np.array(column) for column in zip(*rows, strict=True))
    found = stats.rank_agreement(a, b)
    if len(set(a)) < 2 or len(set(b)) < 2:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_rank_agreement_leaves_out_rows_with_a_null() -> None:
    a = pl.Series([1.0, 2.0, 3.0, None, 5.0])
    b = pl.Series([1.0, 2.0, 3.0, 9.0, None])
    assert stats.rank_agreement(a, b) == pytest.approx(1.0)
    assert stats.rank_agreement(a[3:], b[3:]) is None


@given(labelled)
def test_auroc_agrees_with_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    scores, positive = (np.array(column) for column in zip(*rows, strict=True))
    found = stats.auroc(scores, positive)
    if positive.all() or not positive.any():
        assert found is None
    else:
        assert found == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_auroc_counts_ties_one_half() -> None:
    assert stats.auroc(np.array([1.0, 1.0, 2.0]), np.array([True, False, True])) == 0.75


@given(labelled)
def test_average_precision_agrees_with_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    scores, positive = (np.array(column) for column in zip(*rows, strict=True))
    found = stats.average_precision(scores, positive)
    if not positive.any():
        assert found is None
    else:
        assert found == pytest.approx(average_precision_score(positive, scores), abs=1e-12)


def test_detection_leaves_out_rows_with_a_missing_score_or_label() -> None:
    scores = pl.Series([0.9, None, 0.1, 0.5])
    labels = pl.Series([True, True, False, None])
    assert stats.auroc(scores, labels) == 1.0
    assert stats.average_precision(scores, labels) == 1.0


def test_labels_must_be_boolean() -> None:
    with pytest.raises(ScoreError, match="true or false"):
        stats.auroc(np.array([1.0, 2.0]), np.array([0, 1]))


TABLE = pl.DataFrame(
    {
        "mimic_score": [0.9, 0.8, 0.1, 0.2, 0.85, 0.0],
        "loss": [1.0, 2.0, 5.0, 4.0, 0.5, 9.0],
        "is_noisy": [False, False, True, True, True, None],
        "noise_kind": ["clean", "clean", "junk", "swap", "swap", "swap"],
    }
)


def test_detection_table_judges_every_kind_against_the_clean() -> None:
    scores: dict[str, stats.NoisySide] = {"mimic_score": "low", "loss": "high"}
    found = stats.detection_table(TABLE, kind="noise_kind", scores=scores)
    assert found.drop("average_precision").rows() == [
        (stats.ANY_NOISE, 3, 2, "mimic_score", pytest.approx(5 / 6)),
        (stats.ANY_NOISE, 3, 2, "loss", pytest.approx(4 / 6)),
        ("junk", 1, 2, "mimic_score", 1.0),
        ("junk", 1, 2, "loss", 1.0),
        ("swap", 2, 2, "mimic_score", 0.75),
        ("swap", 2, 2, "loss", 0.5),
    ]
    expected = average_precision_score([0, 0, 1, 1, 1], [-0.9, -0.8, -0.1, -0.2, -0.85])
    assert found["average_precision"][0] == pytest.approx(expected)


def test_detection_table_without_noise_says_nothing() -> None:
    clean = TABLE.filter(~pl.col("is_noisy"))
    found = stats.detection_table(clean, scores={"loss": "high"})
    assert found.rows() == [(stats.ANY_NOISE, 0, 2, "loss", None, None)]


def test_detection_table_refuses_wrong_columns() -> None:
    with pytest.raises(FilterError, match="no such column; got 'truth'"):
        stats.detection_table(TABLE, truth="truth")
    with pytest.raises(FilterError, match="does not say true or false"):
        stats.detection_table(TABLE, truth="loss", scores={"loss": "high"})
