"""Hugging Face's imagefolder: ``metadata.csv``, ``.jsonl`` or ``.parquet`` in folders of images.

One table in each folder, as ``train/metadata.jsonl`` beside ``test/metadata.jsonl``, whose names
are relative to it. One at the root is a table like any other.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from mimic_core.base.config import Task
from mimic_core.base.errors import SourceError
from mimic_core.sources.layouts import table
from mimic_core.sources.offers import Offer, Place
from mimic_core.sources.tables.loading import table_suffix


def offer(place: Place, task: Task | None) -> Offer | SourceError | None:
    """All tables of that name in folders, if they are of one format."""
    found = [
        name
        for name in place.names
        if "/" in name and PurePosixPath(name).name.startswith("metadata.") and table_suffix(name)
    ]
    if not found:
        return None
    formats = {PurePosixPath(name).name for name in found}
    if len(formats) > 1:
        return SourceError(
            "the pool has tables metadata of several formats",
            got=sorted(formats),
            allowed="one format, as Hugging Face's imagefolder has",
            next_step="leave the tables of one format there, or give the path of one folder",
        )
    try:
        return table.reading(place, tuple(found), task)
    except SourceError as error:
        return error
