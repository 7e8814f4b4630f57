"""The ensemble filter: the steps of a run vote on every sample, and the votes are put together.

``ensemble(history, config)`` turns scores into votes (``mimic_core.filters.ensembles.binarise``)
and votes into one decision and a confidence per sample. The words are those of
``mimic_core.filters.ensembles.config``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl

from mimic_core.base.errors import FilterError
from mimic_core.filters.ensembles.binarise import LOW_IS_GOOD, each_step, step_cutoffs, step_votes
from mimic_core.filters.ensembles.config import (
    AtLeast,
    EnsembleConfig,
    LabelModel,
    Majority,
    MeanRank,
    TopPercent,
    Unanimous,
)
from mimic_core.filters.ensembles.label_model import DawidSkene, dawid_skene
from mimic_core.runs.history import History, HistoryColumn
from mimic_core.stats.retention import QualityEstimate, resampled_interval

AnyAggregation = Majority | AtLeast | Unanimous | MeanRank | LabelModel
_REMEMBERED = 8  # ensembles of one history
_BLOCK = 1 << 16  # values that stay in the processor's cache while they are worked on
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, eq=False)
class Ensemble:
    """What the steps of a history decide together.

    Attributes:
        config: How it was made.
        uids: (N,) of the history, in its order.
        keep: (N,) bool.
        confidence: (N,) float32, belief from 0 to 1 that the sample belongs to the kept side:
            the share of keep votes; for the mean rank, that rank as a share of N (1 is best); for
            the label model, its posterior probability.
        votes: (S, N) bool, who was kept by each step.
        cutoffs: (S,) float32, from which score on each step keeps (up to which, for the loss).
        label_model: What the label model found, where it was used.
    """

    config: EnsembleConfig
    uids: pl.Series
    keep: np.ndarray
    confidence: np.ndarray
    votes: np.ndarray
    cutoffs: np.ndarray
    label_model: DawidSkene | None = field(default=None)

    @property
    def kept(self) -> int:
        """Number of samples kept."""
        return int(self.keep.sum())


def ensemble(history: History, config: EnsembleConfig) -> Ensemble:
    """Let the steps of ``history`` vote as ``config`` says.

    Raises:
        FilterError: More votes are asked for than there are steps.
        ScoreError: A label model was asked for with fewer than three steps.
        RunError: The history was read without the column that votes.
    """
    cutoffs = step_cutoffs(history, config.binarise)
    return _together(history, config, cutoffs, step_votes(history, config.binarise, cutoffs))


def _together(
    history: History, config: EnsembleConfig, cutoffs: np.ndarray, votes: np.ndarray
) -> Ensemble:
    """What is made of votes (S, N) that were cast by the cutoffs (S,)."""
    fitted = None
    match config.aggregate:
        case LabelModel():
            fitted = dawid_skene(votes)
            keep, confidence = fitted.belief > 0.5, fitted.belief
        case MeanRank():
            keep, confidence = _mean_rank(history, config.binarise.column, votes)
        case _:
            count = votes.sum(axis=0, dtype=np.min_scalar_type(len(votes)))
            keep = count >= _votes_needed(config.aggregate, len(votes))
            confidence = (np.arange(len(votes) + 1, dtype=np.float32) / len(votes))[count]
    return Ensemble(config, history.uids, keep, confidence, votes, cutoffs, fitted)


_made: WeakKeyDictionary[History, dict[EnsembleConfig, Ensemble]] = WeakKeyDictionary()


def ensemble_of(history: History, config: EnsembleConfig) -> Ensemble:
    """``ensemble``, but remembered while the history is in memory (the last few of each).

    Cutoffs are most of the work, so votes that another ensemble has cast alike are taken from it.
    """
    made = _made.setdefault(history, {})
    found = made.pop(config, None)
    if found is None:
        alike = [one for one in made.values() if one.config.binarise == config.binarise]
        found = (
            _together(history, config, alike[-1].cutoffs, alike[-1].votes)
            if alike
            else ensemble(history, config)
        )
    made[config] = found  # the last used comes last
    while len(made) > _REMEMBERED:
        made.pop(next(iter(made)))
    return found


def _votes_needed(aggregate: Majority | AtLeast | Unanimous, steps: int) -> int:
    match aggregate:
        case Majority():
            return steps // 2 + 1
        case Unanimous():
            return steps
    if aggregate.votes > steps:
        raise FilterError(
            "an ensemble asks for more votes than the run has steps",
            got=aggregate.votes,
            allowed=f"1 to {steps}",
            next_step="ask for fewer votes, or score with more epochs",
        )
    return aggregate.votes


def _mean_rank(
    history: History, column: HistoryColumn, votes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Who is kept by mean rank, and the mean rank as a share of N."""
    steps, size = votes.shape
    sign = np.float32(-1 if column in LOW_IS_GOOD else 1)
    rows = list(history.values(column))
    doubled = np.zeros(size, np.uint64)
    for ranks in each_step(lambda row: _doubled_ranks(sign * row), rows):
        doubled += ranks
    kept = (2 * int(votes.sum()) + steps) // (2 * steps)  # the mean number kept, rounded
    confidence = ((doubled / (2 * steps) - 0.5) / max(size, 1)).astype(np.float32)
    keep = np.zeros(size, bool)
    if kept:
        edge = np.partition(doubled, size - kept)[size - kept]
        keep = doubled > edge
        ties = np.flatnonzero(doubled == edge)
        by_uid = history.uids.gather(ties).arg_sort().to_numpy()
        keep[ties[by_uid[: kept - int(keep.sum())]]] = True
    return keep, confidence


