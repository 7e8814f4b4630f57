"""Captions tables (CSV, TSV, JSON, JSON Lines, Parquet) as one polars frame.

The frame has the columns ``image``, ``text`` (the caption, or the label in its own dtype),
``problem`` (text; null in good rows), ``place`` (the number of the row in the file) and the user's
own: either typed under ``own.<name>`` or, for
JSON Lines, as the row's JSON in ``json``. A list of captions is as many rows, which ``several``
marks. Rows that cannot be parsed stay in place with their
problem, so that none is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import polars as pl

from mimic_core.base.config import Task
from mimic_core.base.errors import SourceError
from mimic_core.sources.guess import Columns
from mimic_core.sources.tables.arrow import (
    arrow_schema,
    class_names,
    parquet_schema,
    read_columns,
    unusable_of,
    usable_columns,
)
from mimic_core.sources.tables.columns import OWN
from mimic_core.sources.tables.delimited import Delimited, load_csv
from mimic_core.sources.tables.jsonlines import json_columns, load_json
from mimic_core.sources.tables.plain import is_packed, unpacked_name

TABLE_SUFFIXES = ("csv", "tsv", "jsonl", "ndjson", "parquet")
_JSON = ("json", "jsonl", "ndjson")
# What may be a table, or a text of any kind: only the content says it.
MAYBE_TABLES = ("json", "txt", "token", "tab", "lst", "psv")


def table_suffix(name: str) -> str | None:
    """The table format that a file name stands for, or None; compressed or not."""
    suffix = _suffix(name)
    packed_parquet = suffix == "parquet" and is_packed(name)  # which nobody writes
    return suffix if suffix in TABLE_SUFFIXES and not packed_parquet else None


def may_be_table(name: str) -> bool:
    """Whether a file may be a table although its name does not say so."""
    return _suffix(name) in MAYBE_TABLES


def _suffix(name: str) -> str:
    return PurePosixPath(unpacked_name(name)).suffix.lower().removeprefix(".")


def table_columns(file: IO[bytes], name: str) -> list[str]:
    """The names of a table's columns, read from its head.

    Raises:
        SourceError: It is not a table of the format its name stands for.
    """
    return list(table_schema(file, name))


def table_schema(file: IO[bytes], name: str) -> dict[str, pl.DataType]:
    """The columns with their dtypes; all are text in CSV and JSON Lines."""
    suffix = _suffix(name)
    if suffix == "parquet":
        return parquet_schema(file, name)
    if suffix in _JSON:
        return dict.fromkeys(json_columns(file, name), pl.String())
    return dict.fromkeys(Delimited(file, name).names, pl.String())


def load_table(file: IO[bytes], name: str, columns: Columns, task: Task = "pairs") -> pl.DataFrame:
    """The whole table (layout: module docstring).

    Raises:
        SourceError: It cannot be read as a whole; names the line where it breaks.
    """
    suffix = _suffix(name)
    if suffix in _JSON:
        return load_json(file, name, columns, task)
    if suffix == "parquet":
        frame = _load_parquet(file, name, columns, task)
    else:
        frame = load_csv(file, name, columns, task)
    if task == "pairs" and "several" not in frame.columns:
        frame = _lists_in_text(frame)
    return frame if "place" in frame.columns else frame.with_row_index("place")


def _lists_in_text(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with a row for each caption where all cells are JSON lists of captions."""
    cells = frame["text"].str.strip_chars()
    there = cells.filter(cells != "")
    if there.is_empty() or not (there.str.starts_with('["') & there.str.ends_with('"]')).all():
        return frame
    try:
        lists = [json.loads(cell) if cell else None for cell in cells]
    except ValueError:
        return frame
    if not all(isinstance(one, str) for found in lists for one in found or ()):
        return frame
    return _exploded(frame.with_columns(pl.Series("text", lists, pl.List(pl.String()))))


