"""Runs in object storage: read without their arrays, and sent whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from mimic_core.__main__ import app
from mimic_core.base.errors import RemoteError, RunError
from mimic_core.base.remote import RemotePath, as_place
from mimic_core.runs.buckets import copy_run, send_run
from mimic_core.runs.history import run_history
from mimic_core.runs.run import Run, list_runs, open_run
from mimic_core.runs.table import run_table
from mimic_core.scoring import pipeline
from tests.core.buckets import BUCKET, Bucket, bucket, s3_server
from tests.core.export.any_run import run_on
from tests.core.export.test_whole_or_not import loose

__all__ = ["bucket", "s3_server"]  # fixtures
ROOT = RemotePath.of(f"s3://{BUCKET}/some/runs")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with an array and a checkpoint, which are not for readers."""
    loose(tmp_path)
    made = run_on(tmp_path / "pool", tmp_path / "work" / "runs")  # the pool lies elsewhere
    (made.features.path / "arrays").mkdir()
    np.save(made.features.path / "arrays" / "0.image_features.npy", np.zeros((5, 100_000)))
    (made.path / "checkpoints").mkdir()
    (made.path / "checkpoints" / "epoch-00000.safetensors").write_bytes(bytes(300_000))
    return made


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_a_run_is_the_same_in_a_bucket_and_its_arrays_stay_there(bucket: Bucket, run: Run) -> None:
    place = send_run(run.path, run.record, ROOT)
    assert str(place) == f"{ROOT}/{run.id}"
    there = open_run(place)
    assert there.record == run.record
    assert_frame_equal(run_table(there), run_table(run))
    assert (run_history(there).loss == run_history(run).loss).all()
    assert there.features.source_root() == run.features.source_root()
    fetched = {url for url, _, _ in bucket.asked}
    assert not [url for url in fetched if "arrays" in url or "checkpoints" in url or "index" in url]
    sent = {name.removeprefix("some/runs/") for name in bucket.names()}
    own = {p.relative_to(run.path.parent) for p in run.path.parent.rglob("*") if p.is_file()}
    assert sent == {path.as_posix() for path in own if not path.parts[0].startswith(".")}
    bucket.asked.clear()
    assert open_run(place).record == run.record
    assert bucket.asked == []


def test_what_has_changed_there_is_fetched_again_and_what_is_gone_is_gone(
    bucket: Bucket, run: Run
) -> None:
    place = send_run(run.path, run.record, ROOT)
    (run.path / "held_out.parquet").unlink(missing_ok=True)
    pl.DataFrame({"uid": ["x"]}).write_parquet(run.path / "held_out.parquet")
    bucket.put(run.path / "held_out.parquet", f"some/runs/{run.id}")
    assert list(open_run(place).held_out) == ["x"]
    pl.DataFrame({"uid": ["y"]}).write_parquet(run.path / "held_out.parquet")  # as large
    bucket.put(run.path / "held_out.parquet", f"some/runs/{run.id}")
    assert list(open_run(place).held_out) == ["y"]
    bucket.remove(f"some/runs/{run.id}/held_out.parquet")
    assert list(open_run(place).held_out) == []
    bucket.remove(f"some/runs/{run.id}/run.json")
    with pytest.raises(RunError, match=r"no run there, or it is not finished; got 's3://"):
        open_run(place)


def test_names_that_lead_out_of_the_copy_are_not_followed(
    bucket: Bucket, tmp_path: Path, run: Run
) -> None:
    place = send_run(run.path, run.record, ROOT)
    bucket.write(f"some/runs/{run.id}/../../../evil.json", b"{}")
    bucket.write(f"some/runs/{run.id}//evil.json", b"{}")
    copy_run(place)
    assert not list(tmp_path.rglob("evil.json"))


def test_a_run_that_changes_while_it_is_read_and_a_broken_connection_give_no_copy(
    bucket: Bucket, run: Run
) -> None:
    place = send_run(run.path, run.record, ROOT)

    def change() -> None:
        bucket.write(f"some/runs/{run.id}/skipped.parquet", bytes(size))  # as large

    size = (run.path / "skipped.parquet").stat().st_size
    bucket.fault = change
    with pytest.raises(RemoteError, match="has changed while it was read"):
        open_run(place)
    bucket.fault = lambda: None
    bucket.put(run.path / "skipped.parquet", f"some/runs/{run.id}")

    def fail() -> None:
        raise TimeoutError("silence")

    bucket.fault = fail
    with pytest.raises(RemoteError, match="silence"):
        open_run(place)
    bucket.fault = lambda: None
    assert_frame_equal(run_table(open_run(place)), run_table(run))


