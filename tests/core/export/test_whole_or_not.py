"""Exports with pictures that meet gone or changed pictures, full disks, kills and what is there."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mimic_core.base.errors import ConfigError, ExportError, Interrupted
from mimic_core.base.progress import Silent
from mimic_core.export.destination import Draft
from mimic_core.export.export import ExportResult, carry_out, export
from mimic_core.export.record import ExportRequest, replay
from mimic_core.export.settings import FOLDERS, ExportConfig, ExportFormat
from mimic_core.filters.recipe import Recipe, apply
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from tests.core.export.any_run import run_on
from tests.core.sources_pools import image_bytes, tree_bytes, write_files, write_image_rows
from tests.fakes import fake_run
from tests.places import ROOT

N = 5


def loose(root: Path) -> Run:
    """A run on five pictures in a folder, numbered 0 to 4."""
    files: dict[str, bytes | str] = {
        f"{n}.png": image_bytes((n, n, n), size=(9, 9)) for n in range(N)
    }
    files["captions.csv"] = "image,caption\n" + "".join(f"{n}.png,number {n}\n" for n in range(N))
    return run_on(write_files(root / "pool", files), root / "runs")


def write(run: Run, out: Path, file_format: ExportFormat, **options: Any) -> ExportResult:
    table = run_table(run)
    return export(
        apply(Recipe(), table), table, run, ExportConfig(format=file_format), out=out, **options
    )


WITH_PICTURES: list[tuple[ExportFormat, str]] = [
    ("webdataset", "kept"), ("imagefolder", "kept"), ("hf_parquet", "kept"), ("links", "kept"),
    ("open_clip", "kept.tsv"), ("files", "kept.txt"),
]  # fmt: skip


@pytest.mark.parametrize(("file_format", "name"), WITH_PICTURES)
def test_a_gone_and_a_changed_picture_are_counted_and_named(
    tmp_path: Path, file_format: ExportFormat, name: str
) -> None:
    run = loose(tmp_path)
    uids = dict(run_table(run).select("key", "uid").iter_rows())
    pool = tmp_path / "pool"
    (pool / "1.png").unlink()
    (pool / "2.png").write_bytes(image_bytes((2, 2, 2), size=(8, 9)))
    (pool / "3.png").write_bytes((pool / "3.png").read_bytes() + b" longer")
    result = write(run, tmp_path / name, file_format)
    assert result.not_exported == {"changed_image": 2, "missing_image": 1}
    said = json.loads(result.manifest.read_text())
    assert (said["kept"], said["exported"], said["not_exported"]) == (5, 2, result.not_exported)
    reasons = {one["uid"]: (one["reason"], one["detail"]) for one in said["left_out"]}
    assert reasons.keys() == {uids["1.png"], uids["2.png"], uids["3.png"]}
    assert reasons[uids["1.png"]][0] == "missing_image"
    assert "bytes" in reasons[uids["3.png"]][1]
    assert replay(result.manifest, tmp_path / "runs").kept == 5
    texts = "".join(
        data.decode("latin-1")
        for path, data in tree_bytes(tmp_path).items()
        if path.startswith("kept")
    )
    assert uids["0.png"] in texts or file_format == "files"


def test_a_tar_that_was_packed_anew_gives_no_other_samples_picture(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "runs", n=8)
    pool = run.features.source_root()
    data = (pool / "00000.tar").read_bytes()
    (pool / "00000.tar").write_bytes(data[1024:])  # every member has moved
    result = write(run, tmp_path / "kept", "webdataset")
    assert (
        result.not_exported.get("changed_image", 0) + result.not_exported.get("corrupt_image", 0)
        == 4
    )
    assert json.loads((tmp_path / "kept" / "sizes.json").read_text()) == {"00000000.tar": 4}


def test_replay_finds_a_shard_that_is_gone_and_pictures_that_are_others(tmp_path: Path) -> None:
    run = loose(tmp_path)
    shards = write(run, tmp_path / "shards", "webdataset")
    (tmp_path / "shards" / "00000000.tar").unlink()
    with pytest.raises(ExportError, match=r"00000000\.tar is missing"):
        replay(shards.manifest, tmp_path / "runs")
    pictures = write(run, tmp_path / "pictures", "imagefolder")
    next((tmp_path / "pictures").rglob("*.png")).unlink()
    with pytest.raises(ExportError, match="got '4 files of"):
        replay(pictures.manifest, tmp_path / "runs")
    shutil.rmtree(tmp_path / "pictures")
    assert replay(pictures.manifest, tmp_path / "runs").kept == 5


@pytest.mark.parametrize("file_format", FOLDERS[:4])
def test_the_same_again_changes_nothing_and_another_needs_leave(
    tmp_path: Path, file_format: ExportFormat
) -> None:
    run = loose(tmp_path)
    first = write(run, tmp_path / "kept", file_format)
    inode = (tmp_path / "kept").stat().st_ino
    assert write(run, tmp_path / "kept", file_format) == first
    assert (tmp_path / "kept").stat().st_ino == inode
    other: ExportFormat = "links" if file_format == "webdataset" else "webdataset"
    with pytest.raises(ExportError, match="already there"):
        write(run, tmp_path / "kept", other)
    write(run, tmp_path / "kept", other, overwrite=True)
    assert json.loads(first.manifest.read_text())["format"] == other
    assert replay(first.manifest, tmp_path / "runs").kept == 5
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_a_folder_that_is_no_export_is_never_replaced(tmp_path: Path) -> None:
    run = loose(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(ExportError, match="folder"):
            write(run, tmp_path / "mine", "webdataset", overwrite=overwrite)
    assert (tmp_path / "mine" / "photo.jpg").read_bytes() == b"mine"
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(ExportError, match="there is a file of that name"):
        write(run, tmp_path / "file", "webdataset", overwrite=True)
    with pytest.raises(ExportError, match="needs a name"):
        write(run, tmp_path / "..", "webdataset")


def left(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    run = loose(tmp_path)

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "out").mkdir()
    for file_format in ("webdataset", "csv"):
        with pytest.raises(ExportError, match="the disk is full"):
            write(run, tmp_path / "out" / ("a.csv" if file_format == "csv" else "a"), file_format)
    assert left(tmp_path / "out") == []


def test_a_disk_that_takes_a_part_gets_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Narrow(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data)[:7])

    own = Path.open

    def narrow(path: Path, mode: str = "r", buffering: int = -1, **rest: Any) -> Any:
        return Narrow(path, "w") if buffering == 0 else own(path, mode, buffering, **rest)

    monkeypatch.setattr(Path, "open", narrow)
    with Draft(tmp_path / "a.bin") as draft:
        draft.write("a.bin", bytes(range(100)))
        draft.commit("a.bin.manifest.json", {})
    assert (tmp_path / "a.bin").read_bytes() == bytes(range(100))
    assert draft.files[0].bytes == 100


def test_too_little_space_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = loose(tmp_path)
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as the standard library's
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 100, 1000))
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="too little space for the export; got '1,000 bytes free"):
        write(run, tmp_path / "out" / "kept", "imagefolder")
    assert left(tmp_path / "out") == []


def test_an_export_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    class Stopping(Silent):
        def check(self) -> None:
            raise Interrupted("stopped")

    run = loose(tmp_path)
    (tmp_path / "out").mkdir()
    for file_format in ("webdataset", "imagefolder", "hf_parquet", "links"):
        with pytest.raises(Interrupted):
            write(run, tmp_path / "out" / "kept", file_format, progress=Stopping())
    assert left(tmp_path / "out") == []


KILLED = """
import sys, time
from pathlib import Path
from mimic_core.export.destination import Draft
with Draft(Path(sys.argv[1])) as draft:
    draft.add("kept/1.jpg", b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_export_left_is_removed_by_the_next_and_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    out = tmp_path / "kept"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        for _ in range(2)
    ]
    try:
        for one in processes:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        assert len(left(tmp_path)) == 2
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        with Draft(out):
            assert len(left(tmp_path)) == 2  # the living one's and our own
        assert len(left(tmp_path)) == 1
    finally:
        for one in processes:
            one.kill()
            one.wait()
            assert one.stdout is not None
            one.stdout.close()


