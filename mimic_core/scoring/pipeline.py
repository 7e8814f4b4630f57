"""Score a pool into a run directory: the whole job, from files to scores.

``score_pool`` is what the command line and the app's worker call. Everything it finishes stays on
disk, so calling it again with the same settings resumes, and ends with the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mimic_core.base.config import ProbeConfig, RunConfig
from mimic_core.base.errors import ConfigError
from mimic_core.base.progress import Progress, Silent
from mimic_core.features import spot_check
from mimic_core.models.devices import pick_device
from mimic_core.runs.lock import only_driver
from mimic_core.runs.record import LayerSweep
from mimic_core.runs.run import Run, start_run
from mimic_core.scoring import direction
from mimic_core.scoring import snapshot as score
from mimic_core.scoring.direction import finish_scores
from mimic_core.scoring.inputs import Inputs, open_inputs
from mimic_core.scoring.job import Job, exact_convolutions, require_agreement, with_epochs
from mimic_core.scoring.labels import reference_head, stored
from mimic_core.scoring.learner import LinearLearner
from mimic_core.scoring.probe import Probe
from mimic_core.scoring.snapshot import require_same_samples

SEGMENT_SAMPLES = 64
ALL_ALIKE = (
    "the samples that the self-check has drawn are all alike: among such, scores are zero by "
    "definition, so there was nothing to check them against"
)
SWEEP_SAMPLES = 256
_Scored = tuple[list[float], float, dict[str, Any]]


def score_pool(
    config: RunConfig,
    *,
    runs_root: Path,
    device: str | None = None,
    workers: int | None = None,
    sweep: bool = False,
    epochs_used: int | None = None,
    progress: Progress | None = None,
) -> Run:
    """Score the pool of ``config`` and return its finished run.

    Args:
        runs_root: Where run directories and feature sets are kept.
        device: Where to compute; None chooses CUDA, MPS or CPU in that order.
        workers: Loading processes; None chooses by the size of the pool.
        sweep: Also compare candidate mimic layers on a small part of the pool.
        epochs_used: What reads the run looks at so many first epochs (``Run.use_epochs``); None
            leaves a finished run as it is.

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
    config.require_epochs(epochs_used)
    if config.snapshot is not None:
        score.require_projection_method(config.snapshot)
    say = progress or Silent()
    job = _Job(config, runs_root.resolve(), pick_device(device), workers, say, sweep)
    with exact_convolutions():
        return with_epochs(job.run(), epochs_used)


