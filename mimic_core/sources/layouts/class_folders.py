"""A pool of class folders: the folder that an image lies in is its label.

Either ``<class>/<image>`` or, with one more level, ``<split>/<class>/<image>``, where the splits
have their usual names; the split is then kept as the column ``split``. The files may lie in a
folder or in a zip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from mimic_core.base.config import Task
from mimic_core.base.schema import Sample, Skip
from mimic_core.sources.source import (
    IMAGE_SUFFIXES,
    Files,
    Lean,
    Unusable,
    derived_uid,
    make_sample,
    pool_fingerprint,
    row_range,
    row_shards,
)
from mimic_core.sources.tables.loading import table_suffix
from mimic_core.sources.texts import require_text_of

SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval")


@dataclass(frozen=True)
class ClassSource(Lean):
    """All images among ``files``, labelled by their folders (``class_folders`` has agreed)."""

    files: Files
    image_column: None = None
    caption_column: None = None
    label_column: None = None
    task: Task = "labels"

    @property
    def root(self) -> Path:
        """The folder that locators are relative to."""
        return self.files.root

    @property
    def layout(self) -> str:
        """``folder`` or ``zip``."""
        return self.files.layout

    @cached_property
    def _images(self) -> list[str]:
        return image_names(self.files.names())

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """One per 2,048 samples."""
        return row_shards("images", len(self._images))

    def fingerprint(self) -> str:
        """Over the names and identities of the images."""
        content: list[object] = []
        for name in self._images:
            try:
                content.append([name, *self.files.identity(name)])
            except Unusable as error:
                content.append([name, error.reason])
        return pool_fingerprint(self, content)

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """The samples of one virtual shard, sorted by path, which is their key."""
        rows = row_range(self.shards, shard)
        for name in self._images[rows.start : rows.stop]:
            try:
                yield self._sample(name, shard)
            except Unusable as error:
                yield error.skip(name, shard)

    def _sample(self, name: str, shard: str) -> Sample:
        *above, folder, _ = name.split("/")
        return make_sample(
            uid=derived_uid("", name, "", 0),
            key=name,
            shard=shard,
            text=require_text_of("labels", folder, "the name of the folder"),
            task="labels",
            image=self.files.locate(name),
            meta={"split": above[0]} if above else {},
        )


def image_names(names: list[str]) -> list[str]:
    """Those of ``names`` that are images, by suffix."""
    return [name for name in names if PurePosixPath(name).suffix.lower()[1:] in IMAGE_SUFFIXES]


def class_folders(names: list[str]) -> bool:
    """Whether the images among ``names`` lie in class folders, and nowhere else."""
    folders = {tuple(name.split("/")[:-1]) for name in image_names(names)}
    splits = {folder[0].lower() in SPLITS for folder in folders if folder}
    depths = {len(folder) for folder in folders}
    # A level of splits alone has no classes; a level of other names may be anything.
    return (depths == {1} and False in splits) or (depths == {2} and splits == {True})


def guessed_classes(names: list[str]) -> bool:
    """The same with at least two classes and no table anywhere that could say something else."""
    classes = {name.split("/")[-2] for name in image_names(names) if "/" in name}
    return class_folders(names) and len(classes) > 1 and not any(map(table_suffix, names))


def folders_of_classes(names: list[str]) -> list[str]:
    """The outermost folders that would be pools of class folders by themselves, sorted."""
    inside: dict[str, list[str]] = {}
    for name in image_names(names):
        top, slash, rest = name.partition("/")
        if slash:
            inside.setdefault(top, []).append(rest)
    return sorted(top for top, rest in inside.items() if guessed_classes(rest))
