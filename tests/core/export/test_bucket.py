"""Exports to object storage: the same as in a folder, and whole wherever there is a manifest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import s3fs
from typer.testing import CliRunner

from mimic_core.__main__ import app
from mimic_core.base.errors import ExportError, Interrupted, RemoteError
from mimic_core.base.progress import Silent
from mimic_core.base.remote import RemotePath, as_place
from mimic_core.export.export import carry_out
from mimic_core.export.record import ExportRequest, replay
from mimic_core.export.settings import ExportConfig, ExportFormat
from mimic_core.export.upload import BucketDraft
from mimic_core.filters.recipe import Recipe
from mimic_core.runs.run import Run
from tests.core.buckets import BUCKET, Bucket, bucket, s3_server
from tests.core.export.any_run import run_on
from tests.core.export.test_whole_or_not import loose, write
from tests.core.sources_pools import image_bytes, tree_bytes, write_files
from tests.places import ROOT

__all__ = ["bucket", "s3_server"]  # fixtures
URL = f"s3://{BUCKET}/deep"
FORMATS: list[tuple[ExportFormat, str]] = [
    ("parquet", "kept.parquet"), ("csv", "kept.csv"), ("jsonl", "kept.jsonl"),
    ("webdataset", "kept"), ("imagefolder", "kept"), ("hf_parquet", "kept"),
    ("open_clip", "kept.tsv"), ("files", "kept.txt"), ("keep_column", "kept.csv"),
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return loose(tmp_path)


def content(files: dict[str, bytes], manifest: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files but for the manifest, and what it says but for the time."""
    said = json.loads(files.pop(manifest))
    said.pop("created_at")
    return files, said


@pytest.mark.parametrize(("file_format", "name"), FORMATS)
def test_an_export_is_the_same_in_a_bucket(
    bucket: Bucket, tmp_path: Path, run: Run, file_format: ExportFormat, name: str
) -> None:
    local = write(run, tmp_path / "out" / name, file_format)
    there = write(run, as_place(f"{URL}/{name}"), file_format)
    assert str(there.manifest) == f"{URL}/{name}.manifest.json"
    assert [str(one) for one in there.files] == [f"{URL}/{one.name}" for one in local.files]
    found = {one.removeprefix("deep/"): bucket.read(one) for one in bucket.names()}
    assert content(found, there.manifest.name) == content(
        dict(tree_bytes(tmp_path / "out")), local.manifest.name
    )
    assert replay(there.manifest, tmp_path / "runs").kept == 5
    before = bucket.versions()
    assert write(run, as_place(f"{URL}/{name}"), file_format) == there
    assert bucket.versions() == before
    assert list((tmp_path / "cache.exports").iterdir()) == []


def test_class_folders_are_copied_and_links_are_refused(bucket: Bucket, tmp_path: Path) -> None:
    pool = {f"{name}/{name}.png": image_bytes(name, size=(9, 9)) for name in ("red", "blue")}
    run = run_on(write_files(tmp_path / "pool", pool), tmp_path / "runs", task="labels")
    write(run, as_place(f"{URL}/kept"), "classes")
    assert {name: bucket.read(f"deep/kept/{name}") for name in pool} == pool
    with pytest.raises(ExportError, match=r"object storage has no links.*got 's3://pools/deep/a'"):
        write(run, as_place(f"{URL}/a"), "links")


@pytest.mark.parametrize(
    ("url", "says"),
    [("https://a/kept", "https:// is only read"), ("hf://datasets/a/kept", "hf:// is only read"),
     (f"s3://{BUCKET}", "names a bucket, and nothing in it")],
)  # fmt: skip
def test_what_cannot_be_written_to_is_refused(run: Run, url: str, says: str) -> None:
    with pytest.raises(RemoteError, match=says):
        write(run, as_place(url), "webdataset")


def test_a_bucket_that_is_not_there_is_named(bucket: Bucket, run: Run) -> None:
    with pytest.raises(ExportError, match=r"no such bucket.*s3://nobodys/kept"):
        write(run, as_place("s3://nobodys/kept"), "webdataset")


