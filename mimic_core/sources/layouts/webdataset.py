"""Tar shards as webdataset and img2dataset write them; images stay in the tar, read by offset.

A sample is a run of members of one key (path up to the first dot of the base name): an image, a
``.txt`` caption or a ``.cls`` label, and a ``.json`` of metadata. A key that comes back later, or a
suffix that comes twice, starts a new sample, unless the first one lacked what comes now.

Names with further dots are read by these rules. Where the key has an image of its own, they belong
to it and are not read (``1.seg.png``), but for pairs with a caption or label of their own. Else an
image and a text that agree up to the last dot are a sample under that name (``shot 2.0 m.jpg``).
Else one image and the key's texts are a sample (``1.image.jpg`` with ``1.caption.txt``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO

from mimic_core.base.config import Task
from mimic_core.base.schema import Locator, LocatorKind, Sample, Skip
from mimic_core.sources.layouts import img2dataset
from mimic_core.sources.offers import COLUMN_OF, Offer, Place
from mimic_core.sources.packed import PACKED_SUFFIXES, PackedFile
from mimic_core.sources.path import raise_away
from mimic_core.sources.source import (
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    Ordinals,
    Source,
    Unusable,
    check_size,
    file_identity,
    shard_names,
    shard_position,
)
from mimic_core.sources.tarmembers import DamageError, Gap, Member, read_members
from mimic_core.sources.texts import (
    CAPTION_SUFFIXES,
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

PEEKED_MEMBERS = 256  # of the first tar, to see whether it holds captions or labels
MAX_WAITING = 100_000  # incomplete samples of a tar whose texts may still come


def offer(place: Place, task: Task | None) -> Offer | None:
    """Tar shards; what the first of them has decides the task where the user does not."""
    if not any(map(is_tar, place.near)):
        return None
    paths = tuple(name for name in place.names if is_tar(name))

    def reading(task: Task) -> WebDatasetSource:
        column = getattr(place.config, COLUMN_OF[task])
        settings = place.settings | {"layout": "webdataset", COLUMN_OF[task]: column}
        return WebDatasetSource(
            paths, **settings, task=task, image_column=place.config.image_column
        )

    found: dict[Task, str] = {"pairs": ".txt or .json captions", "labels": ".cls labels"}
    tasks: list[Task] = [task] if task else ["pairs"]
    if task is None:
        suffixes = reading("labels").peek()
        if "cls" in suffixes:
            texts = suffixes.intersection(TEXT_SUFFIXES)
            tasks = (
                ["pairs", "labels"] if texts and _holds_samples(reading("pairs")) else ["labels"]
            )
    return Offer("the pool", {one: reading(one) for one in tasks}, found)


def is_tar(name: str) -> bool:
    """Whether a file name is that of a tar, compressed or not."""
    return name.lower().endswith((".tar", *PACKED_SUFFIXES))


def _holds_samples(source: WebDatasetSource) -> bool:
    first = itertools.islice(source.index(source.shards[0]), PEEKED_MEMBERS)
    return any(isinstance(one, Sample) for one in first)


@dataclass(slots=True)
class _Group:
    """The members of one key while they are read, by suffix; texts of compressed tars as read."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)
    texts: dict[str, bytes | Unusable] = field(default_factory=dict)


