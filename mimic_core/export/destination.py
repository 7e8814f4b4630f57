"""Where the files of an export go: under temporary names until all are there, then renamed.

``Draft`` is all that the formats know of the place they write to. It is a hidden folder beside the
target, locked by the process that fills it: what a killed process left is removed by the next
export to the same name. Nothing half-finished is ever seen under a name that was asked for.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from mimic_core.base.errors import ExportError, file_remedy
from mimic_core.base.remote import RemotePath

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TRIES = 3
_WAITING = 8  # pieces to be written or hashed, of a megabyte each
_SPARE_BYTES = 16 << 20  # left free beside what an export is known to need
Counting = Callable[[Iterable[tuple[str, int]], str, set[str]], dict[str, Any] | None]


class Written(NamedTuple):
    """A finished file, named relative to the folder of the target."""

    name: str
    bytes: int
    sha256: str


def written(name: str, data: bytes) -> Written:
    """What is to be said of a file of these bytes."""
    return Written(name, len(data), hashlib.sha256(data).hexdigest())


class Sink:
    """A file that is written from its beginning to its end, and counts and hashes on the way.

    Writing and hashing go on in two threads of their own, which hold no lock of Python's, while the
    next bytes are gathered; a few pieces may wait. What goes wrong in them is raised by a later
    ``write``, or by ``finish``.
    """

    def __init__(self, file: BinaryIO, name: str, threads: tuple[Executor, Executor]) -> None:
        self._file = file
        self._name = name
        self._writing, self._hashing = threads
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._waiting: deque[Future[None]] = deque()
        self.closed = False  # pyarrow asks

    def write(self, data: Any) -> int:
        """Add ``data``, bytes or a buffer of them."""
        piece = data if isinstance(data, bytes) else bytes(data)
        self._waiting.append(self._writing.submit(_write_all, self._file, piece))
        self._waiting.append(self._hashing.submit(self._hash.update, piece))
        while len(self._waiting) > _WAITING:
            self._waiting.popleft().result()
        self._bytes += len(piece)
        return len(piece)

    def tell(self) -> int:
        """The bytes written so far."""
        return self._bytes

    def flush(self) -> None:
        """Nothing: what counts is that the whole is written."""

    def close(self) -> None:
        """The file is whole."""
        self.closed = True

    def finish(self) -> Written:
        """Wait until all is written; what the file is."""
        while self._waiting:
            self._waiting.popleft().result()
        return Written(self._name, self._bytes, self._hash.hexdigest())

    def give_up(self) -> None:
        """Wait for what is under way, whatever comes of it: the file is about to be closed."""
        wait(self._waiting)


def _write_all(file: BinaryIO, data: bytes) -> None:
    """All of ``data``: a disk that is nearly full takes a part of it without a word."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


