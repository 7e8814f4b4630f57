"""The job table: all that is known about background jobs, in one SQLite file beside the runs.

One row is one configuration, so starting it twice gives the same job and two workers never own
the same run. A worker proves that it is alive by a heartbeat, never by its process number, which
the system may give to another process. A heartbeat from the future is one from before the clock was
set back: a living worker corrects it with its next beat.
"""

from __future__ import annotations

import errno
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from mimic_core.base.errors import JobError, file_remedy
from mimic_core.base.identity import canonical_json, digest
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.record import ACTIVE, Failure, Job, JobConfig, JobStatus, Report, parse_config

JOBS_FILE = "jobs.sqlite"
JOBS_VERSION = 1
STALE_SECONDS = 30.0  # a worker beats every second; a busy machine may hold one up for a while
BUSY_SECONDS = 30.0  # how long to wait for another process that is writing

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY, config TEXT NOT NULL, options TEXT NOT NULL, folder TEXT NOT NULL,
    attempt INTEGER NOT NULL, status TEXT NOT NULL, cancel INTEGER NOT NULL DEFAULT 0,
    phase TEXT NOT NULL DEFAULT '', unit TEXT NOT NULL DEFAULT '',
    done INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0, rate REAL, remaining REAL,
    notes TEXT NOT NULL DEFAULT '[]', failure TEXT, run_dir TEXT,
    created REAL NOT NULL, started REAL, heartbeat REAL NOT NULL
)
"""
_ENQUEUE = """
INSERT OR REPLACE INTO jobs
    (job_id, config, options, folder, attempt, status, run_dir, created, heartbeat)
VALUES
    (:job_id, :config, :options, :folder, :attempt, 'queued', :run_dir, :created, :heartbeat)
"""
# What a worker writes is written only while it owns the job: see JobStore.enqueue.
_BEAT = """
UPDATE jobs SET phase = :phase, unit = :unit, done = :done, total = :total, skipped = :skipped,
    rate = :rate, remaining = :remaining, notes = :notes, heartbeat = :now
