"""Parquet files that were made to break reading: a file or row is a skip, no library's error."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.base.errors import MimicError
from mimic_core.sources.tables import arrow
from tests.core.sources_pools import items, opened, write_files
from tests.hostile.pools import PNG, outcome
from tests.hostile.runner import Hostile


def table(**more: Any) -> pa.Table:
    """Two rows with an image and a caption, and more."""
    columns = {"image": pa.array([PNG, PNG]), "caption": pa.array(["x", "y"]), **more}
    return pa.Table.from_arrays([*columns.values()], names=[*columns])


def written(path: Path, content: pa.Table, **options: Any) -> Path:
    """The table as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, **options)
    return path


class Odd(pa.ExtensionType):
    """A type that nobody else knows."""

    def __init__(self) -> None:
        super().__init__(pa.list_(pa.int64()), "nobody.knows")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""


TENSOR = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 2, 2), np.float32))
COLUMNS: dict[str, Any] = {
    "duration": pa.array([5, None], pa.duration("ns")),
    "unknown zone": pa.array([0, 1], pa.timestamp("us", tz="Mars/Olympus")),
    "offset zone": pa.array([0, 1], pa.timestamp("s", tz="+05:30")),
    "beyond all years": pa.array([2**62, -(2**62)], pa.timestamp("us")),
    "wide decimal": pa.array([1, None], pa.decimal256(70, 3)),
    "decimal": pa.array([1, None], pa.decimal128(30, 3)),
    "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}', "not json"])),
    "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * 2, pa.binary(16))),
    "tensor": TENSOR,
    "unknown type": pa.ExtensionArray.from_storage(
        Odd(), pa.array([[1], []], pa.list_(pa.int64()))
    ),
    "fixed bytes": pa.array([bytes(8)] * 2, pa.binary(8)),
    "fixed list": pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    "struct of bytes": pa.array([{"b": b"1"}, None]),
    "list of structs": pa.array([[{"a": 1}], []]),
    "deep list": pa.array([[[[[1]]]], None]),
    "dictionary": pa.array(["a", None]).dictionary_encode(),
    "dictionary of numbers": pa.array([1, 2]).dictionary_encode(),
    "nothing": pa.nulls(2),
    "half floats": pa.array(np.array([1, 2], np.float16)),
    "not finite": pa.array([float("nan"), float("inf")]),
    "unsigned": pa.array([2**64 - 1, 0], pa.uint64()),
    "time": pa.array([1, None], pa.time64("ns")),
    "date": pa.array([1, None], pa.date64()),
    "large text": pa.array(["a", None], pa.large_string()),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_any_type_takes_no_row_away(hostile: Hostile, name: str) -> None:
    path = written(hostile.root / "a.parquet", table(odd=COLUMNS[name]))
    found = hostile.call(outcome, path, hostile.out)
    assert found == {"good": 2}


@pytest.mark.parametrize(
    "name",
    ["", " ", "*", "^.*$", "a\0b", "UID", "Caption", "mimic_score", "a.b", "\u202e", "x" * 9999],
)
def test_a_column_of_any_name_takes_no_row_away(hostile: Hostile, name: str) -> None:
    path = written(hostile.root / "a.parquet", table(**{name: pa.array([1, 2])}))
    assert hostile.call(outcome, path, hostile.out) == {"good": 2}


def _text(*cells: bytes) -> pa.Array:
    """Text cells of any bytes."""
    offsets = np.cumsum([0, *map(len, cells)]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(cells))]
    return pa.Array.from_buffers(pa.string(), len(cells), buffers)


def test_text_that_is_not_utf8_is_one_skip(hostile: Hostile) -> None:
    for column in ("caption", "other"):
        path = written(hostile.root / f"{column}.parquet", table(**{column: _text(b"\xff", b"y")}))
        found = hostile.call(outcome, path, hostile.out / column)
        assert found == {"good": 1, "bad_metadata": 1}


def test_cells_that_are_no_images_are_skips(hostile: Hostile) -> None:
    cells = pa.array([b"", None, b"no image", PNG])
    content = pa.table({"image": cells, "caption": ["a", "b", "c", "d"]})
    found = hostile.call(outcome, written(hostile.root / "a.parquet", content), hostile.out)
    assert found == {"good": 1, "corrupt_image": 2, "missing_image": 1}


