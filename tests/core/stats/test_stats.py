from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, spearmanr
from sklearn.metrics import (
    average_precision_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from mimic_core.base.errors import FilterError, ScoreError
from mimic_core.filters.ensembles.config import EnsembleConfig, MeanRank, TopPercent
from mimic_core.filters.ensembles.ensemble import (
    ensemble,
    refitted_retention,
    share_is_fixed,
)
from mimic_core.stats import agreement, detection, histograms, retention
from tests.core.histories import history

finite = st.floats(allow_nan=False, allow_infinity=False)
few_values = st.integers(-3, 3).map(float)  # many ties
pairs = st.lists(st.tuples(few_values, few_values), min_size=2, max_size=30)
labelled = st.lists(st.tuples(few_values, st.booleans()), min_size=1, max_size=40)


def edges_and_counts(values: pl.Series, bins: int) -> tuple[list[float], list[int], int]:
    found = histograms.histogram(values, bins)
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
    found = histograms.histogram(pl.Series(values, dtype=pl.Float64), bins)
    assert found.counts.sum() == len(values)
    assert len(found.edges) == len(found.counts) + 1 <= bins + 1
    assert (found.edges[1:] > found.edges[:-1]).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    values = pl.Series([0.0, bad])
    with pytest.raises(ScoreError, match="row 1 holds a number that is not finite"):
        histograms.histogram(values)
    with pytest.raises(ScoreError, match="not finite"):
        agreement.rank_agreement(np.array([0.0, bad]), np.array([0.0, 1.0]))
    with pytest.raises(ScoreError, match="not finite"):
        detection.auroc(values, np.array([True, False]))


def test_text_and_no_bins_are_refused() -> None:
    with pytest.raises(ScoreError, match="needs numbers"):
        histograms.histogram(pl.Series(["a"]))
    with pytest.raises(FilterError, match="at least one bin"):
        histograms.histogram(pl.Series([1.0]), 0)


def test_category_counts_are_sorted_by_size_then_value_and_count_the_missing() -> None:
    found = histograms.category_counts(pl.Series("topic", ["b", "a", None, "b", "c"]))
    assert found.rows() == [("b", 2), ("a", 1), ("c", 1), (None, 1)]
    assert found.columns == ["value", "count"]


def test_category_counts_of_a_column_named_like_the_result() -> None:
    assert histograms.category_counts(pl.Series("count", [True, True])).rows() == [(True, 2)]


@given(pairs)
def test_rank_agreement_is_spearmans(rows: list[tuple[float, float]]) -> None:
    a, b = (np.array(column) for column in zip(*rows, strict=True))
    found = agreement.rank_agreement(a, b)
    if len(set(a)) < 2 or len(set(b)) < 2:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_rank_agreement_leaves_out_rows_with_a_null() -> None:
    a = pl.Series([1.0, 2.0, 3.0, None, 5.0])
    b = pl.Series([1.0, 2.0, 3.0, 9.0, None])
    assert agreement.rank_agreement(a, b) == pytest.approx(1.0)
    assert agreement.rank_agreement(a[3:], b[3:]) is None


@given(labelled)
def test_auroc_agrees_with_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    scores, positive = (np.array(column) for column in zip(*rows, strict=True))
    found = detection.auroc(scores, positive)
    if positive.all() or not positive.any():
        assert found is None
    else:
        assert found == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_auroc_counts_ties_one_half() -> None:
    assert detection.auroc(np.array([1.0, 1.0, 2.0]), np.array([True, False, True])) == 0.75


@given(labelled)
def test_average_precision_agrees_with_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    scores, positive = (np.array(column) for column in zip(*rows, strict=True))
    found = detection.average_precision(scores, positive)
    if not positive.any():
        assert found is None
    else:
        assert found == pytest.approx(average_precision_score(positive, scores), abs=1e-12)


def test_detection_leaves_out_rows_with_a_missing_score_or_label() -> None:
    scores = pl.Series([0.9, None, 0.1, 0.5])
    labels = pl.Series([True, True, False, None])
    assert detection.auroc(scores, labels) == 1.0
    assert detection.average_precision(scores, labels) == 1.0


def test_labels_must_be_boolean() -> None:
    with pytest.raises(ScoreError, match="true or false"):
        detection.auroc(np.array([1.0, 2.0]), np.array([0, 1]))


TABLE = pl.DataFrame(
    {
        "mimic_score": [0.9, 0.8, 0.1, 0.2, 0.85, 0.0],
        "loss": [1.0, 2.0, 5.0, 4.0, 0.5, 9.0],
        "is_noisy": [False, False, True, True, True, None],
        "noise_kind": ["clean", "clean", "junk", "swap", "swap", "swap"],
    }
)


def test_detection_table_judges_every_kind_against_the_clean() -> None:
    scores: dict[str, detection.NoisySide] = {"mimic_score": "low", "loss": "high"}
    found = detection.detection_table(TABLE, kind="noise_kind", scores=scores)
    assert found.drop("average_precision").rows() == [
        (detection.ANY_NOISE, 3, 2, "mimic_score", pytest.approx(5 / 6)),
        (detection.ANY_NOISE, 3, 2, "loss", pytest.approx(4 / 6)),
        ("junk", 1, 2, "mimic_score", 1.0),
        ("junk", 1, 2, "loss", 1.0),
        ("swap", 2, 2, "mimic_score", 0.75),
        ("swap", 2, 2, "loss", 0.5),
    ]
    expected = average_precision_score([0, 0, 1, 1, 1], [-0.9, -0.8, -0.1, -0.2, -0.85])
    assert found["average_precision"][0] == pytest.approx(expected)


def test_detection_table_without_noise_says_nothing() -> None:
    clean = TABLE.filter(~pl.col("is_noisy"))
    found = detection.detection_table(clean, scores={"loss": "high"})
    assert found.rows() == [(detection.ANY_NOISE, 0, 2, "loss", None, None)]


def test_detection_table_refuses_wrong_columns() -> None:
    with pytest.raises(FilterError, match="no such column; got 'truth'"):
        detection.detection_table(TABLE, truth="truth")
    with pytest.raises(FilterError, match="does not say true or false"):
        detection.detection_table(TABLE, truth="loss", scores={"loss": "high"})


# Decisions ---------------------------------------------------------------------------------------

decisions = st.lists(
    st.tuples(st.booleans(), st.sampled_from([True, False, None])), min_size=1, max_size=40
)


@given(decisions)
def test_precision_recall_and_f1_are_scikit_learns(rows: list[tuple[bool, bool | None]]) -> None:
    kept = np.array([row[0] for row in rows])
    truth = pl.Series("is_noisy", [row[1] for row in rows], dtype=pl.Boolean)
    found = detection.detection(kept, truth)
    known = [(noisy, not keep) for keep, noisy in rows if noisy is not None]
    assert (found.noisy, found.clean) == (sum(n for n, _ in known), sum(not n for n, _ in known))
    if not known:
        return
    noisy, dropped = zip(*known, strict=True)
    precision, recall, f1, _ = precision_recall_fscore_support(
        noisy, dropped, average="binary", zero_division=np.nan
    )
    assert found.precision == (None if not any(dropped) else pytest.approx(precision))
    assert found.recall == (None if not any(noisy) else pytest.approx(recall))
    assert found.f1 == (None if not any(noisy + dropped) else pytest.approx(f1))
    assert found.noisy_kept == sum(n and not d for n, d in known)


def test_every_kind_of_noise_has_its_recall() -> None:
    kept = np.array([True, False, False, True, False, True])
    found = detection.kept_by_kind(kept, TABLE["is_noisy"], TABLE["noise_kind"])
    assert found.rows() == [("junk", 1, 0, 1, 1.0), ("swap", 2, 1, 1, 0.5)]
    with pytest.raises(FilterError, match="does not say true or false"):
        detection.detection(kept, TABLE["loss"])


# Retention ---------------------------------------------------------------------------------------

columns_with_truth = st.lists(
    st.tuples(st.one_of(st.none(), few_values), st.sampled_from([True, False, None])),
    min_size=1,
    max_size=30,
)


@given(columns_with_truth, st.sampled_from(["high", "low"]), st.integers(2, 40))
def test_the_retention_curve_is_a_count_at_every_cutoff(
    rows: list[tuple[float | None, bool | None]], keep: Any, points: int
) -> None:
    values = pl.Series([row[0] for row in rows], dtype=pl.Float32)
    truth = pl.Series("is_noisy", [row[1] for row in rows], dtype=pl.Boolean)
    found = retention.retention_curve(values, truth, keep=keep, points=points)
    present = sorted({row[0] for row in rows if row[0] is not None})
    assert len(found.cutoffs) <= points
    if present:
        assert (found.cutoffs[0], found.cutoffs[-1]) == (present[0], present[-1])
    assert found.precision is not None
    assert found.recall is not None
    for place, cutoff in enumerate(found.cutoffs):
        kept = values >= cutoff if keep == "high" else values <= cutoff
        mask = kept.fill_null(False).to_numpy()
        assert found.retained[place] == mask.mean()
        judged = detection.detection(mask, truth)
        for curve, value in ((found.precision, judged.precision), (found.recall, judged.recall)):
            assert np.isnan(curve[place]) if value is None else curve[place] == value
    assert retention.retention_curve(values, keep=keep, points=points).precision is None


def test_a_curve_of_booleans_integers_and_nothing() -> None:
    flags = retention.retention_curve(pl.Series([True, False, True, None]))
    assert (flags.cutoffs.tolist(), flags.retained.tolist()) == ([0, 1], [0.75, 0.5])
    whole = retention.retention_curve(pl.Series([3, 1, 2]), keep="low")
    assert whole.retained.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert retention.retention_curve(pl.Series([None], dtype=pl.Float32)).cutoffs.tolist() == []


def test_the_interval_of_a_retained_fraction_is_that_of_a_real_bootstrap() -> None:
    random = np.random.default_rng(0)
    kept = np.arange(400) < 280
    drawn = [kept[random.integers(0, 400, 400)].mean() for _ in range(20_000)]
    found = retention.quality_estimate(280, 400, resamples=20_000)
    assert found.retained == 0.7
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.004)
    assert retention.quality_estimate(280, 400, resamples=20_000) == found
    wider = retention.quality_estimate(280, 400, level=0.99)
    assert wider.low < found.low < 0.7 < found.high < wider.high
    assert not found.refitted


