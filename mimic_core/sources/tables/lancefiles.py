"""Lance tables, where their library is installed (extra ``lance``): folders named ``*.lance``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Locator
from mimic_core.sources.images import ImageError, check_image_size
from mimic_core.sources.source import file_identity
from mimic_core.sources.tables.arrow import FAILURES, Rows, checked_rows

_OPEN_TABLES = 4
_TAKEN = 8192  # rows that are read together, so that memory stays bounded


class LanceFiles:
    """Lance, of which an image is read by its row number."""

    name = "lance"

    def among(self, names: Sequence[str]) -> list[str]:
        """Folders of that suffix that hold versions of a table, or one that was given."""
        found: dict[str, None] = {}
        for name in names:
            folder, inside, _ = name.partition(".lance/_versions/")
            if inside or (name.endswith(".lance") and "/" not in name):
                found[f"{folder.removesuffix('.lance')}.lance"] = None
        return list(found)

    def beside(self, names: Sequence[str]) -> list[str]:
        """All files of the tables."""
        tables = {f"{one}/" for one in self.among(names)}
        return [name for name in names if any(name.startswith(table) for table in tables)]

    def schema(self, path: Path, name: str) -> Any:
        """Of the newest version."""
        table = _table(path, name)
        with _failing_as(lambda error: _unreadable(name, error)):
            return table.schema

    def row_count(self, path: Path) -> int:
        """Of the newest version."""
        table = _table(path, path.name)
        with _failing_as(lambda error: _unreadable(path.name, error)):
            return int(table.count_rows())

    def read(self, path: Path, columns: list[str], start: int, count: int) -> Rows:
        """Some columns of the rows from ``start`` on."""
        table = _table(path, path.name)
        with _failing_as(lambda error: _unreadable(path.name, error)):
            found = table.to_table(columns=columns, offset=start, limit=min(count, _TAKEN))
            return checked_rows(found, columns)

    def images(
        self, path: Path, name: str, column: str, start: int, count: int
    ) -> list[Locator | str]:
        """By row."""
        del path
        return [Locator("lance", name, row, -1, column) for row in range(start, start + count)]

    def identity(self, path: Path, name: str) -> list[Any]:
        """The versions: each manifest by name, size, head and tail."""
        manifests = sorted((path / "_versions").iterdir())
        return [file_identity(one, f"{name}/{one.name}") for one in manifests]


def read_lance_cell(path: Path, column: str, row: int) -> bytes:
    """The image bytes in row ``row`` of ``column``.

    Raises:
        ImageError: There is no such table, row or column, or the cell is null.
    """
    try:
        table = _table(path, path.name)
    except SourceError as error:
        raise ImageError("missing_image", error.problem) from error
    with _failing_as(lambda error: _damaged(f"{path.name} row {row}", error)):
        cell = table.take([row], columns=[column]).column(0)[0]
    if isinstance(cell, pa.StructScalar):
        cell = cell["bytes"]
    data = cell.as_py()
    if not isinstance(data, bytes):
        raise ImageError("missing_image", f"{path.name}: row {row} has no bytes in {column}")
    check_image_size(len(data), f"row {row}")
    return data


def _table(path: Path, name: str) -> Any:
    try:
        with _failing_as(lambda error: _unreadable(name, error)):
            versions = path / "_versions"
            return _open(os.fspath(path), versions.stat().st_mtime_ns)
    except ImportError as error:
        raise SourceError(
            f"{name} is a Lance table, whose library is not installed",
            got=str(path),
            next_step="pip install 'mimicscope[lance]', or store the table as Parquet",
        ) from error


@lru_cache(maxsize=_OPEN_TABLES)
def _open(path: str, changed: int) -> Any:  # noqa: ARG001 - a table written anew is read anew
    import lance

    return lance.dataset(path)


@contextmanager
def _failing_as(refusal: Callable[[BaseException], Exception]) -> Iterator[None]:
    """Raise ``refusal`` of what the library raises, also of its panics.

    Those are no ``Exception``, and their class can be imported from nowhere.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, FAILURES) or type(error).__name__ == "PanicException":
            raise refusal(error) from error
        raise


def _damaged(where: str, error: BaseException) -> ImageError:
    return ImageError("corrupt_image", f"{where}: {type(error).__name__}: {error}")


def _unreadable(name: str, error: BaseException) -> SourceError:
    return SourceError(
        f"{name} cannot be read as Lance: {error}", next_step="check or re-create that table"
    )
