"""A zip of a folder that would be accepted itself, read in place: nothing is ever unpacked to disk.

A zip may come from an upload, so it is not trusted: the number of entries, their unpacked size and
their compression ratio are limited; entries that are links, encrypted or named with absolute paths
or ``..`` are refused.
"""

from __future__ import annotations

import io
import stat
import zipfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Locator
from mimic_core.sources.images import ImageError, check_image_size, safe_relative
from mimic_core.sources.limits import (
    MAX_ENTRIES,
    MAX_RATIO,
    MAX_TABLE_BYTES,
    MAX_UNPACKED_BYTES,
)
from mimic_core.sources.source import FileState, Lean, Listing, Unusable, check_size

RATIO_FROM_BYTES = 1024 * 1024  # below this a high ratio does no harm

_OPEN_ARCHIVES = 4


@dataclass(frozen=True)
class ZipFiles(Lean):
    """The files below the folder ``prefix`` (empty, or ending in ``/``) of the archive ``path``."""

    path: Path
    prefix: str = ""
    layout: str = "zip"

    @property
    def root(self) -> Path:
        """The folder of the archive."""
        return self.path.parent

    @cached_property
    def listing(self) -> Listing:
        """All files below the prefix; hidden ones are left out."""
        names = entry_names(self.path)
        inside = [name for name in names if name.startswith(self.prefix)]
        return Listing(tuple(sorted(name.removeprefix(self.prefix) for name in inside)))

    def open(self, name: str) -> IO[bytes]:
        """The captions table ``name``, in memory."""
        try:
            entry = _entry(self.path, self.prefix + name)
            if entry.file_size > MAX_TABLE_BYTES:
                raise Unusable(
                    "bad_metadata",
                    f"{name} has {entry.file_size} bytes, the limit is {MAX_TABLE_BYTES}",
                )
            return io.BytesIO(_read(self.path, entry))
        except Unusable as error:
            raise SourceError(
                "a table of the archive cannot be read",
                got=error.detail,
                next_step="unpack the archive and give the path of the folder",
            ) from error

    def read_text(self, name: str) -> bytes:
        """A caption or metadata file."""
        entry = _entry(self.path, self.prefix + name)
        check_size(entry.file_size, name)
        return _read(self.path, entry)

    def locate(self, name: str) -> Locator:
        """The entry of the image ``name``, relative to the prefix."""
        entry = _entry(self.path, self.prefix + safe_relative(name))
        check_image_size(entry.file_size, name)
        return Locator("zip", self.path.name, 0, entry.file_size, entry.filename)

    def name_of(self, image: Locator) -> str:
        """The entry below the prefix."""
        return image.member.replace("\\", "/").removeprefix(self.prefix)

    def identity(self, name: str) -> list[Any]:
        """Size and checksum from the archive's directory."""
        entry = _entry(self.path, self.prefix + safe_relative(name))
        return [entry.file_size, entry.CRC]


def open_archive(path: Path) -> ZipFiles:
    """The archive ``path``, its prefix being the folder that holds everything.

    Raises:
        SourceError: It is not a zip, is encrypted as a whole, or passes a limit.
    """
    entries = _file_entries(path)
    unpacked = sum(entry.file_size for entry in entries if not _lies(entry))
    for what, value, limit in (
        ("entries", len(entries), MAX_ENTRIES),
        ("bytes when unpacked", unpacked, MAX_UNPACKED_BYTES),
    ):
        if value > limit:
            raise SourceError(
                f"the archive has too many {what}",
                got=value,
                allowed=f"at most {limit}",
                next_step="split it, or unpack it and give the path of the folder",
            )
    if entries and all(entry.flag_bits & 1 for entry in entries):
        raise SourceError(
            "the archive is encrypted", got=path.name, next_step="store it without a password"
        )
    return ZipFiles(path, _common_folder(entry_names(path)))


def entry_names(path: Path) -> list[str]:
    """The names of an archive's files, without folders, hidden files and macOS's copies."""
    return [name for name in _entries(path) if not _is_hidden(name)]


