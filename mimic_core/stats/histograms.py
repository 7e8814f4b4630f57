"""Counts of a column: equal-width bins of numbers, and how often each category occurs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mimic_core.base.errors import FilterError
from mimic_core.stats.numbers import Values, as_numbers


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts (K,) int64 of values between ``edges`` (K + 1,) float64, the last edge inclusive.

    Attributes:
        missing: Number of nulls, which are in no bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    missing: int


def histogram(values: Values, bins: int = 50) -> Histogram:
    """Equal-width histogram of a numeric or boolean column.

    Integers and booleans get bins that each cover the same number of integers, with edges halfway
    between two; a constant float column gets one bin; an empty one a single empty bin.

    Args:
        values: (N,), nulls allowed.
        bins: Largest number of bins.
    """
    if bins < 1:
        raise FilterError(
            "a histogram needs at least one bin", got=bins, next_step="ask for more bins"
        )
    series = as_numbers(values)
    present = series.drop_nulls()
    missing = len(series) - len(present)
    if present.is_empty():
        return Histogram(np.array([0.0, 1.0]), np.zeros(1, np.int64), missing)
    whole = series.dtype.is_integer() or series.dtype == pl.Boolean
    numbers = present.cast(pl.Float64).to_numpy()
    low, high = float(numbers.min()), float(numbers.max())
    edges = _integer_edges(low, high, bins) if whole else _float_edges(low, high, bins)
    return Histogram(edges, np.histogram(numbers, edges)[0].astype(np.int64), missing)


def _integer_edges(low: float, high: float, bins: int) -> np.ndarray:
    each = max(1, int(np.ceil((high - low + 1) / bins)))
    count = int(np.ceil((high - low + 1) / each))
    return low - 0.5 + each * np.arange(count + 1, dtype=np.float64)


def _float_edges(low: float, high: float, bins: int) -> np.ndarray:
    if low == high:
        half = max(abs(low) * 0.01, 0.5)
        return np.array([low - half, high + half])
    # Halves, so that the range of two numbers near the largest float does not overflow; unique,
    # because two neighbouring floats have no room for `bins` edges.
    edges = np.linspace(low / 2, high / 2, bins + 1) * 2
    edges[0], edges[-1] = low, high
    return np.unique(np.clip(edges, low, high))


def category_counts(values: pl.Series) -> pl.DataFrame:
    """Rows ``value``, ``count`` (uint32), largest first, ties by value; null counts as a value."""
    counted = values.alias("value").to_frame().group_by("value").agg(pl.len().alias("count"))
    return counted.sort("count", "value", descending=[True, False], nulls_last=True)
