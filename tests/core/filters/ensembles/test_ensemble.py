from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import rankdata

from mimic_core.base.errors import FilterError, RunError, ScoreError
from mimic_core.filters.ensembles.binarise import step_cutoffs, step_votes
from mimic_core.filters.ensembles.config import (
    AtLeast,
    EnsembleConfig,
    GaussianMixture,
    KMeans,
    LabelModel,
    Majority,
    MeanRank,
    Threshold,
    TopPercent,
    Unanimous,
)
from mimic_core.filters.ensembles.ensemble import ensemble, ensemble_of
from mimic_core.filters.ensembles.label_model import dawid_skene
from mimic_core.runs.history import History
from tests.core.histories import history, made_up_votes, voting

VOTES = [
    [1, 1, 1, 0, 0],
    [1, 1, 0, 1, 0],
    [1, 1, 0, 0, 0],
    [1, 0, 0, 0, 0],
]


def kept(found: Any) -> str:
    return "".join(found.uids.filter(pl.Series(found.keep)))


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        (Majority(), "ab"),
        (AtLeast(votes=1), "abcd"),
        (AtLeast(votes=2), "ab"),
        (AtLeast(votes=4), "a"),
        (Unanimous(), "a"),
    ],
)
def test_votes_are_counted(aggregate: Any, expected: str) -> None:
    found = ensemble(voting(VOTES), EnsembleConfig(binarise=Threshold(), aggregate=aggregate))
    assert kept(found) == expected
    assert found.kept == len(expected)
    assert found.votes.tolist() == np.array(VOTES, bool).tolist()
    assert found.confidence.tolist() == [1, 0.75, 0.25, 0.25, 0]
    assert found.confidence.dtype == np.float32


def test_a_tied_majority_drops() -> None:
    config = EnsembleConfig(binarise=Threshold(), aggregate=Majority())
    assert kept(ensemble(voting([[1, 1], [1, 0]]), config)) == "a"
    assert kept(ensemble(voting([[1, 0]]), config)) == "a"  # a single step decides alone


def test_the_label_model_decides_at_one_half() -> None:
    votes = made_up_votes(samples=200)
    names = [f"{i:03d}" for i in range(200)]
    config = EnsembleConfig(binarise=Threshold(), aggregate=LabelModel())
    found = ensemble(voting(votes, names), config)
    expected = dawid_skene(votes)
    np.testing.assert_array_equal(found.confidence, expected.belief)
    np.testing.assert_array_equal(found.keep, expected.belief > 0.5)
    assert found.label_model is not None
    assert found.label_model.prior == expected.prior


def test_more_votes_than_steps_and_too_few_steps_are_refused() -> None:
    with pytest.raises(FilterError, match="more votes than the run has steps; got 5; allowed: 1 t"):
        ensemble(voting(VOTES), EnsembleConfig(binarise=Threshold(), aggregate=AtLeast(votes=5)))
    config = EnsembleConfig(binarise=Threshold(), aggregate=LabelModel())
    with pytest.raises(ScoreError, match="at least 3 steps"):
        ensemble(voting(VOTES[:2]), config)


# Binarisations -----------------------------------------------------------------------------------


def cutoffs(found: History, config: Any) -> list[float]:
    return [float(cut) for cut in step_cutoffs(found, config)]


def test_the_neutral_weight_is_one_over_the_batch_size() -> None:
    weights = history([[0.25, 0.2, 0.3], [0.1, 0.6, 0.26]], batch_size=4)
    assert cutoffs(weights, Threshold()) == [0.25, 0.25]
    assert cutoffs(weights, Threshold(factor=2)) == [0.5, 0.5]
    config = EnsembleConfig(binarise=Threshold(), aggregate=AtLeast(votes=1))
    assert ensemble(weights, config).votes.tolist() == [[True, False, True], [False, True, True]]


def test_the_neutral_weight_is_compared_in_float32() -> None:
    third = np.float32(1) / np.float32(3)
    one = history([[third, np.nextafter(third, np.float32(0))]], batch_size=3)
    found = ensemble(one, EnsembleConfig(binarise=Threshold()))
    assert found.keep.tolist() == [True, False]


def test_a_fixed_value_cuts_any_column_the_loss_from_above() -> None:
    found = history([[1, 2, 3]], loss=[[5, 6, 7]])
    by_score = ensemble(found, EnsembleConfig(binarise=Threshold(column="mimic_score", value=2)))
    assert by_score.keep.tolist() == [False, True, True]
    by_loss = ensemble(found, EnsembleConfig(binarise=Threshold(column="loss", value=6)))
    assert by_loss.keep.tolist() == [True, True, False]


def test_a_threshold_needs_a_value_for_what_is_no_weight() -> None:
    with pytest.raises(ValidationError, match="1/B is a mimic weight"):
        Threshold(column="loss")
    with pytest.raises(ValidationError, match="1/B is a mimic weight"):
        Threshold(column="mimic_score", factor=2)
    with pytest.raises(ValidationError, match="not both"):
        Threshold(value=1, factor=1)


