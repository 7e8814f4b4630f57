"""DataComp's shards with the metadata that they were downloaded from, joined by uid.

``shards/*.tar`` with ``metadata/*.parquet``. A sample of the shards gets the metadata's columns
beside its own, but for caption and URL. A row of the metadata whose uid is in no shard stays a row
without an image: some of DataComp's images are gone by now, but their captions and scores count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from mimic_core.base.config import Task
from mimic_core.base.errors import SourceError
from mimic_core.base.schema import NO_IMAGE, Sample, Skip
from mimic_core.sources.guess import CAPTION_NAMES, URL_NAMES
from mimic_core.sources.layouts import img2dataset, webdataset
from mimic_core.sources.layouts.table import row_meta
from mimic_core.sources.layouts.webdataset import WebDatasetSource
from mimic_core.sources.offers import Offer, Place
from mimic_core.sources.source import Unusable, derived_uid, file_identity, shard_names
from mimic_core.sources.tables.arrow import column_batches, parquet_schema
from mimic_core.sources.tables.columns import OWN
from mimic_core.sources.tables.loading import is_text, own_columns, unread_columns
from mimic_core.sources.texts import require_caption

_UID = "uid"


def offer(place: Place, task: Task | None) -> Offer | None:
    """Tar shards of captions with tables of uid, URL and caption in any folder beside them."""
    if task == "labels" or place.files.layout != "folder":
        return None
    tars = [name for name in place.names if webdataset.is_tar(name)]
    beside = {img2dataset.beside(name)[0] for name in tars}
    captions = {
        name: _caption_column(place, name)
        for name in (place.names if tars else ())
        if name.lower().endswith(".parquet") and name not in beside
    }
    found = {name: caption for name, caption in captions.items() if caption is not None}
    metadata = tuple(found)
    shards = webdataset.offer(place, "pairs") if metadata else None
    if shards is None:
        return None
    tar = shards.sources["pairs"]
    assert isinstance(tar, WebDatasetSource)
    settings = {field.name: getattr(tar, field.name) for field in fields(tar)}
    settings |= {"layout": "webdataset with metadata", "metadata": metadata}
    source = DataCompSource(**settings, title=found[metadata[0]])
    return Offer("the pool", {"pairs": source}, {"pairs": ".txt or .json captions"})


def _caption_column(place: Place, name: str) -> str | None:
    """The caption column of a table of metadata; None where a file is no such table."""
    try:
        schema = parquet_schema(place.files.root / name, name)
    except SourceError:
        return None
    texts = {column.lower(): column for column, dtype in schema.items() if is_text(dtype)}
    caption = next((texts[one] for one in CAPTION_NAMES if one in texts), None)
    return caption if _UID in texts and not texts.keys().isdisjoint(URL_NAMES) else None


@dataclass(frozen=True, kw_only=True)
class DataCompSource(WebDatasetSource):
    """Tar shards, and the tables ``metadata`` whose column ``title`` holds the captions."""

    metadata: tuple[str, ...]
    title: str

    @cached_property
    def _files(self) -> dict[str, str]:
        """The tars before the tables, whose rows are known to be without an image by then."""
        named = shard_names((*self.paths, *self.metadata))
        tables = set(self.metadata)
        return dict(sorted(named.items(), key=lambda one: (one[1] in tables, one[0])))

    def used(self) -> Iterable[str]:
        """Also the tables."""
        return [*super().used(), *self.metadata]

    def unread(self) -> Counter[str]:
        """Also the columns that no index keeps."""
        found = super().unread()
        for name in self.metadata:
            found.update(unread_columns(self.root / name, name))
        return found

    def columns_read(self) -> str:
        """The members' suffixes, and the tables."""
        more = f" and {len(self.metadata) - 1} more" if len(self.metadata) > 1 else ""
        return f"{super().columns_read()}, joined by uid to {self.metadata[0]}{more}"

    def fingerprint(self) -> str:
        """Also over each table's name, size, head and tail."""
        tables = [file_identity(self.root / name, name) for name in sorted(self.metadata)]
        return self.digest([super().fingerprint(), *tables])

    @cached_property
    def _met(self) -> dict[str, list[str]]:
        """The uids of the tars that have been read, by shard."""
        return {}

    @cached_property
    def _in_tars(self) -> np.ndarray:
        """All uids of the tars, sorted."""
        for shard, path in self._files.items():
            if path not in self.metadata and shard not in self._met:
                for _ in self.index(shard):
                    pass
        return np.sort(np.array([uid for met in self._met.values() for uid in met], "S32"))

    @cached_property
    def _rows(self) -> pl.DataFrame:
        """The metadata, sorted by uid, without captions and URLs, which the shards have."""
        parts = []
        for name in self.metadata:
            schema = parquet_schema(self.root / name, name)
            urls = [column for column in schema if column.lower() in URL_NAMES]
            own = own_columns(schema, (_UID, self.title, *urls))
            parts += [batch.select(OWN + _UID, *own.values()) for batch in self._batches(name, own)]
        rows = pl.concat(parts, how="diagonal_relaxed")
        return rows.with_columns(pl.col(OWN + _UID).str.to_lowercase()).sort(OWN + _UID)

    @cached_property
    def _uids(self) -> np.ndarray:
        return np.array(self._rows[OWN + _UID].fill_null("").to_list(), "S32")

    def _batches(self, name: str, own: Iterable[str]) -> Iterator[pl.DataFrame]:
        with self.files.open(name) as file:
            yield from column_batches(file, [_UID, *own], name)

    def _not_downloaded(self, path: str, shard: str, keys: set[str]) -> Iterator[Skip]:
        """Rows of img2dataset's tables that are no rows of the metadata."""
        yield from img2dataset.failed(
            self.files, path, shard, keys, known=lambda uid: bool(_among(self._uids, [uid])[0])
        )

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """Of a tar, its samples with their metadata; of a table, its rows that are in no tar."""
        path = self._files.get(shard)
        if path in self.metadata:
            yield from self._without_image(path, shard)
            return
        met: list[str] = []
        for one in super().index(shard):
            if isinstance(one, Sample):
                met.append(one.uid)
                yield replace(one, meta={**self._joined(one.uid), **one.meta})
            else:
                yield one
        self._met[shard] = met

    def _joined(self, uid: str) -> dict[str, Any]:
        """The metadata of one sample."""
        place = int(np.searchsorted(self._uids, uid.encode()))
        if place == len(self._uids) or self._uids[place] != uid.encode():
            self.notes.remarks["sample that the metadata does not have"] += 1
            return {}
        meta = row_meta(self._rows.row(place, named=True))
        del meta[_UID]
        return meta

    def _without_image(self, path: str, shard: str) -> Iterator[Sample | Skip]:
        try:
            schema = parquet_schema(self.root / path, path)
            own = own_columns(schema, (_UID, self.title))
            number = 0
            for batch in self._batches(path, [self.title, *own]):
                rows = batch.select(OWN + _UID, OWN + self.title, *own.values())
                there = _among(self._in_tars, rows[OWN + _UID].fill_null("").str.to_lowercase())
                for row, met in zip(rows.iter_rows(named=True), there, strict=True):
                    number += 1
                    if not met:
                        yield self._row(path, shard, number - 1, row)
        except SourceError as error:
            yield Skip("", shard, "unreadable_shard", f"{path}: {error.problem}")

    def _row(self, path: str, shard: str, number: int, row: dict[str, Any]) -> Sample | Skip:
        key = f"{number:09d}"
        try:
            caption = require_caption(row.pop(OWN + self.title), f"the column {self.title}")
            return self.sample(
                key=key,
                shard=shard,
                text=caption,
                image=NO_IMAGE,
                meta=row_meta(row),
                derived=lambda image: derived_uid(path, image or key, caption, 0),
            )
        except Unusable as error:
            return error.skip(key, shard)


def _among(uids: np.ndarray, wanted: Iterable[str]) -> np.ndarray:
    """Which of ``wanted`` (K) are in the sorted ``uids`` (N,) S32: (K,) bool."""
    asked = np.array(list(wanted), "S32")
    places = np.searchsorted(uids, asked)
    found = np.zeros(len(asked), bool)
    inside = places < len(uids)
    found[inside] = uids[places[inside]] == asked[inside]
    return found
