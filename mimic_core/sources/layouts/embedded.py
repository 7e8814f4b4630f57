"""Parquet, Arrow and Lance with the images in a column: bytes, or Hugging Face's ``{bytes, path}``.

Of the latter a cell may have a path alone: then the image is that file of the pool.
The index reads every column but the images. An image is later read by its row number; since
Parquet can only be read forwards inside a row group, rows are read quickest in their order, and
files with row groups of a few hundred rows, as Hugging Face writes them, are the quick ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import polars as pl

from mimic_core.base.config import Task
from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Locator, Sample, Skip
from mimic_core.sources.guess import IMAGE_NAMES, clearly_labels, guess_column, text_columns
from mimic_core.sources.images import ImageError
from mimic_core.sources.layouts import img2dataset
from mimic_core.sources.layouts.table import row_meta
from mimic_core.sources.offers import COLUMN_OF, Offer, Place
from mimic_core.sources.path import raise_away
from mimic_core.sources.source import (
    Ordinals,
    Source,
    Unusable,
    shard_names,
    shard_position,
)
from mimic_core.sources.spelling import Spellings
from mimic_core.sources.tables.arrow import named_classes, usable_columns
from mimic_core.sources.tables.ipc import ArrowFiles
from mimic_core.sources.tables.lancefiles import LanceFiles
from mimic_core.sources.tables.loading import (
    as_dtype,
    captions_cell,
    holds_labels,
    is_list,
    is_text,
    own_cell,
    own_columns,
    require_captions,
    require_labels,
    unread_of,
)
from mimic_core.sources.tables.rowfiles import ParquetFiles, RowFiles
from mimic_core.sources.texts import require_text_of

ROWS_PER_SHARD = 8192


def offer(place: Place, task: Task | None, kind: RowFiles) -> Offer | None:
    """Files with embedded images; the first readable one decides the columns.

    Raises:
        SourceError: The columns cannot be guessed, or hold neither bytes nor text.
    """
    config, root = place.config, place.files.root
    if place.files.layout != "folder" or not kind.among(place.near):
        return None
    schemas: dict[str, dict[str, pl.DataType] | None] = {}
    problem = None
    for name in kind.among(place.names):
        try:
            schemas[name] = usable_columns(kind.schema(root / name, name))
        except SourceError as error:
            schemas[name], problem = None, problem or error
    readable = {
        name: schema
        for name, schema in schemas.items()
        if schema and _embedded(schema, config.image_column)
    }
    if not readable:
        if problem is not None and kind.name == "lance":
            raise problem  # no other layout reads it
        return None
    first, schema = next(iter(readable.items()))
    embedded = image_columns(schema)
    if config.image_column is None and len(embedded) == 1:
        image = embedded[0]
    else:
        where = f"{first} (bytes)"
        image = guess_column(embedded, IMAGE_NAMES, config.image_column, "--image-column", where)
    text = [name for name, dtype in schema.items() if is_text(dtype) or _lists_text(dtype)]
    labels = [name for name, dtype in schema.items() if holds_labels(dtype)]
    if config.caption_column in schema:
        require_captions(schema, str(config.caption_column), "--caption-column", first)
    if config.label_column in schema:
        require_labels(schema, str(config.label_column), first)
    texts = text_columns(text, labels, config, task, f"{first} (text columns)")
    paths = tuple(name for name, schema in schemas.items() if schema is None or name in readable)

    def source(task: Task, column: str) -> EmbeddedSource:
        settings = place.settings | {"layout": kind.name, COLUMN_OF[task]: column}
        return EmbeddedSource(paths, kind, **settings, task=task, image_column=image)

    sources = {task: source(task, column) for task, column in texts.items()}
    for one in sources.values():
        for name, found in readable.items():
            _check_columns(found, name, image, one.text_column or "", one.task)
    return Offer(first, sources, texts, clearly_labels(texts.get("labels")))


parquet = partial(offer, kind=ParquetFiles())
arrow = partial(offer, kind=ArrowFiles())
lance = partial(offer, kind=LanceFiles())


def _embedded(schema: dict[str, pl.DataType], chosen: str | None) -> bool:
    """Whether a file holds images rather than their paths."""
    embedded = image_columns(schema)
    return bool(embedded) and chosen in (None, *embedded)


class _Piece(NamedTuple):
    """One virtual shard: rows of one file, or why the file cannot be read."""

    path: str
    start: int
    problem: str | None = None


@dataclass(frozen=True)
class EmbeddedSource(Source):
    """The rows of the files ``paths``, relative to the root."""

    paths: tuple[str, ...]
    kind: RowFiles

    @cached_property
    def _pieces(self) -> dict[str, _Piece]:
        pieces = {}
        for name, path in shard_names(self.paths).items():
            try:
                rows = self.kind.row_count(self.root / path)
            except SourceError as error:
                raise_away(error, self.root)
                pieces[f"{name}-00000"] = _Piece(path, 0, error.problem)
                continue
            for start in range(0, max(1, rows), ROWS_PER_SHARD):
                pieces[f"{name}-{start // ROWS_PER_SHARD:05d}"] = _Piece(path, start)
        return dict(sorted(pieces.items()))

    @property
    def shards(self) -> tuple[str, ...]:
        """One per 8,192 rows of each file."""
        return tuple(self._pieces)

    def used(self) -> Iterable[str]:
        """The files, what is written beside them, and the images that their cells name."""
        paths, names = self.paths, self.files.listing.names
        return [*paths, *self.kind.beside(names), *self._named, *self._img2dataset(names)]

    @cached_property
    def _named(self) -> set[str]:
        """The files that cells without bytes have named so far."""
        return set()

    def _img2dataset(self, names: Iterable[str]) -> Iterable[str]:
        """The statistics that img2dataset writes beside its Parquet files."""
        known = {img2dataset.beside(path)[1] for path in self.paths}
        return known.intersection(names)

    def unread(self) -> Counter[str]:
        """Also the columns that no index keeps."""
        found = super().unread()
        readable = {piece.path for piece in self._pieces.values() if piece.problem is None}
        for path in sorted(readable):
            schema = self.kind.schema(self.root / path, path)
            found.update(unread_of(schema, image=self.image_column))
        return found

    def columns_read(self) -> str:
        """The columns."""
        word = "captions" if self.task == "pairs" else "labels"
        return f"images from {self.image_column}, {word} from {self.text_column}"

    def fingerprint(self) -> str:
        """Over each file's name, size, head and tail."""
        return self.digest(
            [self.kind.identity(self.root / path, path) for path in sorted(self.paths)]
        )

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """The rows of one virtual shard, in the order of the file."""
        shard_position(self.shards, shard)
        piece = self._pieces[shard]
        try:
            if piece.problem is not None:
                raise SourceError(piece.problem, next_step="")
            rows = self._read(piece)
            places = self.kind.images(
                self.root / piece.path,
                piece.path,
                self.image_column or "",
                piece.start,
                len(rows),
            )
        except SourceError as error:
            raise_away(error, self.root)
            detail = f"rows from {piece.start} on: {error.problem}"
            yield Skip("", shard, "unreadable_shard", detail)
            return
        ordinals = Ordinals()
        for row, place in zip(rows.iter_rows(named=True), places, strict=True):
            cell = row["text"]
            texts = (cell or [None]) if isinstance(cell, list) else [cell]
            for text in texts:
                try:
                    yield self._sample(row, text, place, shard, ordinals, several=len(texts) > 1)
                except Unusable as error:
                    yield error.skip(_key(row), shard)

    def _read(self, piece: _Piece) -> pl.DataFrame:
        """The rows of a piece but for their images."""
        path, column = self.root / piece.path, self.text_column or ""
        found = self.kind.schema(path, piece.path)
        schema, classes = usable_columns(found), named_classes(found)
        own = own_columns(schema, (self.image_column or "", column), classes)
        read = self.kind.read(path, [column, *own], piece.start, ROWS_PER_SHARD)
        text = own_cell(column, schema[column], classes.get(column))
        if is_list(schema[column]):
            text = captions_cell(column, schema[column])
        frame = read.frame.select(text.alias("text"), *own.values(), problem=read.problems)
        return frame.with_row_index("row", offset=piece.start)

    def _sample(
        self,
        row: dict[str, Any],
        cell: Any,
        place: Locator | str,
        shard: str,
        ordinals: Ordinals,
        *,
        several: bool,
    ) -> Sample:
        if row["problem"] is not None:
            raise Unusable("bad_metadata", row["problem"])
        meta = row_meta(row)
        failure = img2dataset.failure(meta)
        if failure is not None:
            raise failure
        text = require_text_of(self.task, cell, f"the column {self.text_column}")
        caption = text if self.task == "pairs" else ""
        path = self._pieces[shard].path
        return self.sample(
            key=_key(row),
            shard=shard,
            text=text,
            image=self._locate(place),
            meta=meta,
            derived=lambda image: ordinals.uid(path, image or str(row["row"]), caption),
            several=several,
        )

    def _locate(self, place: Locator | str) -> Locator:
        """Where the image of a cell is."""
        if isinstance(place, Locator):
            return place
        try:
            name, image = place, self.files.locate(place)
        except ImageError as error:
            name, how = self._spellings.find(place, error)
            image = self.files.locate(name)
            self.notes.remarks[how] += 1
        self._named.add(name)
        return image

    @cached_property
    def _spellings(self) -> Spellings:
        return Spellings(self.files, ())


