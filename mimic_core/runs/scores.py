"""The scores of a run, epoch by epoch: the one reader that means and history are made from.

A step is an epoch of a probe or training run, or a repeat of a snapshot. Every sample is visited
exactly once in every step: scores in which a visit is missing or double are refused, so nothing
behind this door needs a mask. Steps meet by uid; where all list the same uids in the same order,
which is verified (``mimic_core.base.identity``), their columns are stacked without a join.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from mimic_core.base.errors import RunError
from mimic_core.base.identity import all_unique, file_holds, files_agree, rows_of, same_order
from mimic_core.base.schema import ROW_GROUP_ROWS

_AT_ONCE = 1 << 22  # numbers of a column in memory, unless a row group of every step has more


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """The rows (N) of one epoch, in memory or in a file."""

    epoch: int
    rows: pl.DataFrame | Path

    @property
    def table(self) -> pl.LazyFrame:
        """The rows, of which a query reads only what it asks for."""
        return pl.scan_parquet(self.rows) if isinstance(self.rows, Path) else self.rows.lazy()

    def lists(self, uids: pl.Series) -> bool:
        """Whether the column ``uid`` is ``uids``; a file is read part by part."""
        if isinstance(self.rows, Path):
            return file_holds(self.rows, uids)
        return same_order(self.rows["uid"], uids)

    def lists_as(self, other: _Step) -> bool:
        """Whether the columns ``uid`` of both are equal; of files the stored bytes are compared."""
        if isinstance(self.rows, Path) and isinstance(other.rows, Path):
            return self.rows == other.rows or files_agree(self.rows, other.rows)
        return self.lists(_uids(other.table))


@dataclass(frozen=True, eq=False)
class EpochScores:
    """Scores of N samples over S steps, S >= 1, of which nothing is read until it is asked for.

    Attributes:
        samples: N.
        steps: By ascending epoch.
        listed: The rows in whose order of uids everything is handed out.
    """

    samples: int
    steps: tuple[_Step, ...]
    listed: _Step

    @classmethod
    def of_files(cls, paths: Sequence[Path]) -> EpochScores:
        """The scores in files of one epoch each, in the order of the first file."""
        steps = [_Step(_epoch_of(path), path) for path in paths]
        samples = steps[0].table.select(pl.len()).collect().item()
        return cls(samples, _ascending(steps), steps[0])

    @classmethod
    def of(cls, scores: EpochScores | pl.DataFrame) -> EpochScores:
        """The scores in a long table (columns of ``SCORE_COLUMNS``), in order of first appearance;
        scores that are such already stay as they are.

        Raises:
            RunError: There is no row.
        """
        if isinstance(scores, EpochScores):
            return scores
        if scores.is_empty():
            raise RunError(
                "there are no scores", next_step="score the pool, then look at its history"
            )
        blocks = scores["epoch"].rle().struct.unnest()
        if blocks["value"].n_unique() == len(blocks):  # slices take no memory
            ends = blocks["len"].cum_sum()
            parts = [scores.slice(end - n, n) for end, n in zip(ends, blocks["len"], strict=True)]
            listed = parts[0]
        else:
            parts = scores.partition_by("epoch", maintain_order=True)
            listed = scores.select("uid").unique(maintain_order=True)
        steps = [_Step(part["epoch"][0], part) for part in parts]
        return cls(len(listed), _ascending(steps), _Step(steps[0].epoch, listed))

    @property
    def epochs(self) -> tuple[int, ...]:
        """Numbers of the epochs or repeats (S,), ascending."""
        return tuple(step.epoch for step in self.steps)

    def only(self, epochs: Iterable[int] | None) -> EpochScores:
        """The same scores, but of these epochs alone; None for all. Here it is chosen what counts.

        Raises:
            RunError: None is left, or there is no such epoch.
        """
        if epochs is None:
            return self
        wanted = set(epochs)
        if not wanted or not wanted <= set(self.epochs):
            raise RunError(
                "the run has no such epochs",
                got=sorted(wanted),
                allowed=f"at least one of {', '.join(map(str, self.epochs))}",
                next_step="choose among the epochs of the run",
            )
        kept = tuple(step for step in self.steps if step.epoch in wanted)
        return EpochScores(self.samples, kept, self.listed)

    def has(self, column: str) -> bool:
        """Whether the scores hold that column."""
        return column in self.steps[0].table.collect_schema()

    def uids(self, like: pl.Series | None = None) -> pl.Series:
        """The samples (N,), each once, in the order in which their scores are handed out.

        Args:
            like: Uids, each once, that may be the same, such as those of a table: where they are,
                which is verified, they are handed back, and no second copy is held in memory.

        Raises:
            RunError: A sample is there twice.
        """
        if like is not None and self.listed.lists(like):
            return like
        own = _uids(self.listed.table)
        if not all_unique(own):
            raise _wrong_visits(own, own.unique(maintain_order=True), self.listed.epoch)
        return own

    def blocks(self, columns: Sequence[str]) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """The samples in blocks of rows, and the columns of each block over the steps (S, B).

        Raises:
            RunError: An epoch did not visit every sample exactly once, or a number is not finite.
        """
        stacked = all(places is None for places in self._places)
        most = max(ROW_GROUP_ROWS, _AT_ONCE // len(self.steps)) if stacked else self.samples
        for start in range(0, self.samples, most):
            rows = slice(start, min(start + most, self.samples))
            parts = [self._rows(step, columns, rows) for step in range(len(self.steps))]
            block = {name: np.stack([part[name].to_numpy() for part in parts]) for name in columns}
            self._require_finite(block, start)
            yield rows, block

    @cached_property
    def _places(self) -> tuple[np.ndarray | None, ...]:
        """Where in the table of each step the samples stand (N,) int64; None where in order."""
        return tuple(self._places_in(step) for step in self.steps)

    def _places_in(self, step: _Step) -> np.ndarray | None:
        if step.lists_as(self.listed):
            return None
        uids, visited = _uids(self.listed.table), _uids(step.table)
        places = rows_of(visited, uids)
        if len(visited) != len(uids) or (places < 0).any():
            raise _wrong_visits(visited, uids, step.epoch)
        return places

    def _rows(self, step: int, columns: Sequence[str], rows: slice) -> pl.DataFrame:
        table, places = self.steps[step].table.select(columns), self._places[step]
        if places is not None:
            return table.collect()[places[rows]]
        return table.slice(rows.start, rows.stop - rows.start).collect()

    def _require_finite(self, block: dict[str, np.ndarray], start: int) -> None:
        for name, values in block.items():
            wrong = np.argwhere(~np.isfinite(values))
            if len(wrong):
                step, place = (int(number) for number in wrong[0])
                uid = _uids(self.listed.table.slice(start + place, 1))[0]
                raise RunError(
                    f"column {name} of epoch {self.epochs[step]} holds a number that is not "
                    f"finite for uid {uid}",
                    got=float(values[step, place]),
                    allowed="finite numbers",
                    next_step="score the pool again, with a higher precision or temperature",
                )


def _epoch_of(path: Path) -> int:
    """The epoch that a file of scores is of, from its first row."""
    first: list[int] = pl.scan_parquet(path).select("epoch").head(1).collect()["epoch"].to_list()
    if not first:
        raise RunError(
            "a score file has no rows, so that its epoch is not known",
            got=str(path),
            next_step="delete the folder of that run and score the pool again",
        )
    return first[0]


def _uids(table: pl.LazyFrame) -> pl.Series:
    return table.select("uid").collect()["uid"]


def _ascending(steps: Iterable[_Step]) -> tuple[_Step, ...]:
    return tuple(sorted(steps, key=lambda step: step.epoch))


def _wrong_visits(visited: pl.Series, uids: pl.Series, epoch: int) -> RunError:
    """What to say where an epoch's visits are not one for each of ``uids``."""
    missed, twice = uids.filter(~uids.is_in(visited.implode())), visited.is_duplicated()
    if len(missed):
        got = f"no row for uid {missed[0]}"
    elif twice.any():
        got = f"several rows for uid {visited.filter(twice)[0]}"
    else:
        got = f"{len(visited)} rows"
    return RunError(
        f"epoch {epoch} did not visit every sample exactly once",
        got=got,
        allowed=f"one row for each of the {len(uids)} samples",
        next_step="score the pool again; a history with missing visits has no votes",
    )
