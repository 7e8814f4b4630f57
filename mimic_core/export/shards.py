"""Samples packed into shards with the original bytes: webdataset, and Parquet for Hugging Face.

The tars of webdataset have headers that are written here, twelve times as fast as by ``tarfile``
(``bench/ingest.py``): names are uids, so none is ever too long for one. They hold no times and no
users, so equal exports are equal to the byte.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mimic_core.export.destination import Sink
from mimic_core.export.formats import jsonl_bytes
from mimic_core.export.pictures import Picture, portable
from mimic_core.export.work import Work, class_names, dataset_card, renamed

CLASS_NAMES = "classnames.txt"  # as the webdatasets of CLIP_benchmark have it
# What open_clip's reader takes for a picture; it passes over samples with another.
OPEN_CLIP_SUFFIXES = ("jpg", "png", "jpeg", "webp")

_BLOCK = 512
_RECORD = 20 * _BLOCK  # tars are filled up to it
_PIECE_BYTES = 1 << 20  # gathered before they are written
_LINES = 4096  # rows whose metadata is written at once
_GROUP_ROWS = 256  # few enough to be read one after the other
_GROUP_BYTES = 64 << 20
_TAKEN = re.compile("image")
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FIELDS = (  # of a tar's header: what stands between the name and the place of the sums
    b"0000644\0" + b"0000000\0" * 2,
    b"00000000000\0"
    + b" " * 8
    + b"0"
    + b"\0" * 100
    + b"ustar\x0000"
    + b"\0" * 64
    + b"0000000\0" * 2,
)
_REST = sum(b"".join(_FIELDS))


def webdataset(work: Work) -> None:
    """Tars of ``shard_size`` samples, their statistics, ``sizes.json`` and, with labels,
    ``classnames.txt``.

    A sample is ``<uid>.<suffix>`` with the original bytes, ``<uid>.txt`` with the caption or
    ``<uid>.cls`` with the number of the class, and ``<uid>.json`` with all columns.
    """
    classes = class_names(work.rows)
    numbers = None if classes is None else {name: n for n, name in enumerate(classes)}
    sizes: dict[str, int] = {}
    samples = _samples(work)
    for number, first in enumerate(samples):  # one round a shard
        shard = itertools.chain([first], itertools.islice(samples, work.config.shard_size - 1))
        stem = f"{work.name}/{number:08d}"
        with work.draft.open(f"{stem}.tar") as sink:
            count = _write_tar(sink, _members(shard, numbers))
        work.draft.write(f"{stem}_stats.json", _as_json(_statistics(count)))
        sizes[f"{number:08d}.tar"] = count
    work.draft.write(f"{work.name}/sizes.json", _as_json(sizes))
    if classes is not None:
        text = "".join(f"{name}\n" for name in classes)
        work.draft.write(f"{work.name}/{CLASS_NAMES}", text.encode())


def _samples(work: Work) -> Iterator[tuple[Picture, bytes]]:
    """Each sample with its metadata as JSON."""
    for start in range(0, len(work.rows), _LINES):
        part = work.rows.slice(start, _LINES)
        lines = jsonl_bytes(portable(part)).split(b"\n")
        for picture in work.pictures.read(part):
            if picture.suffix not in OPEN_CLIP_SUFFIXES:
                work.account.remarks[
                    f".{picture.suffix} pictures, which open_clip passes over"
                ] += 1
            yield picture, lines[picture.number]


def _members(
    samples: Iterable[tuple[Picture, bytes]], numbers: dict[str, int] | None
) -> Iterator[tuple[tuple[str, bytes], ...]]:
    """The files of each sample."""
    for picture, line in samples:
        uid = picture.row["uid"]
        if numbers is None:
            text = (f"{uid}.txt", picture.row["caption"].encode())
        else:
            text = (f"{uid}.cls", str(numbers[picture.row["label"]]).encode())
        yield (f"{uid}.{picture.suffix}", picture.data), text, (f"{uid}.json", line)


def _write_tar(sink: Sink, samples: Iterable[tuple[tuple[str, bytes], ...]]) -> int:
    """Write a tar of files whose names are short; returns the number of samples."""
    pieces: list[bytes] = []
    waiting = count = 0
    for count, sample in enumerate(samples, 1):  # noqa: B007 - the last one counts
        for name, data in sample:
            size = len(data)
            pieces += (tar_header(name, size), data, bytes(-size % _BLOCK))
            waiting += size
        if waiting > _PIECE_BYTES:
            sink.write(b"".join(pieces))
            pieces, waiting = [], 0
    sink.write(b"".join(pieces))
    sink.write(bytes(-(sink.tell() + 2 * _BLOCK) % _RECORD + 2 * _BLOCK))
    return count


def tar_header(name: str, size: int) -> bytes:
    """The header of a regular file in a tar (POSIX ustar, 1988), without time and owner.

    Args:
        name: At most 100 bytes.
        size: Below 8 GiB.
    """
    said, length = name.encode(), b"%011o\0" % size
    checksum = b"%06o\0 " % (_REST + sum(said) + sum(length))
    first, rest = _FIELDS
    return said.ljust(100, b"\0") + first + length + rest[:12] + checksum + rest[20:] + bytes(167)


def _statistics(count: int) -> dict[str, Any]:
    """What img2dataset writes beside a shard; DataComp's resharder reads ``successes``."""
    return {
        "count": count,
        "successes": count,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "status_dict": {"success": count},
    }


