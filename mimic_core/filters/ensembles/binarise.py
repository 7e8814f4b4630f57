"""From scores to votes: for each step a cutoff, and who lies on its better side.

Votes are always ``values >= cutoff`` (``<=`` for the loss) in float32, whatever found the cutoff:
with fixed cutoffs a better score never loses a vote, and the cutoffs alone repeat the votes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from mimic_core.filters.ensembles.config import GaussianMixture, KMeans, Threshold, TopPercent
from mimic_core.filters.ensembles.splits import kmeans_cut, mixture_cut, top_cut
from mimic_core.runs.history import History
from mimic_core.stats.cutoffs import as_dtype

AnyBinarisation = Threshold | KMeans | GaussianMixture | TopPercent
LOW_IS_GOOD = frozenset({"loss"})
_MOST_THREADS = 4  # each holds a sorted copy of its step
T = TypeVar("T")


def each_step(work: Callable[[np.ndarray], T], rows: list[np.ndarray]) -> Iterator[T]:
    """``work`` on every row, a few at a time: numpy sorts outside Python's lock."""
    threads = max(1, min(_MOST_THREADS, os.cpu_count() or 1, len(rows)))
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(rows), threads):
            yield from pool.map(work, rows[start : start + threads])


def step_cutoffs(history: History, config: AnyBinarisation) -> np.ndarray:
    """The cutoff of every step (S,) float32, in the units of the column; infinite to keep none.

    A step whose values are all equal separates nothing, and k-means and the mixture keep it whole.

    Raises:
        RunError: The history was read without that column.
    """
    values = history.values(config.column)
    if isinstance(config, Threshold):
        neutral = (config.factor or 1.0) / history.batch_size
        cutoff = neutral if config.value is None else config.value
        return np.full(history.steps, as_dtype(cutoff, values.dtype), np.float32)
    if not history.samples:
        return np.full(history.steps, np.nan, np.float32)
    sign = np.float32(-1 if config.column in LOW_IS_GOOD else 1)
    rows = [values.reshape(-1)] if config.scope == "all" else list(values)
    cutoffs = list(each_step(lambda row: sign * _cut(sign * row, config), rows))
    found = np.array(cutoffs, np.float32)
    return np.broadcast_to(found, history.steps).copy()


def step_votes(history: History, config: AnyBinarisation, cutoffs: np.ndarray) -> np.ndarray:
    """Which samples each step keeps, (S, N) bool, given the cutoffs (S,)."""
    values = history.values(config.column)
    if config.column in LOW_IS_GOOD:
        return np.asarray(values <= cutoffs[:, None])
    return np.asarray(values >= cutoffs[:, None])


def _cut(values: np.ndarray, config: KMeans | GaussianMixture | TopPercent) -> np.float32:
    """The cutoff of values (N,) of which the high ones are good."""
    match config:
        case TopPercent():
            return top_cut(values, config.percent)
        case KMeans():
            return kmeans_cut(np.sort(values))
        case GaussianMixture():
            return mixture_cut(np.sort(values))
