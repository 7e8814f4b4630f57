"""The door for stored files: what is read back is what was written, or an error says what is not.

Whoever opens a run may have it from somebody else, or from a disk that was full. So each reader
says which columns it needs, and a file that is missing, damaged or of another kind becomes a
``RunError`` with the file, what is wrong with it, and what makes it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from mimic_core.base.errors import RunError

Columns = Mapping[str, pl.DataType]

# What makes a file again. Features are shared by runs and dear; scores are cheap.
RUN_REMEDY = (
    "delete the folder of that run and score the pool again; what was read from the images is kept"
)
FEATURES_REMEDY = (
    "delete that file and score the pool again: its shard, and nothing else, is read anew"
)
JOIN_REMEDY = "remove that join (mimicscope join RUN --remove NAME) and join the file again"
MAP_REMEDY = "delete map.parquet and map.json there and make the map again (mimicscope layout)"


def scan_table(path: Path, columns: Columns, *, remedy: str) -> pl.LazyFrame:
    """A stored Parquet table that holds ``columns`` at least; its rows are not read yet.

    Raises:
        RunError: It is missing, no Parquet file, or lacks a column; names the file.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is missing"
        raise RunError(f"the stored file {path.name} {what}", got=str(path), next_step=remedy)
    with _damaged(path, remedy):
        found = pl.read_parquet_schema(path)
    for name, dtype in columns.items():
        if not _fits(found.get(name), dtype):
            there = f"of type {found[name]}" if name in found else "not there"
            raise RunError(
                f"the stored file {path.name} is not as it was written: column {name} is {there}",
                got=str(path),
                allowed=f"{name} of type {dtype}",
                next_step=remedy,
            )
    return pl.scan_parquet(path)


def read_table(path: Path, columns: Columns, *, remedy: str) -> pl.DataFrame:
    """The same table in memory, with all columns it has. Raises like ``scan_table``."""
    table = scan_table(path, columns, remedy=remedy)
    with _damaged(path, remedy):
        return table.collect()


def read_array(path: Path, rows: int, *, remedy: str, kind: str = "f") -> np.ndarray:
    """A stored array (``rows``, ...) of numpy's ``kind`` of numbers, memory-mapped.

    Raises:
        RunError: It is missing, damaged, or has another number of rows; names the file.
    """
    with _damaged(path, remedy):
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    if not array.shape or len(array) != rows or array.dtype.kind != kind:
        raise RunError(
            f"the stored array {path.name} does not fit its samples",
            got=f"{path}: shape {array.shape}, {array.dtype}",
            allowed=f"numbers in {rows} rows",
            next_step=remedy,
        )
    return array


@contextmanager
def intact(paths: Callable[[], Iterable[tuple[Path, str]]]) -> Iterator[None]:
    """Around queries on stored tables: where one fails in the middle, the file is named.

    Args:
        paths: The tables that the queries read, each with what makes it again; asked, and read
            whole one by one, only after a failure.
    """
    try:
        yield
    except RunError:
        raise
    except BaseException as error:
        if not _is_damage(error):
            raise
        for path, remedy in paths():
            with _damaged(path, remedy):
                pl.read_parquet(path)
        ours = isinstance(error, ValueError) and not isinstance(error, pa.ArrowException)
        if ours or getattr(error, "errno", None) is not None:
            raise  # no damage: a defect of ours, or what the system says
        raise RunError(
            f"a stored table is damaged ({_first_line(error)})",
            next_step="score the pool again into a new folder",
        ) from error


@contextmanager
def _damaged(path: Path, remedy: str) -> Iterator[None]:
    """Errors of the libraries that read files, as one of ours."""
    try:
        yield
    except BaseException as error:
        if not _is_damage(error):
            raise
        raise RunError(
            f"the stored file {path.name} is damaged ({_first_line(error)})",
            got=str(path),
            next_step=remedy,
        ) from error


def _fits(found: pl.DataType | None, dtype: pl.DataType) -> bool:
    """Whether a column is there and of that type; a number may be wider or narrower."""
    if found is None or found == dtype:
        return found is not None
    return (found.is_float() and dtype.is_float()) or (found.is_integer() and dtype.is_integer())


def _is_damage(error: BaseException) -> bool:
    # Polars panics on some damage; that class is no Exception and cannot be imported.
    known = (pl.exceptions.PolarsError, pa.ArrowException, OSError, ValueError, EOFError)
    return isinstance(error, known) or type(error).__name__ == "PanicException"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
