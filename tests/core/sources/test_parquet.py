"""Parquet files with embedded images."""

from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mimic_core.base.errors import SourceError
from mimic_core.base.identity import digest
from mimic_core.base.schema import Locator, Sample, Skip
from mimic_core.sources.images import ImageError
from mimic_core.sources.layouts import embedded
from mimic_core.sources.reading import read_image
from mimic_core.sources.tables import arrow
from tests.core.sources_pools import (
    captions,
    image_bytes,
    indexed,
    items,
    opened,
    samples,
    skips,
    write_files,
    write_image_rows,
)

PNG = image_bytes()


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    """Rows as Hugging Face stores them, each image different."""
    return [
        {
            "image": {"bytes": image_bytes((n % 256, n // 256, 0)), "path": f"{n}.png"},
            "caption": f"caption {n}",
            **more,
        }
        for n in range(count)
    ]


def test_struct_images_are_read_by_row(tmp_path: Path) -> None:
    written = rows(5)
    source = opened(write_image_rows(tmp_path / "train.parquet", written))
    assert (source.layout, source.image_column, source.caption_column, source.shards) == (
        "parquet",
        "image",
        "caption",
        ("train-00000",),
    )
    found = samples(source)
    assert [s.key for s in found] == [f"{n:09d}" for n in range(5)]
    assert found[3].image == Locator("parquet", "train.parquet", 3, -1, "image")
    assert found[3].uid == digest(["train.parquet", "3", "caption 3", 0], length=32)
    assert [read_image(source.root, s.image) for s in found] == [
        row["image"]["bytes"] for row in written
    ]


def test_img2dataset_parquet_uses_its_columns_and_key(tmp_path: Path) -> None:
    written = [{"key": "00007", "jpg": PNG, "txt": "words", "caption": "words", "url": "u"}]
    source = opened(write_image_rows(tmp_path / "00000.parquet", written))
    (sample,) = samples(source)
    assert (source.image_column, source.caption_column) == ("jpg", "caption")
    assert (sample.key, sample.caption, sample.meta) == (
        "00007",
        "words",
        {"txt": "words", "url": "u"},
    )
    assert read_image(source.root, sample.image) == PNG


def test_rows_are_cut_into_shards_and_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "ROWS_PER_SHARD", 4)
    monkeypatch.setattr(arrow, "BATCH_ROWS", 3)
    first = write_image_rows(tmp_path / "data" / "a.parquet", rows(9), row_group_size=5)
    write_image_rows(tmp_path / "data" / "b.parquet", rows(1))
    source = opened(tmp_path)
    assert source.shards == (
        "data-a-00000",
        "data-a-00001",
        "data-a-00002",
        "data-b-00000",
    )
    assert [len(list(source.index(shard))) for shard in source.shards] == [4, 4, 1, 1]
    found = samples(source)
    assert len({s.uid for s in found}) == 10
    expected = [row["image"]["bytes"] for row in [*rows(9), *rows(1)]]
    assert [read_image(source.root, s.image) for s in found] == expected
    backwards = [read_image(source.root, s.image) for s in reversed(found)]
    assert backwards == expected[::-1]
    alone = samples(opened(first))
    assert [s.caption for s in alone] == [s.caption for s in found[:9]]


def test_a_rewritten_file_is_read_anew(tmp_path: Path) -> None:
    path = write_image_rows(tmp_path / "a.parquet", rows(1))
    locator = samples(opened(path))[0].image
    assert read_image(tmp_path, locator) == rows(1)[0]["image"]["bytes"]
    write_image_rows(path, [{**rows(1)[0], "image": {"bytes": b"new bytes", "path": ""}}])
    assert read_image(tmp_path, locator) == b"new bytes"


def test_several_captions_of_a_row_are_several_samples(tmp_path: Path) -> None:
    written = [
        {"image": PNG, "captions": ["one", "two", "one"]},
        {"image": PNG, "captions": []},
        {"image": PNG, "captions": None},
        {"image": PNG, "captions": [None, " ", "last"]},
    ]
    path = write_image_rows(tmp_path / "a.parquet", written)
    source = opened(path, caption_column="captions")
    found = items(source)
    assert [item.reason if isinstance(item, Skip) else item.caption for item in found] == [
        "one",
        "two",
        "one",
        "empty_caption",
        "empty_caption",
        "empty_caption",
        "empty_caption",
        "last",
    ]
    good = [item for item in found if not isinstance(item, Skip)]
    assert len({item.uid for item in good}) == 4
    assert [item.image.offset for item in good] == [0, 0, 0, 3]


def test_own_columns_of_every_dtype_are_kept(tmp_path: Path) -> None:
    more = {
        "is_noisy": True,
        "number": 3,
        "score": float("nan"),
        "day": dt.date(2025, 1, 2),
        "tags": ["a", "b"],
        "nested": {"a": 1},
        "thumbnail": {"bytes": b"x", "path": "p"},
        "raw": b"x",
    }
    path = write_image_rows(tmp_path / "a.parquet", rows(1, **more))
    source = opened(path, image_column="image")
    frame, _ = indexed(source, tmp_path / "out")
    own = {name: frame[name][0] for name in frame.columns[10:]}
    assert own == {
        "is_noisy": True,
        "number": 3,
        "score": None,
        "day": "2025-01-02",
        "tags": '["a", "b"]',
        "nested": '{"a": 1}',
    }
    assert frame.schema["is_noisy"] == pl.Boolean


def test_columns_without_a_caption_are_refused_until_one_is_chosen(tmp_path: Path) -> None:
    written = [{"image": {"bytes": PNG, "path": None}, "animal": "cat", "label_id": 3}]
    path = write_image_rows(tmp_path / "a.parquet", written)
    with pytest.raises(SourceError) as caught:
        opened(path)
    assert "no column that is clearly the caption" in caught.value.problem
    assert caught.value.got == "'columns animal, label_id'"
    assert "--caption-column" in caught.value.next_step
    with pytest.raises(SourceError) as caught:
        opened(path, caption_column="label_id")
    assert "not text but Int64" in caught.value.problem
    assert caught.value.allowed == "animal"
    with pytest.raises(SourceError, match="no such column"):
        opened(path, caption_column="nothing")
    assert captions(opened(path, caption_column="animal")) == {"000000000": "cat"}


def test_several_image_columns_need_a_choice(tmp_path: Path) -> None:
    path = write_image_rows(tmp_path / "a.parquet", [{"left": b"l", "right": b"r", "caption": "c"}])
    with pytest.raises(SourceError) as caught:
        opened(path)
    assert caught.value.got == "'columns left, right'"
    assert "--image-column" in caught.value.next_step
    source = opened(path, image_column="right")
    assert read_image(source.root, samples(source)[0].image) == b"r"


def test_files_of_another_kind_are_refused_by_name(tmp_path: Path) -> None:
    write_image_rows(tmp_path / "a.parquet", rows(1))
    write_image_rows(tmp_path / "b.parquet", [{"image": PNG, "caption": 5}])
    with pytest.raises(SourceError) as caught:
        items(opened(tmp_path))
    assert caught.value.problem == "b.parquet has no text in the column caption"


def test_cells_that_hold_no_image_are_missing(tmp_path: Path) -> None:
    written = [
        {"image": {"bytes": PNG, "path": "p"}, "caption": "a"},
        {"image": {"bytes": None, "path": "p"}, "caption": "b"},
        {"image": None, "caption": "c"},
    ]
    source = opened(write_image_rows(tmp_path / "a.parquet", written))
    assert [(one.key, one.reason) for one in skips(source)] == [("000000001", "missing_image")]
    found = [one for one in items(source) if isinstance(one, Sample)]
    assert read_image(source.root, found[0].image) == PNG
    wrong = [
        found[1].image,
        Locator("parquet", "a.parquet", 3, -1, "image"),
        Locator("parquet", "a.parquet", 10**9, -1, "image"),
        Locator("parquet", "a.parquet", -1, -1, "image"),
        Locator("parquet", "a.parquet", 0, -1, "nothing"),
        Locator("parquet", "a.parquet", 0, -1, "caption"),
        Locator("parquet", "gone.parquet", 0, -1, "image"),
        Locator("parquet", "../a.parquet", 0, -1, "image"),
    ]
    for locator in wrong:
        with pytest.raises(ImageError) as caught:
            read_image(source.root, locator)
        assert caught.value.reason == "missing_image", locator


def test_blank_captions_are_skipped(tmp_path: Path) -> None:
    written = [{"image": PNG, "text": "good"}, {"image": PNG, "text": None}]
    source = opened(write_image_rows(tmp_path / "a.parquet", written))
    assert [(s.key, s.reason) for s in skips(source)] == [("000000001", "empty_caption")]


def test_a_caption_that_is_not_utf8_is_one_skip(tmp_path: Path) -> None:
    offsets = np.array([0, 3, 7], np.int32)
    text = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(offsets), pa.py_buffer(b"a\xff\xffgood")]
    )
    pq.write_table(pa.table({"image": [PNG] * 2, "caption": text}), tmp_path / "a.parquet")
    skip, sample = items(opened(tmp_path / "a.parquet"))
    assert skip == Skip("000000000", "a-00000", "bad_metadata", "the column caption is not UTF-8")
    assert not isinstance(sample, Skip)
    assert sample.caption == "good"


