"""The members of a tar without their contents, quickly, and without losing any silently.

``tarfile`` spends most of an index's time on fields that nobody asks for, stops without a word at a
damaged header that is not the first, at the end mark between two archives that were put behind one
another, and calls itself for each of a chain of long names. So headers are read here, several times
as fast (``bench/handwritten.py``). What cannot be read is a ``Gap``, and reading goes on at the
next header behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np

from mimic_core.sources.limits import MAX_HEADER_BYTES
from mimic_core.sources.texts import printable

MemberKind = Literal["file", "folder", "link", "special"]

_BLOCK = 512
_END = bytes(_BLOCK)
_CHUNK = 1024 * _BLOCK  # read at once while looking for a header
_FILES, _LINKS, _WITHOUT_BYTES = b"0\0007", b"12", b"123456"
_CHECKSUM = slice(148, 156)  # counts as eight spaces
_RECORD = re.compile(rb"(\d{1,9}) ([^=]+)=")
_USED_RECORDS = (b"path", b"size")


class File(Protocol):
    """What a tar is read from: a file, or one that is unpacked on the way."""

    def seek(self, offset: int, /) -> int:
        """Go to a position."""

    def read(self, size: int, /) -> bytes:
        """The next bytes."""


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


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes from ``start`` to ``stop`` that cannot be read; ``stop`` None is the end."""

    start: int
    stop: int | None
    why: str
    ended: bool = False
    """whether an end mark stands before it, so that nothing of the last sample lies in it"""


