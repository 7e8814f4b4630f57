"""A pool of loose images, each with a ``.txt`` caption or ``.json`` metadata of the same stem.

This is what img2dataset writes as ``files``; the files may lie in a folder or in a zip.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import NamedTuple

from mimic_core.base.config import Task
from mimic_core.base.schema import Sample, Skip
from mimic_core.sources.layouts import img2dataset
from mimic_core.sources.offers import Offer, Place
from mimic_core.sources.source import (
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    Ordinals,
    Source,
    Unusable,
    row_range,
    row_shards,
)
from mimic_core.sources.texts import (
    CAPTION_SUFFIXES,
    DEFAULT_CAPTION,
    TEXT_SUFFIXES,
    read_sidecar,
    require_caption,
)


def offer(place: Place, task: Task | None) -> Offer | None:
    """The images with their texts, if at least one has one."""
    if task == "labels" or place.alone is not None:
        return None
    image, caption = place.config.image_column, place.config.caption_column
    source = PairSource(**place.settings, task="pairs", image_column=image, caption_column=caption)
    if not source.has_captions():
        return None
    return Offer("the pool", {"pairs": source}, {"pairs": "texts beside the images"})


class _Pair(NamedTuple):
    """The files of one sample; ``image`` is None where only the caption is there."""

    key: str
    image: str | None
    texts: tuple[str, ...]


@dataclass(frozen=True)
class PairSource(Source):
    """All images among the files; the two columns are the user's choices as in tar shards."""

    @cached_property
    def _pairs(self) -> list[_Pair]:
        suffix = (self.image_column or "").lower().removeprefix(".")
        suffixes = (suffix,) if suffix else (*IMAGE_SUFFIXES, *UNREAD_SUFFIXES)
        return _pair_up(self.files.listing.names, suffixes)

    def has_captions(self) -> bool:
        """Whether at least one image has a text beside it."""
        return any(pair.image is not None and pair.texts for pair in self._pairs)

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """One per 2,048 samples."""
        return row_shards("images", len(self._pairs))

    @cached_property
    def _folders(self) -> list[str]:
        """Folders that img2dataset has written a table beside."""
        tops = {pair.key.partition("/")[0] for pair in self._pairs if "/" in pair.key}
        return sorted(top for top in tops if img2dataset.table(self.files, top))

    def used(self) -> Iterable[str]:
        """Images, their texts and what img2dataset has written beside their folders."""
        for pair in self._pairs:
            yield from filter(None, (pair.image, *pair.texts))
        for folder in self._folders:
            yield from img2dataset.beside(folder)

    def columns_read(self) -> str:
        """The suffixes."""
        return f"images with {self.caption_column or DEFAULT_CAPTION} beside them"

    def fingerprint(self) -> str:
        """Over the identities of the images and the bytes of the texts and of img2dataset's."""
        content = []
        for pair in self._pairs:
            row: list[object] = [pair.key]
            for name in (pair.image, *pair.texts):
                try:
                    row.append(self._identity(name))
                except Unusable as error:
                    row.append(error.reason)
            content.append(row)
        tables = [img2dataset.beside(folder)[0] for folder in self._folders]
        return self.digest([*content, *([name, *self.files.identity(name)] for name in tables)])

    def _identity(self, name: str | None) -> list[object]:
        if name is None:
            return []
        if _suffix(name) in TEXT_SUFFIXES:
            return [name, hashlib.sha256(self.files.read_text(name)).hexdigest()]
        return [name, *self.files.identity(name)]

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """The samples of one virtual shard, sorted by key; at last, what was not downloaded."""
        rows = row_range(self.shards, shard)
        for pair in self._pairs[rows.start : rows.stop]:
            try:
                yield from self._samples(pair, shard)
            except Unusable as error:
                yield error.skip(pair.key, shard)
        yield from self.unnamed(shard)
        if shard == self.shards[-1]:
            for folder in self._folders:
                inside = f"{folder}/"
                keys = {pair.key.removeprefix(inside) for pair in self._pairs}
                yield from img2dataset.failed(self.files, folder, shard, keys)

    def _samples(self, pair: _Pair, shard: str) -> Iterator[Sample | Skip]:
        if pair.image is None:
            raise Unusable("missing_image", f"no image beside {pair.texts[0]}")
        suffix = _suffix(pair.image)
        if suffix in UNREAD_SUFFIXES and suffix != self.image_column:
            raise Unusable("unread_format", f".{suffix} images are not read; convert them to JPEG")
        texts = {_suffix(name): self.files.read_text(name) for name in pair.texts}
        captions, meta = read_sidecar(texts, self.caption_column)
        image = self.files.locate(pair.image)
        ordinals = Ordinals()
        wanted = self.caption_column or DEFAULT_CAPTION
        several = captions is not None and len(captions) > 1
        for one in [None] if captions is None else captions:
            try:
                caption = require_caption(one, wanted)
                yield self.sample(
                    key=pair.key,
                    shard=shard,
                    text=caption,
                    image=image,
                    meta=meta,
                    derived=partial(_uid, ordinals, pair.key, caption),
                    several=several,
                )
            except Unusable as error:
                yield error.skip(pair.key, shard)


def _uid(ordinals: Ordinals, key: str, caption: str, image: str | None) -> str:
    return ordinals.uid("", image or key, caption)


def _pair_up(names: Iterable[str], image_suffixes: tuple[str, ...]) -> list[_Pair]:
    """Group files by their path without the last suffix, sorted.

    A second image of the same stem is a sample of its own under its full name; a lone ``.json``
    (img2dataset's statistics) is none.
    """
    known = [name for name in names if _suffix(name) in (*image_suffixes, *TEXT_SUFFIXES)]
    pairs = []
    for stem, group in itertools.groupby(sorted(known, key=_stem_first), key=_stem):
        files = list(group)
        texts = tuple({_suffix(f): f for f in files if _suffix(f) in TEXT_SUFFIXES}.values())
        images = [name for name in files if _suffix(name) not in TEXT_SUFFIXES]
        images.sort(key=lambda name: (image_suffixes.index(_suffix(name)), name))
        if images or any(_suffix(name) in CAPTION_SUFFIXES for name in texts):
            pairs.append(_Pair(stem, images[0] if images else None, texts))
        pairs += [_Pair(name, name, texts) for name in images[1:]]
    return pairs


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower().removeprefix(".")


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _stem_first(name: str) -> tuple[str, str]:
    return _stem(name), name
