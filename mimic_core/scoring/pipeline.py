"""Score a pool into a run directory: the whole job, from files to scores.

``score_pool`` is what the command line and the app's worker call. Everything it finishes stays on
disk, so calling it again with the same settings resumes, and ends with the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import torch

from mimic_core.base.config import ProbeConfig, RunConfig
from mimic_core.base.errors import ConfigError, ScoreError
from mimic_core.base.progress import Progress, Silent
from mimic_core.base.schema import SCHEMA_VERSION, ScoreBatch
from mimic_core.features import filling, spot_check
from mimic_core.features.loading import LoadedBatch
from mimic_core.models.devices import pick_device
from mimic_core.runs.record import HeadRecord, LayerSweep, RunRecord, run_id
from mimic_core.runs.run import Run, now, start_run
from mimic_core.scoring import direction
from mimic_core.scoring import snapshot as score
from mimic_core.scoring.direction import finish_scores
from mimic_core.scoring.inputs import Inputs, open_inputs
from mimic_core.scoring.labels import stored
from mimic_core.scoring.labels.probe import LabelProbe
from mimic_core.scoring.probe import Probe
from mimic_core.scoring.snapshot import require_same_samples
from mimic_core.sources.images import DECODER

# Our scores and reverse mode agree to about 1e-6; a difference beyond this is a defect, not noise.
SELF_CHECK_TOLERANCE = 1e-3
SEGMENT_SAMPLES = 64
SWEEP_SAMPLES = 256


def score_pool(
    config: RunConfig,
    *,
    runs_root: Path,
    device: str | None = None,
    workers: int | None = None,
    sweep: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Score the pool of ``config`` and return its finished run.

    Args:
        runs_root: Where run directories and feature sets are kept.
        device: Where to compute; None chooses CUDA, MPS or CPU in that order.
        workers: Loading processes; None chooses by the size of the pool.
        sweep: Also compare candidate mimic layers on a small part of the pool.

    Raises:
        MimicError: The source, a model or the settings cannot be used.
        Interrupted: ``progress.check`` asked to stop; call again to resume.
    """
    if config.training is not None:
        raise ConfigError(
            "the configuration is one of a training run",
            got=config.mode,
            allowed="probe or snapshot settings",
            next_step="use mimic_core.scoring.training.train.train_pool, or the command train",
        )
    if config.snapshot is not None:
        score.require_projection_method(config.snapshot)
    say = progress or Silent()
    job = _Job(config, runs_root.resolve(), pick_device(device), workers, sweep, say)
    with exact_convolutions():
        return job.run()


@dataclass(frozen=True)
class _Scored:
    """What scoring leaves for the record."""

    mimic_layers: tuple[str, ...]
    batch_size: int
    epochs: int
    self_check: float
    segment: list[float]
    reference_head: HeadRecord | None = None


