"""What is known about one background job: plain frozen records, read from the job table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from mimic_core.base.config import Frozen, RunConfig
from mimic_core.base.errors import MimicError
from mimic_core.export.record import ExportRequest
from mimic_core.jobs.options import JobOptions
from mimic_core.proofs.record import ProofRequest

JobStatus = Literal["queued", "running", "done", "failed", "cancelled", "stale"]
JobConfig = RunConfig | ProofRequest | ExportRequest  # to score, to prove, to write
ACTIVE: frozenset[JobStatus] = frozenset(("queued", "running"))


def parse_config(text: str) -> JobConfig:
    """A job's configuration from its stored JSON; neither kind accepts the fields of the other."""
    adapter: TypeAdapter[JobConfig] = TypeAdapter(JobConfig)
    return adapter.validate_json(text)


class Failure(Frozen):
    """The parts of the ``MimicError`` that ended a job."""

    problem: str
    got: str | None = None
    allowed: str | None = None
    next_step: str

    @classmethod
    def of(cls, error: MimicError) -> Failure:
        """The parts of ``error``."""
        return cls(
            problem=error.problem,
            got=error.got,
            allowed=error.allowed,
            next_step=error.next_step,
        )


class Report(Frozen):
    """What a worker writes at each heartbeat: the phase it is in and how far it is.

    ``rate`` is in units per second, ``remaining`` in seconds; None while unknown.
    """

    phase: str = ""
    unit: str = ""
    done: int = 0
    total: int = 0
    skipped: int = 0
    rate: float | None = None
    remaining: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it was when read. Times are seconds since 1970; ``folder`` is where it started,
    which relative paths in ``config`` refer to.
    """

    job_id: str
    config: JobConfig
    options: JobOptions
    folder: Path
    attempt: int
    status: JobStatus
    cancel_requested: bool
    report: Report
    failure: Failure | None
    run_dir: Path | None
    log: Path
    created: float
    started: float | None
    heartbeat: float

    @property
    def active(self) -> bool:
        """Whether a worker has it, or is about to."""
        return self.status in ACTIVE

    @property
    def resumable(self) -> bool:
        """Whether ``resume`` would go on where it stopped."""
        return self.status in ("failed", "cancelled", "stale")