@dataclass(frozen=True)
class WebDatasetSource(Source):
    """Tar shards ``paths``, relative to the root; the columns are the user's choices."""

    paths: tuple[str, ...]

    @cached_property
    def _files(self) -> dict[str, str]:
        return shard_names(self.paths)

    @property
    def shards(self) -> tuple[str, ...]:
        """One per tar."""
        return tuple(self._files)

    def used(self) -> Iterable[str]:
        """The tars and what img2dataset has written beside them."""
        return [*self.paths, *(name for path in self.paths for name in img2dataset.beside(path))]

    def columns_read(self) -> str:
        """The suffixes of the members."""
        image = f".{self.image_column.lstrip('.')} images" if self.image_column else "images"
        default = DEFAULT_CAPTION if self.task == "pairs" else DEFAULT_LABEL
        word = "captions" if self.task == "pairs" else "labels"
        return f"{image}, {word} from {self.text_column or default}"

    def fingerprint(self) -> str:
        """Over each tar's name, size, head and tail, and img2dataset's tables."""
        tables = [img2dataset.table(self.files, path) for path in self.paths]
        names = sorted([*self.paths, *(name for name in tables if name)])
        return self.digest([file_identity(self.root / name, name) for name in names])

    def peek(self) -> set[str]:
        """The suffixes of the first members of the first tar."""
        try:
            with _opened(self.root / self._files[self.shards[0]]) as (file, end):
                first = itertools.islice(read_members(file, end), PEEKED_MEMBERS)
                named = [split_key(one.name) for one in first if isinstance(one, Member)]
        except (DamageError, OSError):
            return set()  # the index says what is wrong
        return {one[1].rpartition(".")[2] for one in named if one is not None}

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """Samples in the order of the tar; those that lack something are skipped at its end."""
        shard_position(self.shards, shard)
        path = self._files[shard]
        reader = _Reader(self, path, shard)
        keys: set[str] = set()
        try:
            with _opened(self.root / path) as (file, end):
                for found in reader.samples(file, end):
                    keys.add(found.key.rpartition("/")[2])
                    yield found
        except (DamageError, OSError) as error:
            raise_away(error, self.root)
            yield from reader.incomplete()
            yield reader.lost(f"{error}; what follows is lost")
        yield from self._not_downloaded(path, shard, keys)

    def _not_downloaded(self, path: str, shard: str, keys: set[str]) -> Iterator[Skip]:
        """Rows of img2dataset's table that are not among the ``keys`` of the shard."""
        yield from img2dataset.failed(self.files, path, shard, keys)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO | PackedFile, int | None]]:
    """A tar and its size, which is not known of a compressed one."""
    if path.name.lower().endswith(PACKED_SUFFIXES):
        packed = PackedFile(path)
        try:
            yield packed, None
        finally:
            packed.close()
    else:
        with path.open("rb") as file:
            yield file, path.stat().st_size