@pytest.mark.parametrize("checksums", [True, False])
def test_a_flipped_bit_is_told_where_the_file_has_checksums(
    hostile: Hostile, checksums: bool
) -> None:
    content = pa.table({"image": [PNG, PNG], "caption": ["a caption", "another"]})
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pool = hostile.root / "pool"
    path = written(pool / "a.parquet", content, write_page_checksum=checksums, **options)
    written(pool / "b.parquet", table())
    data = bytearray(path.read_bytes())
    data[data.index(b"a caption")] ^= 2  # it is "c caption" now
    path.write_bytes(data)
    found = hostile.call(outcome, pool, hostile.out)
    assert found == ({"good": 2, "unreadable_shard": 1} if checksums else {"good": 4})


def test_columns_whose_description_ends_arrow_s_process_are_a_skip(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow, "_PARTS", "import os; os.abort()")
    large = pa.table({"image": pa.array([PNG]), "caption": ["x" * (5 << 20)]})
    written(hostile.root / "pool" / "a.parquet", large)
    written(hostile.root / "pool" / "b.parquet", table())
    found = hostile.call(outcome, hostile.root / "pool", hostile.out)
    assert found == {"good": 2, "unreadable_shard": 1}


def test_a_cell_of_300_megabytes_is_a_skip(hostile: Hostile) -> None:
    cells = pa.array([bytes(300 << 20)], pa.large_binary())
    content = pa.table({"image": cells, "caption": ["x"]})
    path = written(hostile.root / "pool" / "a.parquet", content, compression="zstd")
    del cells, content
    written(hostile.root / "pool" / "b.parquet", table())
    found = hostile.call(outcome, path.parent, hostile.out)
    assert found == {"good": 2, "oversized_image": 1}


def test_a_caption_of_300_megabytes_is_a_skip(hostile: Hostile) -> None:
    content = pa.table(
        {"image": [PNG], "caption": pa.array(["x" * (300 << 20)], pa.large_string())}
    )
    path = written(hostile.root / "pool" / "a.parquet", content, compression="zstd")
    del content
    written(hostile.root / "pool" / "b.parquet", table())
    found = hostile.call(outcome, path.parent, hostile.out)
    assert found == {"good": 2, "unreadable_shard": 1}


DAMAGED: dict[str, Any] = {
    "empty": lambda data: b"",
    "rubbish": lambda data: b"PAR1" + b"rubbish" * 99 + b"PAR1",
    "cut": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-8],
    "a footer of 4 GB": lambda data: data[:-8] + b"\xff\xff\xff\xff" + data[-4:],
    "a footer of nothing": lambda data: data[:-8] + bytes(4) + data[-4:],
    "encrypted": lambda data: b"PARE" + data[4:-4] + b"PARE",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_one_damaged_file_of_three_is_a_skip(hostile: Hostile, name: str) -> None:
    pool = hostile.root / "pool"
    for letter in "abc":
        written(pool / f"{letter}.parquet", table())
    whole = (pool / "b.parquet").read_bytes()
    (pool / "b.parquet").write_bytes(DAMAGED[name](whole))
    found = hostile.call(outcome, pool, hostile.out)
    assert found["good"] == 4
    assert found["unreadable_shard"] == 1
    hostile.error(outcome, pool / "b.parquet", hostile.out)


def test_a_pipe_named_like_parquet_is_not_waited_for(hostile: Hostile) -> None:
    pool = written(hostile.root / "pool" / "a.parquet", table()).parent
    os.mkfifo(pool / "b.parquet")
    (pool / "c.parquet").mkdir()
    assert hostile.call(outcome, pool, hostile.out) == {"good": 2}


def test_a_million_rows_of_nothing_are_a_million_skips(hostile: Hostile) -> None:
    content = pa.table(
        {"image": pa.nulls(100_000, pa.binary()), "caption": pa.nulls(100_000, pa.string())}
    )
    path = written(hostile.root / "a.parquet", content)
    hostile.error(outcome, path, hostile.out, says="no sample that can be scored")


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_a_skip_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    out = io.BytesIO()
    pq.write_table(table(n=pa.array([1, 2])), out)
    content = bytearray(out.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    root = write_files(tmp_path_factory.mktemp("p"), {"a.parquet": bytes(content)})
    with contextlib.suppress(MimicError):
        items(opened(root))
