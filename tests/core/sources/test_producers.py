"""Pools by the programs that people make them with: their libraries, or their documented bytes."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Sample
from mimic_core.sources.images import ImageError
from mimic_core.sources.index import in_words
from mimic_core.sources.reading import read_image
from mimic_core.sources.source import Source
from tests.core.sources_pools import (
    image_bytes,
    items,
    opened,
    samples,
    skips,
    triple,
    write_files,
    write_tar,
)

IMAGES = [image_bytes((40 * n, 0, 0)) for n in range(5)]
CAPTIONS = [f"caption {n}" for n in range(5)]


def seen(source: Source) -> list[tuple[str | None, bytes]]:
    """Caption and image bytes of every sample; there are no skips."""
    return [(one.caption, read_image(source.root, one.image)) for one in samples(source)]


# --- Hugging Face ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub() -> Any:
    """The library ``datasets``, offline."""
    return pytest.importorskip("datasets")


def dataset(hub: Any, rows: range) -> Any:
    """Some rows as a Hugging Face data set."""
    features = hub.Features(
        {
            "image": hub.Image(),
            "caption": hub.Value("string"),
            "kind": hub.ClassLabel(names=["cat", "dog"]),
        }
    )
    cells = [{"bytes": IMAGES[n], "path": f"{n}.png"} for n in rows]
    data = {"image": cells, "caption": [CAPTIONS[n] for n in rows], "kind": [n % 2 for n in rows]}
    return hub.Dataset.from_dict(data, features=features)


def test_save_to_disk_is_read(hub: Any, tmp_path: Path) -> None:
    dataset(hub, range(5)).save_to_disk(tmp_path / "pool", num_shards=2)
    source = opened(tmp_path / "pool", task="pairs")
    assert source.layout == "arrow"
    assert seen(source) == list(zip(CAPTIONS, IMAGES, strict=True))
    assert [one.meta for one in samples(source)] == [{"kind": k} for k in ("cat", "dog") * 2] + [
        {"kind": "cat"}
    ]
    assert source.unread() == {}
    assert {one.image.kind for one in samples(source)} == {"range"}  # which needs no arrow


def test_a_saved_dataset_dict_is_read_with_its_splits(hub: Any, tmp_path: Path) -> None:
    splits = {"train": dataset(hub, range(3)), "test": dataset(hub, range(3, 5))}
    hub.DatasetDict(splits).save_to_disk(tmp_path)
    source = opened(tmp_path, task="pairs")
    assert sorted((one.caption, one.meta["split"]) for one in samples(source)) == [
        *((caption, "train") for caption in CAPTIONS[:3]),
        *((caption, "test") for caption in CAPTIONS[3:]),
    ]
    assert source.unread() == {}
    assert opened(tmp_path, label_column="kind").task == "labels"


def path_cells(cells: list[tuple[bytes | None, str]]) -> pa.Array:
    """Cells of the ``Image`` feature."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": data, "path": path} for data, path in cells], kind)


def test_arrow_cells_with_a_path_and_no_bytes_are_files_of_the_pool(tmp_path: Path) -> None:
    files = write_files(tmp_path, {f"img/{n}.png": data for n, data in enumerate(IMAGES)})
    cells = path_cells([(None, "img/0.png"), (IMAGES[1], "x.png"), (None, "gone.png")])
    table = pa.table({"image": cells, "caption": CAPTIONS[:3]})
    with pa.ipc.new_stream(tmp_path / "data.arrow", table.schema) as out:
        out.write_table(table)
    source = opened(files)
    found = [one for one in items(source) if isinstance(one, Sample)]
    assert [read_image(source.root, one.image) for one in found] == IMAGES[:2]
    assert [(one.key, one.reason) for one in skips(source)] == [("000000002", "missing_image")]
    assert in_words(source.unread()) == "4 x .png"


