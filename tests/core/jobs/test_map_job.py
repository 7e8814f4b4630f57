"""The job that makes the map of a finished run."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path

import pytest

from mimic_core.base.errors import SourceError
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.store import JobStore
from mimic_core.jobs.worker import work
from mimic_core.runs.table import run_table
from tests.fakes import fake_run


def test_a_map_needs_neither_the_pool_nor_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path, n=6, with_map=False)
    shutil.rmtree(run.record.config.source.path)

    def score_pool(*_: object, **__: object) -> None:
        raise SourceError("there is no such file or folder", next_step="check the path")

    pipeline = types.ModuleType("mimic_core.scoring.pipeline")
    vars(pipeline)["score_pool"] = score_pool
    monkeypatch.setitem(sys.modules, "mimic_core.scoring.pipeline", pipeline)
    store = JobStore(tmp_path / "jobs.sqlite")
    job, _ = store.enqueue(run.record.config, JobOptions(map_of=str(run.path)), tmp_path)
    assert work(store, job.job_id) == "done"
    assert store.job(job.job_id).run_dir == run.path
    assert run_table(run)["map_x"].null_count() == 0
    # An ordinary job on the same settings still looks at the pool.
    job, _ = store.enqueue(run.record.config, JobOptions(map=True), tmp_path)
    assert work(store, job.job_id) == "failed"