@pytest.mark.parametrize("place", [4, 60, -300, -9])
def test_damaged_files_are_refused_or_skipped(tmp_path: Path, place: int) -> None:
    path = write_image_rows(tmp_path / "a.parquet", rows(20), row_group_size=5)
    data = bytearray(path.read_bytes())
    data[place : place + 3] = b"\xff\x00\xff"
    path.write_bytes(data)
    try:
        found = items(opened(path))
    except SourceError:
        return
    for item in found:
        if isinstance(item, Skip):
            assert item.reason == "unreadable_shard"
        else:
            with contextlib.suppress(ImageError):
                read_image(tmp_path, item.image)


def test_patterns_in_file_names_are_plain_names(tmp_path: Path) -> None:
    write_image_rows(tmp_path / "[ab]*.parquet", rows(1))
    write_image_rows(tmp_path / "a.parquet", rows(2))
    source = opened(tmp_path / "[ab]*.parquet")
    (sample,) = samples(source)
    assert read_image(source.root, sample.image) == rows(1)[0]["image"]["bytes"]


def test_fingerprint_follows_content(tmp_path: Path) -> None:
    one = write_image_rows(tmp_path / "one" / "a.parquet", rows(3))
    two = write_image_rows(tmp_path / "two" / "a.parquet", rows(3))
    assert opened(one).fingerprint() == opened(two.parent).fingerprint()
    write_image_rows(two, rows(4))
    assert opened(one).fingerprint() != opened(two).fingerprint()