def test_sharded_parquet_of_the_image_feature_is_read(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split, rows in (("train", range(3)), ("test", range(3, 5))):
        path = tmp_path / "data" / f"{split}-00000-of-00001.parquet"
        dataset(hub, rows).to_parquet(path)
    write_files(tmp_path, {"README.md": "---\n---\n"})
    source = opened(tmp_path, task="pairs")
    assert source.layout == "parquet"
    assert sorted(seen(source)) == sorted(zip(CAPTIONS, IMAGES, strict=True))
    assert {one.caption: one.meta for one in samples(source)}["caption 4"] == {
        "kind": "cat",
        "split": "test",
    }
    assert in_words(source.unread()) == "1 x .md"


def test_parquet_cells_with_a_path_and_no_bytes_are_files_of_the_pool(tmp_path: Path) -> None:
    files = write_files(tmp_path, {f"img/{n}.png": data for n, data in enumerate(IMAGES)})
    cells = [(None, "img/0.png"), (IMAGES[1], "1.png"), (None, "IMG/2.png"), (None, "gone.png")]
    for place in range(0, 4, 2):
        table = {
            "image": path_cells(cells[place : place + 2]),
            "caption": CAPTIONS[place : place + 2],
        }
        pq.write_table(pa.table(table), tmp_path / f"{place}.parquet")
    source = opened(files)
    found = [one for one in items(source) if isinstance(one, Sample)]
    assert [read_image(source.root, one.image) for one in found] == IMAGES[:3]
    assert [(one.key, one.reason) for one in skips(source)] == [("000000001", "missing_image")]
    assert "gone.png" in skips(source)[0].detail
    assert in_words(source.unread()) == "3 x .png"


def test_a_damaged_arrow_file_is_one_skip(hub: Any, tmp_path: Path) -> None:
    dataset(hub, range(4)).save_to_disk(tmp_path, num_shards=2)
    first, second = sorted(tmp_path.glob("*.arrow"))
    second.write_bytes(second.read_bytes()[:200])
    source = opened(tmp_path, task="pairs")
    assert [(one.reason, one.shard) for one in skips(source)] == [
        ("unreadable_shard", f"{second.stem}-00000")
    ]
    assert len(items(source)) == 3
    first.write_bytes(b"")
    with pytest.raises(SourceError, match="no known layout"):
        opened(tmp_path)


def test_an_arrow_file_compressed_inside_is_refused_by_that_name(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([IMAGES[0] * 99], pa.binary()), "caption": ["x"]})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema, options=options) as out:
        out.write_table(table)
    (skip,) = skips(opened(tmp_path))
    assert "it is compressed inside" in skip.detail
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as out:
        out.write_table(table)
    assert seen(opened(tmp_path)) == [("x", IMAGES[0] * 99)]


# --- Lance ----------------------------------------------------------------------------------------


def test_a_lance_table_is_read(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    table = pa.table({"image": IMAGES, "caption": CAPTIONS, "score": [0.5 * n for n in range(5)]})
    lance.write_dataset(table, str(tmp_path / "pool" / "a.lance"), max_rows_per_file=2)
    for path in (tmp_path / "pool", tmp_path / "pool" / "a.lance"):
        source = opened(path)
        assert source.layout == "lance"
        assert seen(source) == list(zip(CAPTIONS, IMAGES, strict=True))
        assert [one.meta for one in samples(source)] == [{"score": 0.5 * n} for n in range(5)]
        assert source.unread() == {}
    before = source.fingerprint()
    lance.write_dataset(table.slice(0, 2), str(tmp_path / "pool" / "a.lance"), mode="append")
    source = opened(tmp_path / "pool" / "a.lance")
    assert len(samples(source)) == 7
    assert source.fingerprint() != before
    image = samples(source)[0].image
    shutil.rmtree(tmp_path / "pool" / "a.lance" / "data")
    with pytest.raises(ImageError):
        read_image(source.root, image)


def test_a_lance_table_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "b.lance", {"_versions/1.manifest": b"", "data/x.lance": b""})
    monkeypatch.setitem(__import__("sys").modules, "lance", None)
    with pytest.raises(SourceError, match="whose library is not installed") as caught:
        opened(tmp_path)
    assert "mimicscope[lance]" in caught.value.next_step


# --- Mosaic MDS -----------------------------------------------------------------------------------

COLUMNS = {
    "arr": ("ndarray", None),
    "caption": ("str", None),
    "extra": ("json", None),
    "image": ("bytes", None),
    "n": ("int", 8),
    "score": ("float32", 4),
}


