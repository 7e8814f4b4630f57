"""How often each uid is written for DataComp: counts from a column, or a soft cap on a score.

A soft cap gives away a fixed number of places one by one. Each goes to the sample whose score, less
a penalty for every place that it has already, is the highest: good samples are repeated, the better
the oftener, and none without end. It is Soft Cap Sampling (M-FLYT, NeurIPS 2025) without its
chance, so that equal settings give equal files.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from mimic_core.base.errors import ExportError, no_such_column
from mimic_core.export.settings import ExportConfig

_MOST = 1 << 31  # places; a file of 32 GiB
_HALVINGS = 200


def repeats_of(rows: pl.DataFrame, config: ExportConfig) -> np.ndarray | None:
    """How often each of ``rows`` (N), in the order of their uids, is written: (N,) int64.

    None where every one is written once.

    Raises:
        ExportError: The column is missing, has a row without a value, or holds no counts.
    """
    if config.repeats is None:
        return None
    if config.repeats not in rows.columns:
        raise ExportError(*_parts(config.repeats, rows), next_step="choose one of its columns")
    column = rows[config.repeats]
    if not column.dtype.is_numeric():
        raise ExportError(
            "repeats are numbers",
            got=f"{config.repeats} of type {column.dtype}",
            next_step="choose a column of numbers",
        )
    if column.null_count():
        uid = rows["uid"].filter(column.is_null())[0]
        raise ExportError(
            f"{column.null_count()} of the kept samples have no value in {config.repeats}",
            got=f"null for uid {uid}",
            next_step="select those that have one (a condition on that column), or fill them",
        )
    if config.repeats_total is not None and config.repeats_penalty is not None:
        scores = column.cast(pl.Float64).to_numpy()
        return soft_cap(scores, total=config.repeats_total, penalty=config.repeats_penalty)
    return _counts(column, rows)


def _parts(name: str, rows: pl.DataFrame) -> tuple[str]:
    return (f"{no_such_column(name, rows.columns).problem}: {name}",)


def _counts(column: pl.Series, rows: pl.DataFrame) -> np.ndarray:
    numbers = column.cast(pl.Float64)
    wrong = (numbers < 0) | (numbers != numbers.floor())
    if wrong.any() or (len(numbers) and float(numbers.sum()) > _MOST):
        first = wrong.arg_max() if wrong.any() else numbers.arg_max()
        raise ExportError(
            "repeats are whole numbers, none below 0, some two billion altogether at most",
            got=f"{column[first]} for uid {rows['uid'][first]}" if first is not None else None,
            next_step="choose a column of counts; with a total and a penalty it may be a score",
        )
    return np.asarray(numbers.to_numpy(), np.int64)


def soft_cap(scores: np.ndarray, *, total: int, penalty: float) -> np.ndarray:
    """Places (N,) int64 that add up to ``total``; scores (N,) are in the order of the uids.

    The places that a sample with score s may get are worth s, s - penalty, s - 2 penalty, …; of all
    samples' places the ``total`` most valuable ones are given, of equal ones those of the first
    uids.

    Raises:
        ExportError: There is no sample to give places to, or more places than can be written.
    """
    if len(scores) == 0 or total > _MOST:
        raise ExportError(
            "the places cannot be given away",
            got=f"{total} places for {len(scores)} samples",
            allowed=f"at least one sample, at most {_MOST} places",
            next_step="keep some samples, or lower the total",
        )
    steps = (scores - scores.max()) / penalty  # places are worth steps, steps - 1, ...

    def given(worth: float) -> np.ndarray:
        """Places that are worth ``worth`` or more."""
        return np.asarray(np.maximum(0, np.floor(steps - worth) + 1))

    low, high = -float(total), 1.0  # the best sample alone has ``total`` places above ``low``
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if given(middle).sum() >= total else (low, middle)
    places = given(low).astype(np.int64)
    # Of the places that are worth just ``low``, up to rounding, those of the last uids go.
    surplus = int(places.sum()) - total
    last = np.where(places > 0, steps - (places - 1), np.inf)
    places[np.lexsort((-np.arange(len(places)), last))[:surplus]] -= 1
    return places
