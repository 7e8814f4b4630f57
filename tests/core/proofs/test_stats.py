"""The statistics of proofs: corrections by hand, spreads, and the rate of false alarms."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
import torch

from mimic_core.base.progress import Silent
from mimic_core.proofs import intervals, power
from mimic_core.proofs.arms import ArmPlan
from mimic_core.proofs.intervals import Resampler, Trained, holm, outcome
from mimic_core.proofs.judge import judge
from mimic_core.proofs.record import Comparison, HeldOut, Interval, Leakage
from mimic_core.proofs.settings import ProveConfig
from mimic_core.proofs.split import Split
from mimic_core.proofs.trainings import train_arms

REPLICATIONS = 200
CONFIG = ProveConfig(trusted="x", seeds=4, resamples=1000)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_values_by_hand() -> None:
    replicates = np.array([-3.0, -2.0, -1.0, 0.5])
    assert intervals.two_sided_p(replicates) == pytest.approx(2 * 2 / 5)
    assert intervals.not_worse_p(replicates, 0.4) == pytest.approx(2 / 5)
    assert intervals.two_sided_p(np.zeros(5)) == 1.0


@pytest.mark.parametrize(
    ("value", "p", "p_not_worse", "said"),
    [
        (-0.1, 0.05, 0.9, "better"),
        (-0.1, 0.06, 0.025, "not_worse"),
        (0.1, 0.01, 0.9, "worse"),
        (0.001, 0.01, 0.025, "not_worse"),  # worse, but within the margin
        (0.1, 0.06, 0.026, "open"),
    ],
)
def test_what_may_be_said(value: float, p: float, p_not_worse: float, said: str) -> None:
    interval = Interval(value=value, low=value, high=value)
    assert outcome(interval, p, p_not_worse, CONFIG) == said


def test_replicates_spread_as_held_out_samples_and_halves_do() -> None:
    rng = np.random.default_rng(0)
    contributions = rng.normal(size=(1, 300))
    halves = np.array([[[1.0, 3.0], [2.0, 2.0]]]) / 10  # half differences 0.1 and 0
    resampler = Resampler(np.arange(300), seeds=50, replicates=40_000)
    still = resampler.replicates(Trained(contributions, np.zeros((1, 2, 2))))
    assert still.std() == pytest.approx(contributions.std(ddof=1) / np.sqrt(300), rel=0.02)
    assert intervals.training_error(Trained(contributions, halves)) == pytest.approx(np.sqrt(0.005))
    moved = resampler.replicates(Trained(np.zeros((1, 300)), halves))
    assert moved.std() == pytest.approx(np.sqrt(0.005) * np.sqrt(50 / 48), rel=0.02)


def test_duplicates_are_drawn_together() -> None:
    values = np.repeat(np.random.default_rng(1).normal(size=50), 4)[None]
    flat = Trained(values, np.zeros((1, 2, 2)))
    alone = Resampler(np.arange(200), seeds=2, replicates=20_000).replicates(flat).std()
    together = Resampler(np.repeat(np.arange(50), 4), seeds=2, replicates=20_000)
    assert together.replicates(flat).std() == pytest.approx(2 * alone, rel=0.05)


def test_replicates_repeat_themselves() -> None:
    trained = Trained(np.arange(60.0)[None], np.ones((1, 3, 2)))
    first, second = (Resampler(np.arange(60), seeds=3, replicates=1500) for _ in range(2))
    assert np.array_equal(first.replicates(trained), second.replicates(trained))


# --- false alarms and power: proofs whose model is a mean, so that hundreds take seconds ---


class MeanTask:
    """The model is the mean of what trains, moved by its seed.

    The loss is the squared distance, as near the end of training, where the halves make the error
    seem larger than it is; or linear in the model, where the error is estimated exactly.
    """

    kind: Literal["pairs", "labels"] = "labels"
    metrics: tuple[str, ...] = ("held-out loss",)
    device = torch.device("cpu")

    def __init__(self, values: np.ndarray, *, linear: bool) -> None:
        self.values, self.linear = values, linear
        self.usable = np.ones(len(values), bool)

    def fit(
        self,
        rows: np.ndarray,
        *,
        seed: int,
        steps: int,
        batch_size: int,
        check: Callable[[], None],
        look: object,
    ) -> Any:
        start = np.random.default_rng(seed).normal(size=self.values.shape[1]) * 0.02
        return self.values[rows].mean(0) + start

    def contributions(self, model: Any, held_out: np.ndarray) -> np.ndarray:
        if self.linear:
            return np.asarray((3 + self.values[held_out]) @ model)[None]
        return np.asarray(((self.values[held_out] - model) ** 2).sum(1)[None])


def record(held_out: int) -> HeldOut:
    leakage = Leakage(same_image=0, same_file=0, same_caption=0, removed=0, held_out_touched=0)
    return HeldOut(
        source="x",
        trusted=held_out,
        held_out=held_out,
        groups=held_out,
        set_aside=0,
        trainable=0,
        uids_sha256="",
        leakage=leakage,
    )


def words(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, 99]).integers(0, 2**63, (count, 2)).astype(np.uint64)


def simulated(
    seed: int, *, linear: bool, harm: float = 0.0
) -> tuple[dict[tuple[str, str], Comparison], dict[str, Trained]]:
    """A proof of two recipes on a fresh pool of 160 samples that train and 60 that judge."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(220, 3))
    trainable, held_out = np.arange(160), np.arange(160, 220)
    first = rng.permutation(160)[:80]
    second = np.setdiff1d(trainable, first)
    values[second] += harm
    plan = ArmPlan(trainable, {"A": np.sort(first), "B": second})
    task = MeanTask(values, linear=linear)
    trained = train_arms(
        plan, words(220, seed), held_out, task, CONFIG, batch_size=8, progress=Silent(), workers=1
    )
    split = Split(held_out, trainable, np.arange(60), record(60))
    identity = {
        "proof_id": "x",
        "run": "x",
        "feature_set": "x",
        "task": "labels",
        "batch_size": 8,
    }
    with pytest.MonkeyPatch.context() as patch:  # power has tests of its own; it would take longest
        patch.setattr(power, "planned", lambda *_, **__: None)
        proof = judge(
            plan, trained, split, CONFIG, metrics=task.metrics, proved=(), identity=identity
        )
    return {(c.first, c.second): c for c in proof.comparisons}, trained


