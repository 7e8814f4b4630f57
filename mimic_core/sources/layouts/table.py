"""A pool that is a table of captions or labels with image files beside it, in a folder or zip."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from mimic_core.base.config import Task
from mimic_core.base.schema import Sample, Skip
from mimic_core.sources.guess import Columns
from mimic_core.sources.source import (
    Files,
    Lean,
    Unusable,
    derived_uid,
    given_uid,
    make_sample,
    pool_fingerprint,
    row_range,
    row_shards,
)
from mimic_core.sources.tables.columns import OWN
from mimic_core.sources.tables.loading import load_table
from mimic_core.sources.texts import cell, require_text_of

_HASH_BLOCK = 1024 * 1024


@dataclass(frozen=True)
class TableSource(Lean):
    """The rows of ``table``, a file among ``files``; its image paths are relative to it."""

    files: Files
    table: str
    image_column: str
    caption_column: str | None
    label_column: str | None = None

    @property
    def task(self) -> Task:
        """Which of the two columns is there."""
        return "pairs" if self.label_column is None else "labels"

    @property
    def _text_column(self) -> str:
        return self.caption_column or self.label_column or ""

    @property
    def root(self) -> Path:
        """The folder that locators are relative to."""
        return self.files.root

    @property
    def layout(self) -> str:
        """``folder`` or ``zip``."""
        return self.files.layout

    @cached_property
    def _frame(self) -> pl.DataFrame:
        """The whole table with the ordinal of each row among those of equal image (and caption)."""
        columns = Columns(self.image_column, self._text_column)
        with self.files.open(self.table) as file:
            frame = load_table(file, self.table, columns, self.task)
        equal = ["image", "text"] if self.task == "pairs" else ["image"]
        ordinal = pl.int_range(pl.len(), dtype=pl.Int64).over(equal)
        return frame.with_columns(ordinal.alias("ordinal")).with_row_index("row")

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """One per 2,048 rows."""
        return row_shards(PurePosixPath(self.table).stem, len(self._frame))

    def fingerprint(self) -> str:
        """Over the whole table and the identities of the images it names."""
        checksum = hashlib.sha256()
        with self.files.open(self.table) as file:
            while block := file.read(_HASH_BLOCK):
                checksum.update(block)
        images = []
        for name in self._frame["image"].drop_nulls().unique().sort():
            try:
                images.append([name, *self.files.identity(name)])
            except Unusable as error:
                images.append([name, error.reason])
        return pool_fingerprint(self, [self.table, checksum.hexdigest(), images])

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
        text = require_text_of(self.task, row["text"], f"the column {self._text_column}")
        meta = row_meta(row)
        caption = text if self.task == "pairs" else ""
        return make_sample(
            uid=given_uid(meta) or derived_uid(self.table, key, caption, row["ordinal"]),
            key=key,
            shard=shard,
            text=text,
            task=self.task,
            image=self.files.locate(row["image"] or ""),
            meta=meta,
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
