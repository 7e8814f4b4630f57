from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.base.errors import ScoreError
from mimic_core.filters.ensembles.label_model import DawidSkene, dawid_skene
from tests.core.histories import made_up_votes

votes_of_any = (
    st.integers(3, 6)
    .flatmap(
        lambda steps: st.lists(
            st.lists(st.booleans(), min_size=steps, max_size=steps), min_size=1, max_size=40
        )
    )
    .map(lambda rows: np.array(rows, bool).T)
)


def brute_posterior(found: DawidSkene, votes: np.ndarray) -> np.ndarray:
    """Bayes' rule, sample by sample and vote by vote."""
    beliefs = []
    for sample in votes.T:
        kept, dropped = found.prior, 1 - found.prior
        for step, vote in enumerate(sample):
            kept *= found.keeps_kept[step] if vote else 1 - found.keeps_kept[step]
            dropped *= found.keeps_dropped[step] if vote else 1 - found.keeps_dropped[step]
        beliefs.append(kept / (kept + dropped))
    return np.array(beliefs)


def likelihood(prior: float, kept: np.ndarray, dropped: np.ndarray, votes: np.ndarray) -> float:
    on_kept = np.where(votes, kept[:, None], 1 - kept[:, None]).prod(axis=0)
    on_dropped = np.where(votes, dropped[:, None], 1 - dropped[:, None]).prod(axis=0)
    return float(np.log(prior * on_kept + (1 - prior) * on_dropped).sum())


def test_beliefs_are_the_posterior_by_bayes_rule() -> None:
    votes = made_up_votes()
    found = dawid_skene(votes)
    assert found.converged
    np.testing.assert_allclose(found.belief, brute_posterior(found, votes), atol=1e-6)


def test_the_parameters_are_a_fixed_point_and_a_maximum_of_the_likelihood() -> None:
    votes = made_up_votes()
    found = dawid_skene(votes)
    belief = brute_posterior(found, votes)
    assert found.prior == pytest.approx(belief.mean(), abs=1e-6)
    expected = (votes * belief).sum(axis=1) / belief.sum()
    np.testing.assert_allclose(found.keeps_kept, expected, atol=1e-6)
    best = likelihood(found.prior, found.keeps_kept, found.keeps_dropped, votes)
    random = np.random.default_rng(0)
    for _ in range(200):
        move = random.normal(size=11) * 0.01
        moved = likelihood(
            found.prior + move[0],
            found.keeps_kept + move[1:6],
            found.keeps_dropped + move[6:],
            votes,
        )
        assert moved < best


# Golden values of two independent libraries for ``made_up_votes()``. How they were made, in an
# environment of its own: pip install crowd-kit==1.4.2 stepmix==3.0.0, then
#   crowdkit.aggregation.DawidSkene(n_iter=5000, tol=0).fit(frame of (sample, step, 0 or 1)):
#   priors_, errors_, probas_;
#   stepmix.StepMix(2, measurement="binary", n_init=20, abs_tol=1e-12, rel_tol=0, max_iter=5000,
#   random_state=0).fit(votes.T): weights and pis agree with the first to 1e-6.
GOLDEN_PRIOR = 0.5389738
GOLDEN_KEEPS_KEPT = [0.671487, 0.788452, 0.779515, 0.885816, 0.911756]
GOLDEN_KEEPS_DROPPED = [0.133223, 0.213390, 0.187686, 0.222479, 0.249995]
GOLDEN_BELIEFS = [0.00847901, 0.01702842, 0.86199367, 0.97693792, 0.99923902, 0.00737737]
GOLDEN_SUM = 161.6921491


def test_the_fit_is_that_of_two_independent_libraries() -> None:
    votes = made_up_votes()
    assert votes.sum(axis=1).tolist() == [127, 157, 152, 174, 182]
    found = dawid_skene(votes)
    assert found.prior == pytest.approx(GOLDEN_PRIOR, abs=2e-6)
    np.testing.assert_allclose(found.keeps_kept, GOLDEN_KEEPS_KEPT, atol=2e-6)
    np.testing.assert_allclose(found.keeps_dropped, GOLDEN_KEEPS_DROPPED, atol=2e-6)
    np.testing.assert_allclose(found.belief[:6], GOLDEN_BELIEFS, atol=2e-6)
    assert found.belief.sum(dtype=np.float64) == pytest.approx(GOLDEN_SUM, abs=1e-4)


