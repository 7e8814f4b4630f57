"""Files in object storage as paths: read in ranges, through a cache on this machine's disk.

What is read comes in blocks that are kept on disk, up to a limit; those not used for longest go
first (``mimic_core.base.blocks``).

What fails for good (``mimic_core.base.storage``), or is no longer there, is a ``RemoteError`` and
not an ``OSError``: it ends the work, which can be resumed, and is never taken for a damaged file
whose samples are skipped.

Objects are written whole: a store shows one under its name when all of it is there, and not before.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from mimic_core.base import blocks, storage
from mimic_core.base.errors import RemoteError

SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "https", "http", "hf", "memory")
WRITABLE = ("s3", "gs", "gcs", "az", "abfs", "memory")  # those that take one object after another
BLOCK = 1 << 20  # bytes
AHEAD = 8  # blocks that are fetched at once where a file is read forwards
_URL = re.compile(rf"^({'|'.join(SCHEMES)}):/(/?)")


def is_remote(text: str) -> bool:
    """Whether a path is one in object storage."""
    return _URL.match(text) is not None


def as_place(text: str) -> Path:
    """The path that a text names, on this machine or in object storage."""
    return RemotePath.of(text) if is_remote(text) else Path(text)


def forget(path: Path) -> None:
    """Ask anew what is at ``path``, below it and at names that begin alike; on this machine's disk
    nothing is remembered.
    """
    if isinstance(path, RemotePath):
        for url in [url for url in list(_KNOWN) if url.startswith(path.url)]:
            _KNOWN.pop(url, None)


class Info(NamedTuple):
    """What is known of an object: its size in bytes, and what tells one content from another."""

    size: int
    version: str


class RemotePath(type(Path())):  # type: ignore[misc]  # the class of paths of this system
    """A file or folder in object storage.

    It opens for reading, knows its size, and joins names as other paths do; it is written whole, by
    ``write_bytes`` and ``upload``. It has no file on this machine, so that whatever asks for one is
    refused.
    """

    @classmethod
    def of(cls, url: str) -> RemotePath:
        """The path of a URL."""
        return cls(_URL.sub(r"\1:/", url))

    @property
    def url(self) -> str:
        """Its URL."""
        scheme, *rest = self.parts
        return f"{scheme}//{'/'.join(rest)}"

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"RemotePath({self.url!r})"

    def __fspath__(self) -> str:
        raise RemoteError(
            "this kind of file is read from this machine's own disk only",
            got=self.url,
            allowed="plain .tar shards, Parquet, tables and loose images in object storage",
            next_step="download it first, or unpack it there",
        )

    def as_posix(self) -> str:
        """Its URL."""
        return self.url

    def resolve(self, strict: bool = False) -> RemotePath:  # noqa: ARG002, FBT001, FBT002 - Path's
        """Itself: there are no links."""
        return self

    absolute = expanduser = resolve

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:  # noqa: ARG002 - Path's own
        """Size and kind; a prefix of other objects is a folder.

        Raises:
            FileNotFoundError: There is no such object.
            RemoteError: Object storage does not answer.
        """
        found = _info(self.url)
        kind = stat.S_IFDIR if found is None else stat.S_IFREG
        changed = (
            0 if found is None else int(hashlib.sha256(found.version.encode()).hexdigest()[:8], 16)
        )
        size = 0 if found is None else found.size
        return os.stat_result((kind | 0o444, 0, 0, 1, 0, 0, size, 0, changed, changed))

    lstat = stat

    def open(
        self, mode: str = "r", buffering: int = -1, encoding: str | None = None, *_: Any
    ) -> Any:
        """Open for reading, in ranges. Raises as ``stat``."""
        if set(mode) - set("rbt"):
            raise RemoteError(
                "object storage is only read here", got=self.url, next_step="choose another place"
            )
        if buffering == 0:
            return _Ranged(self)
        raw = io.BufferedReader(_Ranged(self), 1 << 16)
        return raw if "b" in mode else io.TextIOWrapper(raw, encoding=encoding or "utf-8")

    def require_writable(self) -> None:
        """Refuse what names no object in a bucket that is written to.

        Raises:
            RemoteError: The protocol or the name does not fit.
        """
        scheme = self.parts[0][:-1]
        if scheme not in WRITABLE:
            raise RemoteError(
                f"{scheme}:// is only read",
                got=self.url,
                allowed="a folder of this machine, s3://, gs:// or az://",
                next_step="write to a folder and bring it there with that service's own tool",
            )
        if len(self.parts) < 3:
            raise RemoteError(
                "this names a bucket, and nothing in it",
                got=self.url,
                allowed=f"{scheme}://BUCKET/NAME",
                next_step="put a name behind the bucket",
            )

    def write_bytes(self, data: Any) -> int:
        """Write the object, whole; returns its size in bytes.

        Raises:
            RemoteError: Object storage does not take it.
        """
        self._write(lambda files: files.pipe_file(self.url, bytes(data)))
        return len(data)

    def upload(self, file: Path) -> None:
        """Write the object from a file of this machine, large ones in parts; of an upload that
        fails none stays.

        Raises:
            RemoteError: Object storage does not take it.
        """
        self._write(lambda files: files.put_file(str(file), self.url))

    def unlink(self, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - Path's own
        """Remove the object.

        Raises:
            FileNotFoundError: There is none, and ``missing_ok`` is false.
            RemoteError: It cannot be removed.
        """
        forget(self)
        try:
            self._write(lambda files: files.rm_file(self.url))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Remove the object, all that are below it, and what killed uploads to them have left.

        Raises:
            RemoteError: They cannot be removed.
        """
        found = [self, *(self / name for name in self.listing())]
        with ThreadPoolExecutor(AHEAD) as threads:
            list(threads.map(lambda one: one.unlink(missing_ok=True), found))
        files = storage.filesystem(self.parts[0][:-1])
        if self.parts[0] == "s3:":  # elsewhere unfinished uploads go by themselves
            storage.tried(
                lambda: storage.abort_uploads(files, self.parts[1], "/".join(self.parts[2:])),
                self.url,
            )

    def _write(self, change: Callable[[Any], Any]) -> None:
        """Change the object, and forget what was known of it."""
        self.require_writable()
        files = storage.filesystem(self.parts[0][:-1])
        try:
            storage.tried(lambda: change(files), self.url)
        except storage.Gone:
            raise FileNotFoundError(errno.ENOENT, "no such bucket or object", self.url) from None
        finally:
            forget(self)

    def version(self) -> str:
        """What tells one content of the object from another: its size and ETag. Raises as
        ``require_there``.
        """
        info = _require_info(self.url)
        return f"{info.size} {info.version}"

    def require_there(self) -> int:
        """Its size in bytes.

        Raises:
            RemoteError: It is gone, or object storage does not answer.
        """
        return _require_info(self.url).size

    def read_range(self, start: int, length: int) -> bytes:
        """``length`` bytes from ``start`` on.

        Raises:
            RemoteError: They do not come, or the object is gone or has become shorter.
        """
        info = _require_info(self.url)
        if start + length > info.size:
            raise _gone(self.url)
        return _read(self.url, info, start, start + length) if length else b""

    def listing(self) -> dict[str, int]:
        """The objects below it by name, with their sizes in bytes.

        Raises:
            RemoteError: They cannot be listed.
        """
        files = storage.filesystem(self.parts[0][:-1])
        base = files._strip_protocol(self.url).rstrip("/") + "/"  # noqa: SLF001 - fsspec's own way
        try:
            found = storage.tried(lambda: files.find(base, detail=True), self.url)
        except storage.Gone:
            raise RemoteError(
                "there is no such bucket", got=self.url, next_step="create it, or check its name"
            ) from None
        names = {}
        for path, said in found.items():
            if not str(path).startswith(base):  # an object of the folder's own name
                continue
            name = str(path).removeprefix(base)
            _KNOWN[f"{self.url.rstrip('/')}/{name}"] = _info_of(said)
            names[name] = int(said["size"] or 0)
        return names


