"""How small a difference a proof finds, and how many seeds find one of a stated size.

The error of a difference has two parts (``mimic_core.proofs.intervals``): h over other held-out
samples, and t over other training samples, starts and orders. More seeds make neither smaller: t
is how much the result would differ on other samples, and a seed trains on the same ones again.
What they add is knowledge of t, a degree of freedom each, so that a smaller multiple of the error
is enough. Three seeds need many errors, a thousand come close to ``limit``; what is smaller than
that is found by no number of them.

A proof compares the difference with the spread of ``h Z + t' T``, where Z is normal, T follows the
t distribution of s seeds, and ``t'² = t² X / s`` is what s seeds have measured, X chi-squared. T is
``Z / sqrt(X / s)`` itself, so that both the critical values and the chance to pass them are means
over chi-squared numbers, taken here as sums over nodes. Where h is zero that is the noncentral t
distribution. ``tests/core/proofs/test_power.py`` holds it against that and simulated proofs.

Letters: K nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from mimic_core.proofs.record import Power, Proof
from mimic_core.proofs.settings import MAX_SEEDS, MIN_SEEDS

POWER = 0.8
"""Share of such proofs that are to find the difference."""
_CONFIDENCE = 0.8  # of the range of seeds
_NODES, _OUTSIDE = 64, 1e-8  # nodes of a mean, and what of the distribution they leave out
_HALVINGS = 26  # of an interval, until seven digits of a critical value are known
_CURVE_QUARTERS = (1, 2, 3, 4)


def chance(
    difference: float, held_out_error: float, training_error: float, *, seeds: int, level: float
) -> float:
    """How often a proof tells two arms apart that differ by ``difference``.

    Args:
        difference: Of the held-out loss, in its own unit, as the errors are.
        held_out_error, training_error: Standard errors, not both zero.
        level: Of the two-sided test, after the correction for other comparisons.
    """
    from scipy.special import ndtr

    total = float(np.hypot(held_out_error, training_error))
    weights, critical = _critical_values(
        held_out_error / total, training_error / total, seeds=seeds, level=level
    )
    shift = abs(difference) / total
    return float(weights @ (ndtr(shift - critical) + ndtr(-shift - critical)))


def detectable(held_out_error: float, training_error: float, *, seeds: int, level: float) -> float:
    """The smallest difference that is found in ``POWER`` of such proofs."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    total = float(np.hypot(held_out_error, training_error))
    weights, critical = _critical_values(
        held_out_error / total, training_error / total, seeds=seeds, level=level
    )

    def missed(shift: float) -> float:
        return float(weights @ (ndtr(shift - critical) + ndtr(-shift - critical))) - POWER

    # Beyond the largest critical value by 10 standard errors, nothing is missed.
    return total * float(brentq(missed, 0.0, critical.max() + 10, xtol=1e-12))


def _critical_values(
    held_out_error: float, training_error: float, *, seeds: int, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K,) of what the seeds may measure, and the critical value (K,) that each leads to.

    ``h Z + t' T`` is normal where the number X under T is known, with the variance
    ``h² + t² x / X``, x being the number under ``t'``: its tails are means over X.
    """
    from scipy.special import ndtr

    numbers, weights = _chi_squared(seeds)
    spread = np.sqrt(held_out_error**2 + training_error**2 * numbers[:, None] / numbers)
    low, high = np.zeros(len(numbers)), np.full(len(numbers), 1.0)
    while (beyond := 2 * ndtr(-high[:, None] / spread) @ weights > level).any():
        low, high = np.where(beyond, high, low), np.where(beyond, 2 * high, high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        beyond = 2 * ndtr(-middle[:, None] / spread) @ weights > level
        low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    return weights, (low + high) / 2


@lru_cache(maxsize=1024)
def _chi_squared(freedom: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (K,) for means over chi-squared numbers, equally far apart in logarithm."""
    from scipy.stats import chi2

    low, high = chi2.ppf(_OUTSIDE, freedom), chi2.isf(_OUTSIDE, freedom)
    numbers = np.geomspace(low, high, _NODES)
    weights = chi2.pdf(numbers, freedom) * numbers
    return numbers, weights / weights.sum()


def limit(held_out_error: float, training_error: float, *, level: float) -> float:
    """The difference below which no number of seeds finds one in ``POWER`` of the proofs."""
    from scipy.stats import norm

    return float(
        (norm.isf(level / 2) + norm.isf(1 - POWER)) * np.hypot(held_out_error, training_error)
    )