SCORES = [[0, 0.1, 0.2, 5, 5.1], [10, 10.1, 0.2, 0.1, 0]]


def test_cutoffs_are_those_of_each_epoch_or_of_all() -> None:
    found = history(SCORES)
    assert cutoffs(found, KMeans()) == [5, 10]
    assert cutoffs(found, KMeans(scope="all")) == [5, 5]
    assert cutoffs(found, TopPercent(percent=40)) == [5, 10]
    assert cutoffs(found, TopPercent(percent=40, scope="all")) == pytest.approx([5, 5])
    assert cutoffs(found, TopPercent(percent=0)) == [np.inf, np.inf]
    assert ensemble(found, EnsembleConfig(binarise=TopPercent(percent=0))).kept == 0
    low, high = cutoffs(found, GaussianMixture())
    assert 0.2 < low <= 5
    assert 0.2 < high <= 10


@pytest.mark.parametrize(
    "config", [KMeans, GaussianMixture, lambda **c: TopPercent(percent=40, **c)]
)
def test_a_low_loss_is_good(config: Any) -> None:
    scores = np.array(SCORES, np.float32)
    found = history(scores, loss=-scores)
    by_loss, by_score = config(column="loss"), config(column="mimic_score")
    assert cutoffs(found, by_loss) == [-cut for cut in cutoffs(found, by_score)]
    votes = [step_votes(found, one, step_cutoffs(found, one)) for one in (by_loss, by_score)]
    np.testing.assert_array_equal(votes[0], votes[1])


@pytest.mark.parametrize("config", [KMeans(), GaussianMixture()])
def test_a_step_without_differences_keeps_all(config: Any) -> None:
    assert ensemble(history([[2, 2, 2]]), EnsembleConfig(binarise=config)).kept == 3
    assert ensemble(history([[2]]), EnsembleConfig(binarise=config)).kept == 1


def test_no_samples_no_votes() -> None:
    empty = history(np.zeros((3, 0)))
    for binarise, aggregate in product(BINARISATIONS, AGGREGATIONS):
        if not isinstance(aggregate, LabelModel):
            config = EnsembleConfig(binarise=binarise, aggregate=aggregate)
            assert ensemble(empty, config).keep.shape == (0,)


def test_a_column_that_was_not_read_is_an_error() -> None:
    found = history(SCORES, loss=np.zeros((2, 0)))
    with pytest.raises(RunError, match="read without the column loss"):
        ensemble(found, EnsembleConfig(binarise=KMeans(column="loss")))


# Mean rank ---------------------------------------------------------------------------------------

few = st.integers(-3, 3).map(float)
wide = st.floats(-(2.0**100), 2.0**100, width=32)


