"""What is retained: over all cutoffs of a column, and as an estimate of a pool's quality.

The retained fraction of an ensemble filter falls with the share of noise in a pool, so it serves to
compare pools. Its interval is a bootstrap's: drawing N samples with replacement and counting those
that are kept gives exactly Binomial(N, p)/N for the fraction p, so that is drawn, and no sample is
touched. It holds the filter fixed; ``refitted_retention`` also fits the filter anew in every draw.

Where a filter keeps nothing, or everything, every draw does too, which would claim to be certain
after five samples. The open end there is the exact binomial one (Clopper and Pearson): the share at
which so extreme a count is just as likely as the level allows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mimic_core.base.errors import FilterError
from mimic_core.stats.cutoffs import Keep
from mimic_core.stats.numbers import as_numbers, known_truth

CURVE_POINTS = 200


@dataclass(frozen=True, slots=True, eq=False)
class RetentionCurve:
    """What is retained at each of M cutoffs on one column.

    Attributes:
        cutoffs: (M,) ascending; values equal to the cutoff are kept.
        retained: (M,) share of all N samples; one without a value is never kept.
        precision: (M,) share of the dropped that is noisy, NaN where nothing is dropped; None
            without a truth.
        recall: (M,) share of the noisy that is dropped, NaN where nothing is noisy; None without
            a truth.
        keep: Which side is kept.
    """

    cutoffs: np.ndarray
    retained: np.ndarray
    precision: np.ndarray | None
    recall: np.ndarray | None
    keep: Keep


def retention_curve(
    values: pl.Series,
    truth: pl.Series | None = None,
    *,
    keep: Keep = "high",
    points: int = CURVE_POINTS,
) -> RetentionCurve:
    """The curve of ``values`` (N,) at cutoffs evenly spread over the samples, both ends among them.

    Args:
        values: Numbers, nulls allowed.
        truth: True where a sample is known to be noisy (N,).
        keep: ``high`` keeps what is at least the cutoff, ``low`` what is at most.
        points: Largest number of cutoffs.
    """
    series = as_numbers(values)
    present = series.is_not_null().to_numpy()
    filled = series.fill_null(0 if series.dtype != pl.Boolean else False)
    numbers = filled.cast(series.dtype if series.dtype.is_float() else pl.Float64).to_numpy()
    ordered = np.sort(numbers if present.all() else numbers[present])
    ranks = np.linspace(0, max(len(ordered) - 1, 0), min(points, len(ordered)))
    cutoffs = np.unique(ordered[ranks.round().astype(np.int64)]) if len(ordered) else ordered
    retained = _kept_at(ordered, cutoffs, keep) / max(len(series), 1)
    if truth is None:
        return RetentionCurve(cutoffs, retained, None, None, keep)
    sides = known_truth(truth)
    noisy, clean = (
        side.sum() - _kept_at(np.sort(numbers[side & present]), cutoffs, keep) for side in sides
    )
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN is the documented answer
        precision = noisy / (noisy + clean)
        recall = noisy / np.float64(sides[0].sum())
    return RetentionCurve(cutoffs, retained, precision, recall, keep)


def _kept_at(ordered: np.ndarray, cutoffs: np.ndarray, keep: Keep) -> np.ndarray:
    """How many of ascending values each cutoff keeps, (M,) int64."""
    if keep == "high":
        return np.asarray(len(ordered) - np.searchsorted(ordered, cutoffs, side="left"))
    return np.asarray(np.searchsorted(ordered, cutoffs, side="right"))


@dataclass(frozen=True, slots=True)
class QualityEstimate:
    """The retained fraction of a pool and its bootstrap interval.

    Attributes:
        retained: Kept over total.
        low, high: The interval that holds ``level`` of the resampled fractions; where nothing or
            everything is kept, one end is exact instead (see above).
        level: Such as 0.95.
        resamples: Number of bootstrap draws.
        refitted: Whether the filter was fitted anew in each draw.
    """

    retained: float
    low: float
    high: float
    level: float
    resamples: int
    refitted: bool


def quality_estimate(
    kept: int, total: int, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> QualityEstimate:
    """The retained fraction ``kept / total`` with the bootstrap interval of a fixed filter.

    The same numbers for the same seed. It is for filters that could keep more or less; a share that
    was asked for does not vary (``share_is_fixed``).

    Raises:
        FilterError: There is nothing to estimate from, or ``level`` is no share.
    """
    if not 0 <= kept <= total or total < 1:
        raise FilterError(
            "a retained fraction needs samples",
            got=f"{kept} kept of {total}",
            allowed="0 <= kept <= total, total at least 1",
            next_step="apply the filter to a pool that holds samples",
        )
    draws = np.random.default_rng(seed).binomial(total, kept / total, resamples) / total
    low, high = resampled_interval(draws, level)
    if kept in (0, total):
        reach = ((1 - level) / 2) ** (1 / total)
        low, high = (0.0, 1 - reach) if kept == 0 else (reach, 1.0)
    return QualityEstimate(kept / total, low, high, level, resamples, refitted=False)


def resampled_interval(draws: np.ndarray, level: float) -> tuple[float, float]:
    """The ends between which the share ``level`` of the resampled fractions (R,) lies."""
    if not 0 < level < 1:
        raise FilterError(
            "the level of an interval is a share",
            got=level,
            allowed="above 0 and below 1",
            next_step="give a level such as 0.95",
        )
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