@pytest.mark.parametrize("total", [1, 5, 400])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_nothing_and_everything_have_an_exact_end(total: int, level: float) -> None:
    for kept in (0, total):
        found = retention.quality_estimate(kept, total, level=level)
        exact = binomtest(kept, total).proportion_ci(level, method="exact")
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-12)
        assert found.low <= found.retained == kept / total <= found.high


def test_what_has_no_fraction_is_refused() -> None:
    for kept, total in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(FilterError, match="needs samples"):
            retention.quality_estimate(kept, total)
    with pytest.raises(FilterError, match=r"a share; got 95"):
        retention.quality_estimate(1, 2, level=95)


def test_a_filter_fitted_anew_has_a_wider_interval_and_a_top_share_none() -> None:
    random = np.random.default_rng(0)
    noisy = random.random(600) < 0.3
    past = history(random.normal(size=(3, 600)) * 0.4 + ~noisy)
    fixed = ensemble(past, EnsembleConfig())
    found = refitted_retention(past, EnsembleConfig(), resamples=60)
    assert found.refitted
    assert found.retained == fixed.kept / 600
    assert found.low < found.retained < found.high
    plain = retention.quality_estimate(fixed.kept, 600)
    assert found.high - found.low > 0.8 * (plain.high - plain.low)
    assert refitted_retention(past, EnsembleConfig(), resamples=60) == found
    top = EnsembleConfig(binarise=TopPercent(percent=50), aggregate=MeanRank())
    assert share_is_fixed(top, 3)
    assert share_is_fixed(EnsembleConfig(binarise=TopPercent(percent=50)), 1)
    assert not share_is_fixed(EnsembleConfig(binarise=TopPercent(percent=50)), 3)
    assert not share_is_fixed(EnsembleConfig(aggregate=MeanRank()), 3)
    same = refitted_retention(past, top, resamples=20)
    assert same.high - same.low < 0.02  # only ties between copies of a sample move it


# Agreement ---------------------------------------------------------------------------------------

two_filters = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@given(two_filters)
def test_agreement_counts_the_quadrants(rows: list[tuple[bool, bool]]) -> None:
    a, b = (np.array(side) for side in zip(*rows, strict=True))
    found = agreement.agreement(a, b)
    masks = agreement.quadrants(a, b)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {
        name: getattr(found, name) for name in ("both", "only_a", "only_b", "neither")
    }
    assert np.sum(list(masks.values()), axis=0).tolist() == [1] * len(rows)
    either = (a | b).sum()
    assert found.jaccard == (None if not either else (a & b).sum() / either)
    expected = agreement.rank_agreement(a, b)
    assert found.rank_correlation == (None if expected is None else pytest.approx(expected))


def test_agreement_of_scores_is_their_rank_correlation() -> None:
    a, b = np.array([True, False, False]), np.array([True, True, False])
    scores = (np.array([3.0, 2.0, 1.0]), pl.Series([9.0, 5.0, 7.0]))
    assert agreement.agreement(a, b, scores=scores).rank_correlation == pytest.approx(0.5)