@dataclass
class _Job(Job):
    sweep: bool

    def run(self) -> Run:
        with self.timed("open"):
            inputs = open_inputs(self.config, self.runs_root, self.device, self.progress)
        if self.sweep and inputs.source.task == "labels":
            raise ConfigError(
                "a labelled probe has one mimic layer, the head, so there is nothing to compare",
                got="sweep",
                allowed="pools of captions",
                next_step="leave --sweep out",
            )
        if self.sweep and inputs.encoder is None:
            raise ConfigError(
                "features of your own have one mimic layer, their projection",
                got="sweep",
                allowed="a reference model",
                next_step="leave --sweep out",
            )
        tangent_set = inputs.tangents.id if inputs.tangents else None
        model = tangent_set or stored.file_identity(self.config.head)
        record = self.record(
            self.config,
            inputs.cached,
            model,
            tangent_set=tangent_set,
            device=str(self.device),
            reading=inputs.reading,
        )
        run = start_run(self.runs_root, record)
        swept = run.record.direction_check is not None and run.record.direction_check.sweep
        judged = inputs.source.task != "labels" or stored.is_judged(run)
        if run.done and inputs.cached.complete and judged and (swept or not self.sweep):
            self.progress.note(f"run {run.id} is finished already")
            return run
        with only_driver(self.runs_root, run.id):
            return self._carry_out(run, inputs)

    def _carry_out(self, run: Run, inputs: Inputs) -> Run:
        with self.timed("checks"):
            difference = self._check_pair(inputs)
        with self.timed("images"):
            inputs.fill(self.workers, self.progress)
        with self.timed("scores"):
            segment, self_check, measured = self._score(run, inputs, difference)
        with self.timed("direction"):
            sweep = self._sweep(inputs) if self.sweep else ()
            run = finish_scores(run, inputs.cached, segment, self_check=self_check, sweep=sweep)
        return self.finished(run, **measured)

    def _check_pair(self, inputs: Inputs) -> float:
        """Check two samples before the long pass.

        A snapshot's scores against reverse mode; a probe's last layer on its features against the
        reference itself.
        """
        if inputs.encoder is None:
            return 0.0  # features of the user's own: there is no model to compare them with
        batch = inputs.load_two()
        if inputs.source.task != "labels" and spot_check.all_alike(batch):
            self.progress.note(ALL_ALIKE)
        if inputs.pair is None:
            return require_agreement(inputs.encoder.difference(batch))
        return require_agreement(score.self_check(inputs.pair.module, inputs.pair.vector, batch))

    def _score(self, run: Run, inputs: Inputs, difference: float) -> _Scored:
        """Mean losses on the way to the reference, the self-check, and more for the record."""
        if self.config.probe is not None:
            return self._score_probe(run, inputs, self.config.probe, difference)
        # Snapshot mode has all three.
        assert self.config.snapshot is not None
        assert inputs.pair is not None
        assert inputs.tangents is not None
        require_same_samples(inputs.cached, inputs.tangents)
        pair = inputs.pair
        scaling = score.scaling_with_tangents(pair.module, pair.vector)
        snapshot = score.Snapshot(
            inputs.tangents, scaling, self.config.snapshot, device=self.device
        )
        repeats = self.config.snapshot.repeats
        uids = inputs.cached.samples["uid"]
        self._epochs(run, uids, snapshot, repeats, keep_finished=True)
        batch = inputs.load_some(SEGMENT_SAMPLES)
        segment = direction.module_segment(pair.module, pair.vector, batch)
        size = snapshot.batch_size
        measured = {"mimic_layers": pair.vector.layers, "batch_size": size, "epochs": repeats}
        return segment, difference, measured

    def _score_probe(
        self, run: Run, inputs: Inputs, config: ProbeConfig, difference: float
    ) -> _Scored:
        probe: LinearLearner
        record = None
        if inputs.source.task == "labels":
            probe, record = stored.start_label_probe(
                run, inputs.cached, inputs.reference, self.device
            )
            reference_head.say(record, self.progress.note)
        else:
            probe = Probe(inputs.cached, config, device=self.device)
        difference = max(difference, require_agreement(probe.self_check()))
        segment = probe.segment_losses(direction.POSITIONS)
        # Training cannot start in the middle: an interrupted probe runs again from epoch 0.
        self._epochs(run, probe.uids, probe, config.epochs, keep_finished=run.done)
        return (
            segment,
            difference,
            {
                "mimic_layers": probe.mimic_layers,
                "batch_size": probe.batch_size,
                "reference_head": record,
                "epochs": config.epochs,
            },
        )

    def _epochs(
        self,
        run: Run,
        uids: pl.Series,
        scorer: LinearLearner | score.Snapshot,
        epochs: int,
        *,
        keep_finished: bool,
    ) -> None:
        self.progress.phase("scores", epochs * len(uids))
        for epoch in range(epochs):
            if not (keep_finished and run.has_epoch(epoch)):
                run.write_epoch(epoch, uids, self.watched(scorer.run(epoch)))
            else:
                self.progress.advance(len(uids))

    def _sweep(self, inputs: Inputs) -> list[LayerSweep]:
        snapshot = self.config.snapshot
        scored = None if snapshot is None or snapshot.model is None else inputs.pair
        return direction.sweep_layers(
            inputs.reference.module,
            scored.module if scored else None,
            inputs.load_some(SWEEP_SAMPLES),
            seed=self.config.scorer.seed,
        )
