"""Where a pool lies, and what a layout can make of it: the one shape that all layouts share.

A module of ``layouts`` has a function ``offer(place, task)`` that looks at the files of a ``Place``
and gives an ``Offer``, None where the pool is not of its layout, or the ``SourceError`` that says
why it almost is. ``opening`` asks one after the other and decides between captions and labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mimic_core.base.config import SourceConfig, Task
from mimic_core.base.remote import RemotePath, as_place
from mimic_core.sources.bucket import BucketFiles
from mimic_core.sources.folder import FolderFiles
from mimic_core.sources.source import Files, Source

COLUMN_OF: dict[Task, str] = {"pairs": "caption_column", "labels": "label_column"}
_NEAR = 1  # folders below the pool's own in which containers are looked for at first


@dataclass(frozen=True)
class Place:
    """The files at the path of a pool; of a single file that was given, it ``alone``.

    Containers (tars, Parquet) are looked for near the root, and ``deep`` below it only where
    nothing else was found: one in a far corner is not what a folder of images is about.
    """

    path: Path
    files: Files
    config: SourceConfig
    alone: str | None = None
    deep: bool = False

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All files of the pool, sorted."""
        return self.files.listing.names if self.alone is None else (self.alone,)

    @property
    def near(self) -> list[str]:
        """Those that may be containers."""
        return [name for name in self.names if self.deep or name.count("/") <= _NEAR]

    @property
    def at_root(self) -> list[str]:
        """Those that lie in no folder."""
        return [name for name in self.names if "/" not in name]

    @property
    def images(self) -> Files:
        """Where the images are that a table names."""
        if self.config.image_root is None:
            return self.files
        folder = as_place(self.config.image_root).expanduser()
        if isinstance(folder, RemotePath):
            return BucketFiles(folder)
        return FolderFiles(folder, not self.config.no_follow_links, self.config.link_roots)

    @property
    def settings(self) -> dict[str, Any]:
        """What every source takes over from here."""
        return {
            "files": self.files,
            "layout": self.files.layout,
            "uid_column": self.config.uid_column,
            "alone": self.alone is not None,
        }

    def deeper(self) -> Place:
        """The same, with containers in any folder."""
        return replace(self, deep=True)


@dataclass(frozen=True, slots=True)
class Offer:
    """The readings of a pool by task, and what of ``where`` each would take, for the question."""

    where: str
    sources: Mapping[Task, Source]
    found: Mapping[Task, str]
    clearly_labels: bool = True
    """Whether the labels are more than a remark beside captions."""
