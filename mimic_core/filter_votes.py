"""Evaluate a condition on a table: one vote per row.

A vote is true, false or null. A leaf votes null where its column is null; ``not``, ``all``, ``any``
and ``minus`` follow three-valued (Kleene) logic, so De Morgan's laws hold, and whoever counts the
votes keeps true alone. Hence a missing value is never kept by a condition on its column, negated
or not; another branch of an ``any`` may still keep the row.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import reduce
from operator import and_, or_

import numpy as np
import polars as pl

from mimic_core.cutoffs import as_dtype, rank_below, rank_up_to, sorted_values
from mimic_core.errors import FilterError
from mimic_core.filter_conditions import (
    Absolute,
    AllOf,
    AnyOf,
    Category,
    Condition,
    Minus,
    Not,
    Percentile,
    Region,
    Text,
    TopK,
    Uids,
)
from mimic_core.polygon import inside_polygon

Table = pl.DataFrame


def votes(condition: Condition, table: Table) -> pl.Series:
    """The votes (N,) of a condition on a table of N rows: boolean, null where it cannot say.

    Raises:
        FilterError: A column is missing, of the wrong type or holds NaN, or a uid is unknown.
    """
    match condition:
        case AllOf():
            return reduce(and_, (votes(part, table) for part in condition.conditions))
        case AnyOf():
            return reduce(or_, (votes(part, table) for part in condition.conditions))
        case Not():
            return ~votes(condition.condition, table)
        case Minus():
            return votes(condition.keep, table) & ~votes(condition.drop, table)
        case Absolute():
            return _absolute(condition, table)
        case Percentile():
            return _percentile(condition, table)
        case TopK():
            return _top_k(condition, table)
        case Category():
            return _category(condition, table)
        case Text():
            return _text(condition, table)
        case Region():
            return _region(condition, table)
        case Uids():
            return _uids(condition, table)


def _absolute(condition: Absolute, table: Table) -> pl.Series:
    numbers = _numbers(table, condition.column)
    bounds = []
    if condition.min is not None:
        bounds.append(numbers >= _scalar(condition.min, numbers))
    if condition.max is not None:
        bounds.append(numbers <= _scalar(condition.max, numbers))
    return reduce(and_, bounds)  # the condition has at least one


def _scalar(value: float, numbers: pl.Series) -> pl.Series:
    dtype = np.dtype(np.float32 if numbers.dtype == pl.Float32 else np.float64)
    return pl.Series([as_dtype(value, dtype)], dtype=numbers.dtype)


def _percentile(condition: Percentile, table: Table) -> pl.Series:
    numbers = _numbers(table, condition.column)
    ordered = sorted_values(numbers)
    first = rank_below(condition.lower, len(ordered))
    end = rank_up_to(condition.upper, len(ordered))
    if first == len(ordered) or end == 0:
        return _null_where_missing(np.zeros(len(table), bool), [numbers])
    low, high = (_scalar(float(ordered[rank]), numbers) for rank in (first, end - 1))
    return (numbers >= low) & (numbers <= high)


def _top_k(condition: TopK, table: Table) -> pl.Series:
    numbers = _numbers(table, condition.column)
    present = numbers.drop_nulls().to_numpy()
    if condition.k >= len(present):
        return _null_where_missing(np.ones(len(table), bool), [numbers])
    largest = condition.end == "largest"
    rank = len(present) - condition.k if largest else condition.k - 1
    edge = _scalar(float(np.partition(present, rank)[rank]), numbers)
    chosen = (numbers > edge if largest else numbers < edge).fill_null(False).to_numpy().copy()
    ties = (numbers == edge).arg_true()
    by_uid = ties.gather(table["uid"].gather(ties).arg_sort())
    chosen[by_uid.head(condition.k - int(chosen.sum())).to_numpy()] = True
    return _null_where_missing(chosen, [numbers])


def _category(condition: Category, table: Table) -> pl.Series:
    column = _column(table, condition.column)
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    fits: Callable[[object], bool]
    if column.dtype == pl.String:
        fits, allowed = lambda value: isinstance(value, str), "text values for this column"
    elif column.dtype == pl.Boolean:
        fits, allowed = lambda value: isinstance(value, bool), "true or false for this column"
    elif column.dtype.is_integer():
        fits, allowed = lambda value: type(value) is int, "whole numbers for this column"
    else:
        raise _wrong_type(condition.column, column, "a text, boolean or integer column")
    for value in condition.values:
        if not fits(value):
            raise FilterError(
                f"column {condition.column} cannot hold this value",
                got=value,
                allowed=allowed,
                next_step="correct the values of that condition",
            )
    return column.is_in(list(condition.values))


def _text(condition: Text, table: Table) -> pl.Series:
    column = _column(table, condition.column)
    if column.dtype != pl.String:
        raise _wrong_type(condition.column, column, "a text column")
    if condition.match_case:
        return column.str.contains(condition.contains, literal=True)
    needle = pl.Series([condition.contains]).str.to_lowercase()[0]
    return column.str.to_lowercase().str.contains(needle, literal=True)


def _region(condition: Region, table: Table) -> pl.Series:
    x, y = (_numbers(table, name) for name in condition.columns)
    known = (x.is_not_null() & y.is_not_null()).to_numpy()
    inside = np.zeros(len(table), bool)
    points = [column.to_numpy()[known] for column in (x, y)]
    inside[known] = inside_polygon(points[0], points[1], condition.polygon)
    return _null_where_missing(inside, [x, y])


def _uids(condition: Uids, table: Table) -> pl.Series:
    listed = pl.DataFrame({"uid": pl.Series(list(condition.uids), dtype=pl.String)})
    unknown = listed.join(table.select("uid"), on="uid", how="anti")["uid"]
    if len(unknown):
        raise FilterError(
            f"{len(unknown)} of the {len(listed)} chosen samples are not in this table",
            got=unknown[0],
            next_step="take them out of the recipe, or apply it to the pool they were chosen from",
        )
    return table["uid"].is_in(list(condition.uids))


def _null_where_missing(chosen: np.ndarray, columns: list[pl.Series]) -> pl.Series:
    known = reduce(and_, (column.is_not_null() for column in columns))
    return pl.select(pl.when(known).then(pl.Series(chosen))).to_series()


def _numbers(table: Table, name: str) -> pl.Series:
    """A numeric column, float32 as it is and all others as float64, without NaN."""
    column = _column(table, name)
    if not column.dtype.is_numeric():
        raise _wrong_type(name, column, "a numeric column")
    if column.dtype != pl.Float32:
        column = column.cast(pl.Float64)
    if column.is_nan().any():
        raise FilterError(
            f"column {name} holds NaN, which passes comparisons by accident",
            got=f"uid {table['uid'][int(column.is_nan().arg_true()[0])]}",
            allowed="numbers, and null where a value is missing",
            next_step="replace NaN by null in that column",
        )
    return column


def _column(table: Table, name: str) -> pl.Series:
    if name in table.columns:
        return table[name]
    near = difflib.get_close_matches(name, table.columns)
    raise FilterError(
        "the table has no such column",
        got=name,
        allowed=", ".join(near or table.columns),
        next_step=f"did you mean {near[0]}?" if near else "choose one of its columns",
    )


def _wrong_type(name: str, column: pl.Series, allowed: str) -> FilterError:
    return FilterError(
        f"column {name} is of the wrong type for this condition",
        got=str(column.dtype),
        allowed=allowed,
        next_step="choose another column or another condition",
    )
