"""Recipes: named conditions that a screen, a script and the command line apply alike.

``apply(recipe, table)`` keeps the rows that every named condition keeps and says of each dropped
row which condition was the first to reject it. A recipe without conditions keeps all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field, ValidationError, field_validator

from mimic_core.base.config import Frozen
from mimic_core.base.errors import FilterError
from mimic_core.base.identity import sorted_uids
from mimic_core.filters import yaml_text
from mimic_core.filters.conditions import Condition, Leaf, with_leaves
from mimic_core.filters.table_view import Table, TableView
from mimic_core.filters.votes import votes
from mimic_core.runs.history import HISTORY_COLUMNS, History, HistoryColumn

_CONDITIONS_AT_ONCE = 2  # each holds a column or two in memory


class NamedCondition(Frozen):
    """A condition of a recipe and its name, which is also the reason of the drops it causes."""

    name: str = Field(min_length=1)
    condition: Condition


class Recipe(Frozen):
    """A saved filter: a row is kept when every condition keeps it."""

    version: Literal[1] = 1
    conditions: tuple[NamedCondition, ...] = ()

    @field_validator("conditions")
    @classmethod
    def _unique_names(cls, conditions: tuple[NamedCondition, ...]) -> tuple[NamedCondition, ...]:
        names = [named.name for named in conditions]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two conditions are named {min(twice)!r}")
        return conditions

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the conditions, in order."""
        return tuple(named.name for named in self.conditions)

    def with_condition(self, name: str, condition: Condition) -> Recipe:
        """This recipe with ``condition`` in the place of the one of that name, or at the end."""
        named = NamedCondition(name=name, condition=condition)
        if name not in self.names:
            return Recipe(conditions=(*self.conditions, named))
        return Recipe(conditions=tuple(named if c.name == name else c for c in self.conditions))

    def without(self, name: str) -> Recipe:
        """This recipe without the condition of that name.

        Raises:
            FilterError: There is none.
        """
        if name not in self.names:
            raise FilterError(
                "the recipe has no condition of that name",
                got=name,
                allowed=", ".join(self.names) or "none: the recipe is empty",
                next_step="choose one of its conditions",
            )
        return Recipe(conditions=tuple(c for c in self.conditions if c.name != name))

    def with_leaves(self, change: Callable[[Leaf], Leaf]) -> Recipe:
        """This recipe with each leaf of its conditions changed."""
        return Recipe(
            conditions=tuple(
                NamedCondition(name=one.name, condition=with_leaves(one.condition, change))
                for one in self.conditions
            )
        )

    def to_yaml(self) -> str:
        """The recipe as YAML text, the same text for equal recipes."""
        return yaml_text.dump(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def from_yaml(cls, text: str) -> Recipe:
        """Parse ``text``, within the bounds of ``mimic_core.filters.yaml_text``.

        Raises:
            FilterError: It is not YAML, or not a recipe; the message names the place.
        """
        return cls.from_tree(yaml_text.parse(text))

    @classmethod
    def from_tree(cls, tree: object) -> Recipe:
        """Parse nested plain values, such as those of a manifest. Raises like ``from_yaml``."""
        if not isinstance(tree, dict):
            raise FilterError(
                "a recipe is a mapping",
                got=tree,
                allowed="the keys version and conditions",
                next_step="write `conditions:` followed by a list of named conditions",
            )
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            first = error.errors()[0]
            raise FilterError(
                f"recipe, at {'.'.join(str(part) for part in first['loc'])}: {first['msg']}",
                got=first.get("input"),
                next_step="correct that place in the recipe",
            ) from error


@dataclass(frozen=True, eq=False)
class Selection:
    """What a recipe keeps of a table, and why it drops the rest.

    Attributes:
        recipe: The recipe.
        table_uids: uids (N,) of the table, in its order.
        first_failed: (N,) int32, per row of the table the position of the first condition that
            did not keep it; -1 for a kept row.
    """

    recipe: Recipe
    table_uids: pl.Series
    first_failed: np.ndarray

    @cached_property
    def mask(self) -> np.ndarray:
        """Which rows of the table are kept, bool (N,)."""
        kept: np.ndarray = self.first_failed < 0
        return kept

    @cached_property
    def uids(self) -> pl.Series:
        """The kept uids (K,), sorted."""
        return sorted_uids(self.table_uids.filter(pl.Series(self.mask)))

    @property
    def total(self) -> int:
        """Number of rows of the table."""
        return len(self.first_failed)

    @cached_property
    def kept(self) -> int:
        """Number of rows kept."""
        return int(self.mask.sum())

    @property
    def retention_rate(self) -> float:
        """The share ``kept / total``; 0 for an empty table."""
        return self.kept / self.total if self.total else 0.0

    @cached_property
    def drops(self) -> dict[str, int]:
        """Rows dropped by each condition, in order; they add up to ``total - kept``."""
        failed = self.first_failed[~self.mask]
        counts = np.bincount(failed, minlength=len(self.recipe.conditions))
        return dict(zip(self.recipe.names, counts.tolist(), strict=True))

    @cached_property
    def reasons(self) -> pl.Series:
        """Name of the condition that dropped each row of the table (N,); null for kept rows."""
        names = pl.Series("reason", self.recipe.names, dtype=pl.Enum(self.recipe.names))
        position = pl.Series(self.first_failed)
        return names.gather(position.set(position < 0, None))


def needed_columns(recipe: Recipe) -> tuple[str, ...]:
    """The columns of the table that applying ``recipe`` reads: ``uid``, then the others by name."""
    found = {name for named in recipe.conditions for name in named.condition.columns_read()}
    return ("uid", *sorted(found - {"uid"}))


def needed_history(recipe: Recipe) -> tuple[HistoryColumn, ...]:
    """The columns of the history that applying ``recipe`` reads; none where it has no ensemble."""
    asked = {
        one.binarise.column for named in recipe.conditions for one in named.condition.ensembles()
    }
    return tuple(name for name in HISTORY_COLUMNS if name in asked)


def apply(recipe: Recipe, table: Table, history: History | None = None) -> Selection:
    """Apply ``recipe`` to a table with one row per uid (``mimic_core.runs.table``).

    Percentile and top-k conditions look at the whole table, and ensembles at the whole history, so
    conditions do not depend on each other and their order decides only the reasons of the drops.

    Args:
        recipe: The recipe.
        table: In memory, or lazy: then each condition reads the columns it needs, streamed.
        history: Of the run that the table is made from; needed where ``needed_history`` says so.

    Raises:
        FilterError: A condition does not fit the table; the message names the column.
    """
    rows = TableView(table, history)
    uids = rows.uids
    if isinstance(table, pl.DataFrame):
        found = [votes(named.condition, rows) for named in recipe.conditions]
    else:  # one condition decodes while another counts
        with ThreadPoolExecutor(_CONDITIONS_AT_ONCE) as pool:
            found = list(pool.map(lambda named: votes(named.condition, rows), recipe.conditions))
    return selection_of(recipe, uids, found)


def selection_of(recipe: Recipe, uids: pl.Series, found: Sequence[pl.Series]) -> Selection:
    """What a recipe keeps, from votes that have been counted already.

    Args:
        recipe: The recipe.
        uids: (N,) of the table.
        found: The votes (N,) of each condition of the recipe, in order.
    """
    first_failed = np.full(len(uids), -1, np.int32)
    for position, voted in reversed(list(enumerate(found))):
        first_failed[~voted.fill_null(False).to_numpy()] = position
    return Selection(recipe, uids, first_failed)
