"""What the Data page keeps of pools between reruns; the rules are those of ``app.cache.tables``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice

import streamlit as st

from app.cache.served import picture_address
from app.drawing import pictures
from mimic_core.base.config import SourceConfig, Task
from mimic_core.base.schema import NO_IMAGE, Sample, Skip

PREVIEW_SAMPLES = 8
COUNTED_SAMPLES = 20_000  # reading the index of more would hold up the page


@dataclass(frozen=True, slots=True)
class Preview:
    """The first samples of a pool, and what was guessed about it."""

    layout: str
    shards: int
    image_column: str | None
    caption_column: str | None
    label_column: str | None
    task: Task
    found: tuple[Sample | Skip, ...]
    pictures: tuple[str | None, ...]
    """their addresses; None for what is skipped"""
    samples: int
    without_image: int
    skipped: int
    complete: bool
    unread: str
    """the files of the pool that are not read, by kind"""


@st.cache_data(max_entries=16, show_spinner="Opening the pool…", ttl=600)
def preview(source_json: str) -> Preview:
    """Open the pool of that ``SourceConfig``, given as JSON, and look at its first samples."""
    from mimic_core.sources import index
    from mimic_core.sources.opening import open_source

    source = open_source(SourceConfig.model_validate_json(source_json))
    found = tuple(index.preview(source, PREVIEW_SAMPLES))
    seen = (one for shard in source.shards for one in source.index(shard))
    kinds = Counter(map(_kind, islice(seen, COUNTED_SAMPLES)))
    return Preview(
        layout=source.layout,
        shards=len(source.shards),
        image_column=source.image_column,
        caption_column=source.caption_column,
        label_column=source.label_column,
        task=source.task,
        found=found,
        pictures=tuple(
            picture_address(source.root, one.image, side=pictures.THUMB_SIDE)
            if isinstance(one, Sample)
            else None
            for one in found
        ),
        samples=kinds["sample"],
        without_image=kinds["without image"],
        skipped=kinds["skip"],
        complete=next(seen, None) is None,
        unread=index.in_words(source.unread()),
    )


def _kind(one: Sample | Skip) -> str:
    if isinstance(one, Skip):
        return "skip"
    return "without image" if one.image == NO_IMAGE else "sample"
