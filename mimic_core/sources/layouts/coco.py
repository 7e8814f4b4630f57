"""COCO's captions: ``annotations/captions_train2017.json`` beside images in ``train2017``.

Each annotation is a sample, so an image has about five. The other files of annotations (instances,
keypoints) are not read. Where there are several files of captions, they are one pool.
"""

from __future__ import annotations

import os

from mimic_core.base.config import Task
from mimic_core.base.errors import SourceError
from mimic_core.sources.layouts import table
from mimic_core.sources.offers import Offer, Place
from mimic_core.sources.source import Files

_PEEKED = 64 * 1024
_LOOKED_INTO = 64


def offer(place: Place, task: Task | None) -> Offer | SourceError | None:
    """The files of captions in folders, which are known by what they hold."""
    nested = [name for name in place.names if "/" in name and name.lower().endswith(".json")]
    if task == "labels" or len(nested) > _LOOKED_INTO:
        return None
    found = tuple(name for name in nested if holds_captions(place.files, name))
    if not found:
        return None
    try:
        return table.reading(place, found, task, beside=False)
    except SourceError as error:
        return error


def holds_captions(files: Files, name: str) -> bool:
    """Whether a file is COCO's captions: its keys stand at its beginning and its captions at the
    end, or the other way around.
    """
    try:
        with files.open(name) as file:
            head = file.read(_PEEKED)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _PEEKED))
            seen = head + b"\n" + file.read(_PEEKED)
    except SourceError:
        return False
    keys = (b'"images"', b'"annotations"', b'"image_id"', b'"caption"')
    return (
        head.lstrip()[:1] == b"{" and b'"caption"' in seen and any(key in seen for key in keys[:3])
    )