class Draft:
    """The files of one export below ``out``'s folder; use it in a ``with`` statement.

    Names are relative to that folder and begin with ``out``'s own name, such as ``kept`` in
    ``kept/00000000.tar`` or ``kept.images/1.jpg``. Left without ``commit`` nothing stays.

    Raises:
        ExportError: The disk is full, before or while it is written.
    """

    def __init__(self, out: Path) -> None:
        self._folder = Path(os.path.abspath(out.parent))  # noqa: PTH100 - links stay as they are
        self._prefix = f".{out.name[:80]}."
        self._draft = Path()
        self._lock: int | None = None
        self._threads: tuple[Executor, Executor] = (_one_thread(), _one_thread())
        self._many_in: str | None = None
        self.files: list[Written] = []
        """what is written by ``open`` and ``write`` and is listed in the manifest"""

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        for _ in range(_TRIES):  # another process may take one without a lock for abandoned
            made = tempfile.mkdtemp(dir=self._folder, prefix=self._prefix, suffix=".partial")
            self._draft, self._lock = Path(made), _locked(Path(made))
            if self._lock is not None and self._draft.is_dir():
                break
        self._draft.chmod(0o777 & ~_umask())
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for thread in self._threads:
            thread.shutdown()
        shutil.rmtree(self._draft, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise ExportError(
                "the disk is full; nothing of the export is left on it",
                got=str(self._folder),
                next_step=file_remedy(error),
            ) from error

    def require_space(self, needed: int) -> None:
        """Refuse to begin what cannot end: ``needed`` bytes have to be free."""
        free = shutil.disk_usage(self._folder).free
        if needed + _SPARE_BYTES > free:
            raise ExportError(
                "the disk has too little space for the export",
                got=f"{free:,} bytes free in {self._folder}",
                allowed=f"at least {needed + _SPARE_BYTES:,} bytes",
                next_step="free some space, choose another disk, or select less",
            )

    def place(self, name: str) -> str:
        """Where a reader will find ``name``: an absolute path."""
        return str(self._folder / name)

    @contextmanager
    def open(self, name: str) -> Iterator[Sink]:
        """A file that the manifest lists, flushed to disk when it is whole."""
        path = self._path(name)
        with path.open("wb", buffering=0) as file:
            sink = Sink(file, name, self._threads)
            try:
                yield sink
                written = sink.finish()
            except BaseException:
                sink.give_up()
                raise
            os.fsync(file.fileno())
        self.files.append(written)

    def write(self, name: str, data: bytes) -> None:
        """A small file that the manifest lists."""
        with self.open(name) as sink:
            sink.write(data)

    def add(self, name: str, data: bytes) -> None:
        """One of many files, which the manifest only counts."""
        path = self._path(name)
        with path.open("wb") as file:
            file.write(data)
        self._many_in = name.split("/", maxsplit=1)[0]

    def link(self, name: str, source: Path) -> bool:
        """A hard link to ``source``, its own links followed; False where that cannot be, as across
        devices or out of object storage.
        """
        if isinstance(source, RemotePath):
            return False
        try:
            os.link(os.path.realpath(source), self._path(name))
        except OSError as error:
            if error.errno in (*_FULL, errno.EEXIST):
                raise
            return False
        self._many_in = name.split("/", maxsplit=1)[0]
        return True

    def counted(self, count: Counting) -> dict[str, Any] | None:
        """What ``count`` says of the many files; None where there are none."""
        if self._many_in is None:
            return None
        there = self._files_in(self._many_in)
        return count(there, self._many_in, {one.name for one in self.files})

    def commit(self, manifest: str, said: dict[str, Any], *, replace: bool = False) -> list[str]:
        """Write the manifest, and give all files their names, which are returned; its own comes
        last.

        Args:
            manifest: Its name.
            said: What it says.
            replace: A folder of one of these names is replaced; files always are.
        """
        if self._many_in is not None and hasattr(os, "sync"):
            os.sync()  # they are not flushed one by one
        names = sorted(entry.name for entry in self._draft.iterdir())
        with (self._draft / manifest).open("wb") as file:
            file.write(manifest_bytes(said))
            file.flush()
            os.fsync(file.fileno())
        for number, name in enumerate([*names, manifest]):
            target = self._folder / name
            if replace and target.is_dir() and not target.is_symlink():
                target.rename(self._draft / f".old.{number}")
            (self._draft / name).rename(target)
        return names

    def _files_in(self, folder: str) -> Iterable[tuple[str, int]]:
        return files_below(self._draft, folder)

    def _path(self, name: str) -> Path:
        path = self._draft / name
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _remove_abandoned(self) -> None:
        """Remove drafts whose process has ended: nobody holds their locks."""
        for path in self._folder.iterdir():
            if path.name.startswith(self._prefix) and path.name.endswith(".partial"):
                lock = _locked(path)
                if lock is not None:
                    shutil.rmtree(path, ignore_errors=True)
                    os.close(lock)


def manifest_bytes(said: dict[str, Any]) -> bytes:
    """A manifest as it is written."""
    return json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def files_below(base: Path, folder: str) -> Iterator[tuple[str, int]]:
    """The files in ``folder``, named relative to ``base``, with their sizes in bytes."""
    there = base / folder
    if isinstance(there, RemotePath):
        for name, size in there.listing().items():
            yield f"{folder}/{name}", size
        return
    for path in there.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(base).as_posix(), path.stat().st_size


def _one_thread() -> Executor:
    return ThreadPoolExecutor(1, thread_name_prefix="export")


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _locked(folder: Path) -> int | None:
    """A lock on a folder, which the system drops with its holder; None where there is none to be
    had.
    """
    try:
        import fcntl
    except ImportError:  # Windows: drafts that were left have to be removed by hand
        return None
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor
    return None
