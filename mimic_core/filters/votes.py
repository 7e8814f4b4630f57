"""Evaluate a condition on a table: one vote per row.

A vote is true, false or null. A leaf votes null where its column is null; ``not``, ``all``, ``any``
and ``minus`` follow three-valued (Kleene) logic, so De Morgan's laws hold, and whoever counts the
votes keeps true alone. Hence a missing value is never kept by a condition on its column, negated
or not; another branch of an ``any`` may still keep the row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import and_, or_

import numpy as np
import polars as pl

from mimic_core.base.errors import FilterError
from mimic_core.base.schema import named
from mimic_core.filters import conditions as kinds
from mimic_core.filters import uid_lists
from mimic_core.filters.conditions import Condition, Leaf
from mimic_core.filters.groups import Grouped, best_of_each, between_percentiles, grouped
from mimic_core.filters.polygon import inside_polygon
from mimic_core.filters.table_view import Table, TableView
from mimic_core.runs.history import History
from mimic_core.stats.cutoffs import as_dtype, rank_below, rank_up_to

GROUP_DTYPES = "a text, boolean or integer column"


def votes(
    condition: Condition, table: Table | TableView, history: History | None = None
) -> pl.Series:
    """The votes (N,) of a condition on a table of N rows: boolean, null where it cannot say.

    Args:
        condition: What is asked.
        table: One row per uid, in memory or lazy.
        history: Of the run that the table is made from; ensembles need it.

    Raises:
        FilterError: A column is missing, of the wrong type or holds NaN, a uid is unknown, or an
            ensemble has no history.
    """
    rows = table if isinstance(table, TableView) else TableView(table, history)
    return joined(condition, lambda leaf: _leaf_votes(leaf, rows))


def joined(condition: Condition, leaf_votes: Callable[[Leaf], pl.Series]) -> pl.Series:
    """The votes (N,) of a tree from those of its leaves, which a caller may have counted before."""
    match condition:
        case kinds.AllOf():
            return reduce(and_, (joined(part, leaf_votes) for part in condition.conditions))
        case kinds.AnyOf():
            return reduce(or_, (joined(part, leaf_votes) for part in condition.conditions))
        case kinds.Not():
            return ~joined(condition.condition, leaf_votes)
        case kinds.Minus():
            return joined(condition.keep, leaf_votes) & ~joined(condition.drop, leaf_votes)
    return leaf_votes(condition)


def _leaf_votes(leaf: Leaf, rows: TableView) -> pl.Series:
    match leaf:
        case kinds.Absolute():
            return _absolute(leaf, rows)
        case kinds.Percentile():
            return _percentile(leaf, rows)
        case kinds.TopK():
            return _top_k(leaf, rows)
        case kinds.Category():
            return _category(leaf, rows)
        case kinds.Text():
            return _text(leaf, rows)
        case kinds.Region():
            return _region(leaf, rows)
        case kinds.Uids():
            return _uids(leaf, rows)
        case kinds.UidList():
            return uid_lists.listed_rows(leaf, rows.uids)
        case kinds.EnsembleVote():
            return _ensemble(leaf, rows)


def _absolute(condition: kinds.Absolute, rows: TableView) -> pl.Series:
    numbers = _numbers(rows, condition.column)
    bounds = []
    if condition.min is not None:
        bounds.append(numbers >= _scalar(condition.min, numbers))
    if condition.max is not None:
        bounds.append(numbers <= _scalar(condition.max, numbers))
    return reduce(and_, bounds)  # the condition has at least one


def _scalar(value: float, numbers: pl.Series) -> pl.Series:
    dtype = np.dtype(np.float32 if numbers.dtype == pl.Float32 else np.float64)
    return pl.Series([as_dtype(value, dtype)], dtype=numbers.dtype)


def _percentile(condition: kinds.Percentile, rows: TableView) -> pl.Series:
    numbers = _numbers(rows, condition.column)
    if condition.by is not None:
        groups = _groups(rows, numbers, condition.by)
        inside = between_percentiles(groups, condition.lower, condition.upper)
        return _null_outside(inside, groups)
    present = numbers.drop_nulls().to_numpy()
    first = rank_below(condition.lower, len(present))
    end = rank_up_to(condition.upper, len(present))
    if first == len(present) or end == 0:
        return _null_where_missing(np.zeros(len(numbers), bool), [numbers])
    ordered = np.partition(present, (first, end - 1))  # two ranks are enough
    low, high = (_scalar(float(ordered[rank]), numbers) for rank in (first, end - 1))
    return (numbers >= low) & (numbers <= high)


def _top_k(condition: kinds.TopK, rows: TableView) -> pl.Series:
    numbers = _numbers(rows, condition.column)
    largest = condition.end == "largest"
    if condition.by is not None:
        groups = _groups(rows, numbers, condition.by)
        best = best_of_each(groups, condition.k, largest=largest, uids=rows.uids)
        return _null_outside(best, groups)
    present = numbers.drop_nulls().to_numpy()
    if condition.k >= len(present):
        return _null_where_missing(np.ones(len(numbers), bool), [numbers])
    rank = len(present) - condition.k if largest else condition.k - 1
    edge = _scalar(float(np.partition(present, rank)[rank]), numbers)
    chosen = (numbers > edge if largest else numbers < edge).fill_null(False).to_numpy().copy()
    ties = (numbers == edge).arg_true()
    by_uid = ties.gather(rows.uids.gather(ties).arg_sort())
    chosen[by_uid.head(condition.k - int(chosen.sum())).to_numpy()] = True
    return _null_where_missing(chosen, [numbers])


def _category(condition: kinds.Category, rows: TableView) -> pl.Series:
    column = rows.column(condition.column)
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
        raise _wrong_type(condition.column, column.dtype, GROUP_DTYPES)
    for value in condition.values:
        if not fits(value):
            raise FilterError(
                f"column {condition.column} cannot hold this value",
                got=value,
                allowed=allowed,
                next_step="correct the values of that condition",
            )
    return column.is_in(list(condition.values))


def _text(condition: kinds.Text, rows: TableView) -> pl.Series:
    dtype = rows.dtype(condition.column)
    if dtype != pl.String:
        raise _wrong_type(condition.column, dtype, "a text column")
    text = named(condition.column).str
    if condition.match_case:
        return rows.evaluate(text.contains(condition.contains, literal=True))
    needle = pl.Series([condition.contains]).str.to_lowercase()[0]
    return rows.evaluate(text.to_lowercase().str.contains(needle, literal=True))


def _region(condition: kinds.Region, rows: TableView) -> pl.Series:
    x, y = (_numbers(rows, name) for name in condition.columns)
    known = (x.is_not_null() & y.is_not_null()).to_numpy()
    inside = np.zeros(len(x), bool)
    points = [column.to_numpy()[known] for column in (x, y)]
    inside[known] = inside_polygon(points[0], points[1], condition.polygon)
    return _null_where_missing(inside, [x, y])


def _uids(condition: kinds.Uids, rows: TableView) -> pl.Series:
    listed = pl.DataFrame({"uid": pl.Series(list(condition.uids), dtype=pl.String)})
    unknown = listed.join(rows.uids.to_frame(), on="uid", how="anti")["uid"]
    if len(unknown):
        raise FilterError(
            f"{len(unknown)} of the {len(listed)} chosen samples are not in this table",
            got=unknown[0],
            next_step="take them out of the recipe, or apply it to the pool they were chosen from",
        )
    return rows.uids.is_in(list(condition.uids))


def _ensemble(condition: kinds.EnsembleVote, rows: TableView) -> pl.Series:
    found, places = rows.ensemble(condition.config)
    keep = found.keep
    if condition.min_confidence is not None:
        keep = keep & (found.confidence >= np.float32(condition.min_confidence))
    if (places >= 0).all():
        return pl.Series(keep[places])
    return pl.select(pl.when(pl.Series(places >= 0)).then(pl.Series(keep[places]))).to_series()


def _groups(rows: TableView, numbers: pl.Series, by: str) -> Grouped:
    return rows.once(("groups", numbers.name, by), lambda: _grouped(rows, numbers, by))


def _grouped(rows: TableView, numbers: pl.Series, by: str) -> Grouped:
    column = rows.column(by)
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if not (column.dtype in (pl.String, pl.Boolean) or column.dtype.is_integer()):
        raise _wrong_type(by, column.dtype, GROUP_DTYPES)
    return grouped(numbers, column)


def _null_outside(chosen: np.ndarray, groups: Grouped) -> pl.Series:
    return pl.select(pl.when(pl.Series(groups.codes >= 0)).then(pl.Series(chosen))).to_series()


def _null_where_missing(chosen: np.ndarray, columns: list[pl.Series]) -> pl.Series:
    known = reduce(and_, (column.is_not_null() for column in columns))
    return pl.select(pl.when(known).then(pl.Series(chosen))).to_series()


def _numbers(rows: TableView, name: str) -> pl.Series:
    """A numeric column, float32 as it is and all others as float64, without NaN."""
    column = rows.column(name)
    if not column.dtype.is_numeric():
        raise _wrong_type(name, column.dtype, "a numeric column")
    if column.dtype != pl.Float32:
        column = column.cast(pl.Float64)
    if column.is_nan().any():
        raise FilterError(
            f"column {name} holds NaN, which passes comparisons by accident",
            got=f"uid {rows.uids[int(column.is_nan().arg_true()[0])]}",
            allowed="numbers, and null where a value is missing",
            next_step="replace NaN by null in that column",
        )
    return column


def _wrong_type(name: str, dtype: pl.DataType, allowed: str) -> FilterError:
    return FilterError(
        f"column {name} is of the wrong type for this condition",
        got=str(dtype),
        allowed=allowed,
        next_step="choose another column or another condition",
    )