def _doubled_ranks(values: np.ndarray) -> np.ndarray:
    """Twice the rank (N,) uint64 of each value, from 1 at the lowest; equal values share the mean.

    Sorts value and position as one 64-bit number, then position and rank: two direct sorts are
    11 times as fast as ``scipy.stats.rankdata`` (``bench/handwritten.py``), whose indirect sort
    writes all over the memory.
    """
    size = len(values)
    packed = np.empty(size, np.uint64)
    for start in range(0, size, _BLOCK):
        bits = (values[start : start + _BLOCK] + np.float32(0)).view(np.int32)  # no -0.0
        part = packed[start : start + _BLOCK]
        # Unsigned numbers in the order of the values: negative ones have all bits turned.
        part[:] = (bits ^ ((bits >> 31) | np.int32(-(2**31)))).view(np.uint32)
        part <<= _HALF
        part |= np.arange(start, start + len(part), dtype=np.uint64)
    packed.sort()
    start = 0
    while start < size:
        end = min(start + _BLOCK, size)  # then to the end of its last run of equal values
        end = int(np.searchsorted(packed, packed[end - 1] | _LOW, side="right"))
        part = packed[start:end]
        value = part >> _HALF
        runs = np.concatenate([[0], np.flatnonzero(value[1:] != value[:-1]) + 1, [end - start]])
        doubled = (runs[:-1] + runs[1:] + (2 * start + 1)).astype(np.uint64)
        part <<= _HALF
        part |= np.repeat(doubled, np.diff(runs))
        start = end
    packed.sort()
    packed &= _LOW
    return packed


def share_is_fixed(config: EnsembleConfig, steps: int) -> bool:
    """Whether the ensemble keeps the share that it was told to keep, whatever the pool.

    Such a share says nothing about a pool and has no interval.
    """
    asked = isinstance(config.binarise, TopPercent)
    return asked and (steps == 1 or isinstance(config.aggregate, MeanRank))


def refitted_retention(
    history: History,
    config: EnsembleConfig,
    *,
    level: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> QualityEstimate:
    """The retained fraction of an ensemble that is fitted anew on every resampled pool.

    Costs ``resamples`` times as much as the ensemble. Cutoffs move with the draw, so the interval
    is usually a little wider than that of ``quality_estimate``. Where ``share_is_fixed`` only ties
    between copies of a sample move it, and it means nothing.
    """
    whole = ensemble(history, config)
    random = np.random.default_rng(seed)
    draws = np.empty(resamples)
    values = history.values(config.binarise.column)
    for draw in range(resamples):
        rows = random.integers(0, history.samples, history.samples)
        drawn: dict[str, Any] = {config.binarise.column: values[:, rows]}
        again = ensemble(replace(history, uids=history.uids.gather(rows), **drawn), config)
        draws[draw] = again.kept / history.samples
    low, high = resampled_interval(draws, level)
    return QualityEstimate(whole.kept / history.samples, low, high, level, resamples, refitted=True)
