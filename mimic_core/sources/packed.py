"""Compressed tars and MDS shards, unpacked on the way: read forwards, as often as it takes.

Nothing is written to disk. Going back starts from the beginning, so a pool of compressed tars is
scored quickly, in the order of its shards, while single images far apart are slow.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from mimic_core.sources.limits import MAX_RATIO
from mimic_core.sources.source import FileState
from mimic_core.sources.tarmembers import DamageError

FAILURES = (
    *(OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, ValueError),
    MemoryError,  # of an xz whose header asks for a dictionary of gigabytes
)

_CHUNK = 1024 * 1024


def _open_zstd(path: str) -> io.BufferedReader:
    """A file of zstd; read into a buffer of ours, for pyarrow's own is lost with each failure."""
    return io.BufferedReader(pa.input_stream(path, compression="zstd"), _CHUNK)


def _open_xz(path: str) -> lzma.LZMAFile:
    """A file of xz; lzma's older format has no signature, so any bytes would pass for it."""
    return lzma.LZMAFile(path, format=lzma.FORMAT_XZ)


_OPENERS: dict[str, Callable[[str], Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.zst": _open_zstd,
    ".tzst": _open_zstd,
    ".tar.bz2": bz2.open,
    ".tbz2": bz2.open,
    ".tar.xz": _open_xz,
    ".txz": _open_xz,
    # Of Mosaic's shards.
    ".mds.gz": gzip.open,
    ".mds.bz2": bz2.open,
    ".mds.zstd": _open_zstd,
}
PACKED_SUFFIXES = tuple(suffix for suffix in _OPENERS if ".mds" not in suffix)

_WINDOW = 1024 * 1024  # bytes behind the present place that can be read again
_FREE_BYTES = 64 * 1024 * 1024  # below this a high ratio does no harm
_OPEN_FILES = 4


class PackedFile:
    """What a compressed file unpacks to, as a file that is read forwards."""

    def __init__(self, path: Path) -> None:
        name = path.name.lower()
        self._path = path
        self._open = next(opener for end, opener in _OPENERS.items() if name.endswith(end))
        self._most = max(_FREE_BYTES, path.stat().st_size * MAX_RATIO)
        self._stream: Any = None
        self._start()

    def _start(self) -> None:
        self.close()
        self._stream = self._open(os.fspath(self._path))
        self._window = b""  # what was unpacked last; ends at self._end
        self._end = 0
        self._place = 0

    def seek(self, offset: int, /) -> int:
        """Go to a position; it may lie behind the end."""
        if offset < self._end - len(self._window):
            self._start()
        self._place = offset
        return offset

    def read(self, size: int, /) -> bytes:
        """The next bytes; fewer at the end."""
        parts = []
        while size > 0:
            behind = self._end - self._place
            if 0 < behind <= len(self._window):
                part = self._window[len(self._window) - behind :][:size]
                parts.append(part)
                self._place += len(part)
                size -= len(part)
            elif not self._unpack():
                break
        return b"".join(parts)

    def _unpack(self) -> bool:
        """Unpack the next bytes into the window; whether there were any."""
        try:
            chunk = self._stream.read1(_CHUNK)  # of a file that is cut off, read gives nothing
        except FAILURES as error:
            raise DamageError(f"it cannot be unpacked: {error}") from error
        self._end += len(chunk)
        if self._end > self._most:
            raise DamageError(f"it is compressed more than {MAX_RATIO} times")
        self._window = self._window[-_WINDOW:] + chunk
        return bool(chunk)

    def close(self) -> None:
        """Close the file beneath."""
        if self._stream is not None:
            self._stream.close()


def read_packed(path: Path, offset: int, size: int) -> bytes:
    """A part of what ``path`` unpacks to; may be shorter where the file is damaged or changed.

    Raises:
        DamageError: It cannot be unpacked so far.
        OSError: It cannot be opened.
    """
    file = _open(FileState.of(path))
    file.seek(offset)
    return file.read(size)


@lru_cache(maxsize=_OPEN_FILES)
def _open(state: FileState) -> PackedFile:
    return PackedFile(Path(state.path))
