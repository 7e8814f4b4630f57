"""Parquet files of unknown origin, read through pyarrow.

polars ends the process, or raises what no ``except Exception`` catches, on some damaged files;
pyarrow raises errors. It also reads a row group in small batches, so that memory stays bounded.
"""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mimic_core.base.errors import SourceError
from mimic_core.base.remote import RemotePath, as_place
from mimic_core.sources.images import ImageError, check_image_size
from mimic_core.sources.limits import MAX_COLUMN_BYTES, MAX_IMAGE_BYTES, MAX_TEXT_BYTES
from mimic_core.sources.source import FileState
from mimic_core.sources.tables.columns import OWN

BATCH_ROWS = 128  # images decoded from the file together
_OPEN_COLUMNS = 4
_NUL = "\0"
_KNOWN = (
    *(pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_null),
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary),
    *(pa.types.is_date, pa.types.is_time, pa.types.is_duration, pa.types.is_decimal128),
    lambda kind: pa.types.is_timestamp(kind) and kind.tz is None,
)
_TEXT_EXTENSIONS = ("arrow.json",)  # extension types whose storage is text
_BUFFER_BYTES = 1024 * 1024  # read ahead per column, instead of a row group's whole column
_PARTS = """
import io, json, sys
import pyarrow.parquet as pq
group = pq.read_metadata(io.BytesIO(sys.stdin.buffer.read())).row_group(int(sys.argv[1]))
parts = [group.column(place) for place in range(group.num_columns)]
names = [part.path_in_schema.partition(".")[0] for part in parts]
sizes = [(part.total_uncompressed_size, part.num_values) for part in parts]
print(json.dumps([(name, *size) for name, size in zip(names, sizes)]))
"""
FAILURES = (
    pa.ArrowException,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,  # no Exception, so it has to be named
    OSError,
    ValueError,
    LookupError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    StopIteration,  # fewer rows than the file's end declares
)


def parquet_schema(file: IO[bytes] | Path, name: str) -> dict[str, pl.DataType]:
    """The columns of one file that can be used.

    Raises:
        SourceError: It is damaged, or names a column twice.
    """
    return usable_columns(arrow_schema(file, name))


def unusable_of(schema: Any) -> list[str]:
    """The columns of a schema that cannot be used, each with its type."""
    usable = usable_columns(schema)
    unused = [one for one in schema if one.name not in usable]
    return [f"{one.name.replace(_NUL, '?') or 'without a name'} ({one.type})" for one in unused]


def arrow_schema(file: IO[bytes] | Path, name: str) -> Any:
    """The columns as they are stored; raises as ``parquet_schema``."""
    try:
        schema = pq.read_schema(as_read(file))
        repeated = sorted(one for one, count in Counter(schema.names).items() if one and count > 1)
    except FAILURES as error:
        raise unreadable(name, error) from error
    if repeated:
        raise SourceError(
            f"{name} names a column twice", got=repeated, next_step="rename one of them"
        )
    return schema


def usable_columns(schema: Any) -> dict[str, pl.DataType]:
    """The columns that have a name and whose values polars can hold."""
    found = {}
    for field in schema:
        # Arrow itself finds no column by a name with NUL in it.
        named = bool(field.name) and _NUL not in field.name
        series = _series(field.type, []) if named else None
        if series is not None:
            found[field.name] = series.dtype
    return found


def class_names(file: IO[bytes] | Path, name: str) -> dict[str, list[str]]:
    """The class names that Hugging Face's ``ClassLabel`` columns stand for, by column.

    They are written in the schema's metadata; the column itself holds their numbers.
    """
    try:
        return named_classes(pq.read_schema(as_read(file)))
    except FAILURES as error:
        raise unreadable(name, error) from error