# --- columns of no use, and files that are damaged ------------------------------------------------


def write_table(path: Path, **more: Any) -> Path:
    """Two rows with an image and a caption, and further columns as Arrow has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": pa.array([PNG, PNG]), "caption": pa.array(["a", "b"]), **more}
    pq.write_table(pa.Table.from_arrays([*columns.values()], names=[*columns]), path)
    return path


def test_columns_of_any_arrow_type_are_kept_as_text_or_left_out_by_name(tmp_path: Path) -> None:
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 2, 2), np.float32))
    zone = pa.array([0, 1], pa.timestamp("us", tz="Nowhere/Never"))
    wide = pa.array([1, 2], pa.decimal256(60, 2))
    more = {
        "offset": pa.array([5, None], pa.duration("ms")),
        "meta": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}', None])),
        "tensor": tensor,
        "at": zone,
        "wide": wide,
        "raw": pa.array([b"1", b"2"]),
        "": pa.array([1, 2]),
        "*": pa.array([7, 8]),
    }
    source = opened(write_table(tmp_path / "a.parquet", **more))
    one, two = (item for item in items(source) if not isinstance(item, Skip))
    assert (one.meta["meta"], two.meta["meta"]) == ('{"a":1}', None)
    assert (one.meta["offset"], two.meta["offset"]) == ("PT0.005S", None)
    assert (one.meta["*"], two.meta["*"]) == (7, 8)
    assert (one.caption, two.caption) == ("a", "b")
    left_out = set(source.unread())
    assert "column without a name (int64)" in left_out
    assert "column raw (bytes)" in left_out
    assert any(
        one.startswith("column tensor (extension<arrow.fixed_shape_tensor") for one in left_out
    )
    for name in ("at", "wide"):  # as text where it can be told, else named
        assert name in one.meta or any(what.startswith(f"column {name} (") for what in left_out)


def test_a_uid_of_an_image_does_not_make_its_captions_duplicates(tmp_path: Path) -> None:
    uid = "0123456789abcdef0123456789abcdef"
    rows = [{"image": PNG, "caption": ["a", "b"], "uid": uid}]
    rows += [{"image": PNG, "caption": ["c"], "uid": uid[::-1]}]
    found = samples(opened(write_image_rows(tmp_path / "a.parquet", rows)))
    assert [s.caption for s in found] == ["a", "b", "c"]
    assert len({s.uid for s in found}) == 3
    assert found[2].uid == uid[::-1]
    assert [s.meta.get("uid") for s in found] == [uid, uid, None]


def test_one_truncated_file_of_three_is_one_skip(tmp_path: Path) -> None:
    for name in "abc":
        write_table(tmp_path / f"{name}.parquet")
    data = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(data[: len(data) // 2])
    source = opened(tmp_path)
    found = items(source)
    assert [item.shard for item in found] == ["a-00000"] * 2 + ["b-00000"] + ["c-00000"] * 2
    assert isinstance(found[2], Skip)
    assert found[2].reason == "unreadable_shard"
    assert "b.parquet cannot be read as Parquet" in found[2].detail
    assert len(source.fingerprint()) == 64


def test_rows_of_img2dataset_that_were_not_downloaded_say_so(tmp_path: Path) -> None:
    rows = [
        {"key": "0", "jpg": PNG, "caption": "a", "status": "success", "error_message": None},
        {"key": "1", "jpg": None, "caption": "b", "status": "failed_to_download",
         "error_message": "timed out"},
    ]  # fmt: skip
    _, skip = items(opened(write_image_rows(tmp_path / "a.parquet", rows)))
    assert skip == Skip("1", "a-00000", "failed_download", "failed_to_download: timed out")


@pytest.mark.parametrize("head", ["/9j/4AAQSkZJRg", "iVBORw0KGgoAAAANSUhEUg"])
def test_images_in_base64_are_refused_by_that_name(tmp_path: Path, head: str) -> None:
    frame = pl.DataFrame({"image": [head + "A" * 400], "caption": ["x"]})
    frame.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"the column image of a.parquet holds images in base64"):
        items(opened(tmp_path))


def test_a_cell_too_large_to_be_text_or_image_is_a_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_table(tmp_path / "a.parquet", note=pa.array(["x" * 400_000, "y" * 400_000]))
    monkeypatch.setattr(arrow, "MAX_TEXT_BYTES", 1000)
    (skip,) = items(opened(path))
    assert isinstance(skip, Skip)
    assert skip.reason == "unreadable_shard"
    assert "the limit is 1000 for a cell" in skip.detail


def test_a_table_of_paths_with_lists_of_captions(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"file_name": ["a.png", "b.png", "b.png"], "caption": [["x", "y"], [], None]}
    )
    frame.write_parquet(tmp_path / "t.parquet")
    write_files(tmp_path, {"a.png": PNG, "b.png": PNG})
    found = items(opened(tmp_path))
    assert [item.reason if isinstance(item, Skip) else item.caption for item in found] == [
        "x",
        "y",
        "empty_caption",
        "empty_caption",
    ]
