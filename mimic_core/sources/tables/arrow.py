"""Parquet files of unknown origin, read through pyarrow.

polars ends the process, or raises what no ``except Exception`` catches, on some damaged files;
pyarrow raises errors. It also reads a row group in small batches, so that memory stays bounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mimic_core.base.errors import SourceError
from mimic_core.sources.images import ImageError, check_image_size
from mimic_core.sources.source import FileState

BATCH_ROWS = 128  # images decoded from the file together
_OPEN_COLUMNS = 4
_BUFFER_BYTES = 1024 * 1024  # read ahead per column, instead of a row group's whole column
FAILURES = (
    pa.ArrowException,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,  # no Exception, so it has to be named
    OSError,
    ValueError,
    LookupError,
    MemoryError,
    OverflowError,
    StopIteration,  # fewer rows than the file's end declares
)


def parquet_schema(file: IO[bytes] | Path, name: str) -> dict[str, pl.DataType]:
    """The columns of one file.

    Raises:
        SourceError: It is damaged, or names a column twice.
    """
    try:
        schema = pq.read_schema(file)
        names = list(schema.names)
        repeated = sorted({column for column in names if names.count(column) > 1})
        if not repeated:
            return dict(_frame(schema.empty_table()).schema)
    except FAILURES as error:
        raise unreadable(name, error) from error
    raise SourceError(f"{name} names a column twice", got=repeated, next_step="rename one of them")


def class_names(file: IO[bytes] | Path, name: str) -> dict[str, list[str]]:
    """The class names that Hugging Face's ``ClassLabel`` columns stand for, by column.

    They are written in the schema's metadata; the column itself holds their numbers.
    """
    try:
        metadata = pq.read_schema(file).metadata or {}
    except FAILURES as error:
        raise unreadable(name, error) from error
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        named = {column: feature.get("names") for column, feature in features.items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}  # written by somebody else, or not at all
    return {
        column: names
        for column, names in named.items()
        if isinstance(names, list) and all(isinstance(one, str) for one in names)
    }


def row_count(path: Path) -> int:
    """The number of rows, from the file's end."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except FAILURES as error:
        raise unreadable(path.name, error) from error


def read_columns(file: IO[bytes] | Path, columns: list[str], name: str) -> pl.DataFrame:
    """Some columns of a whole file."""
    try:
        return _checked(pq.read_table(file, columns=columns, use_threads=False), columns)
    except FAILURES as error:
        raise unreadable(name, error) from error


def read_rows(path: Path, columns: list[str], start: int, count: int) -> pl.DataFrame:
    """Some columns of the rows from ``start`` on."""
    try:
        file = _open(path)
        parts = [file.schema_arrow.empty_table().select(columns)]
        for first, batch in _batches(file, columns, start, count):
            skip = max(0, start - first)
            parts.append(pa.table(batch).select(columns).slice(skip, start + count - first - skip))
        return _checked(pa.concat_tables(parts), columns)
    except FAILURES as error:
        raise unreadable(path.name, error) from error


def _open(path: Path) -> Any:
    return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)


def _batches(file: Any, columns: list[str], start: int, count: int) -> Iterator[tuple[int, Any]]:
    """Batches that hold the wanted rows (and maybe others), each with the number of its first."""
    first = 0
    for group in range(file.num_row_groups):
        place = first
        first += file.metadata.row_group(group).num_rows
        if first <= start or place >= start + count:
            continue
        for batch in file.iter_batches(row_groups=[group], columns=columns, use_threads=False):
            if place + len(batch) > start:
                yield place, batch
            place += len(batch)
            if place >= start + count:
                return


def _checked(table: Any, columns: list[str]) -> pl.DataFrame:
    """An arrow table as a frame; text that is not UTF-8 is found here and not in polars."""
    chosen = table.select(columns)  # reading a column also reads others that begin with "name."
    chosen.validate(full=True)
    return _frame(chosen)


def _frame(table: Any) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # of a table, never of an array
    return frame


def unreadable(name: str, error: BaseException) -> SourceError:
    """The refusal of a damaged file."""
    return SourceError(
        f"{name} cannot be read as Parquet: {error}", next_step="check or re-create that file"
    )


class _ImageColumn:
    """The images of one file, row group by row group, forwards; going back starts one again."""

    def __init__(self, path: str, column: str) -> None:
        self._file = _open(Path(path))
        self._name = self._file.schema_arrow.field(column).name  # raises KeyError for no such one
        metadata = self._file.metadata
        heights = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *heights])  # (groups + 1)
        self._group = -1
        self._batches: Iterator[Any] = iter(())
        self._first = 0  # row number of the first of the cells
        self._cells: Any = ()

    def cell(self, row: int) -> Any:
        """The cell of ``row``; None outside the file."""
        if not 0 <= row < self._starts[-1]:
            return None
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if group != self._group or row < self._first:
            self._group, self._first, self._cells = group, int(self._starts[group]), ()
            self._batches = self._file.iter_batches(
                BATCH_ROWS, row_groups=[group], columns=[self._name], use_threads=False
            )
        while row >= self._first + len(self._cells):
            self._first += len(self._cells)
            batch = next(self._batches)
            self._cells = batch.column(batch.schema.get_field_index(self._name))
        value = self._cells[row - self._first].as_py()
        return value.get("bytes") if isinstance(value, dict) else value


@lru_cache(maxsize=_OPEN_COLUMNS)
def _image_column(state: FileState, column: str) -> _ImageColumn:
    return _ImageColumn(state.path, column)


def read_cell(path: Path, column: str, row: int) -> bytes:
    """The image bytes in row ``row`` of ``column``.

    Raises:
        ImageError: There is no such file, row or column, the cell is null, or the file damaged.
    """
    try:
        data = _image_column(FileState.of(path), column).cell(row)
    except (FileNotFoundError, KeyError) as error:
        raise ImageError("missing_image", f"{path.name}: {error}") from error
    except FAILURES as error:
        detail = f"{path.name} row {row}: {type(error).__name__}: {error}"
        raise ImageError("corrupt_image", detail) from error
    if not isinstance(data, bytes):
        raise ImageError("missing_image", f"{path.name}: row {row} has no bytes in {column}")
    check_image_size(len(data), f"{path.name} row {row}")
    return data
