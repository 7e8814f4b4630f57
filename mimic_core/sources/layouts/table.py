"""A pool that is a table of captions or labels with image files beside it, in a folder or zip.

Which file is a table is read from it where its name does not say so: JSON and texts, packed or not.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from mimic_core.base.config import Task
from mimic_core.base.errors import SourceError
from mimic_core.base.schema import NO_IMAGE, Locator, Sample, Skip
from mimic_core.sources.archive import ZipFiles
from mimic_core.sources.guess import (
    IMAGE_NAMES,
    Columns,
    clearly_labels,
    guess_image,
    is_url,
    text_columns,
)
from mimic_core.sources.images import ImageError
from mimic_core.sources.offers import COLUMN_OF, Offer, Place
from mimic_core.sources.source import (
    ROWS_PER_SHARD,
    Files,
    Source,
    Unusable,
    derived_uid,
    is_image,
    row_shards,
    shard_names,
    shard_position,
)
from mimic_core.sources.spelling import Spellings
from mimic_core.sources.splits import split_of
from mimic_core.sources.tables.columns import OWN
from mimic_core.sources.tables.loading import (
    load_table,
    may_be_table,
    table_columns,
    table_suffix,
    unread_columns,
)
from mimic_core.sources.tables.places import images_of
from mimic_core.sources.tables.plain import open_table
from mimic_core.sources.texts import cell, require_text_of

_HASH_BLOCK = 1024 * 1024
_PEEKED_ROWS = 64
_SNIFFED = 20  # files at the root that are looked into although their names do not say table
_PATH_CHARACTERS = 255  # no file system has longer names
_BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0", "SUkq", "TU0A", "AAAA")  # image heads


def offer(place: Place, task: Task | None) -> Offer | SourceError | None:
    """The one table at the root that has the two columns, or one for each split.

    Raises:
        SourceError: Several have.
    """
    usable, problems = [], []
    for name in candidates(place):
        try:
            usable.append((name, reading(place, (name,), task)))
        except SourceError as error:
            if table_suffix(name) or place.alone is not None:
                problems.append(error)
    names = tuple(name for name, _ in usable)
    if len(usable) > 1 and all(split_of(name, container=True) for name in names):
        return reading(place, names, task)
    if len(usable) > 1:
        raise SourceError(
            "the pool has several captions tables",
            got=list(names),
            next_step="give the path of the one table to use, or move the others away",
        )
    if usable:
        return usable[0][1]
    if len(problems) < 2:
        return problems[0] if problems else None
    return SourceError(
        "none of the pool's tables is a table of captions or labels",
        got="; ".join(f"{error.problem} ({error.got})" for error in problems),
        allowed="one table with a column of image paths and a column of captions or labels",
        next_step="name the columns with --image-column and --caption-column or --label-column",
    )


def candidates(place: Place) -> list[str]:
    """The files at the root that are tables by name, and a few that may be by what they hold.

    A text beside an image of the same name is that image's.
    """
    named = [name for name in place.at_root if table_suffix(name)]
    others = [name for name in place.at_root if may_be_table(name)]
    if len(others) > _SNIFFED:  # texts beside images elsewhere
        return named
    images = {PurePosixPath(one).stem for one in place.at_root if is_image(one)}
    return [*named, *(name for name in others if PurePosixPath(name).stem not in images)]


def reading(
    place: Place,
    names: tuple[str, ...],
    task: Task | None,
    *,
    images: Sequence[str] = IMAGE_NAMES,
    beside: bool = True,
    imageless: bool = False,
) -> Offer:
    """What the tables ``names`` can be read as; the first decides the columns.

    Args:
        images: Names that a column of images may have.
        beside: Whether they are relative to the folder of each table.
        imageless: Whether a row of captions stays a row where its image is not there.

    Raises:
        SourceError: The columns are not clear, or one of the tables lacks them.
    """
    columns = {}
    for name in names:
        with open_table(place.files, name) as file:
            columns[name] = table_columns(file, name)
    first = names[0]
    image = guess_image(columns[first], place.config.image_column, first, images)
    texts = text_columns(columns[first], columns[first], place.config, task, first)
    for name, there in columns.items():
        lacking = [one for one in (image, *texts.values()) if one not in there]
        if lacking:
            raise SourceError(
                f"{name} lacks a column that {first} has",
                got=f"columns {', '.join(there) or 'none'}",
                allowed=", ".join(lacking),
                next_step="name the columns alike, or give the path of one of the tables",
            )

    def source(task: Task, column: str) -> TableSource:
        settings = place.settings | {COLUMN_OF[task]: column, "image_column": image}
        own = beside and place.config.image_root is None
        bare = imageless and task == "pairs"
        return TableSource(names, place.images, own, bare, **settings, task=task)

    sources = {task: source(task, column) for task, column in texts.items()}
    return Offer(first, sources, texts, clearly_labels(texts.get("labels")))


@dataclass(frozen=True)
class TableSource(Source):
    """The rows of ``tables``, files among the files; their image paths are relative to ``images``.

    ``beside`` says that they are relative to the folder of each table instead, and ``imageless``
    that a row whose image is not there stays a row, with its address.
    """

    tables: tuple[str, ...]
    images: Files
    beside: bool = True
    imageless: bool = False

    @property
    def root(self) -> Path:
        """The folder that locators are relative to."""
        return self._images.root

    @cached_property
    def _images(self) -> Files:
        """Where the images are: in a zip, or elsewhere on this machine, if nowhere else."""
        return images_of(self.images, self._names)

    @cached_property
    def _frames(self) -> dict[str, pl.DataFrame]:
        """Each whole table with each row's ordinal among those of equal image (and caption)."""
        frames = {}
        columns = Columns(self.image_column or "", self.text_column or "")
        equal = ["image", "text"] if self.task == "pairs" else ["image"]
        ordinal = pl.int_range(pl.len(), dtype=pl.Int64).over(equal)
        for table in self.tables:
            with open_table(self.files, table) as file:
                frame = load_table(file, table, columns, self.task)
            _refuse_base64(frame["image"].head(_PEEKED_ROWS), f"{self.image_column} of {table}")
            folder = posixpath.dirname(table)
            if folder and self.beside:
                names = [_below(folder, name) for name in frame["image"]]
                frame = frame.with_columns(pl.Series("image", names, pl.String))
            frames[table] = frame.with_columns(ordinal.alias("ordinal")).with_row_index("row")
        return frames

    @cached_property
    def _names(self) -> list[str]:
        """The images that the tables name."""
        named = pl.concat([frame["image"] for frame in self._frames.values()])
        return [*named.drop_nulls().unique().sort()]

    @cached_property
    def _spellings(self) -> dict[str, Spellings]:
        return {
            table: Spellings(self._images, frame["image"].drop_nulls().unique().sort(), table)
            for table, frame in self._frames.items()
        }

    @cached_property
    def _found(self) -> dict[tuple[str, str], tuple[str, str] | ImageError]:
        """Files of a table's names that are spelt otherwise, with how; or why there are none."""
        return {}

    @cached_property
    def _pieces(self) -> dict[str, tuple[str, int]]:
        """Table and first row of each shard."""
        if len(self.tables) == 1:
            stems = {PurePosixPath(self.tables[0]).stem: self.tables[0]}
        else:
            stems = shard_names(self.tables)
        return {
            shard: (table, number * ROWS_PER_SHARD)
            for stem, table in stems.items()
            for number, shard in enumerate(row_shards(stem, len(self._frames[table])))
        }

    @property
    def shards(self) -> tuple[str, ...]:
        """One per 2,048 rows of each table."""
        return tuple(self._pieces)

    def used(self) -> Iterable[str]:
        """The tables and the images that they name."""
        for table, frame in self._frames.items():
            for name in frame["image"].drop_nulls().unique():
                with suppress(ImageError):
                    self._file(table, name)
        resolved = [one[0] for one in self._found.values() if not isinstance(one, ImageError)]
        archive = [self._images.path.name] if isinstance(self._images, ZipFiles) else []
        return [*self.tables, *self._names, *resolved, *archive]

    def unread(self) -> Counter[str]:
        """Also the columns that no index keeps."""
        found = super().unread()
        for table in self.tables:
            if table_suffix(table) == "parquet":
                with self.files.open(table) as file:
                    found.update(unread_columns(file, table))
        return found

    def columns_read(self) -> str:
        """The tables' columns."""
        word = "captions" if self.task == "pairs" else "labels"
        more = f" and {len(self.tables) - 1} more" if len(self.tables) > 1 else ""
        return (
            f"{self.tables[0]}{more} with images from {self.image_column}, "
            f"{word} from {self.text_column}"
        )

    def fingerprint(self) -> str:
        """Over the whole tables and the identities of the images they name."""
        content: list[Any] = []
        for table, frame in self._frames.items():
            images = []
            for name in frame["image"].drop_nulls().unique().sort():
                try:
                    images.append([name, *self._images.identity(self._file(table, name))])
                except Unusable as error:
                    images.append([name, error.reason])
            content += [table, self._checksum(table), images]
        return self.digest(content)

    def _checksum(self, table: str) -> str:
        checksum = hashlib.sha256()
        with self.files.open(table) as file:
            while block := file.read(_HASH_BLOCK):
                checksum.update(block)
        return checksum.hexdigest()

    def _file(self, table: str, name: str) -> str:
        """The file that ``name`` means in ``table``; ``name`` itself where it is one."""
        asked = table, name
        if asked not in self._found:
            error = self._error(name)
            if error is None:
                return name
            try:
                self._found[asked] = self._spellings[table].find(name, error)
            except ImageError as explained:
                self._found[asked] = explained
        found = self._found[asked]
        if isinstance(found, ImageError):
            raise found
        return found[0]

    def _error(self, name: str) -> ImageError | None:
        """Why ``name`` is no image file as it stands."""
        try:
            self._images.locate(name)
        except ImageError as error:
            return error
        return None

    def _locate(self, table: str, name: str) -> Locator:
        try:
            return self._images.locate(self._file(table, name))
        except ImageError:
            if not self.imageless:
                raise
            return NO_IMAGE
        finally:
            found = self._found.get((table, name))
            if isinstance(found, tuple):
                self.notes.remarks[found[1]] += 1

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """The rows of one virtual shard, in the order of the table."""
        shard_position(self.shards, shard)
        table, start = self._pieces[shard]
        for row in self._frames[table].slice(start, ROWS_PER_SHARD).iter_rows(named=True):
            key = row["image"] or f"row {row['row']}"
            try:
                yield self._sample(table, row, key, shard)
            except Unusable as error:
                yield error.skip(key, shard)

    def places(self, shard: str) -> Iterator[tuple[str, int]]:
        """For each of ``index(shard)`` its table and the number of its row there: a row with
        several captions comes as often.
        """
        table, start = self._pieces[shard]
        for place in self._frames[table]["place"].slice(start, ROWS_PER_SHARD):
            yield table, place

    def rows(self, table: str) -> int:
        """The number of rows of one of the tables."""
        places = self._frames[table]["place"]
        return int(places[-1]) + 1 if len(places) else 0

    def _sample(self, table: str, row: dict[str, Any], key: str, shard: str) -> Sample:
        if row["problem"] is not None:
            raise Unusable("bad_metadata", row["problem"])
        value = row["text"]
        text = require_text_of(self.task, value, f"the column {self.text_column}")
        if self.task == "labels" and isinstance(value, float):
            self.notes.remarks["whole label written with a point"] += 1
        caption = text if self.task == "pairs" else ""
        meta, split = row_meta(row), split_of(table, container=True)
        if split and "split" not in meta and len(self.tables) > 1:
            meta["split"] = split
        if self.imageless and row["image"]:
            meta[self.image_column or ""] = row["image"]  # its address
        return self.sample(
            key=key,
            shard=shard,
            text=text,
            image=self._locate(table, row["image"] or ""),
            meta=meta,
            derived=lambda image: derived_uid(table, image or key, caption, row["ordinal"]),
            several=row.get("several", False),
        )


def _below(folder: str, name: str | None) -> str | None:
    """A name that is relative to ``folder``, relative to the pool."""
    if not name or name.startswith("/") or is_url(name):
        return name
    return posixpath.join(folder, name)


def _refuse_base64(names: pl.Series, where: str) -> None:
    """Refuse a column that holds the images themselves, as text, instead of their paths."""
    for name in names.drop_nulls():
        if name.startswith("data:image/") or (
            len(name) > _PATH_CHARACTERS and name.startswith(_BASE64)
        ):
            raise SourceError(
                f"the column {where} holds images in base64, not paths",
                got=f"{name[:24]}... of {len(name)} characters",
                allowed="paths of image files; in Parquet, bytes",
                next_step="decode that column to bytes and store the table as Parquet",
            )


def row_meta(row: dict[str, Any]) -> dict[str, Any]:
    """The user's own columns of one row of a loaded table."""
    if "json" in row:
        values: dict[str, Any] = json.loads(row["json"])
        return values
    return {
        name.removeprefix(OWN): cell(value, name)
        for name, value in row.items()
        if name.startswith(OWN)
    }