def score_tables(values: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    return st.tuples(st.integers(1, 5), st.integers(1, 12)).flatmap(
        lambda shape: st.lists(
            st.lists(values, min_size=shape[1], max_size=shape[1]),
            min_size=shape[0],
            max_size=shape[0],
        ).map(lambda rows: np.array(rows, np.float32))
    )


any_scores = st.one_of(score_tables(few), score_tables(wide))


@given(any_scores, st.floats(0, 100))
def test_mean_rank_is_the_mean_of_scipys_ranks(scores: np.ndarray, percent: float) -> None:
    config = EnsembleConfig(binarise=TopPercent(percent=percent), aggregate=MeanRank())
    found = ensemble(history(scores), config)
    steps, size = scores.shape
    ranks = np.mean([rankdata(row) for row in scores], axis=0)
    np.testing.assert_allclose(found.confidence, (ranks - 0.5) / size, rtol=1e-5)
    exact = np.round(ranks * 2 * steps).astype(int)
    wanted = int(np.floor(found.votes.sum() / steps + 0.5))
    best = sorted(range(size), key=lambda i: (-exact[i], found.uids[i]))[:wanted]
    assert sorted(np.flatnonzero(found.keep)) == sorted(best)


def test_mean_rank_of_many_values_and_ties() -> None:
    random = np.random.default_rng(0)
    scores = np.round(random.normal(size=(3, 150_000)) * 1000).astype(np.float32)
    found = ensemble(
        history(scores, uids=np.arange(150_000).astype(str)),
        EnsembleConfig(binarise=TopPercent(percent=30), aggregate=MeanRank()),
    )
    ranks = np.mean([rankdata(row) for row in scores], axis=0)
    np.testing.assert_allclose(found.confidence, (ranks - 0.5) / 150_000, rtol=1e-5)
    assert found.kept == round(found.votes.sum() / 3)


# Laws --------------------------------------------------------------------------------------------

BINARISATIONS = [
    Threshold(),
    Threshold(column="mimic_score", value=0.5),
    KMeans(),
    KMeans(column="loss", scope="all"),
    GaussianMixture(),
    GaussianMixture(scope="all"),
    TopPercent(percent=40),
    TopPercent(percent=70, column="loss"),
]
AGGREGATIONS = [Majority(), AtLeast(votes=1), Unanimous(), MeanRank(), LabelModel()]
configs = st.builds(
    EnsembleConfig, binarise=st.sampled_from(BINARISATIONS), aggregate=st.sampled_from(AGGREGATIONS)
)


def fits(config: EnsembleConfig, steps: int) -> bool:
    return steps >= 3 or not isinstance(config.aggregate, LabelModel)


@settings(max_examples=200, deadline=None)
@given(any_scores, configs)
def test_votes_follow_from_the_cutoffs_and_confidence_is_a_share(
    scores: np.ndarray, config: EnsembleConfig
) -> None:
    if not fits(config, len(scores)):
        return
    one = history(scores)
    found = ensemble(one, config)
    assert found.keep.dtype == np.bool_
    assert found.confidence.dtype == np.float32
    assert found.cutoffs.dtype == np.float32
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    values = one.values(config.binarise.column)
    for step, cut in enumerate(found.cutoffs):
        better = values[step] <= cut if config.binarise.column == "loss" else values[step] >= cut
        np.testing.assert_array_equal(found.votes[step], better)


@settings(max_examples=200, deadline=None)
@given(any_scores, configs, st.data())
def test_a_better_score_never_loses_a_sample_its_place(
    scores: np.ndarray, config: EnsembleConfig, data: st.DataObject
) -> None:
    """With the cutoffs fixed, for every aggregation that counts votes alike."""
    if isinstance(config.aggregate, LabelModel | MeanRank):
        return
    one = history(scores, loss=-scores)
    before = ensemble(one, config)
    step = data.draw(st.integers(0, len(scores) - 1))
    sample = data.draw(st.integers(0, scores.shape[1] - 1))
    raised = scores.copy()
    raised[step, sample] += np.float32(data.draw(st.floats(0, 100)))
    votes = step_votes(history(raised, loss=-raised), config.binarise, before.cutoffs)
    assert (votes >= before.votes).all()
    names = one.uids.to_list()
    after = ensemble(
        voting(votes, names), EnsembleConfig(binarise=Threshold(), aggregate=config.aggregate)
    )
    assert after.keep[sample] >= before.keep[sample]


@settings(max_examples=100, deadline=None)
@given(any_scores, configs, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter(
    scores: np.ndarray, config: EnsembleConfig, random: Any
) -> None:
    if not fits(config, len(scores)) or isinstance(config.binarise, GaussianMixture):
        return  # sums in another order may move a normal mixture by its last bit
    order = list(range(scores.shape[1]))
    random.shuffle(order)
    one = history(scores)
    other = history(scores[:, order], uids=[one.uids[i] for i in order])
    found = ensemble(other, config)
    np.testing.assert_array_equal(found.keep, ensemble(one, config).keep[order])


@settings(max_examples=50, deadline=None)
@given(any_scores, configs)
def test_the_same_again(scores: np.ndarray, config: EnsembleConfig) -> None:
    if fits(config, len(scores)):
        one, two = (ensemble(history(scores), config) for _ in range(2))
        np.testing.assert_array_equal(one.keep, two.keep)
        np.testing.assert_array_equal(one.confidence, two.confidence)


@given(configs)
def test_configs_survive_plain_values_and_say_what_they_are(config: EnsembleConfig) -> None:
    tree = config.model_dump(mode="json", exclude_none=True)
    assert EnsembleConfig.parse(tree) == config
    assert config.aggregate.describe() in config.describe()


def test_descriptions() -> None:
    config = EnsembleConfig(
        binarise=GaussianMixture(column="loss", scope="all"), aggregate=AtLeast(votes=3)
    )
    assert config.describe() == "at least 3 votes of loss: two normal components over all epochs"
    assert EnsembleConfig().describe() == "majority of mimic score: k-means"
    assert Threshold(factor=2).describe() == "mimic weight: >= 2/B"
    assert Threshold(column="loss", value=0.5).describe() == "loss: <= 0.5"


def test_an_ensemble_is_remembered_as_long_as_its_history() -> None:
    one = history(SCORES)
    first = ensemble_of(one, EnsembleConfig())
    other = EnsembleConfig(aggregate=Unanimous())
    alike = ensemble_of(one, other)
    assert alike.votes is first.votes  # the same cutoffs are not looked for again
    assert (alike.keep == ensemble(one, other).keep).all()
    assert ensemble_of(one, EnsembleConfig()) is first
    for percent in range(20):
        ensemble_of(one, EnsembleConfig(binarise=TopPercent(percent=percent)))
    assert ensemble_of(one, EnsembleConfig()) is not first  # only the last few are kept
    assert ensemble_of(history(SCORES), EnsembleConfig()) is not first
