"""Background jobs: scoring, proving or exporting in a detached process whose state is on disk.

A job survives the app's server, a refreshed browser and a second browser. The starting process
calls ``start_job``, ``resume`` and ``JobStore.cancel`` and reads ``JobStore.jobs``; the worker
process is ``python -m mimic_core work``, which calls ``work``.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Self

import polars as pl

from mimic_core.base import progress as meter
from mimic_core.base.blocks import limit_cache
from mimic_core.base.config import RunConfig
from mimic_core.base.errors import Interrupted, JobError, MimicError
from mimic_core.base.progress import Meter, Progress
from mimic_core.export.record import ExportRequest
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.processes import environment
from mimic_core.jobs.record import Failure, Job, JobConfig, JobStatus, Report
from mimic_core.jobs.store import JobStore
from mimic_core.proofs.record import ProofRequest
from mimic_core.runs.run import Run

BEAT_SECONDS = 1.0
NOTES_KEPT = 5


def start_job(store: JobStore, config: JobConfig, options: JobOptions) -> str:
    """Start the job in a process of its own that outlives this one; returns its id.

    The same configuration is one job: if it is queued or running already, nothing is started; if
    it has ended, it goes on from what is on disk.
    """
    job, is_new = store.enqueue(config, options, Path.cwd())
    if is_new:
        _launch(store, job)
    return job.job_id


def resume(store: JobStore, job_id: str) -> str:
    """Start the job again as it was; the pipeline goes on from what is on disk."""
    old = store.job(job_id)
    job, is_new = store.enqueue(old.config, old.options, old.folder)
    if is_new:
        _launch(store, job)
    return job.job_id


def _launch(store: JobStore, job: Job) -> None:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        try:
            worker = subprocess.Popen(
                [sys.executable, "-m", "mimic_core", "work", str(store.path), job.job_id],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=job.folder,
                env=environment(PYTHONUNBUFFERED="1"),
                start_new_session=True,
            )
        except OSError as error:
            store.cancel(job.job_id)
            raise JobError(
                f"the worker process cannot be started: {error}",
                got=str(job.folder),
                next_step="check that the folder the job was started in is still there",
            ) from error
    # Waited for only so that the system can forget it while this process lives on.
    threading.Thread(target=worker.wait, name=f"wait-{job.job_id}", daemon=True).start()


class JobProgress:
    """The ``Progress`` of a worker: a thread writes the figures with every heartbeat.

    The main thread only counts in memory, so progress costs it nothing, and the heart goes on
    beating through long calls into libraries.

    Args:
        store: Where the job is.
        job: The claimed job.
        stopped: Whether something else than the job table asks to stop.
    """

    def __init__(
        self,
        store: JobStore,
        job: Job,
        *,
        stopped: Callable[[], bool] = lambda: False,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._store = store
        self._job = job
        self._stopped = stopped
        self._beat_seconds = beat_seconds
        self._lock = threading.Lock()
        self._meter: Meter | None = None
        self._notes: tuple[str, ...] = ()
        self._told_to_stop = threading.Event()
        self._finished = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._beat_until_finished, name="heartbeat")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.set()
        self._thread.join()

    def phase(self, name: str, total: int, *, done: int = 0, unit: str = "samples") -> None:
        """Begin to count another phase."""
        with self._lock:
            self._meter = meter.begin(name, total, unit, done=done, now=time.monotonic())

    def advance(self, count: int, *, skipped: int = 0) -> None:
        """Count."""
        with self._lock:
            if self._meter is not None:
                self._meter.advance(count, skipped)

    def note(self, text: str) -> None:
        """Keep ``text`` among the last few notes, and print it into the log."""
        print(f"note: {text}", flush=True)
        with self._lock:
            self._notes = (*self._notes, text)[-NOTES_KEPT:]

    def check(self) -> None:
        """Raise ``Interrupted`` if the job was cancelled or taken over, or a signal came."""
        if self._failure is not None:
            raise self._failure
        if self._told_to_stop.is_set() or self._stopped():
            raise Interrupted("the job was asked to stop")

    @property
    def cancelled(self) -> bool:
        """Whether the job table asked to stop."""
        return self._told_to_stop.is_set()

    def _beat_until_finished(self) -> None:
        last = False
        try:
            while not last:
                last = self._finished.wait(self._beat_seconds)
                if self._store.beat(self._job, self._report()):
                    self._told_to_stop.set()
        except Exception as error:  # noqa: BLE001 - check() raises it in the main thread
            self._failure = error

    def _report(self) -> Report:
        with self._lock:
            if self._meter is None:
                return Report(notes=self._notes)
            now = time.monotonic()
            return Report(
                phase=self._meter.name,
                unit=self._meter.unit,
                done=self._meter.done,
                total=self._meter.total,
                skipped=self._meter.skipped,
                rate=self._meter.rate(now),
                remaining=self._meter.remaining(now),
                notes=self._notes,
            )


def work(store: JobStore, job_id: str, *, stopped: Callable[[], bool] = lambda: False) -> JobStatus:
    """Carry out a queued job in this process and store how it ended; returns its status then.

    Whatever goes wrong ends up in the job table: nobody watches this process. A job that a signal
    stopped is stale, as if its worker had died, and can be resumed.
    """
    job = store.claim(job_id)
    if job is None:
        print(f"job {job_id} is not queued: another worker has it, or it was cancelled")
        return store.job(job_id).status
    status: JobStatus = "done"
    failure: Failure | None = None
    progress = JobProgress(store, job, stopped=stopped)
    try:
        with progress:
            if isinstance(job.config, ProofRequest):
                _prove(store, job, job.config, progress)
            elif isinstance(job.config, ExportRequest):
                _export(store, job, job.config, progress)
            else:
                _score(store, job, job.config, progress)
    except Interrupted:
        status = "cancelled" if progress.cancelled else "stale"
    except MimicError as error:
        status, failure = "failed", Failure.of(error)
    except Exception as error:  # noqa: BLE001 - nobody would see it anywhere but in the table
        traceback.print_exc()
        # The signal that stops this process may have killed its image readers a moment earlier.
        status, failure = ("stale", None) if stopped() else ("failed", _crash(job, error))
    store.finish(job, status, failure)
    return store.job(job_id).status


def _score(store: JobStore, job: Job, config: RunConfig, progress: Progress) -> None:
    if job.options.cache_limit is not None:
        limit_cache(job.options.cache_limit)
    if job.options.map_of is None:
        run = _carry_out(store, job, config, progress)
    else:
        from mimic_core.runs.run import open_run

        run = open_run(Path(job.options.map_of))
    store.set_run_dir(job, run.path)
    finish(run, job.options, progress)


def finish(run: Run, options: JobOptions, progress: Progress) -> Run:
    """Add to a finished run what was asked for beside its scores: columns of other files, a map."""
    if options.join:
        from mimic_core.sources.joining import join_columns

        for path in options.join:
            run, joined = join_columns(run, Path(path))
            for sentence in joined.as_sentences():
                progress.note(f"joined {sentence}")
    if options.map or options.map_of is not None:
        from mimic_core.runs.layout import MapConfig, ensure_map

        ensure_map(run.features, MapConfig(), progress)
    return run


def _carry_out(store: JobStore, job: Job, config: RunConfig, progress: Progress) -> Run:
    """Train or score, as the configuration says; torch is imported by the worker alone."""
    from mimic_core.models.names import refuse_own

    models = (config.reference, config.scorer.model_dump().get("model"))
    refuse_own(models)
    if config.training is not None:
        from mimic_core.scoring.training.train import train_pool

        return train_pool(
            config,
            runs_root=store.runs_root,
            device=job.options.device,
            workers=job.options.workers,
            epochs_used=job.options.epochs_used,
            progress=progress,
        )
    from mimic_core.scoring.pipeline import score_pool

    return score_pool(
        config,
        runs_root=store.runs_root,
        device=job.options.device,
        workers=job.options.workers,
        sweep=job.options.sweep,
        epochs_used=job.options.epochs_used,
        progress=progress,
    )


def _prove(store: JobStore, job: Job, request: ProofRequest, progress: Progress) -> None:
    from mimic_core.proofs.prove import prove  # imports torch
    from mimic_core.runs.run import open_run

    run = open_run(Path(request.run))
    store.set_run_dir(job, run.path)
    held_out = None if request.held_out is None else pl.Series("uid", request.held_out)
    prove(run, dict(request.recipes), request.config, held_out=held_out, progress=progress)


def _export(store: JobStore, job: Job, request: ExportRequest, progress: Progress) -> None:
    from mimic_core.export.export import carry_out

    store.set_run_dir(job, Path(request.run))
    result = carry_out(request, progress)
    for reason, count in result.not_exported.items():
        progress.note(f"not exported, {reason}: {count:,} (the manifest names them)")
    progress.note("written: " + ", ".join(str(path) for path in (*result.files, result.manifest)))


def _crash(job: Job, error: Exception) -> Failure:
    return Failure(
        problem=f"the worker stopped with {type(error).__name__}: {error}",
        next_step=f"read {job.log}, then resume the job",
    )