def test_links_to_pictures_in_a_bucket_are_copies(bucket: Bucket, tmp_path: Path, run: Run) -> None:
    url = bucket.put(tmp_path / "pool", "pool")
    there = run_on(url, tmp_path / "there")  # type: ignore[arg-type]
    assert write(there, tmp_path / "kept", "links").not_exported == {}
    assert (tmp_path / "kept" / "3.png").read_bytes() == (tmp_path / "pool" / "3.png").read_bytes()


def test_what_is_there_is_not_replaced_without_leave_and_then_wholly(
    bucket: Bucket, tmp_path: Path, run: Run
) -> None:
    out = as_place(f"{URL}/kept")
    first = write(run, out, "imagefolder")
    with pytest.raises(ExportError, match="already there"):
        write(run, out, "webdataset")
    write(run, out, "webdataset", overwrite=True)
    assert json.loads(bucket.read("deep/kept.manifest.json"))["format"] == "webdataset"
    assert not [one for one in bucket.names() if one.endswith((".png", ".jsonl", ".partial"))]
    assert replay(first.manifest, tmp_path / "runs").kept == 5
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    bucket.put(tmp_path / "photo.jpg", "deep/mine")
    for overwrite in (False, True):
        with pytest.raises(ExportError, match="folder"):
            write(run, as_place(f"{URL}/mine"), "webdataset", overwrite=overwrite)
    assert bucket.read("deep/mine/photo.jpg") == b"mine"


def test_replay_finds_an_object_that_is_gone_or_another(
    bucket: Bucket, tmp_path: Path, run: Run
) -> None:
    shards = write(run, as_place(f"{URL}/shards"), "webdataset")
    pictures = write(run, as_place(f"{URL}/pictures"), "imagefolder")
    bucket.remove("deep/shards/00000000.tar")
    with pytest.raises(ExportError, match=r"00000000\.tar is missing"):
        replay(shards.manifest, tmp_path / "runs")
    (tmp_path / "00000000.tar").write_bytes(b"another")
    bucket.put(tmp_path / "00000000.tar", "deep/shards")
    with pytest.raises(ExportError, match="is not the file that was exported"):
        replay(shards.manifest, tmp_path / "runs")
    bucket.remove(next(one for one in bucket.names() if one.endswith(".png")))
    with pytest.raises(ExportError, match="got '4 files of"):
        replay(pictures.manifest, tmp_path / "runs")


def failing(times: int, error: Exception) -> Callable[[str], None]:
    """A fault that the next writes meet."""
    left = [error] * times

    def fail(url: str) -> None:
        if left and not url.endswith(".partial"):
            raise left.pop()

    return fail


@pytest.mark.parametrize("error", [OSError("500 Internal Server Error"), TimeoutError("slow")])
def test_a_write_that_fails_is_repeated(bucket: Bucket, run: Run, error: Exception) -> None:
    bucket.write_fault = failing(3, error)
    write(run, as_place(f"{URL}/kept"), "imagefolder")
    assert len(bucket.pauses) == 3
    assert len([one for one in bucket.names() if one.endswith(".png")]) == 5


@pytest.mark.parametrize("file_format", ["webdataset", "imagefolder"])
def test_of_an_export_that_fails_for_good_nothing_stays(
    bucket: Bucket, run: Run, file_format: ExportFormat
) -> None:
    def fail(url: str) -> None:
        if url.endswith(("_stats.json", "metadata.jsonl")):
            raise OSError("503 Slow Down")

    bucket.write_fault = fail
    with pytest.raises(RemoteError, match=r"503 Slow Down.*tried 6 times"):
        write(run, as_place(f"{URL}/kept"), file_format)
    assert bucket.names() == []


def test_of_an_export_that_is_stopped_nothing_stays(bucket: Bucket, run: Run) -> None:
    class Stopping(Silent):
        def advance(self, *_: object, **__: object) -> None:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        write(run, as_place(f"{URL}/kept"), "imagefolder", progress=Stopping())
    assert bucket.names() == []


