"""Shards and tables of other programs that were made to break reading: MDS, Arrow, Lance."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mimic_core.base.errors import MimicError
from tests.core.sources.test_producers import COLUMNS, mds_rows, mds_shard, write_mds
from tests.core.sources_pools import write_files
from tests.hostile.pools import PNG, outcome
from tests.hostile.runner import Hostile

SIZES = [size for _, size in COLUMNS.values()]
MDS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "a million million samples": ({"samples": 10**12}, {"unreadable_shard": 2}),
    "samples without end": ({"samples": float("inf")}, {}),
    "fewer than no samples": ({"samples": -3}, {}),
    "columns of fewer than no bytes": ({"column_sizes": [*SIZES[:-1], -4]}, {}),
    "columns of all bytes": ({"column_sizes": [*SIZES[:-1], 1 << 60]}, {"bad_metadata": 5}),
    "a shard that leads out": (
        {"raw_data": {"basename": "../secret.mds"}, "samples": 3},
        {"unreadable_shard": 3},
    ),
    "an absolute shard": (
        {"raw_data": {"basename": "/etc/passwd"}, "samples": 3},
        {"unreadable_shard": 3},
    ),
    "a shard named with NUL": (
        {"raw_data": {"basename": "s\0.mds"}, "samples": 3},
        {"unreadable_shard": 3},
    ),
    "packed under another name": (
        {
            "raw_data": {"basename": "x"},
            "compression": "gz",
            "zip_data": {"basename": "index.json"},
            "samples": 3,
        },
        {"unreadable_shard": 3},
    ),
    "columns that are none": ({"column_names": 7}, {}),
}


@pytest.mark.parametrize("name", MDS)
def test_an_mds_index_made_to_break_reading(hostile: Hostile, name: str) -> None:
    changes, expected = MDS[name]
    write_files(hostile.root, {"secret.mds": mds_shard(mds_rows(range(3)))})
    write_mds(hostile.root / "pool" / "bad", **changes)
    write_mds(hostile.root / "pool" / "good")
    found = hostile.call(outcome, hostile.root / "pool", hostile.out)
    assert found == {**expected, "good": 5}


def arrow_file() -> bytes:
    image = pa.array([{"bytes": PNG, "path": "a.png"}, {"bytes": PNG, "path": "b.png"}])
    table = pa.table({"image": image, "caption": ["xyz", "uv"]})
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as written:
        written.write_table(table)
    return out.getvalue()


def places(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "little", signed=True) for number in numbers)


ARROW: dict[str, tuple[bytes, bytes, int]] = {  # what is replaced, by what, and skips
    "paths outside of the file": (places(0, 5, 10), places(0, 201326592, 10), 1),
    "texts outside of the file": (places(0, 3, 5), places(0, 3, 1 << 30), 1),
    "texts of fewer than no bytes": (places(0, 3, 5), places(0, -9, 5), 1),
    "a name that is not UTF-8": (b"caption\0", b"\xff\xfeption\0", 1),
    "a name inside that is not UTF-8": (b"bytes\0", b"\xfe\xfftes\0", 0),
}


@pytest.mark.parametrize("name", ARROW)
def test_an_arrow_file_made_to_break_reading(hostile: Hostile, name: str) -> None:
    old, new, skipped = ARROW[name]
    good = arrow_file()
    assert good.count(old) == 1
    bad = good.replace(old, new)
    alone = write_files(hostile.root / "alone", {"data.arrow": bad})
    with pytest.raises(MimicError):
        hostile.call(outcome, alone, hostile.out)
    path = write_files(hostile.root / "pool", {"a.arrow": good, "z.arrow": bad})
    found = hostile.call(outcome, path, hostile.out)
    assert found == Counter(good=2, unreadable_shard=skipped)  # else it is a file that is not read


def test_a_damaged_lance_table_is_refused_in_words(tmp_path: Path) -> None:
    """Its library panics on such bytes, which is no ``Exception``, and says so by itself."""
    lance = pytest.importorskip("lance")
    path = tmp_path / "t.lance"
    lance.write_dataset(pa.table({"image": [PNG], "caption": ["x"]}), str(path))
    manifest = next((path / "_versions").glob("*.manifest"))
    good = manifest.read_bytes()
    refusals = []
    damaged = [good[:place] + b"\x9e" + good[place + 1 :] for place in range(-24, -1)]
    damaged.insert(0, good.replace(b"binary", b"rinary"))
    assert good not in damaged
    for number, data in enumerate(damaged):
        manifest.write_bytes(data)
        try:
            outcome(path, tmp_path / "out" / str(number))
        except MimicError as error:
            refusals.append(error.problem)
    assert len(refusals) > 4
    assert "Unsupported logical type" in refusals[0]
    assert all("cannot be read as Lance" in problem for problem in refusals)