class _Header(NamedTuple):
    """One block: what it describes; ``size`` bytes follow it where ``kind`` has any."""

    name: str
    size: int
    kind: bytes
    extended: bool  # an old GNU sparse file, whose map goes on in further blocks

    @property
    def stored(self) -> int:
        """Bytes that follow, filled up to whole blocks."""
        return 0 if self.kind in _WITHOUT_BYTES else -(-self.size // _BLOCK) * _BLOCK


def read_members(file: File, end: int | None) -> Iterator[Member | Gap]:
    """The whole members of a tar, in order, and what lies between them unreadable.

    Args:
        file: May be moved in between.
        end: Its size in bytes; None where that is not known, as in compressed files.
    """
    position = 0
    common: dict[bytes, bytes] = {}  # records of global headers, which apply to all that follows
    while True:
        block = _read(file, position, _BLOCK)
        if block == _END:
            behind, zeros = _behind_zeros(file, position)
            if behind is None:
                return
            if _header(_read(file, behind, _BLOCK)) is not None:
                position = behind  # archives put behind one another
                continue
            found: Member | Gap
            if zeros > 1:
                found, position = _gap(file, behind, "the bytes behind the end mark are no tar")
                found = replace(found, ended=True)
            else:
                found, position = _gap(file, position, f"the header at byte {position} is zeroed")
        else:
            found, position = _described(file, position, end, common)
        yield found
        if isinstance(found, Gap) and found.stop is None:
            return


def _described(
    file: File, start: int, end: int | None, common: dict[bytes, bytes]
) -> tuple[Member | Gap, int]:
    """The member whose first header is at ``start``, or a gap, and where the next one begins."""
    position, own = start, dict(common)
    while True:
        block = _read(file, position, _BLOCK)
        header = _header(block)
        if header is None:
            short = " and no end-of-archive mark" if len(block) < _BLOCK else ""
            return _gap(file, start, f"no valid header{short} at byte {position}", after=position)
        position += _BLOCK
        if header.kind not in b"LKxgX":
            break
        if header.size > MAX_HEADER_BYTES:
            why = f"a header of {header.size} bytes, the limit is {MAX_HEADER_BYTES}"
            return _gap(file, start, why, after=position - _BLOCK)
        _apply(header, _read(file, position, header.size), own, common)
        position += header.stored
    member, following = _member(file, header, own, position)
    if member is None:
        return _gap(file, start, "an impossible size", after=position - _BLOCK)
    if end is not None and member.kind == "file" and member.offset + member.size > end:
        return _gap(file, start, f"member {printable(member.name)} is cut off", after=start)
    return member, following


def _member(
    file: File, header: _Header, own: dict[bytes, bytes], offset: int
) -> tuple[Member | None, int]:
    """The member of a header whose bytes begin at ``offset``, and where they end."""
    while header.extended and len(block := _read(file, offset, _BLOCK)) == _BLOCK:
        offset += _BLOCK
        header = header._replace(extended=bool(block[504]))
    if b"size" in own and header.kind not in _WITHOUT_BYTES:
        if not own[b"size"].strip().isdigit() or len(own[b"size"]) > 18:
            return None, offset
        header = header._replace(size=int(own[b"size"]))
    name = _text(own[b"path"]).rstrip("/") if b"path" in own else header.name
    kind = _kind(header, own)
    if kind == "folder":
        name = name.rstrip("/")
    return Member(name, offset, header.size, kind), offset + header.stored


def _kind(header: _Header, own: dict[bytes, bytes]) -> MemberKind:
    if header.kind == b"5":
        return "folder"
    if header.kind in _LINKS:
        return "link"
    sparse = any(name.startswith(b"GNU.sparse.") for name in own)
    return "file" if header.kind in _FILES and not sparse else "special"


def _apply(
    header: _Header, data: bytes, own: dict[bytes, bytes], common: dict[bytes, bytes]
) -> None:
    """Take over what a header says about the one that follows it, or about all of them."""
    if header.kind == b"L":
        own[b"path"] = data.partition(b"\0")[0]
    if header.kind in b"xXg":
        records = _records(data)
        own.update(records)
        if header.kind == b"g":
            common.update(records)


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records ``<length> <key>=<value>`` of a pax header, as far as they can be read."""
    records, position = {}, 0
    while (match := _RECORD.match(data, position)) and int(match[1]) > 0:
        stop = position + int(match[1])
        if match[2] in _USED_RECORDS or match[2].startswith(b"GNU.sparse."):
            records[match[2]] = data[match.end() : stop - 1]
        position = stop
    return records


def _header(block: bytes) -> _Header | None:
    """What one block describes; None if it is no header."""
    if len(block) != _BLOCK or block == _END:
        return None
    size, checksum = _number(block[124:136]), _number(block[_CHECKSUM])
    if checksum != 256 + sum(block[:148]) + sum(block[156:]):
        return None
    kind = block[156:157]
    name, prefix = _text(block[:100]), _text(block[345:500])
    if prefix and kind not in b"LKS":
        name = f"{prefix}/{name}"
    if size is None or (not name and kind not in b"LKxgX"):
        return None
    if kind == b"\0" and name.endswith("/"):  # the oldest tars mark folders so
        kind = b"5"
    return _Header(name, size, kind, kind == b"S" and bool(block[482]))


def _number(field: bytes) -> int | None:
    """An octal number, or a large one as GNU tar writes it; None for negative and other ones."""
    if field[0] == 128:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    return int(digits or b"0", 8) if not digits.strip(b"01234567") else None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _read(file: File, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _behind_zeros(file: File, position: int) -> tuple[int | None, int]:
    """The first block from ``position`` on that is not zero, and how many are; None at the end."""
    start = position
    while chunk := _read(file, position, _CHUNK):
        if chunk.strip(b"\0"):
            first = len(chunk) - len(chunk.lstrip(b"\0"))
            position += first // _BLOCK * _BLOCK
            return position, (position - start) // _BLOCK
        position += len(chunk)
    return None, (position - start) // _BLOCK


def _gap(file: File, start: int, why: str, *, after: int | None = None) -> tuple[Gap, int]:
    """The gap from ``start`` to the next header beyond the block at ``after``."""
    position = (start if after is None else after) + _BLOCK
    while len(chunk := _read(file, position, _CHUNK)) >= _BLOCK:
        blocks = np.frombuffer(chunk, np.uint8, len(chunk) // _BLOCK * _BLOCK).reshape(-1, _BLOCK)
        digits = blocks[:, 148:154]
        likely = ((digits == ord(" ")) | ((digits >= ord("0")) & (digits <= ord("7")))).all(axis=1)
        for place in np.flatnonzero(likely).tolist():
            if _header(chunk[place * _BLOCK : (place + 1) * _BLOCK]) is not None:
                found = position + place * _BLOCK
                return Gap(start, found, why), found
        position += len(chunk)
    return Gap(start, None, why), position