class _Ranged(io.RawIOBase):
    """An object as a file that is read in ranges."""

    def __init__(self, path: RemotePath) -> None:
        super().__init__()
        self._url = path.url
        self._info = _require_info(path.url)
        self._place = 0
        self._last = -1  # block that was read last

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._info.size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        stop = min(self._place + len(buffer), self._info.size)
        if stop <= self._place:
            return 0
        first, last = self._place // BLOCK, (stop - 1) // BLOCK
        ahead = AHEAD if first in (self._last, self._last + 1) else 1
        data = _read(self._url, self._info, self._place, stop, ahead=ahead)
        self._last = last
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


_KNOWN: dict[str, Info] = {}  # what this process has been told


def _info_of(said: dict[str, Any]) -> Info:
    tags = (
        "ETag",
        "etag",
        "md5Hash",
        "content_md5",
        "last_commit",
        "LastModified",
        "last_modified",
    )
    version = next((str(said[tag]) for tag in tags if said.get(tag)), "")
    return Info(int(said["size"] or 0), version)


def _info(url: str) -> Info | None:
    """What is known of an object; None for a folder."""
    if url in _KNOWN:
        return _KNOWN[url]
    scheme = url.partition(":")[0]
    files = storage.filesystem(scheme)
    try:
        said = storage.tried(lambda: files.info(url), url)
    except storage.Gone:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", url) from None
    if said["type"] == "directory":
        return None
    _KNOWN[url] = _info_of(said)
    return _KNOWN[url]