def named_classes(schema: Any) -> dict[str, list[str]]:
    """The same of a schema."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        named = {
            column: feature.get("names") for column, feature in features["info"]["features"].items()
        }
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
        return int(pq.read_metadata(as_read(path)).num_rows)
    except FAILURES as error:
        raise unreadable(path.name, error) from error


class Rows(NamedTuple):
    """Some columns of some rows, and the problem of each row (N) that has one, else null.

    The names have ``OWN`` in front, so that none is a pattern to polars, as ``*`` would be.
    """

    frame: pl.DataFrame
    problems: pl.Series


def read_columns(file: IO[bytes] | Path, columns: list[str], name: str) -> Rows:
    """Some columns of a whole file."""
    try:
        opened = _open(file)
        for group in range(opened.num_row_groups):
            _check_cells(opened, group, columns)
        return checked_rows(opened.read(columns=columns, use_threads=False), columns)
    except FAILURES as error:
        raise unreadable(name, error) from error


def read_rows(path: Path, columns: list[str], start: int, count: int) -> Rows:
    """Some columns of the rows from ``start`` on."""
    try:
        file = _open(path)
        fields = [file.schema_arrow.field(column) for column in columns]
        parts = [pa.schema(fields).empty_table()]
        for first, batch in _batches(file, columns, start, count):
            skip = max(0, start - first)
            parts.append(pa.table(batch).select(columns).slice(skip, start + count - first - skip))
        return checked_rows(pa.concat_tables(parts), columns)
    except FAILURES as error:
        raise unreadable(path.name, error) from error


def column_batches(file: IO[bytes], columns: list[str], name: str) -> Iterator[pl.DataFrame]:
    """Some columns of a whole file, part by part."""
    try:
        for batch in _open(file).iter_batches(columns=columns, use_threads=False):
            yield checked_rows(pa.table(batch), columns).frame
    except FAILURES as error:
        raise unreadable(name, error) from error


def as_read(file: IO[bytes] | Path) -> IO[bytes] | Path:
    """A file as pyarrow takes it, which knows no path in object storage."""
    return file.open("rb") if isinstance(file, RemotePath) else file


def _open(file: IO[bytes] | Path) -> Any:
    """A file whose pages are held to their checksums, where it has any."""
    return pq.ParquetFile(
        as_read(file),
        buffer_size=_BUFFER_BYTES,
        pre_buffer=False,
        page_checksum_verification=True,
    )


def _batches(file: Any, columns: list[str], start: int, count: int) -> Iterator[tuple[int, Any]]:
    """Batches that hold the wanted rows (and maybe others), each with the number of its first."""
    first = 0
    for group in range(file.num_row_groups):
        place = first
        first += file.metadata.row_group(group).num_rows
        if first <= start or place >= start + count:
            continue
        _check_cells(file, group, columns)
        for batch in file.iter_batches(row_groups=[group], columns=columns, use_threads=False):
            if place + len(batch) > start:
                yield place, batch
            place += len(batch)
            if place >= start + count:
                return


def _check_cells(file: Any, group: int, columns: list[str]) -> None:
    """Refuse a row group whose cells are too large to be texts, before any is in memory."""
    for part in _large_parts(file, group, MAX_TEXT_BYTES, MAX_COLUMN_BYTES):
        if part.column in columns and (
            part.size > MAX_TEXT_BYTES * max(1, part.cells) or part.size > MAX_COLUMN_BYTES
        ):
            raise ValueError(
                f"{part.size} bytes in {part.cells} cells of {part.column}, the limit is "
                f"{MAX_TEXT_BYTES} for a cell and {MAX_COLUMN_BYTES} for a row group"
            )


class _Part(NamedTuple):
    """One column of one row group: bytes when unpacked, and cells."""

    column: str
    size: int
    cells: int


def _large_parts(file: Any, group: int, per_row: int, most: float) -> list[_Part]:
    """The columns of a row group, where it has more than ``per_row`` bytes a row or ``most``.

    Arrow ends the process that asks for them where what the file says of them is damaged
    (``parquet::ParquetException`` in ``RowGroupMetaData.column``), so another process asks.
    """
    whole = file.metadata.row_group(group)
    if whole.total_byte_size <= min(per_row * max(1, whole.num_rows), most):
        return []
    description = io.BytesIO()
    file.metadata.write_metadata_file(description)
    done = subprocess.run(
        [sys.executable, "-c", _PARTS, str(group)],
        input=description.getvalue(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise ValueError("what it says about its columns is damaged")
    return [_Part(*part) for part in json.loads(done.stdout)]


def checked_rows(table: Any, columns: list[str]) -> Rows:
    """An arrow table as a frame; text that is not UTF-8 is found here and not in polars."""
    chosen = table.select(columns)  # reading a column also reads others that begin with "name."
    problems = pl.Series("problem", [None] * len(chosen), dtype=pl.String())
    found = []
    for name, column in zip(chosen.column_names, chosen.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            column, bad = _decoded(column)  # noqa: PLW2901 - the same, made valid
            problems = problems.scatter(bad, f"the column {name} is not UTF-8")
        series = _series(column.type, column.chunks)
        if series is None:
            raise ValueError(f"the column {name} is {column.type}, which is not read")
        found.append(series.alias(OWN + name))
    return Rows(pl.DataFrame(found), problems)


def _decoded(column: Any) -> tuple[Any, list[int]]:
    """A text column without the cells that are not UTF-8, and where those are."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise ValueError(f"a column of {column.type} is damaged")
    data = column.cast(pa.large_binary())
    data.validate(full=True)  # the places of the texts, which the cast has not looked at
    cells, bad = [], []
    for row, cell in enumerate(data.to_pylist()):
        try:
            cells.append(None if cell is None else cell.decode())
        except UnicodeDecodeError:
            cells.append(None)
            bad.append(row)
    return pa.chunked_array([pa.array(cells, pa.large_string())]), bad