def seeds_needed(
    difference: float, held_out_error: float, training_error: float, *, level: float
) -> int | None:
    """The fewest seeds that find ``difference``; None where ``MAX_SEEDS`` do not."""
    if difference < limit(held_out_error, training_error, level=level):
        return None

    def enough(seeds: int) -> bool:
        found = chance(difference, held_out_error, training_error, seeds=seeds, level=level)
        return found >= POWER

    return _first(enough, MIN_SEEDS, MAX_SEEDS)


def planned(
    difference: float,
    held_out_error: float,
    training_error: float,
    *,
    seeds: int,
    level: float,
    groups: int,
) -> Power | None:
    """What a comparison of these errors could find; None where both are zero.

    Args:
        difference: The one that is asked for.
        seeds: Of the proof that measured the errors.
        level: After the correction, of the two-sided test.
        groups: Held-out samples of the proof, duplicates as one.
    """
    if held_out_error == training_error == 0:
        return None  # the arms train on the same samples
    least, most = (
        seeds_needed(difference, held_out_error, factor * training_error, level=level)
        for factor in _error_range(seeds)
    )
    return Power(
        held_out_error=held_out_error,
        training_error=training_error,
        level=level,
        detectable=detectable(held_out_error, training_error, seeds=seeds, level=level),
        limit=limit(held_out_error, training_error, level=level),
        difference=difference,
        seeds=seeds_needed(difference, held_out_error, training_error, level=level),
        seeds_least=least,
        seeds_most=most,
        judging=_judging(difference, held_out_error, training_error, level=level, groups=groups),
    )


def replanned(proof: Proof, detect: float | None) -> Proof:
    """The same proof, asked how many seeds find a difference of ``detect``; None: the margin."""
    config = proof.config.model_copy(update={"detect": detect})
    comparisons = []
    for one in proof.comparisons:
        if one.power is None:
            comparisons.append(one)
            continue
        loss = next(iter(proof.arm(one.second).metrics.values()))
        power = planned(
            asked_difference(config.detect, config.margin, loss.value),
            one.power.held_out_error,
            one.power.training_error,
            seeds=config.seeds,
            level=one.power.level,
            groups=proof.held_out.groups,
        )
        comparisons.append(one.model_copy(update={"power": power}))
    return proof.model_copy(update={"config": config, "comparisons": tuple(comparisons)})


def asked_difference(detect: float | None, margin: float, other: float) -> float:
    """What matters: ``detect``, or the margin's share of the ``other`` arm's loss."""
    return detect if detect is not None else margin * (abs(other) or 1.0)


def curve_steps(steps: int) -> tuple[int, ...]:
    """After how many steps the held-out loss is looked at: each quarter of the training."""
    return tuple(sorted({-(-steps * quarter // 4) for quarter in _CURVE_QUARTERS}))


def suggested_steps(proof: Proof) -> int | None:
    """Twice the steps where the held-out loss of an arm still fell at the end; else None."""
    moves = last_moves(proof)
    falling = any(move < -proof.config.margin for move in moves.values())
    return 2 * proof.config.steps if falling else None


def last_moves(proof: Proof) -> dict[str, float]:
    """By arm, how the held-out loss moved in the last quarter of the steps, as a share of itself;
    without arms whose course is not known.
    """
    moves = {}
    for arm in proof.arms:
        if len(arm.curve) > 1:
            (_, before), (_, after) = arm.curve[-2:]
            moves[arm.name] = (after - before) / (abs(before) or 1.0)
    return moves


def _error_range(seeds: int) -> tuple[float, float]:
    """What an error that ``seeds`` seeds have measured may be a multiple of, for certain enough."""
    from scipy.stats import chi2

    outside = (1 - _CONFIDENCE) / 2
    return (
        float(np.sqrt(seeds / chi2.isf(outside, seeds))),
        float(np.sqrt(seeds / chi2.ppf(outside, seeds))),
    )


def _judging(
    difference: float, held_out_error: float, training_error: float, *, level: float, groups: int
) -> int | None:
    """So many held-out samples bring the limit down to ``difference``; None where none do."""
    left = (difference / limit(1.0, 0.0, level=level)) ** 2 - training_error**2
    if left <= 0:
        return None
    return int(np.ceil(held_out_error**2 * groups / left))


def _first(fits: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest whole number from ``low`` to ``high`` that fits, where all larger ones do."""
    if not fits(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low
