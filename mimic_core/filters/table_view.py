"""The rows that a recipe is applied to: a frame in memory, or a lazy one of which columns are read.

Conditions ask for one column, or for one expression, at a time. A lazy frame answers with a query
that reads nothing else, streamed, so a recipe over millions of rows holds a column or two at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from threading import RLock
from typing import Any, TypeVar

import numpy as np
import polars as pl

from mimic_core.base.errors import FilterError, no_such_column
from mimic_core.base.identity import rows_of
from mimic_core.base.schema import NO_IMAGE, named
from mimic_core.filters.ensembles.config import EnsembleConfig
from mimic_core.filters.ensembles.ensemble import Ensemble, ensemble_of
from mimic_core.runs.history import History

Table = pl.DataFrame | pl.LazyFrame
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class TableView:
    """A table of N rows, one per uid, and the history of its run where there is one.

    Attributes:
        frame: The table.
        history: Of the run that it is made from; ensembles need it.
        remember: How many sorted columns and groups to keep for conditions to come; none where
            each is asked for once.
    """

    frame: Table
    history: History | None = None
    remember: int = 0
    _made: dict[tuple[str, ...], Any] = field(default_factory=dict, repr=False)
    _lock: RLock = field(default_factory=RLock, repr=False)

    @cached_property
    def uids(self) -> pl.Series:
        """Column ``uid``, (N,)."""
        return self._read("uid")

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns."""
        return tuple(self.frame.collect_schema())

    def column(self, name: str) -> pl.Series:
        """The column ``name``, (N,).

        Raises:
            FilterError: There is none; the message names columns spelt alike.
        """
        if name not in self.columns:
            raise no_such_column(name, self.columns)
        return self.uids if name == "uid" else self._read(name)

    def dtype(self, name: str) -> pl.DataType:
        """Type of the column ``name``, without reading it. Raises like ``column``."""
        if name not in self.columns:
            raise no_such_column(name, self.columns)
        return self.frame.collect_schema()[name]

    def evaluate(self, expression: pl.Expr) -> pl.Series:
        """A row-wise expression, (N,)."""
        selected = self.frame.select(expression)
        if isinstance(selected, pl.LazyFrame):
            selected = selected.collect(engine="streaming")
        return selected.to_series()

    def ensemble(self, config: EnsembleConfig) -> tuple[Ensemble, np.ndarray]:
        """An ensemble over the history, and the position in it of every row (N,).

        The position of a row without an image, which has no scores, is -1.

        Raises:
            FilterError: There is no history, or it lacks a row's uid.
        """
        if self.history is None:
            raise FilterError(
                "the recipe asks for an ensemble, which needs the history of the run",
                got=config.describe(),
                next_step="give the history too (mimic_core.runs.history.run_history)",
            )
        rows = self._in_history
        return ensemble_of(self.history, config), rows

    @cached_property
    def _in_history(self) -> np.ndarray:
        assert self.history is not None  # asked by ensemble
        rows = rows_of(self.history.uids, self.uids)
        if "image_kind" in self.columns:  # what has no image has no score, and no vote
            bare = self.column("image_kind").eq_missing(NO_IMAGE.kind).to_numpy()
            missing = np.flatnonzero((rows < 0) & ~bare)
        else:
            missing = np.flatnonzero(rows < 0)
        if len(missing):
            raise FilterError(
                f"{len(missing)} of the {len(rows)} rows have no scores in the history",
                got=self.uids[int(missing[0])],
                next_step="give the history of the run that the table is made from",
            )
        return rows

    def once(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        """What ``make`` makes, or made before under that key, if it is remembered still."""
        with self._lock:  # the app's sessions are threads that share a table
            found: T = self._made.pop(key) if key in self._made else make()
            self._made[key] = found  # the last used comes last
            while len(self._made) > self.remember:
                self._made.pop(next(iter(self._made)))
        return found

    def _read(self, name: str) -> pl.Series:
        if isinstance(self.frame, pl.DataFrame):
            return self.frame[name]
        return self.evaluate(named(name))
