"""The history of a run: every sample's scores at every step, as arrays of S steps by N samples.

Every sample has been visited exactly once in every step (``mimic_core.runs.scores``), so no array
here needs a mask or holds NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import polars as pl

from mimic_core.base.errors import RunError
from mimic_core.base.identity import rows_of
from mimic_core.runs import stored
from mimic_core.runs.run import Run
from mimic_core.runs.scores import EpochScores

HistoryColumn = Literal["mimic_score", "mimic_weight", "loss"]
HISTORY_COLUMNS: tuple[HistoryColumn, ...] = get_args(HistoryColumn)


@dataclass(frozen=True, eq=False)
class History:
    """Scores of N samples over S steps; S >= 1.

    Attributes:
        uids: (N,) which samples they are, each once.
        mimic_score, mimic_weight, loss: (S, N) float32, finite. A column that was not asked for
            (``run_history``) has shape (S, 0).
        epochs: (S,) numbers of the epochs or repeats, ascending.
        batch_size: Samples per batch B, so that 1/B is the neutral mimic weight.
    """

    uids: pl.Series
    mimic_score: np.ndarray
    mimic_weight: np.ndarray
    loss: np.ndarray
    epochs: tuple[int, ...]
    batch_size: int

    @property
    def steps(self) -> int:
        """Number of steps S."""
        return len(self.epochs)

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return len(self.uids)

    def values(self, column: HistoryColumn) -> np.ndarray:
        """One column, (S, N) float32.

        Raises:
            RunError: It was not read.
        """
        if column not in HISTORY_COLUMNS:
            raise RunError(
                "a history has no such column",
                got=column,
                allowed=", ".join(HISTORY_COLUMNS),
                next_step="choose one of these columns",
            )
        found: np.ndarray = getattr(self, column)
        if found.shape != (self.steps, self.samples):
            raise RunError(
                f"the history was read without the column {column}",
                got=f"shape {found.shape}",
                allowed=f"shape {(self.steps, self.samples)}",
                next_step="name that column when the history is read",
            )
        return found


def run_history(
    run: Run,
    columns: Sequence[HistoryColumn] = HISTORY_COLUMNS,
    *,
    uids: pl.Series | None = None,
) -> History:
    """The history of a finished run, in the order of its first epoch file.

    Args:
        run: The run.
        columns: What to read; at ten million samples and five epochs a column takes 0.2 GB.
        uids: As in ``history_of``.

    Raises:
        RunError: The run is not finished, a visit is missing or double, or a score is not finite.
    """
    with stored.intact(run.tables):
        return history_of(run.epoch_scores, run.record.batch_size, columns, uids=uids)


def history_of(
    scores: EpochScores | pl.DataFrame,
    batch_size: int,
    columns: Sequence[HistoryColumn] = HISTORY_COLUMNS,
    *,
    uids: pl.Series | None = None,
) -> History:
    """The history in scores, or in a long table of them, in their order.

    Args:
        scores: What has been scored.
        batch_size: Samples per batch.
        columns: What to read.
        uids: Of a table: if that is the same order, no second copy of them is held in memory.

    Raises:
        RunError: There is no row, a sample was not visited exactly once in every epoch, or a
            score is not finite.
    """
    scores = EpochScores.of(scores)
    arrays = {
        name: np.empty((len(scores.steps), scores.samples if name in columns else 0), np.float32)
        for name in HISTORY_COLUMNS
    }
    for rows, block in scores.blocks(list(columns)):
        for name in columns:
            arrays[name][:, rows] = block[name]
    return History(scores.uids(uids), epochs=scores.epochs, batch_size=batch_size, **arrays)


def in_order(history: History, uids: pl.Series) -> History:
    """The same history with its samples in the order of ``uids`` (N), such as those of a table.

    Raises:
        RunError: The two do not hold the same uids.
    """
    places = rows_of(history.uids, uids)
    if len(places) != history.samples or (places < 0).any():
        raise RunError(
            "the history and the table do not hold the same samples",
            got=f"{history.samples} and {len(uids)} samples",
            next_step="score the pool again: a part of the run was exchanged",
        )
    if (places == np.arange(len(places))).all():
        return history
    arrays = {name: getattr(history, name) for name in HISTORY_COLUMNS}
    read = {name: array[:, places] for name, array in arrays.items() if array.shape[1]}
    return replace(history, uids=uids, **read)
