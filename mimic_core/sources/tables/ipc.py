"""Arrow files, as Hugging Face's ``save_to_disk`` writes them: streams, or files with an index.

The file is mapped and not read, so that the bytes of an image are known by their place in it: what
reads them later needs no arrow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Locator
from mimic_core.sources.source import FileState, file_identity
from mimic_core.sources.tables.arrow import FAILURES, Rows, checked_rows

_OPEN_FILES = 4
_BESIDE = ("dataset_info.json", "state.json", "dataset_dict.json")


class _Mapped(NamedTuple):
    """A mapped file: its table, and where in memory it begins."""

    table: Any
    start: int
    size: int
    file: Any  # keeps the map open


class ArrowFiles:
    """Arrow, of which an image is bytes of the file."""

    name = "arrow"

    def among(self, names: Sequence[str]) -> list[str]:
        """By suffix, but for what ``datasets`` has cached of its own work."""
        found = [PurePosixPath(name) for name in names if name.lower().endswith(".arrow")]
        return [str(one) for one in found if not one.name.startswith(("cache-", "tmp"))]

    def beside(self, names: Sequence[str]) -> list[str]:
        """What ``save_to_disk`` writes about the data set."""
        return [name for name in names if PurePosixPath(name).name in _BESIDE]

    def schema(self, path: Path, name: str) -> Any:
        """From the file's beginning."""
        return _mapped(path, name).table.schema

    def row_count(self, path: Path) -> int:
        """From the heads of the batches."""
        return int(_mapped(path, path.name).table.num_rows)

    def read(self, path: Path, columns: list[str], start: int, count: int) -> Rows:
        """Copied out of the map."""
        table = _mapped(path, path.name).table
        try:
            return checked_rows(table.select(columns).slice(start, count), columns)
        except FAILURES as error:
            raise _unreadable(path.name, error) from error

    def images(
        self, path: Path, name: str, column: str, start: int, count: int
    ) -> list[Locator | str]:
        """By their places in the file; what a compressed file holds has none."""
        mapped = _mapped(path, name)
        try:
            cells = mapped.table.column(column).slice(start, count)
            return [place for part in cells.chunks for place in _places(part, mapped, name)]
        except FAILURES as error:
            raise _unreadable(name, error) from error

    def identity(self, path: Path, name: str) -> list[Any]:
        """Name, size, head and tail."""
        return file_identity(path, name)


def _mapped(path: Path, name: str) -> _Mapped:
    os.fspath(path)  # refuses what is no file of this machine, as none other can be mapped
    try:
        return _map(FileState.of(path))
    except FAILURES as error:
        raise _unreadable(name, error) from error


@lru_cache(maxsize=_OPEN_FILES)
def _map(state: FileState) -> _Mapped:
    file = pa.memory_map(state.path)
    whole = file.read_buffer(state.size)
    try:
        table = pa.ipc.open_stream(whole).read_all()
    except pa.ArrowInvalid:
        table = pa.ipc.open_file(whole).read_all()
    table.validate()
    table.schema.names  # noqa: B018 - raises where one of them is not UTF-8
    return _Mapped(table, whole.address, state.size, file)


def _places(cells: Any, mapped: _Mapped, name: str) -> Iterator[Locator | str]:
    """The place of each cell; a path where there are no bytes."""
    cells.validate(full=True)  # else damaged places lead out of the map, and end the process
    paths: list[str | None] = [None] * len(cells)
    data = cells
    if pa.types.is_struct(cells.type):
        data = cells.field("bytes")
        if cells.type.get_field_index("path") >= 0:
            paths = cells.field("path").to_pylist()
    wide = pa.types.is_large_binary(data.type)
    _, ends, values = data.buffers()
    there = data.is_valid().to_numpy(zero_copy_only=False)
    if values is None or not len(data):
        offsets = np.zeros(len(data) + 1, np.int64)
        first = 0
    else:
        offsets = np.frombuffer(ends, np.int64 if wide else np.int32)
        offsets = offsets[data.offset : data.offset + len(data) + 1].astype(np.int64)
        first = values.address - mapped.start
        if first < 0 or first + int(offsets[-1]) > mapped.size:
            raise ValueError("it is compressed inside: save it without compression, or as Parquet")
    for row, path in enumerate(paths):
        if there[row]:
            yield Locator(
                "range", name, first + int(offsets[row]), int(offsets[row + 1] - offsets[row])
            )
        else:
            yield path or ""


def _unreadable(name: str, error: BaseException) -> SourceError:
    return SourceError(
        f"{name} cannot be read as Arrow: {error}", next_step="check or re-create that file"
    )
