"""Which columns of a table can do what on the screen."""

from __future__ import annotations

import polars as pl

from mimic_core.base.schema import IMAGE_COLUMNS, JUDGED_COLUMNS

MAX_CHOICES = 40  # a text column with more values is not offered as a category
MAX_GROUPS = 10_000  # nor are shares for each of more values than these
_NOT_NUMBERS = {*IMAGE_COLUMNS, "map_x", "map_y"}
_NOT_CATEGORIES = {*IMAGE_COLUMNS, "uid", "key", "caption"}
_NOT_TEXT = {*IMAGE_COLUMNS, "uid"}
TRUTH = "is_noisy"
_NOT_TRUTH = JUDGED_COLUMNS.keys()  # a judgement of the run's own is no truth to judge it by
_FIRST = ("mimic_score", "clip_score", "loss", "mimic_weight", "mimic_score_se")


def number_columns(table: pl.DataFrame) -> list[str]:
    """Columns that can take the score's place: numbers, scores first."""
    numbers = [
        name
        for name, dtype in table.schema.items()
        if dtype.is_numeric() and name not in _NOT_NUMBERS and _holds_values(table[name])
    ]
    return sorted(numbers, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))


def category_columns(table: pl.DataFrame) -> list[str]:
    """Columns with few values: booleans and short lists of texts; the user's own come first."""
    found = [
        name
        for name, dtype in table.schema.items()
        if name not in _NOT_CATEGORIES
        and _holds_values(table[name])
        and (
            dtype == pl.Boolean
            or (dtype in (pl.String, pl.Categorical) and table[name].n_unique() <= MAX_CHOICES)
        )
    ]
    return sorted(found, key=lambda name: name == "shard")


def truth_columns(table: pl.DataFrame) -> list[str]:
    """Columns that can mark noisy samples: booleans, the one of that name first."""
    found = [
        name
        for name, dtype in table.schema.items()
        if dtype == pl.Boolean and name not in _NOT_TRUTH and _holds_values(table[name])
    ]
    return sorted(found, key=lambda name: name != TRUTH)


def group_columns(table: pl.DataFrame) -> list[str]:
    """Columns whose values can have shares of their own: categories, also of many classes, and
    whole numbers such as those of classes and clusters.
    """
    kinds = (pl.Boolean, pl.String, pl.Categorical)
    return [
        name
        for name, dtype in table.schema.items()
        if name not in _NOT_CATEGORIES | _NOT_NUMBERS
        and (dtype in kinds or dtype.is_integer())
        and _holds_values(table[name])
        and table[name].n_unique() <= min(MAX_GROUPS, len(table) // 2)
    ]


def text_columns(table: pl.DataFrame) -> list[str]:
    """Columns that a text can be looked for in, captions first."""
    found = [name for name, dtype in table.schema.items() if dtype == pl.String]
    kept = [name for name in found if name not in _NOT_TEXT and _holds_values(table[name])]
    return sorted(kept, key=lambda name: name != "caption")


def _holds_values(column: pl.Series) -> bool:
    """Whether there is anything in it: a pool of pairs has a column of labels that are missing."""
    return column.null_count() < len(column)
