"""The statistics of a proof: intervals and tests whose false alarms are at the stated level.

What could have come out otherwise, and how each part is measured (``docs/prove.md``):

- *Other held-out samples.* Contributions of held-out samples are resampled by groups of
  duplicates, paired over the arms.
- *Other training samples.* Two fixed subsets always differ a little, and enough held-out samples
  would show it although neither recipe is better. So every seed also trains each arm on two halves
  of its samples that share none. Half the difference of the halves varies as the result on all
  samples does from pool to pool; the root of its mean square over the seeds is the standard error,
  with one degree of freedom per seed.
- *Other initialisations and orders of the samples.* The halves have seeds of their own, so the
  same standard error holds this part too.

A replicate is the mean over resampled groups plus that standard error times a draw of the t
distribution.

Letters: A arms, M metrics, S seeds, H held-out samples, G groups, R replicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mimic_core.proofs.record import Interval, Outcome
from mimic_core.proofs.settings import ProveConfig

_BLOCK = 1000  # replicates drawn at a time
_RANDOM_KEY = 0x626F6F74


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What the trainings of one arm gave.

    Attributes:
        contributions: (M, H) float64, mean over the seeds of the trainings on all samples.
        halves: (M, S, 2) float64, metrics of the trainings on two halves.
        curve: After how many steps the loss was what, mean over the seeds of the trainings on all
            samples.
    """

    contributions: np.ndarray
    halves: np.ndarray
    curve: dict[int, float] = field(default_factory=dict)

    def minus(self, other: Trained) -> Trained:
        """The difference of two arms, sample by sample and half by half."""
        return Trained(self.contributions - other.contributions, self.halves - other.halves)

    @property
    def values(self) -> np.ndarray:
        """The metrics (M,)."""
        return np.asarray(self.contributions.mean(1))


class Resampler:
    """Replicates (R, M) of the metrics of an arm, or of a difference of two.

    All calls share their draws, so replicates of several arms belong together.

    Args:
        groups: (H,) int64, equal for samples that are drawn together.
        seeds: S.
        replicates: R.
    """

    def __init__(self, groups: np.ndarray, *, seeds: int, replicates: int) -> None:
        _, self._group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        self._sizes = sizes.astype(np.float64)
        rng = np.random.default_rng([_RANDOM_KEY, len(groups), seeds, replicates])
        count = len(sizes)
        even = np.full(count, 1 / count)
        self._counts = np.concatenate(
            [
                rng.multinomial(count, even, size=min(_BLOCK, replicates - start)).astype(np.uint8)
                for start in range(0, replicates, _BLOCK)
            ]
        )
        self._noise = rng.standard_t(seeds, size=replicates)

    def replicates(self, trained: Trained) -> np.ndarray:
        """Replicates (R, M) around ``trained.values``."""
        values = trained.values
        sums = np.stack(
            [np.bincount(self._group_of, row, len(self._sizes)) for row in trained.contributions]
        )
        spread = np.empty((len(self._counts), len(values)))
        for start in range(0, len(spread), _BLOCK):
            counts = self._counts[start : start + _BLOCK].astype(np.float64)
            drawn = (counts @ sums.T) / (counts @ self._sizes)[:, None]
            spread[start : start + _BLOCK] = drawn - values
        groups = len(self._sizes)
        # A bootstrap of G groups is too narrow by this factor.
        spread *= np.sqrt(groups / max(groups - 1, 1))
        return np.asarray(values + spread + self._noise[:, None] * training_error(trained))

    def held_out_errors(self, trained: Trained) -> np.ndarray:
        """Standard errors (M,) of the metrics over other held-out samples, groups drawn whole."""
        groups = len(self._sizes)
        off = trained.contributions - trained.values[:, None]
        sums = np.stack([np.bincount(self._group_of, row, groups) for row in off])
        scale = groups / max(groups - 1, 1) / self._sizes.sum() ** 2
        return np.asarray(np.sqrt((sums**2).sum(1) * scale))


def training_error(trained: Trained) -> np.ndarray:
    """Standard errors (M,) of the metrics over other training samples, starts and orders."""
    half_differences = (trained.halves[..., 0] - trained.halves[..., 1]) / 2
    return np.asarray(np.sqrt((half_differences**2).mean(-1)))


def intervals(replicates: np.ndarray, values: np.ndarray, level: float) -> list[Interval]:
    """Percentile intervals of the M metrics at ``1 - level``."""
    low, high = np.quantile(replicates, [level / 2, 1 - level / 2], axis=0)
    return [
        Interval(value=float(v), low=float(a), high=float(b))
        for v, a, b in zip(values, low, high, strict=True)
    ]


def two_sided_p(replicates: np.ndarray) -> float:
    """Chance of such a difference by accident, from replicates (R,); the level at which
    the interval just holds zero.
    """
    smaller = min(int((replicates <= 0).sum()), int((replicates >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (len(replicates) + 1))


def not_worse_p(replicates: np.ndarray, margin: float) -> float:
    """One-sided p of being worse by ``margin`` or more, from replicates (R,) of a loss."""
    return float(((replicates >= margin).sum() + 1) / (len(replicates) + 1))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the smallest of m p-values counts m times, and so on."""
    corrected = [0.0] * len(values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, min(1.0, (len(values) - place) * values[index]))
        corrected[index] = largest
    return corrected


def outcome(loss: Interval, p: float, p_not_worse: float, config: ProveConfig) -> Outcome:
    """What the corrected p-values allow to be said; a loss within the margin is "not worse"."""
    if p <= config.level and loss.value < 0:
        return "better"
    if p_not_worse <= config.level / 2:
        return "not_worse"
    return "worse" if p <= config.level else "open"