class _Reader:
    """Turns the members of one tar into samples."""

    def __init__(self, source: WebDatasetSource, path: str, shard: str) -> None:
        self._source = source
        self._path = path
        self._shard = shard
        chosen = (source.image_column or "").lower().removeprefix(".")
        self._images = (chosen,) if chosen else IMAGE_SUFFIXES
        self._seen = (*self._images, *(() if chosen else UNREAD_SUFFIXES))
        pairs = source.task == "pairs"
        self._texts = TEXT_SUFFIXES if pairs else LABEL_SUFFIXES
        self._own = CAPTION_SUFFIXES if pairs else ("cls",)
        self._ordinals = Ordinals()
        self._waiting: dict[str, _Group] = {}
        self._last = ""  # key of the last sample that was read whole
        self._packed = path.lower().endswith(PACKED_SUFFIXES)
        self._read: Callable[[Member], bytes] = lambda _: b""

    def samples(self, file: BinaryIO | PackedFile, end: int | None) -> Iterator[Sample | Skip]:
        self._read = lambda member: _read_text(file, member)
        group: _Group | None = None
        for found in read_members(file, end):
            if isinstance(found, Gap):
                behind = "what follows" if found.stop is None else f"up to byte {found.stop}, it"
                if group is not None and found.ended:
                    yield from self._finished(group)
                    group = None
                yield self.lost(f"{found.why}; {behind} is lost")
                if group is not None:
                    yield self._open_at_gap(group)
                    group = None
                continue
            named = self._named(found)
            if named is None:
                continue
            key, suffix = named
            if group is None or group.key != key or suffix in group.members:
                if group is not None:
                    yield from self._finished(group)
                waiting = self._waiting.get(key)
                again = waiting is not None and self._completes(waiting, suffix)
                group = self._waiting.pop(key) if again else _Group(key)
            group.members[suffix] = found
            if self._packed and suffix.rpartition(".")[2] in self._texts:
                group.texts[suffix] = self._read_now(found)
        if group is not None:
            yield from self._finished(group)
        yield from self.incomplete()

    def _read_now(self, member: Member) -> bytes | Unusable:
        try:
            return self._read(member)
        except Unusable as error:
            return error

    def _named(self, member: Member) -> tuple[str, str] | None:
        """Key and suffix of a member that may be part of a sample; others are counted."""
        if member.kind == "folder":
            return None
        named = split_key(member.name)
        suffix = printable(named[1]) if named else ""  # which goes into counts and details
        kind = suffix.rpartition(".")[2]
        if named and (kind in self._texts or kind in self._seen or suffix in self._images):
            return named[0], suffix
        base = member.name.rpartition("/")[2]
        if not base.startswith("."):
            self._source.notes.unread[f".{kind} in tars" if kind else "no suffix in tars"] += 1
        return None

    def _completes(self, group: _Group, suffix: str) -> bool:
        """Whether ``suffix`` is what an earlier group of the same key lacks."""
        kinds = {one.rpartition(".")[2] for one in group.members}
        text = suffix.rpartition(".")[2] in self._texts
        return suffix not in group.members and text != bool(kinds.intersection(self._texts))

    def _finished(self, group: _Group) -> Iterator[Sample | Skip]:
        """The samples of a group, or nothing as long as it waits for what it lacks."""
        kinds = {one.rpartition(".")[2] for one in group.members} | group.members.keys()
        whole = kinds.intersection(self._seen) and kinds.intersection(self._texts)
        if whole:
            yield from self._units(group)
            return
        if earlier := self._waiting.pop(group.key, None):
            yield from self._units(earlier)
        self._waiting[group.key] = group
        if len(self._waiting) > MAX_WAITING:
            yield from self._units(self._waiting.pop(next(iter(self._waiting))))

    def incomplete(self) -> Iterator[Sample | Skip]:
        """What has waited in vain."""
        while self._waiting:
            yield from self._units(self._waiting.pop(next(iter(self._waiting))))

    def lost(self, why: str) -> Skip:
        """A part of the tar that cannot be read."""
        where = f"after {self._last}" if self._last else "at its start"
        return Skip(
            self._last, self._shard, "unreadable_shard", f"{self._path}: unreadable {where}: {why}"
        )

    def _open_at_gap(self, group: _Group) -> Skip:
        """The sample before a gap, part of which may lie in it."""
        detail = "the tar is damaged behind it, so that its last members cannot be known"
        return Skip(printable(group.key), self._shard, "unreadable_shard", detail)

    def _units(self, group: _Group) -> Iterator[Sample | Skip]:
        """The samples of one group by the rules of the module's docstring."""
        plain = [one for one in group.members if "." not in one or one in self._images]
        dotted: dict[str, list[str]] = {}
        for suffix in group.members:
            if suffix not in plain:
                dotted.setdefault(suffix.rpartition(".")[0], []).append(suffix)
        has_image = any(one in self._seen for one in plain)
        texts = self._own if has_image else self._texts
        pairs = {
            stem: parts
            for stem, parts in dotted.items()
            if self._any(parts, self._seen) and self._any(parts, texts)
        }
        left = [one for stem, parts in dotted.items() if stem not in pairs for one in parts]
        if has_image or (plain and not left):
            yield from self._unit(group, group.key, plain)
        elif not pairs:
            yield from self._unit(group, group.key, [*plain, *left])
            left = []
        else:
            for stem in dict.fromkeys(one.rpartition(".")[0] for one in [*plain, *left]):
                parts = [one for one in [*plain, *left] if one.rpartition(".")[0] == stem]
                if self._any(parts, (*self._seen, *self._own)):
                    yield from self._unit(group, f"{group.key}.{stem}".rstrip("."), parts)
                    left = [one for one in left if one not in parts]
        self._source.notes.unread.update(f".{suffix} in tars" for suffix in left)
        for stem, parts in pairs.items():
            yield from self._unit(group, f"{group.key}.{stem}", parts)

    @staticmethod
    def _any(suffixes: Iterable[str], kinds: Iterable[str]) -> bool:
        return not {one.rpartition(".")[2] for one in suffixes}.isdisjoint(kinds)

    def _unit(self, group: _Group, key: str, suffixes: list[str]) -> Iterator[Sample | Skip]:
        """The samples of one image: one, or one for each of its captions; or why there is none."""
        shown = self._last = printable(key)
        try:
            yield from self._usable(group, shown, suffixes)
        except Unusable as error:
            yield error.skip(shown, self._shard)

    def _usable(self, group: _Group, key: str, suffixes: list[str]) -> Iterator[Sample | Skip]:
        image = self._image(group, suffixes)
        texts = self._texts_of(group, suffixes)
        source, column = self._source, self._source.text_column
        values: list[Any]
        if source.task == "pairs":
            captions, meta = read_sidecar(texts, column)
            values = [None] if captions is None else [*captions]
        else:
            label, meta = read_label(texts, column)
            values = [label]
        wanted = column or (DEFAULT_CAPTION if source.task == "pairs" else DEFAULT_LABEL)
        kind: LocatorKind = "packed" if self._packed else "range"
        place = Locator(kind, self._path, image.offset, image.size)
        for value in values:
            try:
                text = require_text_of(source.task, value, wanted)
                yield source.sample(
                    key=key,
                    shard=self._shard,
                    text=text,
                    image=place,
                    meta=meta,
                    derived=partial(self._uid, key, text if source.task == "pairs" else ""),
                    several=len(values) > 1,
                )
            except Unusable as error:
                yield error.skip(key, self._shard)

    def _uid(self, key: str, caption: str, image: str | None) -> str:
        return self._ordinals.uid(self._path, image or key, caption)

    def _texts_of(self, group: _Group, suffixes: list[str]) -> dict[str, bytes]:
        """The texts of a sample by kind; of several of a kind, the first by name."""
        texts: dict[str, bytes] = {}
        for suffix in sorted(suffixes, reverse=True):
            kind = suffix.rpartition(".")[2]
            if kind in self._texts and suffix not in self._images:
                member = group.members[suffix]
                text = group.texts[suffix] if self._packed else self._read_now(member)
                if isinstance(text, Unusable):
                    raise text
                texts[kind] = text
        return texts

    def _image(self, group: _Group, suffixes: list[str]) -> Member:
        """The image of a sample."""
        images = [
            one
            for kind in self._images
            for one in suffixes
            if one == kind or ("." in one and one.rpartition(".")[2] == kind)
        ]
        if not images:
            unread = [one for one in suffixes if one.rpartition(".")[2] in UNREAD_SUFFIXES]
            if unread:
                raise Unusable(
                    "unread_format", f".{unread[0]} images are not read; convert them to JPEG"
                )
            wanted = ", ".join(self._images)
            raise Unusable("missing_image", f"no member with suffix {wanted}")
        if len({one.rpartition(".")[0] for one in images}) > 1:
            raise Unusable("bad_metadata", f"several images of one key: {', '.join(images)}")
        image = group.members[images[0]]
        if image.kind != "file":
            raise Unusable("missing_image", image.refusal())
        return image


def _read_text(file: BinaryIO | PackedFile, member: Member) -> bytes:
    """The bytes of a small member."""
    if member.kind != "file":
        raise Unusable("bad_metadata", member.refusal())
    check_size(member.size, printable(member.name))
    file.seek(member.offset)
    data = file.read(member.size)
    if len(data) != member.size:
        raise Unusable("bad_metadata", f"{printable(member.name)} is cut off")
    return data