def mds_shard(rows: list[dict[str, bytes]]) -> bytes:
    """A shard as MDSWriter writes it, its configuration between the places and the rows."""
    bodies = []
    for row in rows:
        sizes = [len(row[name]) for name, (_, size) in COLUMNS.items() if size is None]
        bodies.append(np.array(sizes, "<u4").tobytes() + b"".join(row[name] for name in COLUMNS))
    config = b'{"format": "mds"}'
    first = 4 * (len(rows) + 2) + len(config)
    places = first + np.cumsum([0, *map(len, bodies)])
    heads = np.array([len(rows)], "<u4").tobytes() + places.astype("<u4").tobytes()
    return heads + config + b"".join(bodies)


def mds_rows(numbers: range) -> list[dict[str, bytes]]:
    return [
        {
            "arr": b"\x01\x02",
            "caption": CAPTIONS[n].encode(),
            "extra": json.dumps({"a": [n]}).encode(),
            "image": IMAGES[n],
            "n": np.int64(n).tobytes(),
            "score": np.float32(n / 2).tobytes(),
        }
        for n in numbers
    ]


def write_mds(folder: Path, packing: str = "", **changes: Any) -> Path:
    """Five samples in two shards; zstd by the name that Mosaic gives it."""
    pack = {"gz": gzip.compress, "zstd": lambda data: pa.compress(data, "zstd", asbytes=True)}
    shards = []
    for number, rows in enumerate((range(3), range(3, 5))):
        raw = f"shard.{number:05d}.mds"
        base = f"{raw}.{packing}" if packing else raw
        data = mds_shard(mds_rows(rows))
        write_files(folder, {base: pack[packing](data) if packing in pack else data})
        shards.append(
            {
                "column_encodings": [encoding for encoding, _ in COLUMNS.values()],
                "column_names": [*COLUMNS],
                "column_sizes": [size for _, size in COLUMNS.values()],
                "compression": f"{packing}:7" if packing else None,
                "format": "mds",
                "raw_data": {"basename": raw, "bytes": len(data), "hashes": {}},
                "samples": len(rows),
                "version": 2,
                "zip_data": {"basename": base} if packing else None,
                **changes,
            }
        )
    return write_files(folder, {"index.json": json.dumps({"shards": shards, "version": 2})})


@pytest.mark.parametrize("packing", ["", "gz", "zstd"])
def test_mosaic_mds_is_read(tmp_path: Path, packing: str) -> None:
    for split in ("train", "val"):
        write_mds(tmp_path / split, packing)
    source = opened(tmp_path)
    assert source.layout == "mds"
    assert seen(source) == list(zip(CAPTIONS, IMAGES, strict=True)) * 2
    assert [one.meta for one in samples(source)][:2] == [
        {"extra": '{"a": [0]}', "n": 0, "score": 0.0, "split": "train"},
        {"extra": '{"a": [1]}', "n": 1, "score": 0.5, "split": "train"},
    ]
    assert in_words(source.unread()) == "4 x column arr (ndarray)"
    assert len({one.uid for one in samples(source)}) == 10


def test_what_of_mds_cannot_be_read_is_a_skip_for_each_sample(tmp_path: Path) -> None:
    write_mds(tmp_path / "cut")
    shard = tmp_path / "cut" / "shard.00000.mds"
    shard.write_bytes(shard.read_bytes()[:-1])
    write_mds(tmp_path / "gone")
    (tmp_path / "gone" / "shard.00001.mds").unlink()
    write_mds(tmp_path / "brotli", "br")
    write_mds(tmp_path / "count", samples=9)
    reasons = {
        name: [one.reason for one in skips(opened(tmp_path / name))]
        for name in ("cut", "gone", "brotli", "count")
    }
    assert reasons == {
        "cut": ["unreadable_shard"] * 3,
        "gone": ["unreadable_shard"] * 2,
        "brotli": ["unreadable_shard"] * 5,
        "count": ["unreadable_shard"] * 18,
    }
    pixels = [encoding if name != "image" else "pil" for name, (encoding, _) in COLUMNS.items()]
    write_mds(tmp_path / "pil", column_encodings=pixels)
    assert {one.reason for one in skips(opened(tmp_path / "pil"))} == {"unread_format"}