@pytest.mark.parametrize("change", ["cut", "gone", "more"])
def test_an_object_that_is_not_as_it_was_sent_gets_no_manifest(
    bucket: Bucket, tmp_path: Path, run: Run, change: str
) -> None:
    def meddle(url: str) -> None:
        if not url.endswith("metadata.jsonl"):
            return
        one = next(one for one in bucket.names() if one.endswith(".png"))
        bucket.remove(one)
        if change != "gone":
            (tmp_path / "x.png").write_bytes(b"short")
            (tmp_path / "x.png").rename(tmp_path / Path(one).name)
            name = one if change == "cut" else f"{one}/more"
            bucket.put(tmp_path / Path(one).name, name.rpartition("/")[0])

    bucket.write_fault = meddle
    with pytest.raises(RemoteError, match="another export writes to the same name"):
        write(run, as_place(f"{URL}/kept"), "imagefolder")
    assert not [one for one in bucket.names() if "manifest" in one]


def test_of_two_exports_to_one_name_the_later_is_there(bucket: Bucket) -> None:
    out = RemotePath.of(f"{URL}/kept")
    with BucketDraft(out) as later:
        with BucketDraft(out) as first:
            first.write("kept/a", b"first")
            later.write("kept/a", b"other")
            with pytest.raises(RemoteError, match="another export"):
                first.commit("kept.manifest.json", {})
        later.commit("kept.manifest.json", {"by": "later"})
    assert bucket.names() == ["deep/kept.manifest.json", "deep/kept/a"]
    assert bucket.read("deep/kept/a") == b"other"


KILLED = """
import sys, time
from mimic_core.base.remote import RemotePath
from mimic_core.export.upload import BucketDraft
with BucketDraft(RemotePath.of(sys.argv[1])) as draft:
    draft.add("kept/1.jpg", b"half")
    draft._going_up.popleft().result()
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_export_has_no_manifest_and_the_next_of_that_name_removes_it(
    bucket: Bucket, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "0.jpg").write_bytes(b"of another")
    bucket.put(tmp_path / "0.jpg", "deep/kept-too")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, f"{URL}/kept"], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert bucket.names() == ["deep/.kept.partial", "deep/kept-too/0.jpg", "deep/kept/1.jpg"]
    bucket.begin_parts("deep/kept/2.tar")
    bucket.begin_parts("deep/kept-too/2.tar")
    write(run, as_place(f"{URL}/kept"), "webdataset")
    assert "deep/kept/1.jpg" not in bucket.names()
    assert {"deep/kept-too/0.jpg", "deep/kept.manifest.json"} < set(bucket.names())
    assert bucket.parts() == ["deep/kept-too/2.tar"]
    assert list((tmp_path / "cache.exports").iterdir()) == []


def test_a_large_file_goes_up_in_parts_of_which_none_stay_where_it_fails(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "big").write_bytes(bytes(11 << 20))
    monkeypatch.setattr(s3fs.core, "calculate_chunksize", lambda *_, **__: 5 << 20)
    place = RemotePath.of(f"{URL}/big")
    place.upload(tmp_path / "big")
    assert [tag[-3:] for _, tag, _ in bucket.versions()] == ['-3"']
    assert place.stat().st_size == 11 << 20

    async def fail(*_: object, **__: object) -> None:
        assert bucket.parts() == ["deep/other"]
        raise OSError("500 Internal Server Error")

    monkeypatch.setattr(s3fs.S3FileSystem, "_upload_file_part_concurrent", fail)
    with pytest.raises(RemoteError, match="does not answer"):
        RemotePath.of(f"{URL}/other").upload(tmp_path / "big")
    assert (bucket.parts(), bucket.names()) == ([], ["deep/big"])


def test_commands_and_jobs_write_there_and_replay_reads_there(
    bucket: Bucket, tmp_path: Path, run: Run
) -> None:
    runner = CliRunner()
    asked = ["export", run.id, "--format", "csv", "--out", f"{URL}/a.csv", "--runs"]
    result = runner.invoke(app, [*asked, str(tmp_path / "runs")])
    assert result.exit_code == 0, result.output
    assert f"{URL}/a.csv\n{URL}/a.csv.manifest.json\n" in result.output
    asked = ["replay", f"{URL}/a.csv.manifest.json", "--runs", str(tmp_path / "runs")]
    assert runner.invoke(app, asked).exit_code == 0
    request = ExportRequest(
        run=str(run.path), recipe=Recipe(), config=ExportConfig(format="webdataset"),
        out=f"{URL}/job",
    )  # fmt: skip
    assert str(carry_out(request, Silent()).files[0]) == f"{URL}/job"
