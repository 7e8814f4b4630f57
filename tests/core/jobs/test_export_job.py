"""The job that writes a selection: its progress, what it says, what is left where it stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from mimic_core.export.record import ExportRequest, replay
from mimic_core.export.settings import ExportConfig
from mimic_core.filters.conditions import Percentile
from mimic_core.filters.recipe import Recipe
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.record import parse_config
from mimic_core.jobs.store import JobStore
from mimic_core.jobs.worker import work
from tests.fakes import fake_run

HALF = Recipe().with_condition("half", Percentile(column="mimic_score", lower=50))


def request_of(root: Path, out: Path) -> ExportRequest:
    run = fake_run(root, n=10)
    config = ExportConfig(format="webdataset", shard_size=2)
    return ExportRequest(run=str(run.path), recipe=HALF, config=config, out=str(out))


def test_a_job_writes_what_the_recipe_keeps_and_says_where(tmp_path: Path) -> None:
    request = request_of(tmp_path / "runs", tmp_path / "out" / "kept")
    assert parse_config(request.model_dump_json()) == request
    store = JobStore(tmp_path / "runs" / "jobs.sqlite")
    job, _ = store.enqueue(request, JobOptions(), tmp_path)
    assert work(store, job.job_id) == "done"
    ended = store.job(job.job_id)
    assert (ended.report.phase, ended.report.done, ended.report.total) == ("export", 5, 5)
    assert ended.run_dir == Path(request.run)
    manifest = tmp_path / "out" / "kept.manifest.json"
    assert str(manifest) in ended.report.notes[-1]
    assert len(list((tmp_path / "out" / "kept").glob("*.tar"))) == 3
    assert replay(manifest, tmp_path / "runs").kept == 5


def test_pictures_that_are_gone_are_said_and_a_stopped_job_leaves_nothing(tmp_path: Path) -> None:
    request = request_of(tmp_path / "runs", tmp_path / "out" / "kept")
    store = JobStore(tmp_path / "runs" / "jobs.sqlite")
    job, _ = store.enqueue(request, JobOptions(), tmp_path)
    assert work(store, job.job_id, stopped=lambda: True) == "stale"
    assert list((tmp_path / "out").iterdir()) == []
    next((tmp_path / "runs" / "pools").rglob("00001.tar")).unlink()
    job, _ = store.enqueue(request, JobOptions(), tmp_path)
    assert work(store, job.job_id) == "done"
    notes = store.job(job.job_id).report.notes
    assert any("not exported, missing_image" in note for note in notes)


def test_a_job_that_cannot_be_done_says_why(tmp_path: Path) -> None:
    request = request_of(tmp_path / "runs", tmp_path / "out" / "kept")
    (tmp_path / "out" / "kept").mkdir(parents=True)
    store = JobStore(tmp_path / "runs" / "jobs.sqlite")
    job, _ = store.enqueue(request, JobOptions(), tmp_path)
    assert work(store, job.job_id) == "failed"
    failure = store.job(job.job_id).failure
    assert failure is not None
    assert "already there" in failure.problem


@pytest.mark.parametrize("name", ["../etc", ""])
def test_a_request_reads_back_whatever_its_place(tmp_path: Path, name: str) -> None:
    request = request_of(tmp_path, tmp_path).model_copy(update={"out": name})
    assert parse_config(request.model_dump_json()) == request
