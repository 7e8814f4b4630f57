"""A pool of loose images, each with a ``.txt`` caption or ``.json`` metadata of the same stem.

This is what img2dataset writes as ``files``; the files may lie in a folder or in a zip.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mimic_core.base.config import Task
from mimic_core.base.schema import Sample, Skip
from mimic_core.sources.source import (
    IMAGE_SUFFIXES,
    Files,
    Lean,
    Unusable,
    derived_uid,
    given_uid,
    make_sample,
    pool_fingerprint,
    row_range,
    row_shards,
)
from mimic_core.sources.texts import DEFAULT_CAPTION, TEXT_SUFFIXES, read_sidecar, require_caption


class _Pair(NamedTuple):
    """The files of one sample; ``image`` is None where only the caption is there."""

    key: str
    image: str | None
    texts: tuple[str, ...]


@dataclass(frozen=True)
class PairSource(Lean):
    """All images among ``files``; the two columns are the user's choices as in tar shards."""

    files: Files
    image_column: str | None = None
    caption_column: str | None = None
    label_column: None = None
    task: Task = "pairs"

    @property
    def root(self) -> Path:
        """The folder that locators are relative to."""
        return self.files.root

    @property
    def layout(self) -> str:
        """``folder`` or ``zip``."""
        return self.files.layout

    @cached_property
    def _pairs(self) -> list[_Pair]:
        suffix = (self.image_column or "").lower().removeprefix(".")
        return pair_up(self.files.names(), (suffix,) if suffix else IMAGE_SUFFIXES)

    def has_captions(self) -> bool:
        """Whether at least one image has a text beside it."""
        return any(pair.image is not None and pair.texts for pair in self._pairs)

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """One per 2,048 samples."""
        return row_shards("images", len(self._pairs))

    def fingerprint(self) -> str:
        """Over the identities of the images and the bytes of the texts."""
        content = []
        for pair in self._pairs:
            row: list[object] = [pair.key]
            for name in (pair.image, *pair.texts):
                try:
                    row.append(self._identity(name))
                except Unusable as error:
                    row.append(error.reason)
            content.append(row)
        return pool_fingerprint(self, content)

    def _identity(self, name: str | None) -> list[object]:
        if name is None:
            return []
        if _suffix(name) in TEXT_SUFFIXES:
            return [name, hashlib.sha256(self.files.read_text(name)).hexdigest()]
        return [name, *self.files.identity(name)]

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """The samples of one virtual shard, sorted by key."""
        rows = row_range(self.shards, shard)
        for pair in self._pairs[rows.start : rows.stop]:
            try:
                yield self._sample(pair, shard)
            except Unusable as error:
                yield error.skip(pair.key, shard)

    def _sample(self, pair: _Pair, shard: str) -> Sample:
        if pair.image is None:
            raise Unusable("missing_image", f"no image beside {pair.texts[0]}")
        texts = {_suffix(name): self.files.read_text(name) for name in pair.texts}
        caption, meta = read_sidecar(texts, self.caption_column)
        caption = require_caption(caption, self.caption_column or DEFAULT_CAPTION)
        return make_sample(
            uid=given_uid(meta) or derived_uid("", pair.key, caption, 0),
            key=pair.key,
            shard=shard,
            text=caption,
            task="pairs",
            image=self.files.locate(pair.image),
            meta=meta,
        )


def pair_up(names: list[str], image_suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[_Pair]:
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
        if images or any(_suffix(name) == "txt" for name in texts):
            pairs.append(_Pair(stem, images[0] if images else None, texts))
        pairs += [_Pair(name, name, texts) for name in images[1:]]
    return pairs


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower().removeprefix(".")


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _stem_first(name: str) -> tuple[str, str]:
    return _stem(name), name