@pytest.mark.parametrize("broken", ["features.json", "epoch-00000.parquet"])
def test_a_run_that_is_not_sent_to_its_end_is_none_and_the_next_try_goes_on(
    bucket: Bucket, run: Run, broken: str
) -> None:
    def fail(url: str) -> None:
        if url.endswith(broken):
            raise OSError("503 Slow Down")

    bucket.write_fault = fail
    with pytest.raises(RemoteError, match="503 Slow Down"):
        send_run(run.path, run.record, ROOT)
    assert not [name for name in bucket.names() if name.endswith("/run.json")]
    assert list_runs(ROOT).runs == ()
    written: list[str] = []
    bucket.write_fault = written.append
    send_run(run.path, run.record, ROOT)
    assert written[-1].endswith("run.json")
    assert_frame_equal(run_table(open_run(ROOT / run.id)), run_table(run))
    written.clear()
    send_run(run.path, run.record, ROOT)
    assert written == []


def test_what_another_writes_over_is_noticed_before_the_record_comes(
    bucket: Bucket, run: Run
) -> None:
    def meddle(url: str) -> None:
        if url.endswith("skipped.parquet") and run.id in url:
            bucket.write(f"some/runs/{run.id}/scores/epoch-00000.parquet", b"short")

    one = run.path / "scores" / "epoch-00000.parquet"
    bucket.write(f"some/runs/{run.id}/scores/{one.name}", one.read_bytes())
    bucket.write_fault = meddle
    bucket.lost.add(f"{ROOT}/{run.id}/scores/{one.name}")
    with pytest.raises(RemoteError, match="not there as it was sent"):
        send_run(run.path, run.record, ROOT)
    assert f"some/runs/{run.id}/run.json" not in bucket.names()


def test_commands_read_it_and_those_that_would_change_it_say_no(
    bucket: Bucket, tmp_path: Path, run: Run
) -> None:
    place = send_run(run.path, run.record, ROOT)
    listed = json.loads(invoke("runs", "list", "--out", ROOT, "--json").stdout)
    assert [(one["run_id"], one["status"]) for one in listed] == [(run.id, "done")]
    assert json.loads(invoke("runs", "show", place, "--json").stdout)["run_id"] == run.id
    (tmp_path / "r.yaml").write_text(
        "version: 1\nconditions:\n- name: a\n  condition: {kind: top_k, column: mimic_score, k: 2}"
    )
    kept = tmp_path / "kept.parquet"
    result = invoke("filter", tmp_path / "r.yaml", run.id, "--runs", ROOT, "--out", kept)
    assert result.exit_code == 0, result.output
    assert len(pl.read_parquet(kept)) == 2
    out = f"s3://{BUCKET}/kept"
    result = invoke("export", place, "--format", "webdataset", "--out", out)
    assert result.exit_code == 0, result.output
    result = invoke("replay", f"{out}.manifest.json", "--runs", ROOT)
    assert result.exit_code == 0, result.output
    for arguments in (("runs", "use", place), ("layout", place), ("join", place, kept)):
        result = invoke(*arguments)
        assert result.exit_code == 1
        assert "a run in object storage is only read" in str(result.exception)
    with pytest.raises(RunError, match="is only read"):
        open_run(place).use_epochs(1)


def test_what_is_scored_into_a_bucket_is_made_here_and_sent(
    bucket: Bucket, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_in: list[Path] = []

    def score_pool(*_: object, runs_root: Path, **__: object) -> Run:
        made_in.append(runs_root)
        return run

    monkeypatch.setattr(pipeline, "score_pool", score_pool)
    arguments = ("score", tmp_path / "pool", "--reference", "none", "--out", ROOT)
    result = invoke(*arguments, "--no-map")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{ROOT}/{run.id}\n"
    assert invoke(*arguments, "--no-map").stdout == f"{ROOT}/{run.id}\n"
    assert len(set(made_in)) == 1
    assert made_in[0].parent == tmp_path / "cache.scoring"
    assert open_run(ROOT / run.id).record == run.record
    result = invoke("score", tmp_path / "pool", "--reference", "none", "--out", "hf://datasets/a")
    assert (result.exit_code, "hf:// is only read" in str(result.exception)) == (1, True)


def test_a_bucket_that_is_not_there_is_said(bucket: Bucket) -> None:
    for ask in (open_run, list_runs):
        with pytest.raises(RemoteError, match="no such bucket"):
            ask(as_place("s3://nobodys/runs/a"))