def _series(kind: Any, chunks: list[Any]) -> pl.Series | None:
    """An arrow column as polars holds it, else as text; None where it is of no use."""
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name not in _TEXT_EXTENSIONS:
            return None
        kind, chunks = kind.storage_type, [one.storage for one in chunks]
    column = pa.chunked_array(chunks, kind)
    try:
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            column = column.cast(pa.timestamp(kind.unit, "UTC"))  # its zone may be unknown here
        elif pa.types.is_string_view(kind) or _is_odd_decimal(kind):
            column = column.cast(pa.large_string())
        elif pa.types.is_binary_view(kind):
            column = column.cast(pa.large_binary())
        elif not _is_known(kind):
            return None
        series = pl.from_arrow(column)
    except FAILURES:
        return None
    return series if isinstance(series, pl.Series) else None


def _is_odd_decimal(kind: Any) -> bool:
    return bool(pa.types.is_decimal(kind) and not pa.types.is_decimal128(kind))


def _is_known(kind: Any) -> bool:
    """Whether polars holds arrow's type; it ends with a panic, and not only an error, if not."""
    if any(known(kind) for known in _KNOWN):
        return True
    if pa.types.is_dictionary(kind):
        return bool(
            pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
        )
    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return all(_is_named(field) and _is_known(field.type) for field in fields)
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(known(kind) for known in lists) and _is_known(kind.value_type)


def _is_named(field: Any) -> bool:
    try:
        return isinstance(field.name, str)
    except UnicodeDecodeError:
        return False


def unreadable(name: str, error: BaseException) -> SourceError:
    """The refusal of a damaged file."""
    return SourceError(
        f"{name} cannot be read as Parquet: {error}", next_step="check or re-create that file"
    )


class _ImageColumn:
    """The images of one file, row group by row group, forwards; going back starts one again."""

    def __init__(self, path: str, column: str) -> None:
        self._file = _open(as_place(path))
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
            _check_images(self._file, group, self._name)
        while row >= self._first + len(self._cells):
            self._first += len(self._cells)
            batch = next(self._batches)
            self._cells = batch.column(batch.schema.get_field_index(self._name))
        cell = self._cells[row - self._first]
        if isinstance(cell, pa.StructScalar):
            cell = cell["bytes"]
        if isinstance(cell, pa.BinaryScalar | pa.LargeBinaryScalar) and cell.is_valid:
            check_image_size(cell.as_buffer().size, f"row {row}")
        return cell.as_py()


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
    except ImageError:
        raise
    except FAILURES as error:
        detail = f"{path.name} row {row}: {type(error).__name__}: {error}"
        raise ImageError("corrupt_image", detail) from error
    if not isinstance(data, bytes):
        raise ImageError("missing_image", f"{path.name}: row {row} has no bytes in {column}")
    return data


def _check_images(file: Any, group: int, column: str) -> None:
    """Refuse a row group whose cells are too large to be images, before any is in memory."""
    for part in _large_parts(file, group, MAX_IMAGE_BYTES, math.inf):
        if part.column == column:
            check_image_size(part.size // max(1, part.cells), f"a cell of {part.column}")