def _file_entries(path: Path) -> list[zipfile.ZipInfo]:
    """All entries but folders; ``zipfile`` fails on an entry without a name, which holds nothing
    that could be asked for.
    """
    entries = _archive(path).infolist()
    return [entry for entry in entries if entry.filename and not entry.is_dir()]


def _entries(path: Path) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by name; programs on Windows may have written backslashes."""
    _archive(path)  # says what is wrong with it
    return _entries_of(FileState.of(path))


@lru_cache(maxsize=_OPEN_ARCHIVES)
def _entries_of(state: FileState) -> dict[str, zipfile.ZipInfo]:
    entries = _file_entries(Path(state.path))
    known = {entry.filename: entry for entry in entries}
    slashed = {entry.filename.replace("\\", "/"): entry for entry in reversed(entries)}
    return slashed | {name: entry for name, entry in known.items() if "\\" not in name}


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return parts[:1] == ("__MACOSX",) or any(
        part.startswith(".") and part != ".." for part in parts
    )


def _common_folder(names: list[str]) -> str:
    """The first folder on the way down that holds a file or several folders."""
    prefix = ""
    while True:
        heads = {name.removeprefix(prefix).partition("/")[:2] for name in names}
        if len(heads) != 1:
            return prefix
        head, slash = heads.pop()
        if not slash or head in ("", ".."):
            return prefix
        prefix += f"{head}/"


def read_member(path: Path, member: str) -> bytes:
    """The bytes of the image ``member`` of the archive ``path``.

    Raises:
        ImageError: It is missing, damaged, encrypted, a link, or passes a limit.
    """
    try:
        entry = _entry(path, member)
        check_image_size(entry.file_size, member)
        return _read(path, entry)
    except SourceError as error:
        raise ImageError("missing_image", error.problem) from error


def _archive(path: Path) -> zipfile.ZipFile:
    """The open archive; each process keeps the directories of a few."""
    try:
        return _open(FileState.of(path))
    except Exception as error:  # as in _read
        raise SourceError(
            f"{path.name} cannot be read as a zip: {error}",
            got=str(path),
            next_step="check or re-create the archive",
        ) from error


@lru_cache(maxsize=_OPEN_ARCHIVES)
def _open(state: FileState) -> zipfile.ZipFile:
    return zipfile.ZipFile(state.path)


def _entry(path: Path, name: str) -> zipfile.ZipInfo:
    """An entry that may be read; ``name`` as in the archive or with slashes."""
    try:
        entries = _entries(path)
        entry = entries.get(name) or entries[name.replace("\\", "/")]
    except KeyError as error:
        raise ImageError("missing_image", f"the archive has no entry {name}") from error
    safe_relative(entry.filename)
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise ImageError("missing_image", f"{name} is a link, which is not followed")
    if entry.flag_bits & 1:
        raise ImageError("corrupt_image", f"{name} is encrypted")
    if _lies(entry):
        ratio = entry.file_size / max(1, entry.compress_size)
        raise ImageError(
            "oversized_image", f"{name} is compressed {ratio:.0f} times, the limit is {MAX_RATIO}"
        )
    return entry


def _lies(entry: zipfile.ZipInfo) -> bool:
    """Whether an entry claims to be so much larger than what is stored of it that it is refused."""
    ratio = entry.file_size / max(1, entry.compress_size)
    return entry.file_size > RATIO_FROM_BYTES and ratio > MAX_RATIO


def _read(path: Path, entry: zipfile.ZipInfo) -> bytes:
    """The entry's bytes, never more than it declares; the checksum is verified."""
    try:
        with _archive(path).open(entry) as file:
            data = file.read(entry.file_size + 1)
    except SourceError:
        raise
    except Exception as error:  # hostile bytes make the decompressors raise errors of any type
        raise ImageError("corrupt_image", f"{entry.filename}: {error}") from error
    if len(data) != entry.file_size:
        raise ImageError(
            "corrupt_image", f"{entry.filename}: {len(data)} of {entry.file_size} bytes"
        )
    return data
