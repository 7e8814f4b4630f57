"""Mosaic's MDS shards: ``index.json`` beside ``shard.00000.mds``, as its ``MDSWriter`` writes them.

The shards are read by their documented bytes and without the library: a number of samples, where
each begins, and in each the sizes of the columns that vary, then all columns in the order of the
index. So the bytes of an image are known by their place. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Self

import numpy as np

from mimic_core.base.config import Task
from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Locator, LocatorKind, Sample, Skip
from mimic_core.sources.guess import IMAGE_NAMES, clearly_labels, guess_column, text_columns
from mimic_core.sources.limits import MAX_TEXT_BYTES
from mimic_core.sources.offers import COLUMN_OF, Offer, Place
from mimic_core.sources.packed import FAILURES, PackedFile
from mimic_core.sources.source import (
    Files,
    Ordinals,
    Source,
    Unusable,
    file_identity,
    shard_names,
    shard_position,
)
from mimic_core.sources.tarmembers import DamageError
from mimic_core.sources.texts import captions_of, cell, decode_text, require_text_of

_INDEX = "index.json"
_IMAGES = ("jpeg", "png", "bytes", "pil")
_NUMBERS = (
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
_TEXTS = ("str", "str_int", "str_float", "str_decimal", "json")
_PACKED = ("gz", "bz2", "zstd")
_MAX_INDEX = 256 * 1024 * 1024
_MAX_SAMPLES = 1 << 24  # of one shard, whose places are numbers below 2**32
_MAX_LOST = 1 << 20  # of one shard that are a skip each; an index may say any number


class _Shard(NamedTuple):
    """One file of an index: its columns and their encodings, in order."""

    path: str
    samples: int
    columns: tuple[tuple[str, str, int | None], ...]  # name, encoding, size where all have one
    problem: str | None = None

    @property
    def packed(self) -> bool:
        return not self.path.endswith(".mds")


def offer(place: Place, task: Task | None) -> Offer | None:
    """All indices of MDS shards; the first shard decides the columns.

    Raises:
        SourceError: The columns are not clear.
    """
    if not any(PurePosixPath(name).name == _INDEX for name in place.near):
        return None
    found = [name for name in place.names if PurePosixPath(name).name == _INDEX]
    indices = tuple(name for name in found if _shards(place.files, name))
    if not indices:
        return None
    columns = _shards(place.files, indices[0])[0].columns
    encoded = {name: encoding for name, encoding, _ in columns}
    config, where = place.config, indices[0]
    embedded = [name for name, encoding in encoded.items() if encoding in _IMAGES]
    clear = [name for name in embedded if encoded[name] != "bytes"] or embedded
    if config.image_column is None and len(clear) == 1:
        image = clear[0]
    else:
        image = guess_column(clear, IMAGE_NAMES, config.image_column, "--image-column", where)
    texts_of = [name for name, encoding in encoded.items() if encoding in _TEXTS]
    labels = [name for name, encoding in encoded.items() if encoding in (*_TEXTS, "int", *_NUMBERS)]
    texts = text_columns(texts_of, labels, config, task, where)
    sources = {
        one: MdsSource(
            indices,
            **(place.settings | {"layout": "mds", COLUMN_OF[one]: column}),
            task=one,
            image_column=image,
        )
        for one, column in texts.items()
    }
    return Offer(where, sources, texts, clearly_labels(texts.get("labels")))


def _shards(files: Files, name: str) -> list[_Shard]:
    """The shards of an index; none where it is another program's."""
    try:
        with files.open(name) as file:
            document = json.loads(file.read(_MAX_INDEX))
        folder = posixpath.dirname(name)
        there = frozenset(files.listing.names)
        shards = [one for one in document["shards"] if one.get("format") == "mds"]
        return [_shard(folder, one, there) for one in shards]
    except (SourceError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError):
        return []
    except RecursionError:
        return []


