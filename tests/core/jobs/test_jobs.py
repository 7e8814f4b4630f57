"""The job table, the worker, and both together in real detached processes."""

from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
import textwrap
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.base.config import ProbeConfig, RunConfig, SourceConfig
from mimic_core.base.errors import Interrupted, JobError, ModelError
from mimic_core.base.progress import Progress
from mimic_core.jobs import worker as jobs
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.record import Failure, Report
from mimic_core.jobs.store import JobStore
from mimic_core.jobs.worker import JobProgress

OPTIONS = JobOptions(device="cpu", workers=0)


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> JobStore:
    return JobStore(tmp_path / "runs" / "jobs.sqlite", stale_seconds=10, clock=clock)


def make_config(*, path: str = "pool", seed: int = 0) -> RunConfig:
    return RunConfig(source=SourceConfig(path=path), reference="tiny", probe=ProbeConfig(seed=seed))


def fake_module(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("place", ["reference", "model"])
def test_a_job_never_runs_a_file_that_its_configuration_names(
    place: str, store: JobStore, tmp_path: Path
) -> None:
    """A run's folder may come from anywhere; a person names such a file on the command line."""
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef build(): ...\n")
    own = f"{tmp_path / 'own.py'}:build"
    config: RunConfig = RunConfig.parse(
        {
            "source": {"path": "pool"},
            "reference": own if place == "reference" else "ViT-B-32:random:0",
            "snapshot": {"model": own if place == "model" else "ViT-B-32:random:1"},
        }
    )
    job, _ = store.enqueue(config, OPTIONS, tmp_path)
    assert jobs.work(store, job.job_id) == "failed"
    failure = store.job(job.job_id).failure
    assert failure is not None
    assert "from the command line or Python alone" in failure.problem
    assert not (tmp_path / "ran").exists()


def test_a_new_job_is_queued_with_all_it_needs_to_run(store: JobStore, tmp_path: Path) -> None:
    job, is_new = store.enqueue(make_config(), OPTIONS, tmp_path)
    assert is_new
    assert (job.status, job.attempt, job.active, job.resumable) == ("queued", 1, True, False)
    assert (job.config, job.options, job.folder) == (make_config(), OPTIONS, tmp_path)
    assert (job.created, job.heartbeat, job.started) == (1_000.0, 1_000.0, None)
    assert job.log == store.runs_root / "jobs" / f"{job.job_id}.log"
    assert store.jobs() == [job]


def test_the_same_config_is_one_job_and_another_config_another(
    store: JobStore, tmp_path: Path
) -> None:
    first, _ = store.enqueue(make_config(), OPTIONS, tmp_path)
    again, is_new = store.enqueue(make_config(), JobOptions(workers=4), tmp_path)
    other, other_is_new = store.enqueue(make_config(seed=1), OPTIONS, tmp_path)
    assert (again, is_new) == (first, False)
    assert other_is_new
    assert other.job_id != first.job_id


def test_only_the_first_claim_gets_the_job(store: JobStore, tmp_path: Path, clock: Clock) -> None:
    queued, _ = store.enqueue(make_config(), OPTIONS, tmp_path)
    clock.now += 5
    job = store.claim(queued.job_id)
    assert job is not None
    assert (job.status, job.started, job.heartbeat) == ("running", 1_005.0, 1_005.0)
    assert store.claim(queued.job_id) is None


def test_a_heartbeat_stores_the_report_and_a_finish_the_failure(
    store: JobStore, tmp_path: Path, clock: Clock
) -> None:
    job = claimed(store, tmp_path)
    report = Report(
        phase="read", unit="samples", done=3, total=9, skipped=1, rate=1.5, notes=("a", "b")
    )
    clock.now += 2
    assert store.beat(job, report) is False
    assert (store.job(job.job_id).report, store.job(job.job_id).heartbeat) == (report, 1_002.0)

    store.set_run_dir(job, tmp_path / "runs" / "pool-probe-0123")
    failure = Failure(problem="no such layer", got="'x'", allowed="a, b", next_step="choose one")
    store.finish(job, "failed", failure)
    ended = store.job(job.job_id)
    assert (ended.status, ended.failure, ended.resumable) == ("failed", failure, True)
    assert ended.run_dir == tmp_path / "runs" / "pool-probe-0123"


def test_a_silent_worker_is_stale_from_one_moment_on(
    store: JobStore, tmp_path: Path, clock: Clock
) -> None:
    job = claimed(store, tmp_path)
    clock.now += 10
    assert store.job(job.job_id).status == "running"
    clock.now += 0.5
    stale = store.job(job.job_id)
    assert (stale.status, stale.active, stale.resumable) == ("stale", False, True)


def test_a_job_whose_worker_never_began_becomes_stale(
    store: JobStore, tmp_path: Path, clock: Clock
) -> None:
    job, _ = store.enqueue(make_config(), OPTIONS, tmp_path)
    clock.now += 11
    assert store.job(job.job_id).status == "stale"


def test_a_worker_that_was_only_slow_lives_on(
    store: JobStore, tmp_path: Path, clock: Clock
) -> None:
    job = claimed(store, tmp_path)
    clock.now += 100
    assert store.beat(job, Report()) is False
    assert store.job(job.job_id).status == "running"


def test_a_worker_whose_job_was_resumed_is_told_to_stop_and_changes_nothing(
    store: JobStore, tmp_path: Path, clock: Clock
) -> None:
    old = claimed(store, tmp_path)
    clock.now += 11
    renewed, is_new = store.enqueue(old.config, OPTIONS, tmp_path)
    assert (is_new, renewed.attempt, renewed.job_id) == (True, 2, old.job_id)
    new = store.claim(old.job_id)
    assert new is not None

    assert store.beat(old, Report(phase="old")) is True
    store.set_run_dir(old, tmp_path / "old")
    store.finish(old, "done")
    assert store.job(old.job_id) == new


def test_cancelling_asks_a_living_worker_to_stop(store: JobStore, tmp_path: Path) -> None:
    job = claimed(store, tmp_path)
    assert store.beat(job, Report()) is False
    asked = store.cancel(job.job_id)
    assert (asked.status, asked.cancel_requested) == ("running", True)
    assert store.beat(job, Report()) is True


def test_cancelling_without_a_living_worker_takes_effect_at_once(
    store: JobStore, tmp_path: Path, clock: Clock
) -> None:
    queued, _ = store.enqueue(make_config(), OPTIONS, tmp_path)
    assert store.cancel(queued.job_id).status == "cancelled"
    assert store.claim(queued.job_id) is None

    silent = claimed(store, tmp_path, seed=1)
    clock.now += 11
    assert store.cancel(silent.job_id).status == "cancelled"
    assert store.beat(silent, Report()) is True


@pytest.mark.parametrize("status", ["done", "failed"])
def test_cancelling_a_finished_job_leaves_it_finished(
    store: JobStore, tmp_path: Path, status: jobs.JobStatus
) -> None:
    job = claimed(store, tmp_path)
    store.finish(job, status)
    assert store.cancel(job.job_id).status == status


def test_a_job_started_again_forgets_its_failure_but_not_its_run(
    store: JobStore, tmp_path: Path, clock: Clock
) -> None:
    job = claimed(store, tmp_path)
    store.set_run_dir(job, tmp_path / "run")
    store.cancel(job.job_id)
    store.finish(job, "failed", Failure(problem="p", next_step="n"))
    clock.now += 50
    again, is_new = store.enqueue(make_config(), OPTIONS, tmp_path)
    assert is_new
    assert (again.status, again.failure, again.cancel_requested) == ("queued", None, False)
    assert (again.run_dir, again.created, again.heartbeat) == (tmp_path / "run", 1_000.0, 1_050.0)


def test_jobs_come_newest_first(store: JobStore, tmp_path: Path, clock: Clock) -> None:
    ids = []
    for seed in range(3):
        ids.append(store.enqueue(make_config(seed=seed), OPTIONS, tmp_path)[0].job_id)
        clock.now += 1
    assert [job.job_id for job in store.jobs()] == ids[::-1]


def test_an_unknown_job_is_an_error_that_names_the_known(store: JobStore, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="got 'nope'"):
        store.job("nope")
    assert not store.path.exists()  # reading made nothing
    job, _ = store.enqueue(make_config(), OPTIONS, tmp_path)
    with pytest.raises(JobError, match=f"allowed: {job.job_id}"):
        store.job("nope")


def test_a_database_of_another_version_is_refused(store: JobStore) -> None:
    store.path.parent.mkdir(parents=True)
    database = sqlite3.connect(store.path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(JobError, match="got 99; allowed: 1"):
        store.jobs()


@settings(max_examples=25, deadline=None)
@given(notes=st.lists(st.text(), max_size=5), done=st.integers(0, 2**62))
def test_any_report_is_read_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, notes: list[str], done: int
) -> None:
    folder = tmp_path_factory.mktemp("jobs")
    store = JobStore(folder / "jobs.sqlite")
    job = claimed(store, folder)
    report = Report(phase="p", done=done, notes=tuple(notes))
    store.beat(job, report)
    assert store.job(job.job_id).report == report


def claimed(store: JobStore, folder: Path, *, seed: int = 0) -> jobs.Job:
    queued, _ = store.enqueue(make_config(seed=seed), OPTIONS, folder)
    job = store.claim(queued.job_id)
    assert job is not None
    return job


# Two processes at once


def _race(database: str, barrier: Any, results: Any) -> None:
    store = JobStore(Path(database))
    barrier.wait()
    job, is_new = store.enqueue(make_config(), OPTIONS, Path(database).parent)
    results.put((is_new, store.claim(job.job_id) is not None))


def test_of_processes_that_race_for_a_job_one_starts_it_and_one_runs_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    database = str(tmp_path / "new" / "jobs.sqlite")  # even making the file is raced for
    racers = [context.Process(target=_race, args=(database, barrier, results)) for _ in range(2)]
    for racer in racers:
        racer.start()
    outcomes = [results.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join()
    assert sum(is_new for is_new, _ in outcomes) == 1
    assert sum(has_claimed for _, has_claimed in outcomes) == 1


def test_a_database_that_several_make_at_once_is_made_well(tmp_path: Path) -> None:
    for number in range(20):  # the collision is a matter of luck
        store = JobStore(tmp_path / f"{number}" / "jobs.sqlite")
        with ThreadPoolExecutor(4) as pool:
            tries = [pool.submit(store.enqueue, make_config(), OPTIONS, tmp_path) for _ in range(4)]
        assert sum(is_new for _, is_new in (one.result() for one in tries)) == 1


# The worker, in this process


def test_the_worker_scores_maps_and_stores_where(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Any]] = []
    run = types.SimpleNamespace(path=tmp_path / "runs" / "r", features="the features")

    def score_pool(config: RunConfig, *, progress: Progress, **options: Any) -> Any:
        calls.append(("score", (config, options)))
        progress.phase("read", 4, done=1, unit="samples")
        progress.advance(3, skipped=2)
        for number in range(7):
            progress.note(f"note {number}")
        return run

    def ensure_map(features: Any, config: str, progress: Progress) -> None:
        calls.append(("map", (features, config)))

    fake_module(monkeypatch, "mimic_core.scoring.pipeline", score_pool=score_pool)
    fake_module(
        monkeypatch, "mimic_core.runs.layout", ensure_map=ensure_map, MapConfig=lambda: "map"
    )
    options = JobOptions(device="cpu", workers=2, sweep=True, map=True, epochs_used=1)
    job, _ = store.enqueue(make_config(), options, tmp_path)

    assert jobs.work(store, job.job_id) == "done"
    how: dict[str, Any] = {"device": "cpu", "workers": 2, "sweep": True, "epochs_used": 1}
    how["runs_root"] = store.runs_root
    assert calls == [("score", (make_config(), how)), ("map", ("the features", "map"))]
    ended = store.job(job.job_id)
    assert (ended.status, ended.run_dir, ended.failure) == ("done", run.path, None)
    assert (ended.report.done, ended.report.total, ended.report.skipped) == (4, 4, 2)
    assert ended.report.notes == tuple(f"note {number}" for number in range(2, 7))


def test_a_stated_error_is_stored_in_its_parts(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score_pool(*_: Any, **__: Any) -> None:
        raise ModelError("no such layer", got="x", allowed="a, b", next_step="choose one of them")

    fake_module(monkeypatch, "mimic_core.scoring.pipeline", score_pool=score_pool)
    job, _ = store.enqueue(make_config(), OPTIONS, tmp_path)
    assert jobs.work(store, job.job_id) == "failed"
    assert store.job(job.job_id).failure == Failure(
        problem="no such layer", got="'x'", allowed="a, b", next_step="choose one of them"
    )


def test_a_crash_is_stored_and_its_traceback_goes_to_the_log(
    store: JobStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def score_pool(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("by zero")

    fake_module(monkeypatch, "mimic_core.scoring.pipeline", score_pool=score_pool)
    job, _ = store.enqueue(make_config(), OPTIONS, tmp_path)
    assert jobs.work(store, job.job_id) == "failed"
    failure = store.job(job.job_id).failure
    assert failure is not None
    assert failure.problem == "the worker stopped with ZeroDivisionError: by zero"
    assert failure.next_step == f"read {job.log}, then resume the job"
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [Interrupted("stop"), RuntimeError("an image reader died")])
def test_a_signal_leaves_a_job_that_can_be_resumed(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def score_pool(*_: Any, **__: Any) -> None:
        raise error

    fake_module(monkeypatch, "mimic_core.scoring.pipeline", score_pool=score_pool)
    job, _ = store.enqueue(make_config(), OPTIONS, tmp_path)
    assert jobs.work(store, job.job_id, stopped=lambda: True) == "stale"
    assert store.job(job.job_id).resumable


def test_a_job_that_another_worker_has_is_left_alone(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_module(monkeypatch, "mimic_core.scoring.pipeline")  # has nothing to call
    job = claimed(store, tmp_path)
    assert jobs.work(store, job.job_id) == "running"


def test_a_worker_that_cannot_report_stops(store: JobStore, tmp_path: Path) -> None:
    job = claimed(store, tmp_path)
    with JobProgress(store, job, beat_seconds=0.01) as progress:
        database = sqlite3.connect(store.path)
        database.execute("DROP TABLE jobs")
        database.close()
        with pytest.raises(JobError, match="no such table"):
            wait_until(progress.check)


def wait_until(condition: Any, *, seconds: float = 60) -> None:
    """Poll until ``condition`` is true; an error it raises passes through."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# Real detached processes, with a fake pipeline that finishes one unit whenever a file says so

FAKE_PIPELINE = '''
import sys, time, types
from pathlib import Path

def score_pool(config, *, runs_root, progress, **options):
    """Ten units; finished ones are counted in a file, as the real pipeline does on disk."""
    run = Path(runs_root) / "fake-run"
    run.mkdir(exist_ok=True)
    count = run / "count"
    done = int(count.read_text()) if count.exists() else 0
    progress.phase("read", 10, done=done)
    progress.note(f"found {done}")
    while done < 10:
        progress.check()
        if done < 4 or (run / "go").exists():
            done += 1
            count.write_text(str(done))
            progress.advance(1)
        time.sleep(0.01)
    return types.SimpleNamespace(path=run)

module = types.ModuleType("mimic_core.scoring.pipeline")
module.score_pool = score_pool
sys.modules["mimic_core.scoring.pipeline"] = module
'''


@pytest.fixture
def fake_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobStore:
    """A job store whose real worker processes find ``FAKE_PIPELINE``."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(textwrap.dedent(FAKE_PIPELINE))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path)
    return JobStore(tmp_path / "runs" / "jobs.sqlite")


def test_a_detached_job_is_cancelled_resumed_and_finished(fake_workers: JobStore) -> None:
    store = fake_workers
    job_id = jobs.start_job(store, make_config(), OPTIONS)
    wait_until(lambda: store.job(job_id).report.done == 4)
    assert jobs.start_job(store, make_config(), OPTIONS) == job_id
    assert store.job(job_id).attempt == 1  # it was not started a second time

    store.cancel(job_id)
    wait_until(lambda: store.job(job_id).status == "cancelled")

    (store.runs_root / "fake-run" / "go").touch()
    assert jobs.resume(store, job_id) == job_id
    wait_until(lambda: store.job(job_id).status == "done")
    job = store.job(job_id)
    assert (job.attempt, job.run_dir) == (2, store.runs_root / "fake-run")
    assert (job.report.done, job.report.notes) == (10, ("found 4",))
    assert store.log_tail(job).splitlines()[0] == "note: found 0"


def test_a_job_outlives_the_process_that_started_it(fake_workers: JobStore) -> None:
    store = fake_workers
    (store.runs_root / "fake-run").mkdir(parents=True)
    (store.runs_root / "fake-run" / "go").touch()
    starter = f"""
        from pathlib import Path
        from mimic_core.base.config import ProbeConfig, RunConfig, SourceConfig
        from mimic_core.jobs import store, worker
        from mimic_core.jobs.record import JobOptions
        config = RunConfig(source=SourceConfig(path="p"), reference="r", probe=ProbeConfig())
        table = store.JobStore(Path({str(store.path)!r}))
        print(worker.start_job(table, config, JobOptions()))
    """
    job_id = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(starter)],
        env=jobs.environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    wait_until(lambda: store.job(job_id).status == "done")


def test_a_worker_killed_outright_leaves_a_stale_job(fake_workers: JobStore) -> None:
    impatient = JobStore(fake_workers.path, stale_seconds=3)
    job, _ = impatient.enqueue(make_config(), OPTIONS, Path.cwd())
    command = [sys.executable, "-m", "mimic_core", "work", str(impatient.path), job.job_id]
    with subprocess.Popen(
        command, env=jobs.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as worker:
        wait_until(lambda: JobStore(impatient.path).job(job.job_id).report.done == 4)
        worker.kill()
    wait_until(lambda: impatient.job(job.job_id).status == "stale")


def test_a_terminated_worker_leaves_a_stale_job_at_once(fake_workers: JobStore) -> None:
    store = fake_workers
    job, _ = store.enqueue(make_config(), OPTIONS, Path.cwd())
    command = [sys.executable, "-m", "mimic_core", "work", str(store.path), job.job_id]
    with subprocess.Popen(
        command, env=jobs.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as worker:
        wait_until(lambda: store.job(job.job_id).report.done == 4)
        worker.terminate()
        assert worker.wait(timeout=60) == 0
    assert store.job(job.job_id).status == "stale"


def test_a_job_in_a_folder_that_is_gone_cannot_be_started(
    fake_workers: JobStore, tmp_path: Path
) -> None:
    store = fake_workers
    job, _ = store.enqueue(make_config(), OPTIONS, tmp_path / "gone")
    store.cancel(job.job_id)
    with pytest.raises(JobError, match="the worker process cannot be started"):
        jobs.resume(store, job.job_id)
    assert store.job(job.job_id).status == "cancelled"
