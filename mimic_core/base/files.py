"""Writing files so that each is there whole or not at all, with the same bytes each time."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from mimic_core.base.errors import RunError
from mimic_core.base.remote import RemotePath
from mimic_core.base.schema import ROW_GROUP_ROWS, SCHEMA_VERSION

MAX_JSON = 64 << 20  # bytes; a manifest names each kept uid nowhere but in its recipe
RESCORE = "delete that folder and score the pool again"
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
_SPARE_FILES = 256  # for image readers, tables and whatever else opens files beside the maps


def write_atomic(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write ``path`` through a temporary name in its folder, flush to disk, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` atomically."""
    write_atomic(path, lambda file: _write_all(file, data))


def _write_all(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON, atomically. NaN is refused: it is not JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")


def read_bounded(path: Path, limit: int) -> bytes:
    """The first ``limit + 1`` bytes of a regular file, so that a longer one is noticed.

    Raises:
        OSError: It cannot be read, or is no regular file: a device never ends, a pipe never begins.
    """
    if isinstance(path, RemotePath):
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, "it is a folder", str(path))
        return path.read_range(0, min(found.st_size, limit + 1))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, "no file can have that name", str(path)) from error
    with os.fdopen(descriptor, "rb") as file:
        kind = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(kind):
            raise OSError(errno.EISDIR, "it is a folder", str(path))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "it is a device or a pipe, no file", str(path))
        return file.read(limit + 1)


def require_regular(path: Path, limit: int) -> None:
    """Refuse what is no regular file of at most ``limit`` bytes.

    Raises:
        OSError: It is another thing, not there, or larger.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no file", str(path))
    if found.st_size > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit >> 20:,} MiB", str(path))


def holds(path: Path, data: bytes) -> bool:
    """Whether ``path`` is a regular file of just these bytes."""
    return path.is_file() and read_bounded(path, len(data)) == data


def read_json(path: Path, *, remedy: str = RESCORE) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        remedy: What to do where it is damaged.

    Raises:
        RunError: It is missing, too large, cannot be read, or is no JSON object; says which file.
    """
    try:
        data = read_bounded(path, MAX_JSON)
        if len(data) > MAX_JSON:
            raise RunError(
                f"{path.name} is too large",
                got=f"{path}: more than {MAX_JSON:,} bytes",
                next_step=remedy,
            )
        found = json.loads(data, parse_constant=_no_constant, parse_float=_finite)
    except FileNotFoundError as error:
        raise RunError(
            f"{path.name} is missing", got=str(path), next_step="check the path"
        ) from error
    except OSError as error:
        raise RunError(
            f"{path.name} cannot be read: {error.strerror or error}",
            got=str(path),
            next_step="check the path, and who may read it",
        ) from error
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"{path.name} is not valid JSON ({error})", got=str(path), next_step=remedy
        ) from error
    if not isinstance(found, dict):
        raise RunError(f"{path.name} does not hold a JSON object", got=str(path), next_step=remedy)
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def read_record(path: Path, what: str) -> dict[str, Any]:
    """Read the JSON that says what a run or a feature set is.

    Raises:
        RunError: It is missing, damaged or of another schema version.
    """
    values: dict[str, Any] = read_json(path)
    if values.get("schema_version") != SCHEMA_VERSION:
        raise RunError(
            f"the {what} was written by another version of Mimicscope",
            got=values.get("schema_version"),
            allowed=f"schema version {SCHEMA_VERSION}",
            next_step="score the pool again with this version",
        )
    return values


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    """Write ``frame`` atomically, zstd-compressed, in row groups that stream."""
    with _said_by_the_system(path):
        write_atomic(
            path,
            lambda file: frame.write_parquet(
                file, compression="zstd", row_group_size=ROW_GROUP_ROWS
            ),
        )


def write_draft(path: Path, frame: pl.DataFrame) -> None:
    """Write ``frame`` for this process alone: neither flushed to disk nor renamed."""
    with _said_by_the_system(path):
        frame.write_parquet(path)


@contextmanager
def _said_by_the_system(path: Path) -> Iterator[None]:
    """Polars tells of a full disk as of a computation; here it is the ``OSError`` that it was."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        number = _SYSTEM_ERROR.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def allow_open_files(count: int) -> None:
    """Let this process hold ``count`` files more open: a memory map keeps its file.

    The usual limit of 1,024 is a soft one, which a process may raise itself up to the hard one.

    Raises:
        RunError: The hard limit is too low for that.
    """
    try:
        import resource
    except ImportError:  # Windows, where maps are not counted
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = sum(1 for _ in Path("/dev/fd").iterdir()) + count + _SPARE_FILES
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise RunError(
            "the system does not let this process keep so many files open",
            got=f"{needed} files",
            allowed=f"{hard} files, the hard limit",
            next_step="raise it (ulimit -Hn), or pack the pool into fewer, larger shards",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write ``array`` as ``.npy``, atomically, without pickles."""
    write_atomic(path, lambda file: np.save(file, np.ascontiguousarray(array), allow_pickle=False))
