"""Where the images are that a table names: beside it, in a zip beside it, or elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mimic_core.base.errors import SourceError
from mimic_core.sources.archive import open_archive
from mimic_core.sources.folder import FolderFiles
from mimic_core.sources.images import ImageError, require_within
from mimic_core.sources.source import Files, Listing

_PEEKED = 64  # names that decide


def images_of(beside: Files, names: list[str]) -> Files:
    """The files that ``names`` are among: ``beside``, unless they are clearly somewhere else."""
    return _elsewhere(beside, names) or _zipped(beside, names) or beside


def _elsewhere(images: Files, names: list[str]) -> Files | None:
    """The folder outside of the pool's that absolute names share, where their files are there.

    It is read only as far as links may lead there, and nothing is looked for in it: a name is one
    of its files as it stands, or none.
    """
    if not isinstance(images, FolderFiles) or not names or not all(map(os.path.isabs, names)):
        return None
    folder = Path(os.path.commonpath([os.path.dirname(name) for name in names]))  # noqa: PTH120
    inside = require_within(folder, [images.root]) is None
    if inside or not any(map(os.path.isfile, names[:_PEEKED])):
        return None
    if not images.may_follow(folder):
        return None
    return AbsoluteFiles(folder, images.follow, images.link_roots)


def _zipped(images: Files, names: list[str]) -> Files | None:
    """The one zip beside a table, where it has the images and the folder has none of the first."""
    zips = [name for name in images.listing.names if name.lower().endswith(".zip")]
    if len(zips) != 1 or not names or images.layout != "folder":
        return None
    there = set(images.listing.names)
    if not there.isdisjoint(names[:_PEEKED]) or "/" in zips[0]:
        return None
    try:
        found = open_archive(images.root / zips[0])
    except SourceError:
        return None
    return found if not set(found.listing.names).isdisjoint(names[:_PEEKED]) else None


@dataclass(frozen=True)
class AbsoluteFiles(FolderFiles):
    """Files below ``root`` that are named absolutely; they are no part of a listing."""

    @cached_property
    def listing(self) -> Listing:
        """None of them: the folder may be anywhere."""
        return Listing(())

    def _find(self, name: str) -> tuple[str, int]:
        try:
            return super()._find(str(Path(name).relative_to(self.root)))
        except ValueError as error:
            raise ImageError("missing_image", f"{name}: not below {self.root}") from error
