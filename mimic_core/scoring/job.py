"""What scoring a pool and training on it have in common: a run's record, timings, and progress."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mimic_core.base.config import RunConfig
from mimic_core.base.errors import ScoreError
from mimic_core.base.progress import Progress
from mimic_core.base.schema import SCHEMA_VERSION, ScoreBatch
from mimic_core.features import filling
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.record import RunRecord, run_id
from mimic_core.runs.run import Run, now
from mimic_core.sources.images import DECODER

# Our scores and reverse mode agree to about 1e-6; a difference beyond this is a defect, not noise.
SELF_CHECK_TOLERANCE = 1e-3


@dataclass
class Job:
    """One call of ``score_pool`` or ``train_pool``."""

    config: RunConfig
    runs_root: Path
    device: torch.device
    workers: int | None
    progress: Progress
    timings: dict[str, float] = field(default_factory=dict, init=False)

    def record(
        self, config: RunConfig, features: FeatureSet, identity: str | None, **more: Any
    ) -> RunRecord:
        """Of the run that begins: ``config`` on ``features``, told apart by ``identity``."""
        return RunRecord(
            schema_version=SCHEMA_VERSION,
            run_id=run_id(config, features.id, identity),
            status="running",
            created_at=now(),
            config=config,
            feature_set=features.id,
            versions=filling.versions(),
            preprocessing=features.info["preprocessing"],
            preprocessing_sha256=features.info["preprocessing_sha256"],
            decoder=DECODER,
            **more,
        )

    def finished(self, run: Run, **more: Any) -> Run:
        """``run`` declared finished, with how long each part took."""
        seconds = {name: round(value, 3) for name, value in self.timings.items()}
        return run.update(status="done", finished_at=now(), timings=seconds, **more)

    def watched(self, batches: Iterable[ScoreBatch]) -> Iterator[ScoreBatch]:
        """``batches``, told to the progress; ends where it asks to stop."""
        for batch in batches:
            self.check()
            self.progress.advance(len(batch.rows))
            yield batch

    def check(self) -> None:
        """Raise ``Interrupted`` where the progress asks to stop."""
        self.progress.check()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Inside is the part ``name`` of ``timings``."""
        start = time.perf_counter()
        yield
        self.timings[name] = time.perf_counter() - start


def with_epochs(run: Run, epochs_used: int | None) -> Run:
    """``run``, which from now on shows so many first epochs; None leaves it as it is."""
    return run if epochs_used is None else run.use_epochs(epochs_used)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """CUDA rounds float32 convolutions to TF32 by default: three digits instead of seven."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def require_agreement(difference: float) -> float:
    """``difference`` itself, or a ``ScoreError`` where it is too large for rounding."""
    if not difference <= SELF_CHECK_TOLERANCE:
        raise ScoreError(
            "the self-check failed on two samples: two ways to compute the same disagree",
            got=difference,
            allowed=f"a relative difference up to {SELF_CHECK_TOLERANCE}",
            next_step="use --device cpu and --precision fp32, and report this with your versions",
        )
    return difference
