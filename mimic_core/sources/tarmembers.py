"""The members of a tar without their contents, quickly, and without losing them silently.

``tarfile`` spends most of an index's time on fields that nobody asks for, and it stops without a
word at a damaged header that is not the first. So plain headers are read here, which takes a tenth
of the time; whatever is not plain (long names, links, odd numbers) is left to ``tarfile``.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from mimic_core.sources.texts import printable

MemberKind = Literal["file", "folder", "link", "special"]

_BLOCK = 512
_END = bytes(_BLOCK)
_REGULAR = (b"0", b"\0")

# Records of a pax header that say nothing about where and what the member is. webdataset writes
# one before every member, because its times have fractions.
_HARMLESS_PAX = re.compile(rb"(?:\d+ (?:[amc]time|[ug]id|[ug]name)=[^\n]*\n)+")


class DamageError(Exception):
    """The archive cannot be read any further."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member: ``size`` bytes at ``offset``; only a file has bytes of its own."""

    name: str
    offset: int
    size: int
    kind: MemberKind = "file"

    def refusal(self) -> str:
        """Why a member that is no file is not read."""
        what = "link" if self.kind == "link" else "special file"
        return f"{printable(self.name)} is a {what}, which is not followed"


def read_members(file: BinaryIO) -> Iterator[Member]:
    """The whole members of an uncompressed tar, in order; ``file`` may be moved in between.

    Raises:
        DamageError: The archive is cut off, damaged or not a tar.
    """
    end = file.seek(0, 2)
    slow = _SlowReader(file)
    position = 0
    while True:
        file.seek(position)
        header = file.read(_BLOCK)
        if header == _END:
            return
        plain = None if slow.needed else _plain_header(header, file)
        if isinstance(plain, int):  # a pax header that may be passed over
            position += _BLOCK + _padded(plain)
            continue
        if plain is not None:
            name, size = plain
            member, following = Member(name, position + _BLOCK, size), position + _BLOCK
            following += _padded(size)
        else:
            member, following = slow.member(position)
        if following <= position:
            raise DamageError(f"the header at byte {position} leads backwards")
        if member.offset + (member.size if member.kind == "file" else 0) > end:
            raise DamageError(f"member {printable(member.name)} is cut off")
        position = following
        yield member


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _plain_header(header: bytes, file: BinaryIO) -> tuple[str, int] | int | None:
    """Name and size of a regular file, or the size of a pax header that may be passed over.

    None for anything that ``tarfile`` has to look at.
    """
    kind = header[156:157]
    if len(header) != _BLOCK or (kind not in _REGULAR and kind != b"x"):
        return None
    size, checksum = _octal(header[124:136]), _octal(header[148:156])
    # The checksum's own field counts as eight spaces.
    if size is None or checksum != 256 + sum(header[:148]) + sum(header[156:]):
        return None
    if kind == b"x":
        return size if _HARMLESS_PAX.fullmatch(file.read(size)) else None
    name, prefix = _text(header[:100]), _text(header[345:500])
    if not name or name.endswith("/"):  # the oldest tars mark folders so
        return None
    return (f"{prefix}/{name}" if prefix else name), size


def _octal(field: bytes) -> int | None:
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8) if field[0] < 128 else None
    except ValueError:
        return None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


class _SlowReader:
    """``tarfile`` for single members, at positions given from outside."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._tar: tarfile.TarFile | None = None

    @property
    def needed(self) -> bool:
        """Whether a global header was met, which only ``tarfile`` applies to what follows."""
        return self._tar is not None and bool(self._tar.pax_headers)

    def member(self, position: int) -> tuple[Member, int]:
        """The member whose first header is at ``position``, and where the next one begins."""
        try:
            found = self._next(position)
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            raise DamageError(str(error) or type(error).__name__) from error
        if found is None or self._tar is None:
            raise DamageError(f"no valid header and no end-of-archive mark at byte {position}")
        return Member(found.name, found.offset_data, found.size, _kind(found)), self._tar.offset

    def _next(self, position: int) -> tarfile.TarInfo | None:
        if self._tar is None:
            self._file.seek(position)
            self._tar = tarfile.open(fileobj=self._file, mode="r:")  # noqa: SIM115 - not ours to close
        else:
            self._tar.offset = position
        found = self._tar.next()
        # tarfile would keep every header of a large shard in memory.
        self._tar.members.clear()  # type: ignore[attr-defined]  # not in the stubs
        return found


def _kind(member: tarfile.TarInfo) -> MemberKind:
    if member.isdir():
        return "folder"
    if member.islnk() or member.issym():
        return "link"
    return "file" if member.isreg() and not member.issparse() else "special"
