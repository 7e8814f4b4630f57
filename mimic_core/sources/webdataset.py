"""Tar shards as webdataset and img2dataset write them; images stay in the tar, read by offset.

A sample is a run of consecutive members of one key (path up to the first dot of the base name): an
image, a ``.txt`` caption and a ``.json`` of metadata. A key that comes back later, or a suffix that
comes twice, starts a new sample. Members with other suffixes are not read.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from mimic_core.schema import Locator, Sample, Skip
from mimic_core.sources.base import (
    IMAGE_SUFFIXES,
    Lean,
    Ordinals,
    Unusable,
    check_size,
    file_identity,
    given_uid,
    make_sample,
    pool_fingerprint,
    shard_names,
    shard_position,
)
from mimic_core.sources.sidecar import (
    DEFAULT_CAPTION,
    TEXT_SUFFIXES,
    printable,
    read_sidecar,
    require_caption,
    split_key,
)

_BLOCK = 512


@dataclass(slots=True)
class _Group:
    """The members of one sample while they are read."""

    key: str
    members: dict[str, tarfile.TarInfo] = field(default_factory=dict)


class _DamageError(Exception):
    """The shard cannot be read any further."""


@dataclass(frozen=True)
class WebDatasetSource(Lean):
    """Tar shards ``paths``, relative to ``root``; the two columns are the user's choices."""

    root: Path
    paths: tuple[str, ...]
    image_column: str | None = None
    caption_column: str | None = None
    layout: str = "webdataset"

    @cached_property
    def _files(self) -> dict[str, str]:
        return shard_names(self.paths)

    @property
    def shards(self) -> tuple[str, ...]:
        """One per tar."""
        return tuple(self._files)

    def fingerprint(self) -> str:
        """Over each tar's name, size, head and tail."""
        content = [file_identity(self.root / path, path) for path in sorted(self.paths)]
        return pool_fingerprint(self, content)

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """Samples in the order of the tar; damage ends the shard with one skip."""
        shard_position(self.shards, shard)
        path = self._files[shard]
        reader = _Reader(path, shard, self.image_column, self.caption_column)
        try:
            with (self.root / path).open("rb") as file:
                yield from reader.samples(file)
        except (_DamageError, OSError) as error:
            where = f"after {reader.last}" if reader.last else "at its start"
            detail = f"{path}: unreadable {where}: {error}; what follows is lost"
            yield Skip(reader.last, shard, "unreadable_shard", detail)


class _Reader:
    """Turns the members of one tar into samples."""

    def __init__(
        self, path: str, shard: str, image_suffix: str | None, caption_column: str | None
    ) -> None:
        self._path = path
        self._shard = shard
        chosen = (image_suffix.lower().removeprefix("."),) if image_suffix else IMAGE_SUFFIXES
        self._suffixes = chosen
        self._caption_column = caption_column
        self._ordinals = Ordinals()
        self.last = ""  # key of the last sample that was read whole

    def samples(self, file: BinaryIO) -> Iterator[Sample | Skip]:
        group: _Group | None = None
        for member in _headers(file):
            named = split_key(member.name)
            if named is None or member.isdir():
                continue
            key, suffix = named
            if suffix not in TEXT_SUFFIXES and suffix not in self._suffixes:
                continue
            if group is None or group.key != key or suffix in group.members:
                if group is not None:
                    yield self._sample(group, file)
                group = _Group(key)
            group.members[suffix] = member
        if group is not None:
            yield self._sample(group, file)

    def _sample(self, group: _Group, file: BinaryIO) -> Sample | Skip:
        key = self.last = printable(group.key)
        try:
            return self._usable(group, key, file)
        except Unusable as error:
            return error.skip(key, self._shard)

    def _usable(self, group: _Group, key: str, file: BinaryIO) -> Sample:
        image = next((group.members[s] for s in self._suffixes if s in group.members), None)
        if image is None:
            wanted = ", ".join(self._suffixes)
            raise Unusable("missing_image", f"no member with suffix {wanted}")
        if not _is_plain(image):
            raise Unusable("missing_image", _not_plain(image))
        texts = {
            suffix: _read_text(file, group.members[suffix])
            for suffix in TEXT_SUFFIXES
            if suffix in group.members
        }
        caption, meta = read_sidecar(texts, self._caption_column)
        caption = require_caption(caption, self._caption_column or DEFAULT_CAPTION)
        return make_sample(
            uid=given_uid(meta) or self._ordinals.uid(self._path, key, caption),
            key=key,
            shard=self._shard,
            caption=caption,
            image=Locator("range", self._path, image.offset_data, image.size),
            meta=meta,
        )


def _headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The members of an open tar, whole ones only.

    Raises:
        _DamageError: The archive is cut off or damaged. ``tarfile`` stops without a word at a
            damaged header that is not the first, so the end-of-archive mark is checked here.
    """
    end = file.seek(0, 2)
    file.seek(0)
    position = -1
    try:
        tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - the caller closes the file
        while (member := tar.next()) is not None:
            if member.offset <= position or member.size < 0:
                raise _DamageError(f"a header at byte {member.offset} leads backwards")
            if member.offset_data + (member.size if member.isreg() else 0) > end:
                raise _DamageError(f"member {printable(member.name)} is cut off")
            position = member.offset
            # tarfile would keep every header of a large shard in memory.
            tar.members.clear()  # type: ignore[attr-defined]  # not in the stubs
            yield member
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise _DamageError(str(error) or type(error).__name__) from error
    file.seek(tar.offset)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise _DamageError(f"no valid header and no end-of-archive mark at byte {tar.offset}")


def _is_plain(member: tarfile.TarInfo) -> bool:
    """Whether the member's bytes lie in the tar as one range."""
    return member.isreg() and not member.issparse()


def _not_plain(member: tarfile.TarInfo) -> str:
    kind = "link" if member.islnk() or member.issym() else "special file"
    return f"{printable(member.name)} is a {kind}, which is not followed"


def _read_text(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    """The bytes of a small member."""
    if not _is_plain(member):
        raise Unusable("bad_metadata", _not_plain(member))
    check_size(member.size, printable(member.name))
    file.seek(member.offset_data)
    return file.read(member.size)
