"""Parquet files with the image bytes in a column: binary, or Hugging Face's ``{bytes, path}``.

The index reads every column but the images. An image is later read by its row number; since
Parquet can only be read forwards inside a row group, rows are read quickest in their order, and
files with row groups of a few hundred rows, as Hugging Face writes them, are the quick ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from mimic_core.base.config import SourceConfig, Task
from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Locator, Sample, Skip
from mimic_core.sources.guess import IMAGE_NAMES, guess_column, guess_text
from mimic_core.sources.layouts.table import row_meta
from mimic_core.sources.source import (
    Lean,
    Ordinals,
    Unusable,
    file_identity,
    given_uid,
    make_sample,
    pool_fingerprint,
    shard_names,
    shard_position,
)
from mimic_core.sources.tables.arrow import class_names, parquet_schema, read_rows, row_count
from mimic_core.sources.tables.loading import (
    holds_labels,
    is_text,
    own_cell,
    own_columns,
    plain,
    require_labels,
    require_text,
)
from mimic_core.sources.texts import require_text_of

ROWS_PER_SHARD = 8192


class _Piece(NamedTuple):
    """One virtual shard: rows of one file."""

    path: str
    start: int


@dataclass(frozen=True)
class ParquetSource(Lean):
    """The rows of the files ``paths``, relative to ``root``."""

    root: Path
    paths: tuple[str, ...]
    image_column: str
    caption_column: str | None
    label_column: str | None = None
    layout: str = "parquet"

    @property
    def task(self) -> Task:
        """Which of the two columns is there."""
        return "pairs" if self.label_column is None else "labels"

    @property
    def _text_column(self) -> str:
        return self.caption_column or self.label_column or ""

    @cached_property
    def _pieces(self) -> dict[str, _Piece]:
        pieces = {}
        for name, path in shard_names(self.paths).items():
            check_columns(self.root, path, self.image_column, self._text_column, self.task)
            for start in range(0, max(1, row_count(self.root / path)), ROWS_PER_SHARD):
                pieces[f"{name}-{start // ROWS_PER_SHARD:05d}"] = _Piece(path, start)
        return dict(sorted(pieces.items()))

    @property
    def shards(self) -> tuple[str, ...]:
        """One per 8,192 rows of each file."""
        return tuple(self._pieces)

    def fingerprint(self) -> str:
        """Over each file's name, size, head and tail."""
        content = [file_identity(self.root / path, path) for path in sorted(self.paths)]
        return pool_fingerprint(self, content)

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """The rows of one virtual shard, in the order of the file."""
        shard_position(self.shards, shard)
        piece = self._pieces[shard]
        try:
            rows = self._read(piece)
        except SourceError as error:
            detail = f"rows from {piece.start} on: {error.problem}"
            yield Skip("", shard, "unreadable_shard", detail)
            return
        ordinals = Ordinals()
        for row in rows.iter_rows(named=True):
            cell = row["text"]
            for text in (cell or [None]) if isinstance(cell, list) else [cell]:
                try:
                    yield self._sample(row, text, shard, ordinals)
                except Unusable as error:
                    yield error.skip(_key(row), shard)

    def _read(self, piece: _Piece) -> pl.DataFrame:
        """The rows of a piece but for their images."""
        schema = file_schema(self.root, piece.path)
        column = self._text_column
        classes = class_names(self.root / piece.path, piece.path)
        own = own_columns(schema, (self.image_column, column), classes)
        read = read_rows(self.root / piece.path, [column, *own], piece.start, ROWS_PER_SHARD)
        text = own_cell(column, schema[column], classes.get(column))
        if _is_list(schema[column]):
            text = pl.col(plain(column)).cast(pl.List(pl.String()))
        return read.select(text.alias("text"), *own.values()).with_row_index(
            "row", offset=piece.start
        )

    def _sample(self, row: dict[str, Any], cell: Any, shard: str, ordinals: Ordinals) -> Sample:
        text = require_text_of(self.task, cell, f"the column {self._text_column}")
        caption = text if self.task == "pairs" else ""
        path = self._pieces[shard].path
        meta = row_meta(row)
        return make_sample(
            uid=given_uid(meta) or ordinals.uid(path, str(row["row"]), caption),
            key=_key(row),
            shard=shard,
            text=text,
            task=self.task,
            image=Locator("parquet", path, row["row"], -1, self.image_column),
            meta=meta,
        )


def _key(row: dict[str, Any]) -> str:
    """img2dataset's own key, else the number of the row."""
    key = row.get("own.key")
    return key if isinstance(key, str) and key else f"{row['row']:09d}"


def file_schema(root: Path, path: str) -> dict[str, pl.DataType]:
    """The columns of one file."""
    return parquet_schema(root / path, path)


def image_columns(schema: dict[str, pl.DataType]) -> list[str]:
    """The columns that hold bytes: binary, or a struct with a binary field ``bytes``."""
    return [name for name, dtype in schema.items() if _holds_image(dtype)]


def _holds_image(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(field.name == "bytes" and field.dtype == pl.Binary for field in dtype.fields)
    return isinstance(dtype, pl.Binary)


def _is_list(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.List | pl.Array)


def open_parquet(root: Path, paths: tuple[str, ...], config: SourceConfig) -> ParquetSource:
    """Files with embedded images; the first one decides the columns.

    Raises:
        SourceError: The columns cannot be guessed, or hold neither bytes nor text.
    """
    schema = file_schema(root, paths[0])
    embedded = image_columns(schema)
    if config.image_column is None and len(embedded) == 1:
        image = embedded[0]
    else:
        image = guess_column(
            embedded, IMAGE_NAMES, config.image_column, "--image-column", f"{paths[0]} (bytes)"
        )
    text = [name for name, dtype in schema.items() if is_text(dtype) or _is_list(dtype)]
    labels = [name for name, dtype in schema.items() if holds_labels(dtype)]
    if config.caption_column in schema and config.caption_column not in text:
        require_text(schema, str(config.caption_column), "--caption-column", paths[0])
    if config.label_column in schema:
        require_labels(schema, str(config.label_column), paths[0])
    found = guess_text(text, labels, config, f"{paths[0]} (text columns)")
    check_columns(root, paths[0], image, found.name, found.task)
    if found.task == "labels":
        return ParquetSource(root, paths, image, None, found.name)
    return ParquetSource(root, paths, image, found.name)


def check_columns(root: Path, path: str, image: str, text: str, task: Task) -> None:
    """Refuse a file without the two columns, or with columns of another kind."""
    schema = file_schema(root, path)
    if image not in image_columns(schema):
        raise SourceError(
            f"{path} has no image bytes in the column {image}",
            got=", ".join(f"{name}: {dtype}" for name, dtype in schema.items()),
            next_step="move files of another kind away, or choose with --image-column",
        )
    if task == "labels":
        require_labels(schema, text, path)
        return
    dtype = schema.get(text)
    inner = getattr(dtype, "inner", None) if dtype is not None and _is_list(dtype) else dtype
    if inner is None or not is_text(inner):
        raise SourceError(
            f"{path} has no text in the column {text}",
            got=", ".join(f"{name}: {dtype}" for name, dtype in schema.items()),
            next_step="move files of another kind away, or choose with --caption-column",
        )