def test_nothing_is_read_outside_of_the_given_folders(tmp_path: Path) -> None:
    run = loose(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    result = write(run, tmp_path / "kept", "links", within=[tmp_path / "elsewhere"])
    assert result.not_exported == {"missing_image": 5}
    request = ExportRequest(
        run=str(run.path), recipe=Recipe(), config=ExportConfig(format="links"),
        out=str(tmp_path / "inside"), read_roots=(str(tmp_path / "pool"),),
    )  # fmt: skip
    assert carry_out(request, Silent()).not_exported == {}


def test_a_pool_that_holds_its_exports_is_read_as_before(tmp_path: Path) -> None:
    run = loose(tmp_path)
    before = run.features.info["fingerprint"]
    for file_format, name in WITH_PICTURES:
        result = write(run, tmp_path / "pool" / f"{file_format}-{name}", file_format)
        assert result.not_exported == {}
    again = run_on(tmp_path / "pool", tmp_path / "again")
    assert again.features.info["fingerprint"] == before


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"format": "csv", "shard_size": 5}, "shard_size is for webdataset and hf_parquet"),
        ({"format": "webdataset", "repeats": "n"}, "repeats is for datacomp"),
        ({"format": "datacomp", "repeats_total": 5, "repeats_penalty": 1.0}, "all three"),
        ({"format": "datacomp", "repeats": "n", "repeats_total": 5}, "all three"),
        ({"format": "classes", "split_column": "s", "no_splits": True}, "not both"),
    ],
)
def test_settings_of_another_format_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ExportConfig.parse(settings)


def test_a_row_without_a_split_is_refused(tmp_path: Path) -> None:
    run = loose(tmp_path)
    table = run_table(run)
    for value, says in ((None, "got None"), ("../up", r"got '\.\./up'")):
        odd = table.with_columns(pl.Series("split", ["train", value, *["test"] * 3]))
        with pytest.raises(ExportError, match=says):
            export(
                apply(Recipe(), odd),
                odd,
                run,
                ExportConfig(format="imagefolder"),
                out=tmp_path / "o",
            )


def test_formats_say_which_pools_they_are_for(tmp_path: Path) -> None:
    tars = fake_run(tmp_path / "runs", n=4)
    with pytest.raises(ExportError, match="no files of their own"):
        write(tars, tmp_path / "a.txt", "files")
    with pytest.raises(ExportError, match="class folders are for labels"):
        write(tars, tmp_path / "a", "classes")
    with pytest.raises(ExportError, match="no table of its own"):
        write(tars, tmp_path / "a.csv", "keep_column")


def test_classes_whose_folders_would_be_one_are_refused(tmp_path: Path) -> None:
    rows = [{"image": image_bytes(n), "label": label} for n, label in enumerate(("a/b", "a:b"))]
    run = run_on(write_image_rows(tmp_path / "pool" / "0.parquet", rows).parent, tmp_path / "runs")
    with pytest.raises(ExportError, match="two classes would share a folder"):
        write(run, tmp_path / "kept", "classes")
