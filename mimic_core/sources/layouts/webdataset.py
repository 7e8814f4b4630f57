"""Tar shards as webdataset and img2dataset write them; images stay in the tar, read by offset.

A sample is a run of consecutive members of one key (path up to the first dot of the base name): an
image, a ``.txt`` caption or a ``.cls`` label, and a ``.json`` of metadata. A key that comes back
later, or a suffix that comes twice, starts a new sample. Members with other suffixes are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from mimic_core.base.config import Task
from mimic_core.base.schema import Locator, Sample, Skip
from mimic_core.sources.source import (
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
from mimic_core.sources.tarmembers import DamageError, Member, read_members
from mimic_core.sources.texts import (
    DEFAULT_CAPTION,
    DEFAULT_LABEL,
    LABEL_SUFFIXES,
    TEXT_SUFFIXES,
    printable,
    read_label,
    read_sidecar,
    require_text_of,
    split_key,
)


@dataclass(slots=True)
class _Group:
    """The members of one sample while they are read."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)


@dataclass(frozen=True)
class WebDatasetSource(Lean):
    """Tar shards ``paths``, relative to ``root``; the columns are the user's choices."""

    root: Path
    paths: tuple[str, ...]
    image_column: str | None = None
    caption_column: str | None = None
    label_column: str | None = None
    task: Task = "pairs"
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
        chosen = self.caption_column if self.task == "pairs" else self.label_column
        reader = _Reader(path, shard, self.image_column, chosen, self.task)
        try:
            with (self.root / path).open("rb") as file:
                yield from reader.samples(file)
        except (DamageError, OSError) as error:
            where = f"after {reader.last}" if reader.last else "at its start"
            detail = f"{path}: unreadable {where}: {error}; what follows is lost"
            yield Skip(reader.last, shard, "unreadable_shard", detail)


class _Reader:
    """Turns the members of one tar into samples."""

    def __init__(
        self, path: str, shard: str, image_suffix: str | None, column: str | None, task: Task
    ) -> None:
        self._path = path
        self._shard = shard
        chosen = (image_suffix.lower().removeprefix("."),) if image_suffix else IMAGE_SUFFIXES
        self._suffixes = chosen
        self._texts = TEXT_SUFFIXES if task == "pairs" else LABEL_SUFFIXES
        self._column = column
        self._task = task
        self._ordinals = Ordinals()
        self.last = ""  # key of the last sample that was read whole

    def samples(self, file: BinaryIO) -> Iterator[Sample | Skip]:
        group: _Group | None = None
        for member in read_members(file):
            named = split_key(member.name)
            if named is None or member.kind == "folder":
                continue
            key, suffix = named
            if suffix not in self._texts and suffix not in self._suffixes:
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
        if image.kind != "file":
            raise Unusable("missing_image", image.refusal())
        texts = {
            suffix: _read_text(file, group.members[suffix])
            for suffix in self._texts
            if suffix in group.members
        }
        pairs = self._task == "pairs"
        found, meta = (read_sidecar if pairs else read_label)(texts, self._column)
        wanted = self._column or (DEFAULT_CAPTION if pairs else DEFAULT_LABEL)
        text = require_text_of(self._task, found, wanted)
        caption = text if pairs else ""
        return make_sample(
            uid=given_uid(meta) or self._ordinals.uid(self._path, key, caption),
            key=key,
            shard=self._shard,
            text=text,
            task=self._task,
            image=Locator("range", self._path, image.offset, image.size),
            meta=meta,
        )


def _read_text(file: BinaryIO, member: Member) -> bytes:
    """The bytes of a small member."""
    if member.kind != "file":
        raise Unusable("bad_metadata", member.refusal())
    check_size(member.size, printable(member.name))
    file.seek(member.offset)
    return file.read(member.size)