def _shard(folder: str, one: dict[str, Any], there: frozenset[str]) -> _Shard:
    columns = zip(one["column_names"], one["column_encodings"], one["column_sizes"], strict=True)
    packing = str(one.get("compression") or "").partition(":")[0]
    path = posixpath.join(folder, str(one["raw_data"]["basename"]))
    problem = None
    if packing and path not in there:  # or it has been unpacked already
        path = posixpath.join(folder, str(one["zip_data"]["basename"]))
        if packing not in _PACKED:
            problem = f"it is compressed by {packing}, which is not read: write it with zstd or gz"
        elif not path.endswith(f".mds.{packing}"):
            problem = f"it is not named .mds.{packing}, as shards are that are compressed by it"
    samples = int(one["samples"])
    found = tuple((str(a), str(b), None if c is None else int(c)) for a, b, c in columns)
    if samples < 0 or any(size is not None and size < 0 for *_, size in found):
        raise ValueError("a negative number of samples or bytes")
    if path not in there:
        problem = "it is not there"
    return _Shard(path, samples, found, problem)


@dataclass(frozen=True)
class MdsSource(Source):
    """The samples of the shards that ``indices`` name."""

    indices: tuple[str, ...]

    @cached_property
    def _shards_by_path(self) -> dict[str, _Shard]:
        found = [one for name in self.indices for one in _shards(self.files, name)]
        return {one.path: one for one in found}

    @cached_property
    def _paths(self) -> dict[str, str]:
        return shard_names(self._shards_by_path)

    @property
    def shards(self) -> tuple[str, ...]:
        """One per file."""
        return tuple(self._paths)

    def used(self) -> Iterable[str]:
        """The indices and the shards."""
        return [*self.indices, *self._shards_by_path]

    def unread(self) -> Counter[str]:
        """Also the columns that no index keeps."""
        found = super().unread()
        for shard in self._shards_by_path.values():
            found.update(
                f"column {name} ({encoding})"
                for name, encoding, _ in shard.columns
                if encoding not in (*_TEXTS, "int", *_NUMBERS) and name != self.image_column
            )
        return found

    def columns_read(self) -> str:
        """The columns."""
        word = "captions" if self.task == "pairs" else "labels"
        return f"images from {self.image_column}, {word} from {self.text_column}"

    def fingerprint(self) -> str:
        """Over each file's name, size, head and tail."""
        names = sorted([*self.indices, *self._shards_by_path])
        return self.digest([file_identity(self.root / name, name) for name in names])

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """The samples of one file, in its order; what cannot be read is told with its count."""
        shard_position(self.shards, shard)
        one = self._shards_by_path[self._paths[shard]]
        row, ordinals = 0, Ordinals()
        try:
            if one.problem is not None:
                raise DamageError(one.problem)
            with _Bytes(self.files, one) as data:
                for row, start, stop in data.samples():
                    key = f"{row:09d}"
                    try:
                        yield from self._samples(one, data, key, start, stop, shard, ordinals)
                    except Unusable as error:
                        yield error.skip(key, shard)
            row = one.samples
        except (DamageError, SourceError, OSError, *FAILURES) as error:
            why = error.got if isinstance(error, SourceError) else str(error)
            lost = range(row, one.samples)
            if len(lost) > _MAX_LOST:
                lost, why = lost[:1], f"{why}; {len(lost)} samples of the index are this one skip"
            for number in lost:
                yield Skip(f"{number:09d}", shard, "unreadable_shard", f"{one.path}: {why}")

    def _samples(
        self,
        one: _Shard,
        data: _Bytes,
        key: str,
        start: int,
        stop: int,
        shard: str,
        ordinals: Ordinals,
    ) -> Iterator[Sample | Skip]:
        places = data.columns(start, stop)
        encodings = {name: encoding for name, encoding, _ in one.columns}
        image = self.image_column or ""
        if encodings.get(image) == "pil":
            raise Unusable("unread_format", "raw pixels (pil) are not read; encode them as jpeg")
        values = {
            name: _value(encodings[name], data.read_text(name, *place), name)
            for name, place in places.items()
            if name != image and encodings[name] in (*_TEXTS, "int", *_NUMBERS)
        }
        if image not in places:
            raise Unusable("missing_image", f"the shard has no column {image}")
        kind: LocatorKind = "packed" if one.packed else "range"
        place = Locator(kind, one.path, places[image][0], places[image][1])
        what = f"the column {self.text_column}"
        value = values.pop(self.text_column or "", None)
        texts = captions_of(value, what) if self.task == "pairs" else [value]
        meta = {name: cell(found, name) for name, found in values.items()}
        for found in texts:
            text = require_text_of(self.task, found, what)
            caption = text if self.task == "pairs" else ""
            yield self.sample(
                key=key,
                shard=shard,
                text=text,
                image=place,
                meta=meta,
                derived=partial(_uid, ordinals, one.path, key, caption),
                several=len(texts) > 1,
            )