@dataclass
class _Job:
    """One call of ``score_pool``."""

    config: RunConfig
    runs_root: Path
    device: torch.device
    workers: int | None
    sweep: bool
    progress: Progress
    timings: dict[str, float] = field(default_factory=dict)

    def run(self) -> Run:
        with self._timed("open"):
            inputs = open_inputs(self.config, self.runs_root, self.device, self.progress)
        if self.sweep and inputs.source.task == "labels":
            raise ConfigError(
                "a labelled probe has one mimic layer, the head, so there is nothing to compare",
                got="sweep",
                allowed="pools of captions",
                next_step="leave --sweep out",
            )
        run = start_run(self.runs_root, self._record(inputs))
        swept = run.record.direction_check is not None and run.record.direction_check.sweep
        if run.done and inputs.cached.complete and (swept or not self.sweep):
            self.progress.note(f"run {run.id} is finished already")
            return run
        with self._timed("checks"):
            difference = self._check_pair(inputs)
        with self._timed("images"):
            filling.fill(
                inputs.cached,
                inputs.targets,
                source=inputs.source,
                model=inputs.reference,
                device=self.device,
                workers=self.workers,
                progress=self.progress,
            )
        with self._timed("scores"):
            scored = self._score(run, inputs, difference)
        with self._timed("direction"):
            run = self._finish(run, inputs, scored)
        seconds = {name: round(value, 3) for name, value in self.timings.items()}
        return run.update(status="done", finished_at=now(), timings=seconds)

    def _record(self, inputs: Inputs) -> RunRecord:
        tangent_set = inputs.tangents.id if inputs.tangents else None
        model = tangent_set or stored.file_identity(self.config.head)
        return RunRecord(
            schema_version=SCHEMA_VERSION,
            run_id=run_id(self.config, inputs.cached.id, model),
            status="running",
            created_at=now(),
            config=self.config,
            feature_set=inputs.cached.id,
            tangent_set=tangent_set,
            device=str(self.device),
            versions=filling.versions(),
            preprocessing=inputs.reference.preprocessing,
            preprocessing_sha256=inputs.reference.preprocessing_sha256,
            decoder=DECODER,
        )

    def _check_pair(self, inputs: Inputs) -> float:
        """Check two samples before the long pass.

        A snapshot's scores against reverse mode; a probe's last layer on its features against the
        reference itself.
        """
        batch = spot_check.load_two(inputs.cached, inputs.source, inputs.reference, self.device)
        if inputs.pair is None:
            return require_agreement(inputs.encoder.difference(batch))
        return require_agreement(score.self_check(inputs.pair.module, inputs.pair.vector, batch))

    def _score(self, run: Run, inputs: Inputs, difference: float) -> _Scored:
        if self.config.probe is not None:
            return self._score_probe(run, inputs, self.config.probe, difference)
        # Snapshot mode has all three.
        assert self.config.snapshot is not None
        assert inputs.pair is not None
        assert inputs.tangents is not None
        require_same_samples(inputs.cached, inputs.tangents)
        pair = inputs.pair
        head = score.head_with_tangents(pair.module, pair.vector)
        snapshot = score.Snapshot(inputs.tangents, head, self.config.snapshot, device=self.device)
        repeats = self.config.snapshot.repeats
        uids = inputs.cached.samples["uid"]
        self._epochs(run, uids, snapshot, repeats, keep_finished=True)
        batch = self._some(inputs, SEGMENT_SAMPLES)
        segment = direction.module_segment(pair.module, pair.vector, batch)
        return _Scored(pair.vector.layers, snapshot.batch_size, repeats, difference, segment)

    def _score_probe(
        self, run: Run, inputs: Inputs, config: ProbeConfig, difference: float
    ) -> _Scored:
        probe: Probe | LabelProbe
        record = None
        if inputs.source.task == "labels":
            probe, record = stored.start_label_probe(
                run, inputs.cached, inputs.reference, self.device
            )
            self.progress.note(f"reference head: {record.as_sentence()}")
        else:
            probe = Probe(inputs.cached, config, device=self.device)
        difference = max(difference, require_agreement(probe.self_check()))
        segment = probe.segment_losses(direction.POSITIONS)
        # Training cannot start in the middle: an interrupted probe runs again from epoch 0.
        self._epochs(run, probe.uids, probe, config.epochs, keep_finished=run.done)
        layers, batch_size = probe.mimic_layers, probe.batch_size
        return _Scored(layers, batch_size, config.epochs, difference, segment, record)

    def _epochs(
        self,
        run: Run,
        uids: pl.Series,
        scorer: Probe | LabelProbe | score.Snapshot,
        epochs: int,
        *,
        keep_finished: bool,
    ) -> None:
        self.progress.phase("scores", epochs * len(uids))
        for epoch in range(epochs):
            if not (keep_finished and run.has_epoch(epoch)):
                run.write_epoch(epoch, uids, self._watched(scorer, epoch))
            else:
                self.progress.advance(len(uids))

    def _watched(
        self, scorer: Probe | LabelProbe | score.Snapshot, epoch: int
    ) -> Iterator[ScoreBatch]:
        for batch in scorer.run(epoch):
            self.progress.check()
            self.progress.advance(len(batch.rows))
            yield batch

    def _finish(self, run: Run, inputs: Inputs, scored: _Scored) -> Run:
        finished = finish_scores(
            run,
            inputs.cached,
            scored.segment,
            self_check=scored.self_check,
            sweep=self._sweep(inputs) if self.sweep else (),
        )
        return finished.update(
            mimic_layers=scored.mimic_layers,
            batch_size=scored.batch_size,
            reference_head=scored.reference_head,
            epochs=scored.epochs,
        )

    def _sweep(self, inputs: Inputs) -> list[LayerSweep]:
        snapshot = self.config.snapshot
        scored = None if snapshot is None or snapshot.model is None else inputs.pair
        return direction.sweep_layers(
            inputs.reference.module,
            scored.module if scored else None,
            self._some(inputs, SWEEP_SAMPLES),
            seed=self.config.scorer.seed,
        )

    def _some(self, inputs: Inputs, count: int) -> LoadedBatch:
        return spot_check.load_some(
            inputs.cached, inputs.source, inputs.reference, self.device, count=count
        )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[name] = time.perf_counter() - start


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
