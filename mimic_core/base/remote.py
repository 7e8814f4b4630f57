"""Files in object storage as paths: read in ranges, through a cache on this machine's disk.

``s3://``, ``gs://``, ``az://``, ``https://`` and ``hf://`` are opened by fsspec, each by the
package that fsspec names for it; credentials and endpoints are those of that package's own
environment and files. What is read comes in blocks that are kept on disk, up to a limit; those not
used for longest go first (``mimic_core.base.blocks``).

A request that fails is repeated, ``ATTEMPTS`` times in all, with growing pauses. What fails then,
or is no longer there, is a ``RemoteError`` and not an ``OSError``: it ends the work, which can be
resumed, and is never taken for a damaged file whose samples are skipped.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import re
import stat
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mimic_core.base import blocks
from mimic_core.base.errors import ConfigError, MimicError

SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "https", "http", "hf", "memory")
ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds; about 16 in all
BLOCK = 1 << 20  # bytes
AHEAD = 8  # blocks that are fetched at once where a file is read forwards
_TIMEOUT = 60  # seconds until a silent connection counts as broken
_PAUSE: Callable[[float], None] = time.sleep
_URL = re.compile(rf"^({'|'.join(SCHEMES)}):/(/?)")
T = TypeVar("T")


class RemoteError(MimicError):
    """Object storage did not answer, or no longer holds what it held."""


def is_remote(text: str) -> bool:
    """Whether a path is one in object storage."""
    return _URL.match(text) is not None


def as_place(text: str) -> Path:
    """The path that a text names, on this machine or in object storage."""
    return RemotePath.of(text) if is_remote(text) else Path(text)


class Info(NamedTuple):
    """What is known of an object: its size in bytes, and what tells one content from another."""

    size: int
    version: str


class RemotePath(type(Path())):  # type: ignore[misc]  # the class of paths of this system
    """A file or folder in object storage, wherever a path is read and not written.

    It opens for reading, knows its size, and joins names as other paths do. It has no file on this
    machine, so that whatever asks for one is refused.
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
        files = _filesystem(self.parts[0][:-1])
        base = files._strip_protocol(self.url).rstrip("/") + "/"  # noqa: SLF001 - fsspec's own way
        found = _tried(lambda: files.find(base, detail=True), self.url)
        names = {}
        for path, said in found.items():
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
    files = _filesystem(scheme)
    try:
        said = _tried(lambda: files.info(url), url)
    except _Gone:
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
    files = _filesystem(url.partition(":")[0])

    def ask() -> bytes:
        data: bytes = files.cat_file(url, start=start, end=stop)
        if len(data) != stop - start:
            raise ConnectionError(f"{len(data)} of {stop - start} bytes came")
        return data

    try:
        return _tried(ask, url)
    except _Gone:
        raise _gone(url) from None


class _Gone(Exception):
    """There is no such object."""


def _tried(ask: Callable[[], T], url: str) -> T:
    """What ``ask`` gives, asked again as often as it takes or is worth."""
    pause = FIRST_PAUSE
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except FileNotFoundError as error:
            raise _Gone from error
        except (PermissionError, ImportError) as error:
            raise _refused(url, error) from error
        except Exception as error:
            if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
                raise _refused(url, error) from error
            if attempt == ATTEMPTS:
                words = " ".join(str(error).split())[:200] or type(error).__name__
                raise RemoteError(
                    f"object storage does not answer ({words})",
                    got=f"{url}, tried {ATTEMPTS} times",
                    next_step="check the connection and run the same command again: what is "
                    "finished is kept",
                ) from error
        _PAUSE(pause * random.uniform(0.5, 1.0))  # so that not all ask at once
        pause = min(2 * pause, LONGEST_PAUSE)
    raise AssertionError  # the last attempt has returned or raised


def _refused(url: str, error: Exception) -> RemoteError:
    return RemoteError(
        f"object storage may not be read ({' '.join(str(error).split())[:200]})",
        got=url,
        next_step="set the credentials and, where it is not the usual one, the endpoint "
        "(such as AWS_PROFILE, AWS_ENDPOINT_URL), and check who may read there",
    )


def _gone(url: str) -> RemoteError:
    return RemoteError(
        "an object is no longer where it was",
        got=url,
        next_step="bring it back and run the same command again, or score the pool as it is now "
        "into a new folder",
    )


@lru_cache(maxsize=16)
def _filesystem(scheme: str) -> Any:
    """The file system of fsspec; for S3 with bounded waiting."""
    try:
        import fsspec

        options: dict[str, Any] = {"use_listings_cache": False}
        if scheme == "s3":
            times = {"connect_timeout": 15, "read_timeout": _TIMEOUT}
            options = {**options, "config_kwargs": times}
        if scheme in ("https", "http"):
            import aiohttp

            options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(sock_read=_TIMEOUT)}
        return fsspec.filesystem(scheme, **options)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{scheme}:// needs a package that is not installed ({error})",
            got=f"{scheme}://",
            allowed="the extras s3, gs, az and hf of this package; aiohttp for https://",
            next_step="pip install s3fs (s3://), gcsfs (gs://), adlfs (az://), aiohttp (https://) "
            "or huggingface_hub (hf://)",
        ) from error
