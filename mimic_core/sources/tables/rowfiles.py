"""Files of rows with images inside: what a layout asks of Parquet, Arrow and Lance alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow.compute as pc
import pyarrow.parquet as pq

from mimic_core.base.schema import Locator
from mimic_core.sources.source import file_identity
from mimic_core.sources.tables import arrow
from mimic_core.sources.tables.arrow import FAILURES, Rows, unreadable

_BATCH_ROWS = 128


class RowFiles(Protocol):
    """One format. All raise ``SourceError`` where a file cannot be read."""

    name: str

    def among(self, names: Sequence[str]) -> list[str]:
        """Those files, or folders of files, that are of this format."""

    def beside(self, names: Sequence[str]) -> list[str]:
        """Those files that the format writes beside them."""

    def schema(self, path: Path, name: str) -> Any:
        """The columns, as arrow holds them."""

    def row_count(self, path: Path) -> int:
        """The number of rows."""

    def read(self, path: Path, columns: list[str], start: int, count: int) -> Rows:
        """Some columns of the rows from ``start`` on."""

    def images(
        self, path: Path, name: str, column: str, start: int, count: int
    ) -> list[Locator | str]:
        """Where the images of those rows are; text is a path that stands in the place of bytes."""

    def identity(self, path: Path, name: str) -> list[Any]:
        """What tells one content from another, as cheaply as can be."""


class ParquetFiles:
    """Parquet, of which an image is read by its row number."""

    name = "parquet"

    def among(self, names: Sequence[str]) -> list[str]:
        """By suffix."""
        return [name for name in names if name.lower().endswith(".parquet")]

    def beside(self, names: Sequence[str]) -> list[str]:
        """None that is known."""
        del names
        return []

    def schema(self, path: Path, name: str) -> Any:
        """From the file's end."""
        return arrow.arrow_schema(path, name)

    def row_count(self, path: Path) -> int:
        """From the file's end."""
        return arrow.row_count(path)

    def read(self, path: Path, columns: list[str], start: int, count: int) -> Rows:
        """Batch by batch."""
        return arrow.read_rows(path, columns, start, count)

    def images(
        self, path: Path, name: str, column: str, start: int, count: int
    ) -> list[Locator | str]:
        """By row; a path only where the statistics say that bytes are missing."""
        places: list[Locator | str] = [
            Locator("parquet", name, row, -1, column) for row in range(start, start + count)
        ]
        try:
            file = pq.ParquetFile(arrow.as_read(path))
            for place, text in _paths_without_bytes(file, column, start, start + count):
                places[place - start] = text
        except FAILURES as error:
            raise unreadable(name, error) from error
        return places

    def identity(self, path: Path, name: str) -> list[Any]:
        """Name, size, head and tail."""
        return file_identity(path, name)


def _paths_without_bytes(
    file: Any, column: str, start: int, stop: int
) -> Iterator[tuple[int, str]]:
    """Rows of Hugging Face's ``{bytes, path}`` that have a path and no bytes, with the path."""
    leaves = {
        file.metadata.schema.column(place).path: place for place in range(file.metadata.num_columns)
    }
    data, text = (leaves.get(f"{column}.{part}") for part in ("bytes", "path"))
    if data is None or text is None:
        return
    first = 0
    for group in range(file.num_row_groups):
        part = file.metadata.row_group(group)
        place, first = first, first + part.num_rows
        statistics = part.column(data).statistics
        known = statistics is not None and statistics.has_null_count
        if first <= start or place >= stop or (known and statistics.null_count == 0):
            continue
        wanted = [f"{column}.path"]
        if not (known and statistics.null_count == part.num_rows):
            wanted.append(f"{column}.bytes")
        for batch in file.iter_batches(
            _BATCH_ROWS, row_groups=[group], columns=wanted, use_threads=False
        ):
            cells = batch.column(0)
            paths = pc.struct_field(cells, "path").to_pylist()
            empty = [True] * len(cells)
            if len(wanted) > 1:
                empty = pc.is_null(pc.struct_field(cells, "bytes")).to_pylist()
            for row, (path, without) in enumerate(zip(paths, empty, strict=True), place):
                if without and path and start <= row < stop:
                    yield row, path
            place += len(cells)
