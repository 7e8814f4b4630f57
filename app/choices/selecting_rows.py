"""A row range of the heat map as a condition of the recipe.

Rows sorted by a column of the table are a range of that column, which a recipe can say and which
keeps its meaning in another run. Rows sorted by a measure over the steps are named one by one, up
to a limit: a recipe of many thousand uids is slow to read and too long for the address of the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from app.choices.editing import dropping
from app.text import count, spoken
from mimic_core.filters.conditions import Absolute, AllOf, AnyOf, Condition, Percentile, Uids
from mimic_core.filters.recipe import NamedCondition, Recipe
from mimic_core.stats.cutoffs import rank_below, rank_up_to, sorted_values

Scope = Literal["all", "kept", "dropped"]

ROWS_NAME = "heat map rows"
BROUGHT_BACK = "with rows brought back"
UID_LIMIT = 2_000


@dataclass(frozen=True, slots=True)
class RowsCondition:
    """What keeps a row range; ``condition`` is None where no recipe can say it, see ``note``."""

    condition: Condition | None
    note: str = ""


def rows_condition(
    table: pl.DataFrame, rows: np.ndarray, *, column: str | None, scope: Scope, among: np.ndarray
) -> RowsCondition:
    """The condition that keeps the samples ``rows`` (K,), neighbours in an order by ``column``.

    Args:
        table: One row per sample.
        rows: Positions in the table; none of them lacks a value of ``column``.
        column: What they are sorted by; None for what is no column of the table.
        scope: Whether the order is of all samples, of the kept or of the dropped ones.
        among: Which samples that is, bool (N,).
    """
    if not len(rows):
        return RowsCondition(None, "There are no rows to select.")
    if column is None:
        return _one_by_one(table, rows)
    values = table[column]
    chosen = values[rows]
    low, high = chosen.min(), chosen.max()
    reached = int((values.is_between(low, high).fill_null(value=False).to_numpy() & among).sum())
    notes = []
    if reached > len(rows):
        notes.append(
            f"Equal values stay together: {count(reached)} samples have a {spoken(column)} in the "
            f"range of these {count(len(rows))}."
        )
    missing = int((values.is_null().to_numpy() & among).sum())
    if missing:
        notes.append(
            f"{count(missing)} samples have no {spoken(column)}: a recipe that cuts by it drops "
            "them, whichever rows it keeps."
        )
    note = " ".join(notes)
    if scope == "all":
        return RowsCondition(_percentiles(column, sorted_values(values), low, high), note)
    ends = {"min": float(low), "max": float(high)}  # type: ignore[arg-type]  # a number column
    return RowsCondition(Absolute.parse({"column": column, **ends}), note)


def keep_rows(recipe: Recipe, condition: Condition, *, scope: Scope) -> Recipe:
    """Keep only these rows; of dropped ones, bring them back beside what is kept."""
    if scope != "dropped" or not recipe.conditions:
        return recipe.with_condition(ROWS_NAME, condition)
    before = tuple(named.condition for named in recipe.conditions)
    either = AnyOf(conditions=(AllOf(conditions=before), condition))
    return Recipe(conditions=(NamedCondition(name=BROUGHT_BACK, condition=either),))


def drop_rows(recipe: Recipe, condition: Condition) -> Recipe:
    """Drop these rows, beside all that is dropped already."""
    return dropping(recipe, ROWS_NAME, condition)


def _one_by_one(table: pl.DataFrame, rows: np.ndarray) -> RowsCondition:
    if len(rows) > UID_LIMIT:
        return RowsCondition(
            None,
            f"No column of the table is sorted by, so a recipe has to name the samples one by one, "
            f"and these are {count(len(rows))}; the limit is {count(UID_LIMIT)}. Drag over fewer "
            "rows, or sort by a column.",
        )
    uids = table["uid"].gather(rows).to_list()
    return RowsCondition(
        Uids.parse({"uids": uids}), "A recipe names these samples one by one, by uid."
    )


def _percentiles(column: str, values: np.ndarray, low: object, high: object) -> Condition:
    """The shortest percentiles between which exactly the values from ``low`` to ``high`` lie."""
    total = len(values)
    below = int(np.searchsorted(values, low, side="left"))  # type: ignore[call-overload]
    up_to = int(np.searchsorted(values, high, side="right"))  # type: ignore[call-overload]
    lower = next((p for p in _rounded(100 * below / total) if rank_below(p, total) == below), 0.0)
    upper = next((p for p in _rounded(100 * up_to / total) if rank_up_to(p, total) == up_to), 100.0)
    return Percentile.parse({"column": column, "lower": lower, "upper": upper})


def _rounded(percent: float) -> list[float]:
    """``percent`` with ever more digits, at last as it is."""
    return [*(round(percent, digits) for digits in range(10)), percent]