# --- webdataset and img2dataset -------------------------------------------------------------------


def test_webdatasets_own_writer_is_read_at_any_depth(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    for number, folder in enumerate(("a", "a/b/c/train", "d/e")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        name = "0.tar.gz" if number == 2 else "0.tar"
        with webdataset.TarWriter(str(tmp_path / folder / name)) as out:
            row = {"__key__": f"k{number}", "png": IMAGES[number], "txt": CAPTIONS[number]}
            out.write({**row, "json": {"score": number}})
    source = opened(tmp_path)
    assert seen(source) == list(zip(CAPTIONS, IMAGES, strict=True))[:3]
    assert [one.meta for one in samples(source)] == [
        {"score": 0},
        {"score": 1, "split": "train"},
        {"score": 2},
    ]


def img2dataset_rows() -> list[dict[str, Any]]:
    """The table that img2dataset writes beside a shard, or with ``parquet`` as the shard."""
    rows = []
    for n in range(5):
        failed = "HTTP Error 404: Not Found" if n == 3 else None
        rows.append(
            {
                "url": f"https://example.org/{n}.jpg",
                "caption": CAPTIONS[n],
                "key": f"{n:09d}",
                "status": "failed_to_download" if failed else "success",
                "error_message": failed,
                "width": None if failed else 6,
                "height": None if failed else 4,
                "original_width": None if failed else 60,
                "original_height": None if failed else 40,
                "exif": None if failed else "{}",
                "sha256": None if failed else f"{n:064x}",
            }
        )
    return rows


def write_img2dataset(root: Path, form: str) -> Path:
    """A download of five rows of which one failed, in one of its three forms."""
    rows = img2dataset_rows()
    done = [n for n, row in enumerate(rows) if row["status"] == "success"]
    own = {
        f"{n:09d}.{suffix}": data
        for n in done
        for suffix, data in (
            ("jpg", IMAGES[n]),
            ("txt", CAPTIONS[n]),
            ("json", json.dumps(rows[n], indent=4)),
        )
    }
    write_files(root, {"00000_stats.json": json.dumps({"count": 5, "successes": 4})})
    if form == "webdataset":
        members = [
            (name, data.encode() if isinstance(data, str) else data) for name, data in own.items()
        ]
        write_tar(root / "00000.tar", members)
    elif form == "files":
        write_files(root / "00000", own)
    else:
        rows = [
            {
                **row,
                "jpg": IMAGES[n] if n in done else None,
                "txt": CAPTIONS[n] if n in done else "",
            }
            for n, row in enumerate(rows)
        ]
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(root / "00000.parquet")
    return root


@pytest.mark.parametrize("form", ["webdataset", "files", "parquet"])
def test_each_output_of_img2dataset_has_a_sample_or_skip_for_each_row(
    tmp_path: Path, form: str
) -> None:
    source = opened(write_img2dataset(tmp_path, form))
    found = [one for one in items(source) if isinstance(one, Sample)]
    assert [one.caption for one in found] == [CAPTIONS[n] for n in (0, 1, 2, 4)]
    assert [read_image(source.root, one.image) for one in found] == [
        IMAGES[n] for n in (0, 1, 2, 4)
    ]
    assert [one.meta["original_width"] for one in found] == [60] * 4
    assert [(one.key, one.reason, one.detail) for one in skips(source)] == [
        ("000000003", "failed_download", "failed_to_download: HTTP Error 404: Not Found")
    ]
    assert source.unread() == {}


@pytest.mark.parametrize("form", ["webdataset", "files"])
def test_a_row_that_was_downloaded_and_is_not_there_is_a_skip(tmp_path: Path, form: str) -> None:
    write_img2dataset(tmp_path, form)
    if form == "files":
        for path in (tmp_path / "00000").glob("000000001.*"):
            path.unlink()
    else:
        write_tar(tmp_path / "00000.tar", triple("000000000", "caption 0"))
    source = opened(tmp_path)
    lost = ["000000001"] if form == "files" else ["000000001", "000000002", "000000004"]
    assert [one.key for one in skips(source) if one.reason == "missing_image"] == lost
    assert len(items(source)) == 5
