"""The image of a row of the table, or the reason why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.cache import tables
from app.drawing.pictures import Picture
from app.shown import Shown
from mimic_core.base.errors import RunError

PLACE = ("image_kind", "image_path", "image_offset", "image_length", "image_member")


def source_root(shown: Shown) -> Path | None:
    """Where the images are; None when the pool has moved, which the tiles then say."""
    try:
        return shown.run.features.source_root()
    except RunError:
        return None


def picture_of(root: Path | None, row: dict[str, Any], *, side: int) -> Picture:
    """The image of one row of the table."""
    if root is None:
        return Picture(None, "the pool is no longer where it was scored")
    return tables.picture(str(root), tuple(row[name] for name in PLACE), side)
