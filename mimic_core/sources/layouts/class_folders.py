"""A pool of class folders: the folder that an image lies in is its label.

Either ``<class>/<image>`` or, with one more level, ``<split>/<class>/<image>``, where the splits
have their usual names; the split is then kept as the column ``split``. The files may lie in a
folder or in a zip.

Folders are taken for classes without being told only where nothing speaks against it: no file that
could hold captions, and no folder named for a split or for a part of each sample. Else the user is
asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from mimic_core.base.config import Task
from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Sample, Skip
from mimic_core.sources.offers import Offer, Place
from mimic_core.sources.source import (
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    Source,
    Unusable,
    derived_uid,
    row_range,
    row_shards,
)
from mimic_core.sources.splits import SPLITS, is_split
from mimic_core.sources.texts import require_text_of

# Folders of one dataset that hold parts of each sample, or a piece of it, and no class.
_PARTS = re.compile(
    rf"(?:{'|'.join(SPLITS)}|unlabell?ed|images?|imgs?|pictures?|jpe?gs?|jpegimages|masks?|labels?"
    r"|annotations?|segmentations?|depths?|thumbs?|thumbnails?|captions?|parts?|shards?"
    r"|batch(?:es)?|0\d{3})[-_ ]?\d*"
)
# What could hold captions, or labels of its own.
_DATA = re.compile(
    r".*\.(?:csv|tsv|jsonl?|ndjson|parquet|txt|captions?|xml|ya?ml|xlsx?|ods|arrow|feather|lance"
    r"|sqlite3?|mat|npy|npz|pkl|pickle|tfrecord|lst|tar|tgz|zip|7z|rar|gz|bz2|xz|zst)",
    re.IGNORECASE,
)
_HARMLESS = re.compile(r"(?:readme|licen[cs]e|changelog|citation|notice)\b.*", re.IGNORECASE)
_SHOWN = 5


def offer(place: Place, task: Task | None) -> Offer | SourceError | None:
    """The folders as classes where that is asked for, or plain."""
    # A column that the user names is not the name of a folder.
    if task == "pairs" or place.config.label_column is not None or place.alone is not None:
        return None
    if not _in_folders(place.names) or (task is None and len(_classes(place.names)) < 2):
        return None
    if task is None:
        doubts = [*_other_data(place.names), *_parts(place.names)]
        if doubts:
            return _question(place, doubts)
    source = ClassSource(**place.settings, task="labels")
    return Offer("the pool", {"labels": source}, {"labels": "class folders"})


def hint(place: Place) -> str | None:
    """What to do where only a part of the pool lies in class folders, as in Kaggle's train/ beside
    a test/ without labels.
    """
    inside: dict[str, list[str]] = {}
    for name in place.names:
        top, slash, rest = name.partition("/")
        if slash:
            inside.setdefault(top, []).append(rest)
    parts = sorted(top for top, rest in inside.items() if _are_classes(rest))
    if not parts:
        return None
    if place.files.layout == "zip":
        return f"unpack it, and give the path of its folder with the classes: {', '.join(parts)}"
    return f"give the path of a folder with the classes: {place.path / parts[0]}"


@dataclass(frozen=True)
class ClassSource(Source):
    """All images among the files, labelled by their folders."""

    @cached_property
    def _images(self) -> list[str]:
        return _image_names(self.files.listing.names)

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """One per 2,048 samples."""
        return row_shards("images", len(self._images))

    def used(self) -> Iterable[str]:
        """The images."""
        return self._images

    def columns_read(self) -> str:
        """The folders."""
        return f"labels from {len(_classes(self._images))} folders"

    def fingerprint(self) -> str:
        """Over the names and identities of the images."""
        content: list[object] = []
        for name in self._images:
            try:
                content.append([name, *self.files.identity(name)])
            except Unusable as error:
                content.append([name, error.reason])
        return self.digest(content)

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """The samples of one virtual shard, sorted by path, which is their key."""
        rows = row_range(self.shards, shard)
        for name in self._images[rows.start : rows.stop]:
            try:
                yield self._sample(name, shard)
            except Unusable as error:
                yield error.skip(name, shard)
        yield from self.unnamed(shard)

    def _sample(self, name: str, shard: str) -> Sample:
        if _suffix(name) in UNREAD_SUFFIXES:
            raise Unusable(
                "unread_format", f".{_suffix(name)} images are not read; convert them to JPEG"
            )
        folder = name.split("/")[-2]
        return self.sample(
            key=name,
            shard=shard,
            text=require_text_of("labels", folder, "the name of the folder"),
            image=self.files.locate(name),
            meta={},
            derived=lambda image: derived_uid("", image or name, "", 0),
        )


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower().removeprefix(".")


def _image_names(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are images, by suffix."""
    return [name for name in names if _suffix(name) in (*IMAGE_SUFFIXES, *UNREAD_SUFFIXES)]


def _classes(names: Iterable[str]) -> set[str]:
    return {name.split("/")[-2] for name in _image_names(names) if "/" in name}


def _in_folders(names: Iterable[str]) -> bool:
    """Whether the images among ``names`` lie in class folders, and nowhere else."""
    folders = {tuple(name.split("/")[:-1]) for name in _image_names(names)}
    tops = {folder[0] for folder in folders if folder}
    depths = {len(folder) for folder in folders}
    # A level of splits alone has no classes; a level of other names may be anything.
    return (depths == {1} and any(top.lower() not in SPLITS for top in tops)) or (
        depths == {2} and all(map(is_split, tops))
    )


def _are_classes(names: list[str]) -> bool:
    doubts = [*_other_data(names), *_parts(names)]
    return _in_folders(names) and len(_classes(names)) > 1 and not doubts


def _other_data(names: Iterable[str]) -> list[str]:
    """The files that could hold captions or labels."""
    data = [name for name in names if _DATA.fullmatch(name)]
    return [name for name in data if not _HARMLESS.fullmatch(PurePosixPath(name).name)]


def _parts(names: Iterable[str]) -> list[str]:
    """The folders of images that are named for a split or a part of each sample."""
    return sorted(f"{one}/" for one in _classes(names) if _PARTS.fullmatch(one.lower()))


def _question(place: Place, doubts: list[str]) -> SourceError:
    classes = sorted(_classes(place.names))
    return SourceError(
        "it is not clear that the folders of images are classes",
        got=f"folders {', '.join(classes[:_SHOWN])}; beside them {', '.join(doubts[:_SHOWN])}",
        allowed="--task labels, to take the names of the folders as labels",
        next_step="say so with --task labels; or if there are captions, give them as a table of "
        "image paths and captions (.csv, .tsv, .jsonl, .parquet), unpacked, or as a .txt beside "
        "each image",
    )