def _as_json(value: Any) -> bytes:
    return json.dumps(value, indent=4).encode() + b"\n"


def hf_parquet(work: Work) -> None:
    """``data/<split>-<number>.parquet`` of ``shard_size`` rows: ``image`` with the original bytes
    and all columns; labels are a ``ClassLabel``.
    """
    classes = class_names(work.rows)
    files: dict[str, str] = {}
    for split, rows in work.splits():
        name = split or "train"
        columns, schema = _columns(portable(rows), classes)
        pictures = work.pictures.read(rows)
        for number, first in enumerate(pictures):
            shard = itertools.chain([first], itertools.islice(pictures, work.config.shard_size - 1))
            with work.draft.open(f"{work.name}/data/{name}-{number:05d}.parquet") as sink:
                _write_rows(sink, shard, columns, schema)
        if split is not None:
            files[split] = f"data/{split}-*.parquet"
    if files:
        work.draft.write(f"{work.name}/README.md", dataset_card(files))


def _columns(rows: pl.DataFrame, classes: list[str] | None) -> tuple[pa.Table, pa.Schema]:
    """The rows without their pictures, and the schema with them, which says what they are."""
    rows = renamed(rows, _TAKEN)
    if classes is not None:
        numbers = pl.Series(range(len(classes)), dtype=pl.Int64)
        label = rows["label"].replace_strict(pl.Series(classes), numbers)
        rows = rows.with_columns(label.alias("label"))
    columns = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if classes is not None:
        features["label"] = {"names": classes, "_type": "ClassLabel"}
    said = json.dumps({"info": {"features": features}})
    schema = pa.schema([pa.field("image", _IMAGE), *columns.schema])
    return columns, schema.with_metadata({"huggingface": said})


def _write_rows(
    sink: Sink, pictures: Iterable[Picture], columns: pa.Table, schema: pa.Schema
) -> None:
    codecs = {one.name: "zstd" for one in columns.schema} | {"image.bytes": "none"}
    names = [one.name for one in columns.schema if not pa.types.is_nested(one.type)]
    nested = {one.name for one in columns.schema if pa.types.is_nested(one.type)}
    codec: Any = "zstd" if nested else codecs
    with pq.ParquetWriter(sink, schema, compression=codec, use_dictionary=names) as writer:
        for group in _groups(pictures):
            cells = [{"bytes": one.data, "path": f"{one.row['uid']}.{one.suffix}"} for one in group]
            images = pa.array(cells, _IMAGE)
            rows = columns.take(pa.array([one.number for one in group]))
            writer.write_table(pa.table([images, *rows.columns], schema=schema))


def _groups(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    """Row groups, few rows and bytes each."""
    group: list[Picture] = []
    size = 0
    for picture in pictures:
        group.append(picture)
        size += len(picture.data)
        if len(group) == _GROUP_ROWS or size > _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