WHERE job_id = :job_id AND attempt = :attempt AND status = 'running'
"""
_FINISH = """
UPDATE jobs SET status = ?, failure = ?, heartbeat = ?
WHERE job_id = ? AND attempt = ? AND status = 'running'
"""
_SET_RUN_DIR = """
UPDATE jobs SET run_dir = ? WHERE job_id = ? AND attempt = ? AND status = 'running'
"""

_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}


class JobStore:
    """The job table of one runs root. Cheap to make; any number of processes may share the file.

    Args:
        path: The SQLite file; made with its folder when the first job is stored.
        stale_seconds: Age of a heartbeat from which on its worker counts as dead.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        path: Path,
        *,
        stale_seconds: float = STALE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path.resolve()
        self._stale_seconds = stale_seconds
        self._clock = clock

    @property
    def runs_root(self) -> Path:
        """The folder whose runs the jobs write."""
        return self.path.parent

    def jobs(self) -> list[Job]:
        """All jobs, newest first.

        Raises:
            JobError: The table cannot be read; so does every other method.
        """
        if not self.path.exists():
            return []
        with self._connection() as db:
            rows = db.execute("SELECT * FROM jobs ORDER BY created DESC, job_id").fetchall()
        return [self._job(row) for row in rows]

    def job(self, job_id: str) -> Job:
        """The job of that id.

        Raises:
            JobError: There is none.
        """
        if self.path.exists():
            with self._connection() as db:
                row = db.execute("SELECT * FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            if row is not None:
                return self._job(row)
        raise JobError(
            "there is no such job",
            got=job_id,
            allowed=", ".join(job.job_id for job in self.jobs()) or None,
            next_step="start it again from its run",
        )

    def enqueue(self, config: JobConfig, options: JobOptions, folder: Path) -> tuple[Job, bool]:
        """Queue a job; the second value is False if it is queued or running already.

        The attempt number grows, so that a worker of an earlier try, long silent and thought dead,
        finds out that the job is no longer its own.
        """
        job_id = digest([config.model_dump(mode="json"), str(folder)])
        now = self._clock()
        with self._writing() as db:
            row = db.execute("SELECT * FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            if row is not None and self._job(row).active:
                return self._job(row), False
            values = {
                "job_id": job_id,
                "config": canonical_json(config.model_dump(mode="json")),
                "options": canonical_json(options.model_dump(mode="json")),
                "folder": str(folder),
                "attempt": row["attempt"] + 1 if row is not None else 1,
                "run_dir": row["run_dir"] if row is not None else None,
                "created": row["created"] if row is not None else now,
                "heartbeat": now,
            }
            db.execute(_ENQUEUE, values)
        return self.job(job_id), True

    def claim(self, job_id: str) -> Job | None:
        """Take a queued job for the calling process; None if another has it or it was cancelled."""
        now = self._clock()
        with self._writing() as db:
            claimed = db.execute(
                "UPDATE jobs SET status = 'running', started = ?, heartbeat = ? "
                "WHERE job_id = ? AND status = 'queued'",
                [now, now, job_id],
            )
        job = self.job(job_id)
        return job if claimed.rowcount else None

    def beat(self, job: Job, report: Report) -> bool:
        """Store how far ``job`` is; the answer is whether its worker must stop."""
        values = report.model_dump() | {"notes": json.dumps(report.notes), "now": self._clock()}
        own = {"job_id": job.job_id, "attempt": job.attempt}
        with self._writing() as db:
            owned = db.execute(_BEAT, values | own).rowcount
            row = db.execute("SELECT cancel FROM jobs WHERE job_id = ?", [job.job_id]).fetchone()
        return not owned or bool(row["cancel"])

    def set_run_dir(self, job: Job, run_dir: Path) -> None:
        """Store where the run of ``job`` is."""
        with self._writing() as db:
            db.execute(_SET_RUN_DIR, [str(run_dir.resolve()), job.job_id, job.attempt])

    def finish(self, job: Job, status: JobStatus, failure: Failure | None = None) -> None:
        """Store how ``job`` ended. A worker that no longer owns it changes nothing."""
        text = canonical_json(failure.model_dump(mode="json")) if failure is not None else None
        with self._writing() as db:
            db.execute(_FINISH, [status, text, self._clock(), job.job_id, job.attempt])

    def cancel(self, job_id: str) -> Job:
        """Ask the worker to stop; without a living one the job is cancelled at once.

        A job that has ended stays as it is.
        """
        job = self.job(job_id)
        with self._writing() as db:
            if job.status == "running":
                db.execute("UPDATE jobs SET cancel = 1 WHERE job_id = ?", [job_id])
            else:
                db.execute(
                    "UPDATE jobs SET status = 'cancelled' "
                    "WHERE job_id = ? AND attempt = ? AND status IN ('queued', 'running')",
                    [job_id, job.attempt],
                )
        return self.job(job_id)

    def log_tail(self, job: Job, lines: int = 20) -> str:
        """The last ``lines`` of what the worker printed; empty if it printed nothing."""
        if not job.log.exists():
            return ""
        text = job.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _job(self, row: sqlite3.Row) -> Job:
        status: JobStatus = row["status"]
        if status in ACTIVE and abs(self._clock() - row["heartbeat"]) > self._stale_seconds:
            status = "stale"
        names = [name for name in Report.model_fields if name != "notes"]
        return Job(
            job_id=row["job_id"],
            config=parse_config(row["config"]),
            options=JobOptions.model_validate_json(row["options"]),
            folder=Path(row["folder"]),
            attempt=row["attempt"],
            status=status,
            cancel_requested=bool(row["cancel"]),
            report=Report(**{name: row[name] for name in names}, notes=json.loads(row["notes"])),
            failure=Failure.model_validate_json(row["failure"]) if row["failure"] else None,
            run_dir=Path(row["run_dir"]) if row["run_dir"] else None,
            log=self.runs_root / "jobs" / f"{row['job_id']}.log",
            created=row["created"],
            started=row["started"],
            heartbeat=row["heartbeat"],
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that no other process can write during."""
        with self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            with db:  # commits, or rolls back on an exception
                yield db

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        # One connection per use: they must not be shared by threads, and opening takes 0.1 ms.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(
                sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            ) as db:
                db.row_factory = sqlite3.Row
                db.execute("PRAGMA synchronous = NORMAL")  # safe with WAL; spares a flush per beat
                _prepare(db, self.path)
                yield db
        except sqlite3.Error as error:
            raise _refused(self.path, error) from error


def _refused(path: Path, error: sqlite3.Error) -> JobError:
    """What SQLite has said, with what a person can do about it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # of an extended code, the kind
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
        next_step = f"delete {path}; runs are kept"
    elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        next_step = "try again when the other processes that use it have less to write"
    elif code == sqlite3.SQLITE_IOERR:  # also of a full disk, where its shared memory cannot grow
        next_step = "see that the disk is there and has some space, and try again"
    else:
        next_step = file_remedy(OSError(_ERRNO.get(code, 0), str(error)))
    return JobError(f"the job table cannot be used: {error}", got=str(path), next_step=next_step)


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Make the table if it is not there, and let readers and one writer work side by side."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        db.execute("BEGIN EXCLUSIVE")
        with db:
            db.execute(_TABLE)
            db.execute(f"PRAGMA user_version = {JOBS_VERSION}")
    elif version != JOBS_VERSION:
        raise JobError(
            "the job database was written by another version of Mimicscope",
            got=version,
            allowed=str(JOBS_VERSION),
            next_step=f"delete {path}; runs are kept",
        )
    if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        # SQLite refuses the change at once while another process has the file open. Then the next
        # connection makes it: until it is made, processes only wait longer for each other.
        with suppress(sqlite3.OperationalError):
            db.execute("PRAGMA journal_mode = WAL")
