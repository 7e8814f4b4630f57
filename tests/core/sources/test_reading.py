"""What was read of a pool and what was not: the first line of a run, and what is no part of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mimic_core.base.config import SourceConfig
from mimic_core.base.errors import SourceError
from mimic_core.sources.index import build_index, reading
from mimic_core.sources.source import Source
from tests.core.sources_pools import (
    captions,
    image_bytes,
    items,
    opened,
    samples,
    skips,
    triple,
    write_files,
    write_image_rows,
    write_tar,
    write_zip,
)

PNG = image_bytes()
TABLE = "file_name,caption\n0.png,zero\n1.png,one\ngone.png,gone\n2.png,\n"


def first_line(source: Source, out: Path, **config: Any) -> str:
    """The first line of a run of ``source``."""
    return reading(source, build_index(source, SourceConfig(path="p", **config), out))


def test_the_line_names_columns_counts_and_everything_that_was_not_read(tmp_path: Path) -> None:
    files = {"t.csv": TABLE, **{f"{n}.png": PNG for n in range(5)}}
    files |= {"notes.txt": "n", "a/b.json": "{}", "a/c.json": "{}", "LICENSE": "", "x.csv.gz": ""}
    source = opened(write_files(tmp_path / "pool", files))
    assert first_line(source, tmp_path / "out") == (
        "read as folder: t.csv with images from file_name, captions from caption, task captions, "
        "2 samples, skipped 2 (1 empty_caption, 1 missing_image), "
        "not read: 2 x .json, 2 x .png, 1 x .csv.gz, 1 x .txt, 1 x no suffix"
    )
    assert "1 samples drawn from 2" in first_line(source, tmp_path / "out", sample=1)


def test_each_layout_says_where_images_and_texts_are_from(tmp_path: Path) -> None:
    write_tar(tmp_path / "tar" / "0.tar", [*triple("a", "x"), ("a.npy", b""), ("b.seg.npy", b"")])
    write_files(tmp_path / "beside", {"a.png": PNG, "a.txt": "x", "b.json": "{}"})
    write_files(tmp_path / "classes", {"cat/a.png": PNG, "dog/b.heic": b"", "README.md": ""})
    write_image_rows(tmp_path / "rows" / "a.parquet", [{"image": PNG, "text": "x", "raw": b"1"}])
    lines = {
        name: first_line(opened(tmp_path / name, **config), tmp_path / f"{name}-out")
        for name, config in [
            ("tar", {}),
            ("beside", {}),
            ("classes", {}),
            ("rows", {"image_column": "image"}),
        ]
    }
    default = "captions from .txt or .caption, else the field caption or text of .json"
    assert lines == {
        "tar": f"read as webdataset: images, {default}, task captions, 1 samples, "
        "not read: 2 x .npy in tars",
        "beside": "read as folder: images with .txt or .caption, else the field caption or text of "
        ".json beside them, task captions, 1 samples, not read: 1 x .json",
        "classes": "read as folder: labels from 2 folders, task labels, 1 samples, "
        "skipped 1 (1 unread_format), not read: 1 x .md",
        "rows": "read as parquet: images from image, captions from text, task captions, "
        "1 samples, not read: 1 x column raw (bytes)",
    }


def test_a_preview_does_not_count_twice(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [*triple("a", "x"), ("a.npy", b"")])
    source = opened(tmp_path)
    items(source)
    assert first_line(source, tmp_path / "out").endswith("not read: 1 x .npy in tars")


# --- class folders are guessed only where nothing speaks against it -------------------------------

CLASSES: dict[str, bytes | str] = {f"{name}/{n}.png": PNG for name in "ab" for n in range(3)}


@pytest.mark.parametrize(
    "files",
    [
        {"captions.jsonl.7z": b""},
        {"captions.json": "[]"},
        {"annotations/captions_train2017.json": "{}"},
        {"a/0.xml": "<a/>"},
        {"list.txt": "a/0.png a cat"},
        {"deep/down/t.csv": "file_name,caption\n"},
        {"more.zip": b"", "x.xlsx": b""},
    ],
)
def test_files_that_could_hold_captions_make_folders_no_classes(
    tmp_path: Path, files: dict[str, bytes | str]
) -> None:
    path = write_files(tmp_path, CLASSES | files)
    with pytest.raises(SourceError, match="not clear that the folders of images are classes") as it:
        opened(path)
    assert min(files) in str(it.value.got)
    assert "--task labels" in it.value.next_step
    assert {one.label for one in samples(opened(path, task="labels"))} == {"a", "b"}


@pytest.mark.parametrize(
    "names",
    [
        ("train2017", "val2017"),
        ("images", "masks"),
        ("part0", "part1"),
        ("00000", "00001"),
        ("cats", "unlabeled"),
        ("shard-1", "shard-2"),
    ],
)
def test_folders_named_for_parts_are_no_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    path = write_files(tmp_path, {f"{name}/0.png": PNG for name in names})
    with pytest.raises(SourceError, match="not clear that the folders of images are classes") as it:
        opened(path)
    assert "--task labels" in str(it.value.allowed)


@pytest.mark.parametrize("names", [("0", "1"), ("n01440764", "n01443537"), ("cat", "training day")])
def test_folders_named_for_classes_are_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    files = {f"{name}/0.png": PNG for name in names} | {"readme.txt": "r", "LICENSE.txt": "l"}
    assert {one.label for one in samples(opened(write_files(tmp_path, files)))} == set(names)


def test_other_suffixes_of_captions_and_images_are_read(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"10_a/0.png": PNG, "10_a/0.caption": "zero", "5_b/1.png": PNG}
    assert captions(opened(write_files(tmp_path / "a", files))) == {"10_a/0": "zero"}
    suffixes = {"JPEG": ("jfif", "jpe"), "AVIF": ("avif",)}
    more = {
        f"{n}.{suffix}": image_bytes(kind=kind)
        for n, (kind, all_of) in enumerate(suffixes.items())
        for suffix in all_of
    }
    found = opened(write_files(tmp_path / "b", {f"cat/{k}": v for k, v in more.items()} | CLASSES))
    assert {one.key for one in samples(found)} == set(CLASSES) | {f"cat/{name}" for name in more}


# --- what is never part of a pool -----------------------------------------------------------------


def test_hidden_and_left_over_files_are_no_part(tmp_path: Path) -> None:
    left = {"__MACOSX/a/._0.png": b"", ".ipynb_checkpoints/t.csv": "x", ".DS_Store": b""}
    source = opened(write_files(tmp_path, CLASSES | left | {"a/.hidden.csv": "x"}))
    assert len(samples(source)) == 6
    assert source.unread() == {}


def test_runs_and_exports_inside_the_pool_are_no_part(tmp_path: Path) -> None:
    record = json.dumps({"schema_version": 2})
    runs = {"run-1/run.json": record, "features/f-1/features.json": record}
    runs |= {"features/f-1/samples/a.parquet": b"", "recipes/a.yaml": "x", "jobs.sqlite": b""}
    exported = {"kept.csv": "file_name,caption\n", "kept.csv.manifest.json": "{}"}
    for inside in ("runs/", ""):
        path = write_files(tmp_path / f"pool{len(inside)}", CLASSES | exported)
        write_files(path, {f"{inside}{name}": data for name, data in runs.items()})
        source = opened(path)
        assert len(samples(source)) == 6
        assert source.unread() == {}
    with pytest.raises(SourceError, match="this is a run of Mimicscope"):
        opened(path / "run-1")


def test_an_interrupted_first_run_inside_the_pool_is_no_part(tmp_path: Path) -> None:
    write_files(tmp_path, CLASSES | {"runs/features/f-1/index/a.skipped.parquet": b""})
    assert opened(tmp_path).unread() == {}


def test_a_users_own_folder_of_features_is_part(tmp_path: Path) -> None:
    source = opened(write_files(tmp_path, CLASSES | {"features/x.bin": b""}))
    assert source.unread() == {".bin": 1}


# --- links ----------------------------------------------------------------------------------------


def linked(tmp_path: Path) -> Path:
    """A pool whose class folders are links to another place."""
    real = write_files(tmp_path / "disk", CLASSES)
    pool = tmp_path / "pool"
    pool.mkdir()
    for name in "ab":
        (pool / name).symlink_to(real / name)
    return pool


def test_linked_folders_are_read_unless_links_are_not_followed(tmp_path: Path) -> None:
    pool = linked(tmp_path)
    assert [one.key for one in samples(opened(pool))] == sorted(CLASSES)
    with pytest.raises(SourceError, match="linked folder that is not followed"):
        opened(pool, no_follow_links=True)


def test_links_lead_only_into_the_given_folders(tmp_path: Path) -> None:
    pool = linked(tmp_path)
    assert len(samples(opened(pool, link_roots=(str(tmp_path / "disk"),)))) == 6
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(SourceError, match="2 x linked folder"):
        opened(pool, link_roots=(str(other),))


def test_links_in_circles_end(tmp_path: Path) -> None:
    path = write_files(tmp_path, CLASSES)
    (path / "a" / "up").symlink_to(path)
    (path / "self").symlink_to(path / "self")
    source = opened(path)
    assert [one.key for one in samples(source)] == sorted(CLASSES)
    assert source.unread() == {
        "link to a folder that is part of the pool already": 1,
        "link to nothing": 1,
    }


def test_folders_without_end_end(tmp_path: Path) -> None:
    path = write_files(tmp_path, CLASSES)
    path.joinpath(*["d"] * 300).mkdir(parents=True)
    source = opened(path)
    assert len(samples(source)) == 6
    assert source.unread() == {"folder more than 100 below the pool's": 1}


def test_linked_tables_and_shards_outside_are_left_out_if_so_asked(tmp_path: Path) -> None:
    real = write_files(tmp_path / "disk", {"t.csv": TABLE})
    write_tar(tmp_path / "disk" / "0.tar", triple("a", "x"))
    for name in ("t.csv", "0.tar"):
        pool = tmp_path / name
        pool.mkdir()
        (pool / name).symlink_to(real / name)
        opened(pool)
        with pytest.raises(SourceError, match="linked file that is not followed"):
            opened(pool, no_follow_links=True)


# --- only regular files ---------------------------------------------------------------------------


def test_pipes_and_devices_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path, what in ((tmp_path / "pipe.csv", "a pipe"), (Path("/dev/zero"), "a device")):
        with pytest.raises(SourceError, match=f"the path is no file or folder but {what}"):
            opened(path)
    pool = write_files(tmp_path / "pool", CLASSES)
    for name in ("a/pipe.png", "pipe.tar", "pipe.csv", "pipe.parquet", "a/pipe.jsonl"):
        os.mkfifo(pool / name)
    source = opened(pool)
    assert [(one.key, one.reason) for one in skips(source)] == [("a/pipe.png", "missing_image")]
    assert source.unread() == {"special file": 4}


def test_a_folder_that_holds_one_zip_is_that_zip(tmp_path: Path) -> None:
    write_zip(tmp_path / "p.zip", {f"x/{name}": data for name, data in CLASSES.items()})
    assert len(samples(opened(tmp_path))) == 6


def test_containers_far_below_are_found_where_nothing_else_is(tmp_path: Path) -> None:
    write_image_rows(tmp_path / "default" / "train" / "0.parquet", [{"image": PNG, "text": "x"}])
    assert [one.caption for one in samples(opened(tmp_path))] == ["x"]
    write_files(tmp_path, {"t.csv": "file_name,caption\na.png,y\n", "a.png": PNG})
    source = opened(tmp_path)
    assert [one.caption for one in samples(source)] == ["y"]
    assert source.unread() == {".parquet": 1}