def test_intervals_of_shares_end_where_the_scale_ends() -> None:
    plan = ArmPlan(np.arange(10), {"a": np.arange(5)})
    right = np.ones((2, 60))
    right[1, 0] = 0  # accuracy 59/60, loss 1
    halves = np.zeros((2, 4, 2))
    halves[:, :, 0] = 0.2
    trained = {name: Trained(right, halves) for name in plan.names}
    trained["a"] = Trained(np.zeros((2, 60)), -halves)
    split = Split(np.arange(60), np.arange(10), np.arange(60), record(60))
    identity = {"proof_id": "x", "run": "x", "feature_set": "x", "task": "labels", "batch_size": 8}
    metrics = ["held-out loss", "accuracy"]
    proof = judge(plan, trained, split, CONFIG, metrics=metrics, proved=(), identity=identity)
    accuracy, loss = (proof.arm("all samples").metrics[name] for name in metrics[::-1])
    assert accuracy.value == pytest.approx(59 / 60)
    assert (accuracy.low < 0.95, accuracy.high) == (True, 1)
    assert loss.high > 1.05
    assert proof.arm("a").metrics["accuracy"].low == 0
    assert proof.comparisons[0].differences["accuracy"].low == -1


def most_alarms(count: int, level: float) -> int:
    """More alarms than this come by chance in fewer than one of a thousand tests."""
    from scipy.stats import binom

    return int(binom.ppf(0.999, count, level))


Simulation = tuple[dict[tuple[str, str], Comparison], dict[str, Trained]]


@cache
def equal_halves(*, linear: bool) -> list[Simulation]:
    return [simulated(seed, linear=linear) for seed in range(REPLICATIONS)]


@pytest.mark.parametrize("linear", [True, False])
def test_two_equal_halves_are_not_told_apart(linear: bool) -> None:
    found = [one for one, _ in equal_halves(linear=linear)]
    bound = most_alarms(REPLICATIONS, CONFIG.level)
    for pair in [("A", "B"), ("A", "random, size of A"), ("A", "all samples")]:
        alarms = sum(one[pair].p <= CONFIG.level for one in found)
        assert alarms <= bound, pair
    any_alarm = sum(any(c.outcome in ("better", "worse") for c in one.values()) for one in found)
    assert any_alarm <= bound  # over all five comparisons together


def test_the_level_is_used_where_the_error_is_estimated_exactly() -> None:
    alarms = [one["A", "B"].p <= CONFIG.level for one, _ in equal_halves(linear=True)]
    assert sum(alarms) >= 0.02 * REPLICATIONS


def test_without_the_halves_equal_halves_would_be_told_apart() -> None:
    resampler = Resampler(np.arange(60), seeds=CONFIG.seeds, replicates=1000)
    fooled = 0
    for _, trained in equal_halves(linear=True):
        difference = trained["A"].minus(trained["B"])
        blind = Trained(difference.contributions, np.zeros_like(difference.halves))
        fooled += intervals.two_sided_p(resampler.replicates(blind)[:, 0]) <= CONFIG.level
    assert fooled > 0.5 * REPLICATIONS


def test_a_planted_harmful_half_is_found_nearly_always() -> None:
    found = [simulated(seed, linear=False, harm=1.5)[0]["A", "B"].outcome for seed in range(40)]
    assert found.count("better") >= 36


def test_not_worse_is_claimed_falsely_at_most_at_its_level() -> None:
    """Worse by exactly the margin: the claim is then wrong, and made in 2.5 % at most."""
    trials = 400
    rng = np.random.default_rng(5)
    resampler = Resampler(np.arange(80), seeds=4, replicates=1000)
    claims = 0
    for _ in range(trials):
        shift = 0.1 * rng.normal()  # what other training samples would have given
        contributions = 0.05 + shift + 0.5 * rng.normal(size=(1, 80))
        halves = 0.05 + 0.1 * np.sqrt(2) * rng.normal(size=(1, 4, 2))
        loss = resampler.replicates(Trained(contributions, halves))[:, 0]
        claims += intervals.not_worse_p(loss, 0.05) <= 0.025
    assert 0 < claims <= most_alarms(trials, 0.025)