def _require_info(url: str) -> Info:
    try:
        found = _info(url)
    except FileNotFoundError as error:
        raise _gone(url) from error
    if found is None:
        raise IsADirectoryError(errno.EISDIR, "it is a folder", url)
    return found


def _read(url: str, info: Info, start: int, stop: int, *, ahead: int = 1) -> bytes:
    """The bytes from ``start`` to ``stop``, whose blocks are kept."""
    cache = blocks.kept_here()
    key = hashlib.sha256(f"{url}\n{info.size}\n{info.version}".encode()).hexdigest()
    first, last = start // BLOCK, (stop - 1) // BLOCK
    found = {
        number: kept
        for number in range(first, last + 1)
        if (kept := cache.get(key, number, _length(info, number))) is not None
    }
    final = min(max(last, first + ahead - 1), (info.size - 1) // BLOCK)
    for number in range(first, last + 1):
        if number in found:
            continue
        end = number
        while end < min(final, number + AHEAD - 1) and not (
            end + 1 in found or (end >= last and cache.has(key, end + 1))
        ):
            end += 1
        data = _fetch(url, number * BLOCK, min((end + 1) * BLOCK, info.size))
        for place in range(number, end + 1):
            offset = (place - number) * BLOCK
            found[place] = data[offset : offset + BLOCK]
            cache.put(key, place, found[place])
    joined = b"".join(found[number] for number in range(first, last + 1))
    return joined[start - first * BLOCK : stop - first * BLOCK]


def _length(info: Info, number: int) -> int:
    return min(BLOCK, info.size - number * BLOCK)


def _fetch(url: str, start: int, stop: int) -> bytes:
    files = storage.filesystem(url.partition(":")[0])

    def ask() -> bytes:
        data: bytes = files.cat_file(url, start=start, end=stop)
        if len(data) != stop - start:
            raise ConnectionError(f"{len(data)} of {stop - start} bytes came")
        return data

    try:
        return storage.tried(ask, url)
    except storage.Gone:
        raise _gone(url) from None


def _gone(url: str) -> RemoteError:
    return RemoteError(
        "an object is no longer where it was",
        got=url,
        next_step="bring it back and run the same command again, or score the pool as it is now "
        "into a new folder",
    )