def _exploded(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each caption of the lists in ``text``; a row without any stays one."""
    count = pl.col("text").list.len().fill_null(0)
    nothing = pl.lit([None], dtype=pl.List(pl.String()))
    captions = pl.when(count > 0).then(pl.col("text")).otherwise(nothing)
    rows = frame.with_row_index("place")
    return rows.with_columns(captions.alias("text"), (count > 1).alias("several")).explode("text")


def require_text(schema: dict[str, pl.DataType], column: str, option: str, name: str) -> None:
    """Refuse a Parquet column that is not text; lists those that are."""
    text = [other for other, dtype in schema.items() if is_text(dtype)]
    if column not in text:
        raise SourceError(
            f"the column {column} of {name} is not text but {schema[column]}",
            got=column,
            allowed=", ".join(text) or "no column of that file is text",
            next_step=f"choose a text column with {option}",
        )


def as_dtype(dtype: Any) -> pl.DataType:
    """Polars gives inner dtypes as instances or as classes."""
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance


def is_text(dtype: pl.DataType) -> bool:
    """Whether a column of ``dtype`` holds text."""
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def holds_labels(dtype: pl.DataType) -> bool:
    """Whether a column of ``dtype`` can hold labels: text, numbers or booleans."""
    return is_text(dtype) or dtype.is_numeric() or isinstance(dtype, pl.Boolean)


def require_labels(schema: dict[str, pl.DataType], column: str, name: str) -> None:
    """Refuse a Parquet column that cannot hold labels; lists those that can."""
    usable = [other for other, dtype in schema.items() if holds_labels(dtype)]
    if column not in usable:
        raise SourceError(
            f"the column {column} of {name} cannot hold labels: it is {schema.get(column)}",
            got=column,
            allowed=", ".join(usable) or "no column of that file can",
            next_step="choose a column of text or whole numbers with --label-column",
        )


def own_columns(
    schema: dict[str, pl.DataType],
    leave_out: Iterable[str],
    classes: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, pl.Expr]:
    """The user's own columns in the dtypes an index holds, by name; binary ones are left out.

    ``classes`` names those that hold the numbers of classes, with their names.
    """
    return {
        name: own_cell(name, dtype, (classes or {}).get(name)).alias(OWN + name)
        for name, dtype in schema.items()
        if name not in set(leave_out) and not holds_bytes(dtype)
    }


def unread_columns(file: IO[bytes] | Path, name: str, *, image: str | None = None) -> list[str]:
    """The columns of a Parquet file that no index keeps, each with its type."""
    return unread_of(arrow_schema(file, name), image=image)


def unread_of(schema: Any, *, image: str | None = None) -> list[str]:
    """The same of a schema."""
    usable = usable_columns(schema)
    binary = [one for one, dtype in usable.items() if holds_bytes(dtype) and one != image]
    unusable = unusable_of(schema)
    return [f"column {one}" for one in [*unusable, *(f"{one} (bytes)" for one in binary)]]


def holds_bytes(dtype: pl.DataType) -> bool:
    """Whether a column of ``dtype`` holds bytes somewhere inside, which no index keeps."""
    if isinstance(dtype, pl.Struct):
        return any(holds_bytes(as_dtype(field.dtype)) for field in dtype.fields)
    if isinstance(dtype, pl.List | pl.Array):
        return holds_bytes(as_dtype(dtype.inner))
    return isinstance(dtype, pl.Binary | pl.Object)


def own_cell(name: str, dtype: pl.DataType, names: Sequence[str] | None = None) -> pl.Expr:
    """One of the user's columns as an index holds it; numbers of classes become their names."""
    cell = pl.col(OWN + name)
    if names and dtype.is_integer():  # a number beyond the names, such as -1, means no class
        numbers = dict(enumerate(names))
        return cell.replace_strict(numbers, default=None, return_dtype=pl.String)
    if dtype.is_decimal():
        return cell.cast(pl.Float64)
    if dtype.is_numeric() or isinstance(dtype, pl.Boolean | pl.String | pl.Null):
        return cell
    if isinstance(dtype, pl.Duration):
        return cell.dt.to_string("iso")
    return cell.cast(pl.String) if not dtype.is_nested() else cell


def is_list(dtype: pl.DataType | None) -> bool:
    """Whether a column of ``dtype`` holds lists."""
    return isinstance(dtype, pl.List | pl.Array)


def captions_cell(name: str, dtype: pl.DataType) -> pl.Expr:
    """A caption column as text, or as lists of text."""
    cell = pl.col(OWN + name)
    return cell.cast(pl.List(pl.String())) if is_list(dtype) else own_cell(name, dtype)


def require_captions(schema: dict[str, pl.DataType], column: str, option: str, name: str) -> None:
    """Refuse a Parquet column that is neither text nor lists of text."""
    dtype = schema.get(column)
    inner = getattr(dtype, "inner", None) if is_list(dtype) else None
    if inner is None or not is_text(as_dtype(inner)):
        require_text(schema, column, option, name)


def _load_parquet(file: IO[bytes], name: str, columns: Columns, task: Task) -> pl.DataFrame:
    schema = parquet_schema(file, name)
    require_text(schema, columns.image, "--image-column", name)
    if task == "pairs":
        require_captions(schema, columns.text, "--caption-column", name)
    else:
        require_labels(schema, columns.text, name)
    file.seek(0)
    classes = class_names(file, name)
    file.seek(0)
    own = own_columns(schema, columns, classes)
    rows = read_columns(file, [columns.image, columns.text, *own], name)
    lists = task == "pairs" and is_list(schema[columns.text])
    label = own_cell(columns.text, schema[columns.text], classes.get(columns.text))
    frame = rows.frame.select(
        pl.col(OWN + columns.image).cast(pl.String).alias("image"),
        (captions_cell(columns.text, schema[columns.text]) if lists else label).alias("text"),
        rows.problems,
        *own.values(),
    )
    return _exploded(frame) if lists else frame
