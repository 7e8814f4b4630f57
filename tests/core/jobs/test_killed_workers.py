"""A worker that is killed outright, at any file it writes: the job goes on to the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from mimic_core.base import files
from mimic_core.base.config import ProbeConfig, RunConfig, SourceConfig
from mimic_core.export import destination
from mimic_core.export.record import ExportRequest
from mimic_core.export.settings import ExportConfig
from mimic_core.filters.recipe import Recipe
from mimic_core.jobs import worker
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.record import JobConfig
from mimic_core.jobs.store import JobStore
from mimic_core.runs.run import list_runs
from tests.core import checkpoints_on_disk, forked
from tests.core import scoring_pool as pool
from tests.fakes import fake_run

OPTIONS = JobOptions(device="cpu", workers=0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool and a reference model."""
    root = tmp_path_factory.mktemp("home")
    pool.write_shard(root / "pool" / "00000.tar", list(range(24)))
    checkpoints_on_disk.write_model(root / "reference")
    return root


def scoring(home: Path) -> RunConfig:
    return RunConfig(
        source=SourceConfig(path=str(home / "pool")),
        reference=str(home / "reference"),
        probe=ProbeConfig(epochs=2, batch_size=8),
    )


def writing(root: Path) -> ExportRequest:
    run = fake_run(root, n=12)
    config = ExportConfig(format="webdataset", shard_size=3)
    out = root.parent / "out" / "kept"
    return ExportRequest(run=str(run.path), recipe=Recipe(), config=config, out=str(out))


def killed_at(number: int, path: Path, job_id: str) -> None:
    """Work until the ``number``-th file is about to be written, or finished, and die there."""
    left = number

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    whole, piece = files.write_atomic, destination.Sink.finish

    def write(*given: Any, **named: Any) -> None:
        count()
        whole(*given, **named)

    def finish(sink: destination.Sink) -> destination.Written:
        count()
        return piece(sink)

    files.write_atomic = write  # type: ignore[assignment]
    destination.Sink.finish = finish  # type: ignore[method-assign]
    worker.work(JobStore(path), job_id)


def content(folder: Path) -> dict[str, Any]:
    """All finished files by relative path, without times."""
    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if not file.is_file() or name.startswith("jobs"):
            continue
        if file.name.endswith(".tmp") or "/.index-draft-" in name:
            continue  # a killed process cannot tidy up; names with its id are never read
        found[name] = file.read_bytes()
        if file.name in ("run.json", "kept.manifest.json"):
            record = json.loads(found[name])
            for key in ("created_at", "finished_at", "timings", "created"):
                record.pop(key, None)
            found[name] = record
    return found


def hold(store: JobStore, config: JobConfig, folder: Path, expected: dict[str, Any]) -> None:
    """Nothing half-written is listed; the dead worker is known to be; it goes on to the bytes."""
    (job,) = store.jobs()
    assert (job.status, job.resumable) == ("stale", True)
    listed = list_runs(store.runs_root)
    assert listed.damaged == ()
    if isinstance(config, ExportRequest):
        assert [one for one in folder.iterdir() if not one.name.startswith(".")] == []
    else:
        assert [run for run in listed.runs if run.done] == []
    again, _ = store.enqueue(config, OPTIONS, folder.parent)
    assert worker.work(store, again.job_id) == "done"
    assert content(folder) == expected


def silent(root: Path) -> JobStore:
    """A job table in which a worker that is silent counts as dead at once."""
    return JobStore(root / "jobs.sqlite", stale_seconds=0)


def kill(store: JobStore, config: JobConfig, number: int, log: Path) -> None:
    job, _ = JobStore(store.path).enqueue(config, OPTIONS, log.parent)
    process = forked.start(killed_at, number, store.path, job.job_id, log=log)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL, log.read_text()


def carried_out(root: Path, config: JobConfig) -> None:
    store = JobStore(root / "jobs.sqlite")
    job, _ = store.enqueue(config, OPTIONS, root.parent)
    assert worker.work(store, job.job_id) == "done"


@pytest.fixture(scope="module")
def scored(home: Path) -> dict[str, Any]:
    """What a scoring job leaves that nobody kills."""
    carried_out(home / "whole", scoring(home))
    return content(home / "whole")


@pytest.mark.parametrize(
    "number", [3, 9, *(pytest.param(number, marks=pytest.mark.slow) for number in (0, 6, 12))]
)
def test_a_scoring_job_whose_worker_is_killed_goes_on_to_the_same_bytes(
    number: int, home: Path, scored: dict[str, Any], tmp_path: Path
) -> None:
    root = (
        home / f"killed-{number}"
    )  # beside the whole one, since a record names its pool from there
    kill(silent(root), scoring(home), number, tmp_path / "log")
    hold(silent(root), scoring(home), root, scored)


@pytest.mark.parametrize(
    "number", [4, *(pytest.param(number, marks=pytest.mark.slow) for number in (0, 2))]
)
def test_an_export_job_whose_worker_is_killed_is_done_again_to_the_same_bytes(
    number: int, tmp_path: Path
) -> None:
    request = writing(tmp_path / "runs")
    carried_out(tmp_path / "runs", request)
    expected = content(tmp_path / "out")
    assert len(expected) > 4
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "runs" / "jobs.sqlite").unlink()
    store = silent(tmp_path / "runs")
    kill(store, request, number, tmp_path / "log")
    hold(store, request, tmp_path / "out", expected)
    assert {one.name for one in (tmp_path / "out").iterdir()} == {"kept", "kept.manifest.json"}


@pytest.mark.slow
def test_workers_killed_at_random_moments_change_no_byte(
    home: Path, scored: dict[str, Any], tmp_path: Path
) -> None:
    """Each life of the job is ended after a random time, until one is quicker than that."""
    store, config = silent(home / "random"), scoring(home)
    draw, kills = random.Random(os.getpid()), 0
    for life in range(40):
        job, is_new = store.enqueue(config, OPTIONS, tmp_path)
        assert is_new
        log = tmp_path / f"{life}.log"
        process = forked.start(_work, store.path, job.job_id, log=log)
        table = JobStore(store.path)
        while process.is_alive() and table.job(job.job_id).status == "queued":
            time.sleep(0.02)
        process.join(draw.uniform(0, 0.2 * (life + 1)))
        process.kill()
        process.join()
        listed = list_runs(store.runs_root)
        assert listed.damaged == ()
        if process.exitcode == 0:
            break
        assert [run for run in listed.runs if run.done] == []
        kills += 1
    assert process.exitcode == 0, log.read_text()
    assert kills
    assert content(home / "random") == scored


def _work(path: Path, job_id: str) -> None:
    assert worker.work(JobStore(path), job_id) == "done"
