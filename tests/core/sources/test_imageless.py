"""Rows without an image: kept with their metadata and captions, apart from what can be scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mimic_core.base.config import SourceConfig
from mimic_core.base.schema import NO_IMAGE, Sample
from mimic_core.sources.images import ImageError
from mimic_core.sources.index import build_index, in_words, reading
from mimic_core.sources.reading import read_image
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

PNG = image_bytes()
UIDS = [f"{n:032x}" for n in range(6)]


def write_datacomp(root: Path) -> Path:
    """Six rows of metadata, of which two were downloaded, one is blank and three are gone."""
    rows = [
        {
            "uid": uid,
            "url": f"https://example.org/{n}.jpg",
            "text": f"caption {n}" if n != 5 else " ",
            "original_width": 100 + n,
            "clip_l14_similarity_score": n / 10,
        }
        for n, uid in enumerate(UIDS)
    ]
    (root / "metadata").mkdir(parents=True)
    pl.DataFrame(rows[:4]).write_parquet(root / "metadata" / "a.parquet")
    pl.DataFrame(rows[4:]).write_parquet(root / "metadata" / "b.parquet")
    members = [
        member
        for n in (0, 3)
        for member in triple(
            f"{n:09d}",
            f"caption {n}",
            {"uid": UIDS[n], "key": f"{n:09d}", "original_width": 7},
        )
    ]
    write_tar(root / "shards" / "00000000.tar", members)
    table = [
        {
            "key": f"{n:09d}",
            "status": "success" if n in (0, 3) else "failed_to_download",
            "error_message": None if n in (0, 3) else "404",
            "uid": uid,
        }
        for n, uid in enumerate([*UIDS, "f" * 32])
    ]
    pl.DataFrame(table).write_parquet(root / "shards" / "00000000.parquet")
    return write_files(root, {"shards/00000000_stats.json": "{}", "metadata/a.npz": b""})


def test_datacomps_shards_are_joined_to_their_metadata(tmp_path: Path) -> None:
    source = opened(write_datacomp(tmp_path / "pool"))
    found = {one.uid: one for one in items(source) if isinstance(one, Sample)}
    assert sorted(found) == UIDS[:5]
    assert {uid: one.image == NO_IMAGE for uid, one in found.items()} == {
        uid: n not in (0, 3) for n, uid in enumerate(UIDS[:5])
    }
    # A sample's own fields come first; a row without an image has all of the metadata's.
    assert found[UIDS[3]].meta == {"original_width": 7, "clip_l14_similarity_score": 0.3}
    assert found[UIDS[4]].meta == {
        "url": "https://example.org/4.jpg",
        "original_width": 104,
        "clip_l14_similarity_score": 0.4,
    }
    assert [found[uid].caption for uid in UIDS[:5]] == [f"caption {n}" for n in range(5)]
    # The one that img2dataset's table alone knows, and the one without a caption.
    assert [(one.key, one.reason) for one in skips(source)] == [
        ("000000006", "failed_download"),
        ("000000001", "empty_caption"),
    ]
    config = SourceConfig(path="p")
    line = reading(source, build_index(source, config, tmp_path / "out"))
    assert "2 samples, 3 rows without an image, skipped 2 (1 empty_caption, 1 failed" in line
    assert line.endswith("not read: 1 x .npz")
    index = tmp_path / "out" / "index"
    bare = pl.concat(map(pl.read_parquet, sorted(index.glob("*.without_image.parquet"))))
    assert bare["uid"].to_list() == [UIDS[1], UIDS[2], UIDS[4]]
    kept = pl.concat(
        [pl.read_parquet(path) for path in index.glob("*.parquet") if path.name.count(".") == 1]
    )
    assert kept["uid"].to_list() == [UIDS[0], UIDS[3]]


def test_the_rows_of_a_table_are_known_to_be_gone_whatever_is_read_first(tmp_path: Path) -> None:
    source = opened(write_datacomp(tmp_path))
    last = [one for one in source.index(source.shards[-1]) if isinstance(one, Sample)]
    assert [one.uid for one in last] == [UIDS[4]]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_metadata_alone_is_rows_without_images(tmp_path: Path, kind: str) -> None:
    rows = [
        {"URL": f"https://example.org/{n}.jpg", "TEXT": f"caption {n}", "similarity": n / 10}
        for n in range(3)
    ]
    frame = pl.DataFrame(rows)
    (tmp_path / "metadata").mkdir()
    path = tmp_path / "metadata" / f"part-0.{kind}"
    write = {"parquet": frame.write_parquet, "csv": frame.write_csv, "jsonl": frame.write_ndjson}
    write[kind](path)
    source = opened(tmp_path)
    found = samples(source)
    assert [(one.caption, one.image, one.meta) for one in found] == [
        (f"caption {n}", NO_IMAGE, {"similarity": n / 10, "URL": f"https://example.org/{n}.jpg"})
        for n in range(3)
    ]
    assert source.unread() == {}
    with pytest.raises(ImageError, match="has no image in this pool"):
        read_image(source.root, found[0].image)
    assert "0 samples, 3 rows without an image" in reading(
        source, build_index(source, SourceConfig(path="p"), tmp_path / "out")
    )


def test_conceptual_captions_are_read_with_the_images_that_are_there(tmp_path: Path) -> None:
    lines = [f"a caption, number {n}\thttps://example.org/{n}/img{n}.png?w=1" for n in range(3)]
    lines += ["twice\thttps://a.org/same.png", "again\thttps://b.org/same.png"]
    files: dict[str, Any] = {"Train_GCC-training.tsv": "\n".join(lines) + "\n"}
    files |= {"images/img1.png": PNG, "images/same.png": PNG}
    source = opened(write_files(tmp_path, files))
    found = samples(source)
    assert [(one.caption, one.image.path) for one in found] == [
        ("a caption, number 0", ""),
        ("a caption, number 1", "images/img1.png"),
        ("a caption, number 2", ""),
        ("twice", ""),  # two URLs end alike, so that neither is known to be the file
        ("again", ""),
    ]
    assert source.notes.remarks == {"the name of a downloaded URL": 1}
    assert in_words(source.unread()) == "1 x .png"


def test_labels_need_their_images(tmp_path: Path) -> None:
    table = json.dumps({"url": "https://example.org/0.jpg", "label": "cat"})
    source = opened(write_files(tmp_path, {"t.jsonl": table}))
    assert [one.reason for one in skips(source)] == ["missing_image"]
