"""How scores move over the steps: flips, bands, histograms of each step, and the binned heat map.

Everything on the Dynamics page, as plain functions of arrays (S, N): S steps (epochs of a probe,
repeats of a snapshot) by N samples, without NaN. Results are bounded by bins, steps and levels,
never by N, except where a function gives one number per sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import polars as pl

from mimic_core.base.errors import ScoreError
from mimic_core.stats.numbers import Values

Measure = Literal["mean", "last", "first", "change", "spread"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
BAND_LEVELS = (5.0, 25.0, 50.0, 75.0, 95.0)
_OUTSIDE = 0.1  # per cent at each end that a histogram's range may leave out


@dataclass(frozen=True, slots=True, eq=False)
class Bands:
    """Quantiles of the pool at each step: ``values`` (L, S) float64 for L ``levels`` in percent."""

    levels: tuple[float, ...]
    values: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class StepHistograms:
    """Counts (S, K) int64 of each step's values between ``edges`` (K + 1,), shared by all steps.

    Attributes:
        below, above: (S,) int64, values outside the edges, which are in no bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    below: np.ndarray
    above: np.ndarray

    @property
    def totals(self) -> np.ndarray:
        """All values of each step (S,) int64, those outside the edges included."""
        total: np.ndarray = self.counts.sum(axis=1) + self.below + self.above
        return total


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """Means over bins of samples and steps.

    Attributes:
        row_edges: (R + 1,) int64; bin r holds the ranks ``row_edges[r]`` up to, without,
            ``row_edges[r + 1]``.
        step_edges: (C + 1,) int64, the same for steps.
        means: (R, C) float64.
    """

    row_edges: np.ndarray
    step_edges: np.ndarray
    means: np.ndarray


def summarise(values: np.ndarray, how: Measure) -> np.ndarray:
    """One number per sample (N,) float64 from its values over the steps (S, N).

    ``change`` is last minus first; ``spread`` the standard deviation over the steps, dividing by S.
    """
    first: np.ndarray = values[0].astype(np.float64)
    last: np.ndarray = values[-1].astype(np.float64)
    if how in ("last", "first"):
        return last if how == "last" else first
    if how == "change":
        change: np.ndarray = last - first
        return change
    mean: np.ndarray = values.mean(axis=0, dtype=np.float64)
    if how == "mean":
        return mean
    squares = np.zeros_like(mean)
    for row in values:  # step by step: no second array of S times N float64
        squares += (row - mean) ** 2
    return np.sqrt(squares / len(values))


def flips(votes: np.ndarray) -> np.ndarray:
    """How often each sample's vote changed from one step to the next, (N,) int64, 0 to S - 1.

    Args:
        votes: (S, N) bool, whether a step would keep the sample.
    """
    changes: np.ndarray = (votes[1:] != votes[:-1]).sum(axis=0, dtype=np.int64)
    return changes


def undecided(votes: np.ndarray) -> np.ndarray:
    """How undecided each sample's votes (S, N) are, (N,) float64: the higher the more.

    The number of flips decides; among equals, a split nearer to half for and half against, which
    adds less than one.
    """
    steps = len(votes)
    in_favour = votes.sum(axis=0)
    minority = np.minimum(in_favour, steps - in_favour)
    return np.asarray(flips(votes) + minority / (steps + 1))


def quantile_bands(values: np.ndarray, levels: Sequence[float] = BAND_LEVELS) -> Bands:
    """Quantiles of values (S, N) at each step, linear between neighbours as ``numpy.quantile``."""
    found = [np.percentile(row, levels) for row in values]
    return Bands(tuple(levels), np.stack(found, axis=1).astype(np.float64))


