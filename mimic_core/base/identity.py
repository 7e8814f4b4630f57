"""Order and uniqueness of uids, verified quickly: what allows columns to be stacked, not joined.

Joins are by uid. Where two tables list the same uids in the same order a join is a stack of
columns, which at ten million rows takes a fraction of a second instead of tens of seconds. Nothing
here assumes that order: it is read off the uids themselves, or off stored bytes that encode them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from mimic_core.base.draws import uid_words
from mimic_core.base.schema import IMAGE_COLUMNS

# Which image a sample has: where it begins says enough, and not every layout knows its length.
PLACE = tuple(name for name in IMAGE_COLUMNS if name != "image_length")

_COMPARED_ROWS = 1 << 20  # of a file in memory at a time


def all_unique(uids: pl.Series) -> bool:
    """Whether no uid (N) is there twice.

    Compares sorted 64-bit hashes, which is four times as fast as a set of strings; only where two
    hashes agree are the strings looked at.
    """
    hashes = uids.hash().to_numpy().copy()
    hashes.sort()
    if (hashes[1:] != hashes[:-1]).all():
        return True
    return uids.n_unique() == len(uids)


def sorted_uids(uids: pl.Series) -> pl.Series:
    """The uids (N) in ascending order.

    Uids of hexadecimal digits are ordered by their first 64 bits as numbers, a fraction of the work
    of comparing texts; where that does not give the order of the texts, they are compared.
    """
    words = uids.str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64, strict=False)
    if not words.has_nulls():
        found = uids.gather(np.argsort(words.to_numpy()))
        if found.is_sorted():
            return found
    return uids.sort()


def same_order(one: pl.Series, other: pl.Series) -> bool:
    """Whether two columns hold the same uids in the same order."""
    return len(one) == len(other) and bool(one.equals(other))


def files_agree(one: Path, other: Path) -> bool:
    """Whether two Parquet files hold the same column ``uid``, row by row.

    Files of one writer store equal columns as equal bytes, so those are compared first, without
    decoding: six times as fast (``bench/handwritten.py``). Where they differ (other row groups,
    another codec) the values decide.
    """
    if _bytes_agree(one, other):
        return True
    return file_holds(other, pl.read_parquet(one, columns=["uid"])["uid"])


def file_holds(path: Path, uids: pl.Series) -> bool:
    """Whether a Parquet file's column ``uid`` is ``uids`` (N), row by row; read part by part."""
    if pq.read_metadata(path).num_rows != len(uids):
        return False
    scan = pl.scan_parquet(path).select("uid")
    for start in range(0, len(uids), _COMPARED_ROWS):
        stored = scan.slice(start, _COMPARED_ROWS).collect()["uid"]
        if not stored.equals(uids.slice(start, _COMPARED_ROWS)):
            return False
    return True


def _bytes_agree(one: Path, other: Path) -> bool:
    """Whether the stored bytes of the uids agree, and all that decides how they are read."""
    metas = [pq.read_metadata(path) for path in (one, other)]
    if metas[0].num_row_groups != metas[1].num_row_groups:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        for group in range(metas[0].num_row_groups):
            parts = [_uid_part(meta, group) for meta in metas]
            if None in parts or parts[0][1:] != parts[1][1:]:  # type: ignore[index]  # not None
                return False
            read = []
            for file, part in zip((first, second), parts, strict=True):
                file.seek(part[0])  # type: ignore[index]  # as above
                read.append(file.read(part[1]))  # type: ignore[index]  # as above
            if read[0] != read[1]:
                return False
    return True


def _uid_part(meta: pq.FileMetaData, group: int) -> tuple[int, int, str] | None:
    """Start and length in bytes of the uids in one row group, and how they are encoded."""
    for position in range(meta.num_columns):
        part = meta.row_group(group).column(position)
        if part.path_in_schema == "uid":
            start = part.data_page_offset
            if part.has_dictionary_page:
                start = min(start, part.dictionary_page_offset)
            kind = (part.physical_type, part.compression, part.encodings, part.num_values)
            logical = meta.schema.column(position).logical_type
            return start, part.total_compressed_size, f"{kind} {logical}"
    return None


def rows_of(uids: pl.Series, wanted: pl.Series) -> np.ndarray:
    """Position (K,) int64 of each of ``wanted`` (K) in ``uids`` (N); -1 where it is not there.

    A uid that is there twice is found at its first place.
    """
    if same_order(uids, wanted):
        return np.arange(len(uids), dtype=np.int64)
    places = pl.DataFrame({"uid": uids}).with_row_index("row").unique("uid", keep="first")
    found = wanted.alias("uid").to_frame().join(places, on="uid", how="left", maintain_order="left")
    return np.asarray(found["row"].cast(pl.Int64).fill_null(-1).to_numpy())


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any, *, length: int = 12) -> str:
    """First ``length`` hex digits of the SHA-256 of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def slug(text: str, *, limit: int = 32) -> str:
    """``text`` as a short lower-case name that is safe in any file system."""
    kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in Path(text).stem.lower())
    return "-".join(part for part in kept.split("-") if part)[:limit] or "pool"


def uids_digest(uids: pl.Series) -> str:
    """SHA-256 of sorted uids, one per line, as in an export's manifest."""
    return hashlib.sha256("".join(f"{uid}\n" for uid in uids).encode()).hexdigest()


def image_numbers(samples: pl.DataFrame) -> np.ndarray:
    """Which image each sample has (N,) int64: the first sample that has the same, by number.

    A sample without an image has its own number.
    """
    rows = samples.select(PLACE).with_row_index("row")
    first = rows.select(pl.col("row").min().over(PLACE))["row"].to_numpy()
    alone = samples[PLACE[0]].is_null().to_numpy()
    return np.where(alone, np.arange(len(samples)), first).astype(np.int64)


def image_words(samples: pl.DataFrame) -> np.ndarray:
    """128 bits (N, 2) uint64 from each sample's image, to hash in the place of its uid.

    They depend on the place alone, not on the other samples; without an image, on the uid.
    """
    words = uid_words(samples["uid"])
    there = np.flatnonzero(samples[PLACE[0]].is_not_null().to_numpy())
    # Polars' own hash may change from version to version, and with it would the draw.
    places = samples[there].select(PLACE).iter_rows()
    digests = [hashlib.blake2b(repr(place).encode(), digest_size=16).digest() for place in places]
    words[there] = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2)
    return words
