"""A table as plain UTF-8 in a file that can be read from anywhere, however it is stored.

What is compressed (``.gz`` and others) or UTF-16 is copied into a temporary file without a name, so
that it is never in memory as a whole and gone when it is closed.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa

from mimic_core.base.errors import SourceError
from mimic_core.sources.limits import MAX_RATIO
from mimic_core.sources.source import Files

_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".zst": lambda file: pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"),
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
_FAILURES = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, ValueError)
_BLOCK = 1024 * 1024
_FREE_BYTES = 64 * 1024 * 1024  # below this a high ratio does no harm
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def unpacked_name(name: str) -> str:
    """The name of a file without the suffix that says how it is compressed."""
    return name[: -len(PurePosixPath(name).suffix)] if is_packed(name) else name


def is_packed(name: str) -> bool:
    """Whether a file is compressed, by its suffix."""
    return PurePosixPath(name).suffix.lower() in _OPENERS


@contextmanager
def open_table(files: Files, name: str) -> Iterator[IO[bytes]]:
    """The table ``name``, unpacked and in UTF-8.

    Half a surrogate pair of UTF-16 becomes bytes that are no UTF-8, which cost their row alone.

    Raises:
        SourceError: It cannot be read or unpacked, or would be too large.
    """
    with files.open(name) as stored, tempfile.TemporaryFile() as own:
        file: IO[bytes] = stored
        try:
            if is_packed(name):
                size = stored.seek(0, 2)
                stored.seek(0)
                opened = _OPENERS[PurePosixPath(name).suffix.lower()](stored)
                _copy(opened, own, max(_FREE_BYTES, size * MAX_RATIO))
                file = own
            file = _utf8(file)
        except _FAILURES as error:
            raise SourceError(
                f"{name} cannot be unpacked: {error}",
                got=name,
                next_step="check or re-create that file",
            ) from error
        with file:
            yield file


def _copy(source: Any, target: IO[bytes], most: int) -> None:
    size = 0
    while block := source.read(_BLOCK):
        size += len(block)
        if size > most:
            raise ValueError(f"it is compressed more than {MAX_RATIO} times")
        target.write(block)
    target.seek(0)


def _utf8(file: IO[bytes]) -> IO[bytes]:
    """``file`` itself, or a copy in UTF-8 of one that begins with the mark of UTF-16."""
    head = file.read(4)
    encoding = None if head == codecs.BOM_UTF32_LE else _UTF16.get(head[:2])
    file.seek(0 if encoding is None else 2)
    if encoding is None:
        return file
    own = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the caller
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    while block := file.read(_BLOCK):
        own.write(decoder.decode(block).encode("utf-8", "surrogatepass"))
    decoder.decode(b"", final=True)  # raises where half a character is left
    own.seek(0)
    return own
