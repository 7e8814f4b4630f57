"""A pool that is a table of captions or labels with image files beside it, in a folder or zip."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from mimic_core.base.config import Task
from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Locator, Sample, Skip
from mimic_core.sources.guess import Columns, clearly_labels, guess_image, text_columns
from mimic_core.sources.images import ImageError
from mimic_core.sources.offers import COLUMN_OF, Offer, Place
from mimic_core.sources.source import (
    Files,
    Source,
    Unusable,
    derived_uid,
    row_range,
    row_shards,
)
from mimic_core.sources.spelling import Spellings
from mimic_core.sources.tables.columns import OWN
from mimic_core.sources.tables.loading import (
    load_table,
    table_columns,
    table_suffix,
    unread_columns,
)
from mimic_core.sources.texts import cell, require_text_of

_HASH_BLOCK = 1024 * 1024
_PEEKED_ROWS = 64
_PATH_CHARACTERS = 255  # no file system has longer names
_BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0", "SUkq", "TU0A", "AAAA")  # image heads


def offer(place: Place, task: Task | None) -> Offer | SourceError | None:
    """The one table at the root that has the two columns.

    Raises:
        SourceError: Several have.
    """
    usable, problems = [], []
    for name in place.at_root:
        if table_suffix(name):
            try:
                usable.append(_reading(place, name, task))
            except SourceError as error:
                problems.append(error)
    if len(usable) > 1:
        raise SourceError(
            "the pool has several captions tables",
            got=[one.where for one in usable],
            next_step="give the path of the one table to use, or move the others away",
        )
    if usable:
        return usable[0]
    if len(problems) < 2:
        return problems[0] if problems else None
    return SourceError(
        "none of the pool's tables is a table of captions or labels",
        got="; ".join(f"{error.problem} ({error.got})" for error in problems),
        allowed="one table with a column of image paths and a column of captions or labels",
        next_step="name the columns with --image-column and --caption-column or --label-column",
    )


def _reading(place: Place, name: str, task: Task | None) -> Offer:
    """What the table ``name`` can be read as."""
    with place.files.open(name) as file:
        columns = table_columns(file, name)
    image = guess_image(columns, place.config.image_column, name)
    texts = text_columns(columns, columns, place.config, task, name)

    def source(task: Task, column: str) -> TableSource:
        settings = place.settings | {COLUMN_OF[task]: column}
        return TableSource(name, place.images, **settings, task=task, image_column=image)

    sources = {task: source(task, column) for task, column in texts.items()}
    return Offer(name, sources, texts, clearly_labels(texts.get("labels")))


@dataclass(frozen=True)
class TableSource(Source):
    """The rows of ``table``, a file among the files; its image paths are relative to ``images``."""

    table: str
    images: Files

    @property
    def root(self) -> Path:
        """The folder that locators are relative to."""
        return self.images.root

    @cached_property
    def _frame(self) -> pl.DataFrame:
        """The whole table with the ordinal of each row among those of equal image (and caption)."""
        columns = Columns(self.image_column or "", self.text_column or "")
        with self.files.open(self.table) as file:
            frame = load_table(file, self.table, columns, self.task)
        _refuse_base64(frame["image"].head(_PEEKED_ROWS), f"{self.image_column} of {self.table}")
        equal = ["image", "text"] if self.task == "pairs" else ["image"]
        ordinal = pl.int_range(pl.len(), dtype=pl.Int64).over(equal)
        return frame.with_columns(ordinal.alias("ordinal")).with_row_index("row")

    @cached_property
    def _names(self) -> list[str]:
        """The images that the table names."""
        return [*self._frame["image"].drop_nulls().unique().sort()]

    @cached_property
    def _spellings(self) -> Spellings:
        return Spellings(self.images, self._names)

    @cached_property
    def _found(self) -> dict[str, tuple[str, str] | ImageError]:
        """Files of names that are spelt otherwise, with how; or why there are none."""
        return {}

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """One per 2,048 rows."""
        return row_shards(PurePosixPath(self.table).stem, len(self._frame))

    def used(self) -> Iterable[str]:
        """The table and the images that it names."""
        resolved = [one[0] for one in self._found.values() if not isinstance(one, ImageError)]
        return [self.table, *self._names, *resolved]

    def unread(self) -> Counter[str]:
        """Also the columns that no index keeps."""
        found = super().unread()
        if table_suffix(self.table) == "parquet":
            with self.files.open(self.table) as file:
                found.update(unread_columns(file, self.table))
        return found

    def columns_read(self) -> str:
        """The table's columns."""
        word = "captions" if self.task == "pairs" else "labels"
        return f"{self.table} with images from {self.image_column}, {word} from {self.text_column}"

    def fingerprint(self) -> str:
        """Over the whole table and the identities of the images it names."""
        checksum = hashlib.sha256()
        with self.files.open(self.table) as file:
            while block := file.read(_HASH_BLOCK):
                checksum.update(block)
        images = []
        for name in self._names:
            try:
                images.append([name, *self.images.identity(self._file(name))])
            except Unusable as error:
                images.append([name, error.reason])
        return self.digest([self.table, checksum.hexdigest(), images])

    def _file(self, name: str) -> str:
        """The file that ``name`` means; ``name`` itself where it is one."""
        if name not in self._found:
            error = self._error(name)
            if error is None:
                return name
            try:
                self._found[name] = self._spellings.find(name, error)
            except ImageError as explained:
                self._found[name] = explained
        found = self._found[name]
        if isinstance(found, ImageError):
            raise found
        return found[0]

    def _error(self, name: str) -> ImageError | None:
        """Why ``name`` is no image file as it stands."""
        try:
            self.images.locate(name)
        except ImageError as error:
            return error
        return None

    def _locate(self, name: str) -> Locator:
        try:
            return self.images.locate(self._file(name))
        finally:
            found = self._found.get(name)
            if isinstance(found, tuple):
                self.notes.remarks[found[1]] += 1

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """The rows of one virtual shard, in the order of the table."""
        rows = row_range(self.shards, shard)
        for row in self._frame.slice(rows.start, len(rows)).iter_rows(named=True):
            key = row["image"] or f"row {row['row']}"
            try:
                yield self._sample(row, key, shard)
            except Unusable as error:
                yield error.skip(key, shard)

    def _sample(self, row: dict[str, Any], key: str, shard: str) -> Sample:
        if row["problem"] is not None:
            raise Unusable("bad_metadata", row["problem"])
        value = row["text"]
        text = require_text_of(self.task, value, f"the column {self.text_column}")
        if self.task == "labels" and isinstance(value, float):
            self.notes.remarks["whole label written with a point"] += 1
        caption = text if self.task == "pairs" else ""
        return self.sample(
            key=key,
            shard=shard,
            text=text,
            image=self._locate(row["image"] or ""),
            meta=row_meta(row),
            derived=lambda image: derived_uid(self.table, image or key, caption, row["ordinal"]),
            several=row.get("several", False),
        )


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