@pytest.mark.filterwarnings("ignore")  # whatever the other library warns of
@pytest.mark.parametrize("steps", [5, 7])
def test_the_fit_is_that_of_crowd_kit(steps: int) -> None:
    from crowdkit.aggregation import DawidSkene as TheirDawidSkene
    from pandas import DataFrame

    votes = made_up_votes(samples=200, steps=steps)
    rows = [(i, s, int(votes[s, i])) for s, i in product(*map(range, votes.shape))]
    frame = DataFrame(rows, columns=["task", "worker", "label"])
    # Rounding makes its bound fall a little now and then: no tolerance, so that it does not stop.
    theirs = TheirDawidSkene(n_iter=60, tol=-1.0).fit(frame)
    found = dawid_skene(votes)
    np.testing.assert_allclose(found.belief, theirs.probas_.sort_index()[1], atol=1e-6)


def test_it_finds_who_is_reliable_and_beats_the_majority() -> None:
    random = np.random.default_rng(0)
    truth = random.random(20_000) < 0.7
    right = np.array([0.95, 0.9, 0.55, 0.55, 0.55])[:, None]
    votes = np.where(random.random((5, 20_000)) < right, truth, ~truth)
    found = dawid_skene(votes)
    np.testing.assert_allclose(found.keeps_kept, right[:, 0], atol=0.02)
    np.testing.assert_allclose(1 - found.keeps_dropped, right[:, 0], atol=0.03)
    assert found.prior == pytest.approx(0.7, abs=0.02)
    majority = votes.sum(axis=0) >= 3
    assert ((found.belief > 0.5) == truth).mean() > (majority == truth).mean() + 0.05


@pytest.mark.parametrize("steps", [9, 16, 17, 64, 70])
def test_more_steps_than_bits_of_a_byte_or_a_word(steps: int) -> None:
    random = np.random.default_rng(steps)
    truth = random.random(500) < 0.6
    votes = np.where(random.random((steps, 500)) < 0.7, truth, ~truth)
    found = dawid_skene(votes)
    np.testing.assert_allclose(found.belief, brute_posterior(found, votes), atol=1e-5)
    assert ((found.belief > 0.5) == truth).mean() > 0.85


@settings(max_examples=200, deadline=None)
@given(votes_of_any)
def test_any_votes_give_probabilities_and_side_with_the_majority(votes: np.ndarray) -> None:
    found = dawid_skene(votes)
    assert ((found.belief >= 0) & (found.belief <= 1)).all()
    assert 0 < found.prior < 1
    share = votes.mean(axis=0)
    agreement = np.sign(share - 0.5) * np.sign(found.belief - 0.5)
    assert agreement.sum() >= 0
    again = dawid_skene(votes)
    assert (again.belief == found.belief).all()


@settings(deadline=None)
@given(votes_of_any, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter(votes: np.ndarray, random: object) -> None:
    order = list(range(votes.shape[1]))
    random.shuffle(order)  # type: ignore[attr-defined]
    one, other = dawid_skene(votes), dawid_skene(votes[:, order])
    np.testing.assert_allclose(other.belief, one.belief[order], atol=1e-4)


@pytest.mark.parametrize("vote", [True, False])
def test_steps_that_all_say_the_same_are_believed(vote: bool) -> None:
    found = dawid_skene(np.full((4, 10), vote))
    assert ((found.belief > 0.5) == vote).all()


@pytest.mark.parametrize("steps", [1, 2])
def test_fewer_than_three_steps_are_refused_with_what_to_use(steps: int) -> None:
    with pytest.raises(ScoreError, match=rf"at least 3 steps; got {steps}.*majority"):
        dawid_skene(np.ones((steps, 5), bool))
