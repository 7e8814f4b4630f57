"""The bytes of every export format: pure functions of a table, the same bytes each time.

Rows are in the order of their uids, whatever the order of the table. Cells are written as they are,
but for one kind: a spreadsheet program would compute a CSV cell such as ``=1+1``, and formulas can
send data away, so such texts get an apostrophe in front (``docs/formats.md``).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs

from mimic_core.base.draws import uid_words
from mimic_core.base.errors import ExportError
from mimic_core.base.schema import ROW_GROUP_ROWS
from mimic_core.export.settings import ExportFormat

# Apostrophes in front count too, so that taking away one gives back what was there.
_FORMULA = r"^'*[=+\-@\t\r\n＝＋－＠]"
CSV_NOTE = (
    "a text that begins with = + - @, a tab or a line break, after any apostrophes, has one more "
    "apostrophe in front; an export as parquet holds the raw values"
)
DATACOMP_DTYPE = np.dtype("u8,u8")


def parquet_bytes(rows: pl.DataFrame) -> bytes:
    """All columns, zstd-compressed, in row groups that stream."""
    out = io.BytesIO()
    rows.write_parquet(out, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    return out.getvalue()


def csv_bytes(rows: pl.DataFrame) -> bytes:
    """All columns; null is an empty cell, an empty text is ``""``, nested values are JSON text.

    Texts, and names of columns, that a spreadsheet program would compute have an apostrophe in
    front: see ``CSV_NOTE``.
    """
    columns = [_harmless(column) for column in as_text(rows).iter_columns()]
    header = _harmless(pl.Series(rows.columns, dtype=pl.String)).to_list()
    return pl.DataFrame(dict(zip(header, columns, strict=True))).write_csv().encode()


def as_text(rows: pl.DataFrame) -> pl.DataFrame:
    """The same with nested values as JSON text; what a text file cannot hold is refused."""
    _refuse_binary(rows, "csv")
    return rows.with_columns(_json_text(rows[name]) for name in _nested_columns(rows))


def jsonl_bytes(rows: pl.DataFrame) -> bytes:
    """One JSON object per line with all columns, null for missing values."""
    _refuse_binary(rows, "jsonl")
    for name in _nested_columns(rows):
        _json_text(rows[name])  # a NaN inside would be written as null without a word
    return rows.write_ndjson().encode()


def datacomp_bytes(rows: pl.DataFrame, repeats: np.ndarray | None = None) -> bytes:
    """DataComp's subset file: an ``.npy`` of the uids' two halves, dtype ``u8,u8``, sorted.

    Args:
        rows: With the column uid (N).
        repeats: How often each uid is there (N,) int64; its resharder copies a sample as often.
            None for once.

    Raises:
        MimicError: A uid is not 32 hexadecimal digits.
    """
    words = uid_words(rows["uid"])
    if repeats is not None:
        words = words.repeat(repeats, axis=0)
    subset = np.empty(len(words), DATACOMP_DTYPE)
    subset["f0"], subset["f1"] = words[:, 0], words[:, 1]
    subset.sort()
    out = io.BytesIO()
    np.save(out, subset, allow_pickle=False)
    return out.getvalue()


def holds_uids(column: pl.Series) -> bool:
    """Whether all values are 32 hexadecimal digits, as DataComp's uids are."""
    return bool(column.str.contains(r"^[0-9a-fA-F]{32}$").fill_null(value=False).all())


WRITERS: dict[ExportFormat, Callable[[pl.DataFrame], bytes]] = {
    "parquet": parquet_bytes,
    "csv": csv_bytes,
    "jsonl": jsonl_bytes,
    "datacomp": datacomp_bytes,
}


def _harmless(column: pl.Series) -> pl.Series:
    """A text column whose formulas are quoted by an apostrophe; others as they are."""
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if column.dtype != pl.String:
        return column
    return column.str.replace(_FORMULA, "'$0")


def _nested_columns(rows: pl.DataFrame) -> list[str]:
    return [name for name, dtype in rows.schema.items() if dtype.is_nested()]


def _json_text(column: pl.Series) -> pl.Series:
    """A nested column as JSON text; null stays null."""
    return pl.Series(column.name, [_dumps(value, column.name) for value in column], pl.String)


def _dumps(value: Any, column: str) -> str | None:
    if value is None:
        return None
    plain = value.to_list() if isinstance(value, pl.Series) else value
    try:
        return json.dumps(plain, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError as error:
        raise ExportError(
            f"column {column} holds a nested number that is not finite",
            got=plain,
            allowed="finite numbers; null where a value is missing",
            next_step="export as parquet, which can hold it, or correct that column",
        ) from error


def _refuse_binary(rows: pl.DataFrame, file_format: ExportFormat) -> None:
    binary = rows.select(cs.binary()).columns
    if binary:
        raise ExportError(
            f"{file_format} cannot hold the raw bytes of a column",
            got=binary[0],
            allowed="text, numbers, booleans, dates and nested values of these",
            next_step="export as parquet",
        )
