"""One cutoff in three units: score, percentile and number of samples kept.

The three stay linked under ties: the number kept is always the number of values on the kept side
of the score, the score itself included, so equal values are kept or dropped together. The same
ranks decide percentile conditions (``mimic_core.filters.recipe``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from mimic_core.base.errors import FilterError

Keep = Literal["high", "low"]
_TOLERANCE = 1e-6  # in ranks: 100 * k / n * n / 100 may miss k by some 1e-7 at a billion rows


def rank_below(percent: float, count: int) -> int:
    """How many of ``count`` sorted values lie below the ``percent``-th percentile, rounded up."""
    return min(count, math.ceil(percent * count / 100 - _TOLERANCE))


def rank_up_to(percent: float, count: int) -> int:
    """How many of ``count`` sorted values lie in the lowest ``percent`` percent, rounded down."""
    return max(0, math.floor(percent * count / 100 + _TOLERANCE))


def sorted_values(values: pl.Series) -> np.ndarray:
    """The non-null values in ascending order, in their own dtype: sort once, cut often."""
    return values.drop_nulls().sort().to_numpy()


@dataclass(frozen=True, slots=True)
class Cutoff:
    """A cutoff on a sorted array.

    Attributes:
        score: Values >= score are kept (``keep`` "high") or values <= score (``keep`` "low").
        percentile: Share of the values below the kept ones ("high"), or kept ("low"), in percent:
            what a percentile condition takes as ``lower`` or ``upper`` to keep the same samples.
        kept: Number of values kept.
        total: Number of values.
        keep: Which side is kept.
    """

    score: float
    percentile: float
    kept: int
    total: int
    keep: Keep

    @classmethod
    def from_score(cls, values: np.ndarray, score: float, *, keep: Keep = "high") -> Cutoff:
        """The cutoff at ``score``, which is rounded to the dtype of ``values`` as filters do.

        Args:
            values: (N,) ascending, not empty, without NaN (``sorted_values``).
        """
        total = _count(values)
        exact = as_dtype(score, values.dtype)
        if keep == "high":
            below = int(np.searchsorted(values, exact, side="left"))
            return cls(float(exact), 100 * below / total, total - below, total, keep)
        kept = int(np.searchsorted(values, exact, side="right"))
        return cls(float(exact), 100 * kept / total, kept, total, keep)

    @classmethod
    def from_percentile(
        cls, values: np.ndarray, percentile: float, *, keep: Keep = "high"
    ) -> Cutoff:
        """The cutoff that drops the lowest, or keeps the lowest, ``percentile`` percent.

        With ties at the cutoff more than that share is kept.
        """
        if not 0 <= percentile <= 100:
            raise FilterError(
                "a percentile lies outside its range",
                got=percentile,
                allowed="0 to 100",
                next_step="give a percentage",
            )
        total = _count(values)
        if keep == "high":
            return cls.from_kept(values, total - rank_below(percentile, total), keep=keep)
        return cls.from_kept(values, rank_up_to(percentile, total), keep=keep)

    @classmethod
    def from_kept(cls, values: np.ndarray, kept: int, *, keep: Keep = "high") -> Cutoff:
        """The cutoff that keeps the best ``kept`` values, and those that tie with the last one."""
        total = _count(values)
        if not 0 <= kept <= total:
            raise FilterError(
                "there are not that many samples to keep",
                got=kept,
                allowed=f"0 to {total}",
                next_step="give a smaller number",
            )
        return cls.from_score(values, _score_keeping(values, kept, keep), keep=keep)


def as_dtype(score: float, dtype: np.dtype) -> np.floating | float:
    """``score`` as the number that comparisons with a column of ``dtype`` use.

    A float32 column is compared in float32, so that 0.28 typed by a person equals the 0.28 shown;
    every other column in float64.
    """
    if dtype != np.float32:
        return float(score)
    with np.errstate(over="ignore"):  # beyond float32 means beyond every value: infinity is right
        return np.float32(score)


def _count(values: np.ndarray) -> int:
    if not len(values):
        raise FilterError(
            "there is no value to cut",
            next_step="choose a column that has values",
        )
    return len(values)


def _score_keeping(values: np.ndarray, kept: int, keep: Keep) -> float:
    """The score of the last one kept; for none kept, the next number beyond all values."""
    floats = values if values.dtype == np.float32 else values.astype(np.float64)
    if keep == "high":
        return float(floats[-kept] if kept else np.nextafter(floats[-1], np.inf))
    return float(floats[kept - 1] if kept else np.nextafter(floats[0], -np.inf))
