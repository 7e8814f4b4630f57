"""Captions tables as CSV or TSV, row by row: a broken row is skipped, a broken file is refused."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from typing import IO, Any

import polars as pl

from mimic_core.base.errors import SourceError
from mimic_core.sources.guess import Columns
from mimic_core.sources.source import Unusable
from mimic_core.sources.tables.columns import CHUNK_ROWS, OWN
from mimic_core.sources.texts import check_text

_DELIMITERS = "\t,;|"
_INTEGER = r"^(?:0|-?[1-9][0-9]{0,17})$"  # no leading zeros: 007 is a name, not a number
# At most 15 digits before the point: a longer number is an id that a float would change.
_FLOAT = (
    r"^[+-]?(?:(?:(?:0|[1-9][0-9]{0,14})(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?"
    r"|nan|inf(?:inity)?)$"
)


def csv_reader(file: IO[bytes], name: str) -> tuple[Any, list[str]]:
    """A reader standing behind the header, and the names of the columns."""
    if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
        raise SourceError(f"{name} is UTF-16", next_step="save it as UTF-8")
    file.seek(0)
    header = next(_lines(file), "")
    file.seek(0)
    delimiter = _delimiter(header, default="\t" if name.lower().endswith(".tsv") else ",")
    reader = csv.reader(_lines(file), delimiter=delimiter, strict=True)
    try:
        first = next(reader, [])
    except csv.Error as error:
        raise _broken_csv(name, reader.line_num, error) from error
    names = [cell.strip() or f"column_{place}" for place, cell in enumerate(first, 1)]
    repeated = sorted({column for column in names if names.count(column) > 1})
    if repeated:
        raise SourceError(
            f"{name} names a column twice", got=repeated, next_step="rename one of them"
        )
    try:
        for column in names:
            check_text(column, "its header")
    except Unusable as error:
        raise SourceError(f"{name} is not UTF-8", next_step="save it as UTF-8") from error
    return reader, names


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Lines with their ends; bytes that are not UTF-8 survive, so that only their rows are lost."""
    for number, line in enumerate(file):
        data = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
        yield data.decode("utf-8", "surrogateescape")


def _delimiter(header: str, default: str) -> str:
    """The separator that splits the header into most columns; ``default`` wins a draw."""

    def width(delimiter: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=delimiter), []))
        except csv.Error:
            return 0

    widest: str = max([default, *_DELIMITERS], key=width)
    return widest


def _broken_csv(name: str, line: int, error: Exception) -> SourceError:
    return SourceError(
        f"{name} cannot be read beyond line {line}: {error}",
        got=f"line {line}",
        allowed='fields in double quotes, with "" for a quote inside, up to '
        f"{csv.field_size_limit()} characters",
        next_step="look for a quote that is opened and never closed, or save it as JSON Lines",
    )


def _csv_rows(reader: Any, names: list[str], name: str) -> Iterator[tuple[list[str], str | None]]:
    """Rows as cells and problem; a broken row has empty cells."""
    blank = [""] * len(names)
    opened = 1
    while True:
        opened = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error) or "field larger" in str(error):
                raise _broken_csv(name, opened, error) from error
            yield blank, f"line {opened}: {error}"
            continue
        if not row:
            continue
        if len(row) != len(names):
            yield blank, f"line {opened}: {len(row)} fields, the header has {len(names)}"
            continue
        try:
            yield [check_text(cell, "") for cell in row], None
        except Unusable:
            yield blank, f"line {opened}: not UTF-8"


def load_csv(file: IO[bytes], name: str, columns: Columns) -> pl.DataFrame:
    """The whole table (``tables``)."""
    reader, names = csv_reader(file, name)
    chunks = [_text_chunk(names, [])]
    rows: list[tuple[list[str], str | None]] = []
    for row in _csv_rows(reader, names, name):
        rows.append(row)
        if len(rows) == CHUNK_ROWS:
            chunks.append(_text_chunk(names, rows))
            rows = []
    frame = pl.concat([*chunks, _text_chunk(names, rows)])
    own = [
        typed(frame[OWN + column]).alias(OWN + column) for column in names if column not in columns
    ]
    return frame.select(
        pl.col(OWN + columns.image).alias("image"),
        pl.col(OWN + columns.text).alias("text"),
        "problem",
        *own,
    )


def _text_chunk(names: list[str], rows: list[tuple[list[str], str | None]]) -> pl.DataFrame:
    cells = zip(*(row for row, _ in rows), strict=True) if rows else [()] * len(names)
    data = {OWN + name: list(column) for name, column in zip(names, cells, strict=True)}
    schema = dict.fromkeys([*data, "problem"], pl.String())
    return pl.DataFrame({**data, "problem": [problem for _, problem in rows]}, schema=schema)


def typed(texts: pl.Series) -> pl.Series:
    """A text column as boolean, integer or float if every non-empty cell is one; empty = null."""
    cells = texts.set(texts == "", None)
    there = cells.drop_nulls()
    if there.is_empty():
        return cells
    lower = there.str.to_lowercase()
    if lower.is_in(["true", "false"]).all():
        return cells.str.to_lowercase() == "true"
    if there.str.contains(_INTEGER).all():
        return cells.cast(pl.Int64)
    if lower.str.contains(_FLOAT).all():
        return cells.cast(pl.Float64)
    return cells
