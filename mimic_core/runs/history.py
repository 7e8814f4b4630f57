"""The history of a run: every sample's scores at every step, as arrays of S steps by N samples.

A step is an epoch of a probe or training run, or a repeat of a snapshot. Every sample has been
visited exactly once in every step: a history in which a visit is missing is refused, so no array
here needs a mask or holds NaN. Columns meet by uid; where every step lists the same uids in the
same order, which is verified (``mimic_core.base.identity``), they are stacked without a join.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import polars as pl

from mimic_core.base.errors import RunError
from mimic_core.base.identity import all_unique, files_agree, rows_of, same_order
from mimic_core.runs.run import Run

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


def run_history(run: Run, columns: Sequence[HistoryColumn] = HISTORY_COLUMNS) -> History:
    """The history of a finished run, in the order of its first epoch file.

    Args:
        run: The run.
        columns: What to read; at ten million samples and five epochs a column takes 0.2 GB.

    Raises:
        RunError: The run is not finished, a visit is missing or double, or a score is not finite.
    """
    paths = run.epoch_files()
    uids = pl.read_parquet(paths[0], columns=["uid"])["uid"]
    if all(files_agree(paths[0], path) for path in paths[1:]) and all_unique(uids):
        return _stack_files(paths, uids, columns, run.record.batch_size)
    return history_of(run.scores(), run.record.batch_size)


def history_of(scores: pl.DataFrame, batch_size: int) -> History:
    """The history in a long table (columns of ``SCORE_COLUMNS``), in order of first appearance.

    Raises:
        RunError: There is no row, a sample was not visited exactly once in every epoch, or a
            score is not finite.
    """
    if scores.is_empty():
        raise RunError("there are no scores", next_step="score the pool, then look at its history")
    parts = epoch_blocks(scores)
    if parts is None:
        parts = _joined(scores)
    epochs = [int(part["epoch"][0]) for part in parts]
    parts = [parts[place] for place in np.argsort(epochs)]
    arrays = {
        name: np.stack([part[name].cast(pl.Float32).to_numpy() for part in parts])
        for name in HISTORY_COLUMNS
    }
    return _checked(
        History(parts[0]["uid"], epochs=tuple(sorted(epochs)), batch_size=batch_size, **arrays)
    )


def epoch_blocks(scores: pl.DataFrame) -> list[pl.DataFrame] | None:
    """The epochs of a long table as slices, each with the same unique uids in the same order.

    Returns:
        None where the rows are not in such blocks: they must be joined.
    """
    changes = scores["epoch"].rle_id() if len(scores) else pl.Series([0])
    steps = int(changes[-1]) + 1
    rows = len(scores) // steps
    if rows * steps != len(scores) or scores["epoch"].n_unique() != steps or not rows:
        return None
    parts = [scores.slice(step * rows, rows) for step in range(steps)]
    uids = parts[0]["uid"]
    for part in parts:
        if part["epoch"][0] != part["epoch"][-1] or not same_order(uids, part["uid"]):
            return None
    return parts if all_unique(uids) else None


def _joined(scores: pl.DataFrame) -> list[pl.DataFrame]:
    """The epochs of a long table in any order, each brought into the order of first appearance."""
    uids = scores["uid"].unique(maintain_order=True)
    parts = []
    for epoch in scores["epoch"].unique().sort():
        part = scores.filter(pl.col("epoch") == epoch)
        rows = rows_of(part["uid"], uids)
        if (rows < 0).any() or len(part) != len(uids):
            raise RunError(
                f"epoch {epoch} did not visit every sample exactly once",
                got=_wrong_visit(part["uid"], uids, rows),
                allowed=f"one row for each of the {len(uids)} samples",
                next_step="score the pool again; a history with missing visits has no votes",
            )
        parts.append(part[rows])
    return parts


def _wrong_visit(visited: pl.Series, uids: pl.Series, rows: np.ndarray) -> str:
    missed = np.flatnonzero(rows < 0)
    if len(missed):
        return f"no row for uid {uids[int(missed[0])]}"
    return f"several rows for uid {visited.filter(visited.is_duplicated())[0]}"


def _stack_files(
    paths: list[Path], uids: pl.Series, columns: Sequence[HistoryColumn], batch_size: int
) -> History:
    """The columns of epoch files that list the same uids, stacked."""
    arrays = {name: np.empty((len(paths), 0), np.float32) for name in HISTORY_COLUMNS}
    for name in columns:
        arrays[name] = np.empty((len(paths), len(uids)), np.float32)
    epochs = []
    for step, path in enumerate(paths):
        part = pl.read_parquet(path, columns=["epoch", *columns])
        epochs.append(int(part["epoch"][0]))
        for name in columns:
            arrays[name][step] = part[name].to_numpy()
    return _checked(History(uids, epochs=tuple(epochs), batch_size=batch_size, **arrays))


def _checked(history: History) -> History:
    """The history, if all its numbers are finite."""
    for name in HISTORY_COLUMNS:
        values: np.ndarray = getattr(history, name)
        for step, row in enumerate(values):
            wrong = np.flatnonzero(~np.isfinite(row))
            if len(wrong):
                raise RunError(
                    f"column {name} of epoch {history.epochs[step]} holds a number that is not "
                    f"finite for uid {history.uids[int(wrong[0])]}",
                    got=float(row[wrong[0]]),
                    allowed="finite numbers",
                    next_step="score the pool again, with a higher precision or temperature",
                )
    return history


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