def step_edges(values: np.ndarray, bins: int = 60, *, logarithmic: bool = False) -> np.ndarray:
    """Edges (K + 1,) float64 for histograms of values (S, N) that share an axis, K <= ``bins``.

    They span what all steps hold but for a thousandth at each end, so that a few extremes do not
    flatten the rest; equally wide, or equal ratios if ``logarithmic``. Constant values get one bin.

    Raises:
        ScoreError: There are no values, or ``logarithmic`` and none is above 0.
    """
    known = values[values > 0] if logarithmic else values
    if not known.size or bins < 1:
        raise ScoreError(
            "there is nothing to draw a histogram of",
            got=f"{known.size} values in {bins} bins",
            allowed="at least one value (above 0 on a logarithmic axis) and one bin",
            next_step="choose another column",
        )
    ends = [
        np.percentile(row, [_OUTSIDE, 100 - _OUTSIDE])
        for row in _rows(values, positive=logarithmic)
    ]
    low = float(min(end[0] for end in ends))
    high = float(max(end[1] for end in ends))
    if low == high:
        half = abs(low) * 0.01 or 0.5
        return np.array([low - half, high + half])
    spaced = np.geomspace if logarithmic else np.linspace
    edges: np.ndarray = spaced(low, high, bins + 1)
    edges[0], edges[-1] = low, high
    return np.unique(edges)


def _rows(values: np.ndarray, *, positive: bool) -> list[np.ndarray]:
    rows = [row[row > 0] if positive else row for row in values]
    return [row for row in rows if len(row)]


def step_histograms(
    values: np.ndarray, edges: np.ndarray, *, among: np.ndarray | None = None
) -> StepHistograms:
    """Histograms of each step's values (S, N) over shared ``edges`` (K + 1,), the last inclusive.

    Args:
        among: Which samples count, bool (N,); None for all.
    """
    counts, below, above = [], [], []
    for row in values:
        here = (row if among is None else row[among]).astype(np.float64)
        counts.append(np.histogram(here, edges)[0])
        below.append(np.count_nonzero(here < edges[0]))
        above.append(np.count_nonzero(here > edges[-1]))
    return StepHistograms(
        edges, np.stack(counts).astype(np.int64), np.array(below), np.array(above)
    )


def densities(histograms: StepHistograms, *, logarithmic: bool = False) -> np.ndarray:
    """Counts as densities (S, K) float64: the area of each step is its share inside the edges.

    On a ``logarithmic`` axis they are per factor of ten.
    """
    width = np.diff(np.log10(histograms.edges) if logarithmic else histograms.edges)
    totals = np.maximum(histograms.totals, 1)[:, None]
    density: np.ndarray = histograms.counts / totals / width
    return density


def bin_edges(total: int, most: int) -> np.ndarray:
    """Edges (K + 1,) int64 that cut ``total`` ranks into K <= ``most`` bins of nearly equal size.

    No bin is empty, and with at most ``most`` ranks each has its own.
    """
    count = min(total, most)
    return np.arange(count + 1, dtype=np.int64) * total // max(count, 1)


def heat_map(
    values: np.ndarray, rows: np.ndarray, *, most_rows: int, most_steps: int = 200
) -> HeatMap:
    """Values (S, N) of the samples ``rows`` (M,), in that order, as means over bins.

    Args:
        values: Numbers, or votes (bool), whose mean is the share in favour.
        rows: Positions of samples, int64.
        most_rows, most_steps: Largest number of bins each way; a bin holds one sample (one step)
            as long as there are not more than that.
    """
    row_edges, column_edges = bin_edges(len(rows), most_rows), bin_edges(len(values), most_steps)
    means = np.zeros((len(row_edges) - 1, len(column_edges) - 1))
    for column, start in enumerate(column_edges[:-1]):
        end = column_edges[column + 1]
        for step in values[start:end]:
            means[:, column] += bin_means(step, rows, row_edges)
        means[:, column] /= end - start
    return HeatMap(row_edges, column_edges, means)


def bin_means(values: np.ndarray, rows: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Means (R,) float64 of ``values`` (N,) over the bins of ``rows`` (M,) between ``edges``."""
    if not len(rows):
        return np.zeros(0)
    sums = np.add.reduceat(values[rows].astype(np.float64), edges[:-1])
    return sums / np.diff(edges)


def ascending(values: Values, by_uid: np.ndarray) -> np.ndarray:
    """Positions (M,) int64 of the samples that have a value, lowest first, ties by uid.

    Args:
        values: (N,) numbers without NaN, nulls allowed.
        by_uid: Positions (N,) in the order of their uids: sorted once, it breaks every tie.
    """
    column = pl.Series(values)
    if column.null_count():
        by_uid = by_uid[column.is_not_null().to_numpy()[by_uid]]
    numbers = column.fill_null(0).to_numpy()
    order: np.ndarray = by_uid[np.argsort(numbers[by_uid], kind="stable")]
    return order