def _key(row: dict[str, Any]) -> str:
    """img2dataset's own key, else the number of the row."""
    key = row.get("own.key")
    return key if isinstance(key, str) and key else f"{row['row']:09d}"


def image_columns(schema: dict[str, pl.DataType]) -> list[str]:
    """The columns that hold bytes: binary, or a struct with a binary field ``bytes``."""
    return [name for name, dtype in schema.items() if _holds_image(dtype)]


def _holds_image(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(field.name == "bytes" and field.dtype == pl.Binary for field in dtype.fields)
    return isinstance(dtype, pl.Binary)


def _lists_text(dtype: pl.DataType) -> bool:
    return is_list(dtype) and is_text(as_dtype(dtype.inner))  # type: ignore[attr-defined]


def _check_columns(
    schema: dict[str, pl.DataType], path: str, image: str, text: str, task: Task
) -> None:
    """Refuse a file without the two columns, or with columns of another kind."""
    listed = ", ".join(f"{name}: {dtype}" for name, dtype in schema.items())
    if image not in image_columns(schema):
        raise SourceError(
            f"{path} has no image bytes in the column {image}",
            got=listed,
            next_step="move files of another kind away, or choose with --image-column",
        )
    if task == "labels":
        require_labels(schema, text, path)
    elif text not in schema or not (is_text(schema[text]) or _lists_text(schema[text])):
        raise SourceError(
            f"{path} has no text in the column {text}",
            got=listed,
            next_step="move files of another kind away, or choose with --caption-column",
        )