def _uid(ordinals: Ordinals, path: str, key: str, caption: str, image: str | None) -> str:
    return ordinals.uid(path, image or key, caption)


class _Bytes:
    """One shard's file while its samples are read."""

    def __init__(self, files: Files, shard: _Shard) -> None:
        self._shard = shard
        if shard.packed:
            self._file: Any = PackedFile(files.root / shard.path)
            self._size = None
        else:
            self._file = files.open(shard.path)
            self._size = self._file.seek(0, 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes, all of them."""
        self._file.seek(offset)
        data: bytes = self._file.read(size)
        if len(data) != size:
            raise DamageError(f"{len(data)} of {size} bytes at {offset}")
        return data

    def read_text(self, name: str, offset: int, size: int) -> bytes:
        """The same of a column that is held in memory, if it is small enough."""
        if size > MAX_TEXT_BYTES:
            raise Unusable(
                "bad_metadata", f"{name} has {size} bytes, the limit is {MAX_TEXT_BYTES}"
            )
        return self.read(offset, size)

    def samples(self) -> Iterator[tuple[int, int, int]]:
        """Number, beginning and end of each sample."""
        count = int(np.frombuffer(self.read(0, 4), "<u4")[0])
        if count != self._shard.samples:
            raise DamageError(f"{count} samples, the index says {self._shard.samples}")
        if count > _MAX_SAMPLES:
            raise DamageError(f"{count} samples, the limit is {_MAX_SAMPLES}")
        ends = np.frombuffer(self.read(4, 4 * (count + 1)), "<u4").astype(np.int64)
        if (np.diff(ends) < 0).any() or (self._size is not None and ends[-1] > self._size):
            raise DamageError("the places of its samples are impossible")
        yield from zip(range(count), ends[:-1].tolist(), ends[1:].tolist(), strict=True)

    def columns(self, start: int, stop: int) -> dict[str, tuple[int, int]]:
        """Offset and size of each column of the sample between two places."""
        varying = sum(size is None for *_, size in self._shard.columns)
        sizes = iter(np.frombuffer(self.read(start, 4 * varying), "<u4").tolist())
        found, place = {}, start + 4 * varying
        for name, _, size in self._shard.columns:
            length = next(sizes) if size is None else size
            found[name] = place, length
            place += length
        if place != stop:
            raise Unusable("bad_metadata", f"the columns end at {place}, the sample at {stop}")
        return found


def _value(encoding: str, data: bytes, name: str) -> Any:
    """A column's value; raises ``Unusable`` where its bytes are not of its encoding."""
    try:
        if encoding == "int":
            return int(np.frombuffer(data, "<i8")[0])
        if encoding in _NUMBERS:
            return np.frombuffer(data, np.dtype(encoding).newbyteorder("<"))[0].item()
        text = decode_text(data, name)
        return json.loads(text) if encoding == "json" else text
    except (ValueError, LookupError, RecursionError) as error:
        raise Unusable("bad_metadata", f"{name} is no {encoding}: {error}") from error
