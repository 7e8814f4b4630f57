"""Grad-Mimic training of a whole model into a run directory (method.md section 2).

Every step scores its batch and re-weights it in one forward and one backward pass
(``mimic_core.scoring.training.step``); every sample is logged in every epoch. What an epoch has led
to is on disk before the next one begins, so the same call resumes and ends with the same bytes.

Several processes started by ``torchrun`` share each batch: losses, scores and weights are those of
the whole batch, whatever their number.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mimic_core.base.config import RunConfig
from mimic_core.base.errors import ConfigError, Interrupted
from mimic_core.base.progress import Progress, Silent, Unheard
from mimic_core.base.schema import SCHEMA_VERSION, ScoreBatch
from mimic_core.features import filling
from mimic_core.models.devices import pick_device
from mimic_core.runs.metrics import as_sentence
from mimic_core.runs.record import RunRecord, run_id
from mimic_core.runs.run import Run, now, start_run
from mimic_core.scoring.direction import finish_scores
from mimic_core.scoring.labels import stored
from mimic_core.scoring.labels.stored import store_reference
from mimic_core.scoring.pipeline import exact_convolutions, require_agreement
from mimic_core.scoring.training.distributed import Group, joined, own_device
from mimic_core.scoring.training.setup import Setup, prepare
from mimic_core.scoring.training.trainer import Trainer
from mimic_core.sources.images import DECODER


def train_pool(
    config: RunConfig,
    *,
    runs_root: Path,
    device: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train on the pool of ``config`` and return its finished run.

    Args:
        runs_root: Where run directories and feature sets are kept.
        device: Where to compute; None chooses CUDA, MPS or CPU in that order.
        workers: Loading processes of each training process; None chooses by the size of the pool.

    Raises:
        MimicError: The source, a model or the settings cannot be used.
        Interrupted: ``progress.check`` asked to stop; call again to resume.
    """
    if config.training is None:
        raise ConfigError(
            "the configuration is not one of a training run",
            got=config.mode,
            allowed="training settings",
            next_step="give training, or use mimic_core.scoring.pipeline.score_pool",
        )
    chosen = pick_device(own_device(device))
    with joined(chosen) as group, exact_convolutions():
        say = progress or Silent()
        if not group.first:
            say = Unheard(say)
        return _Job(config, runs_root.resolve(), chosen, workers, group, say).run()


@dataclass
class _Job:
    """One call of ``train_pool`` in one process of the group."""

    config: RunConfig
    runs_root: Path
    device: torch.device
    workers: int | None
    group: Group
    progress: Progress
    timings: dict[str, float] = field(default_factory=dict)

    def run(self) -> Run:
        with self._timed("preparation"):
            setup = prepare(
                self.config,
                runs_root=self.runs_root,
                device=self.device,
                workers=self.workers,
                group=self.group,
                progress=self.progress,
            )
            require_agreement(setup.self_check)
        record = self._record(setup)
        if not self.group.first:
            self.group.wait()  # until the first process has made the directory
        run = start_run(self.runs_root, record)
        if self.group.first:
            self.group.wait()
        if run.done:
            self.progress.note(f"run {run.id} is finished already")
            return run
        with self._timed("training"):
            self._train(run, setup)
        if self.group.first:
            run = self._finish(run, setup)
        self.group.wait()
        return run

    def _train(self, run: Run, setup: Setup) -> None:
        trained = setup.features.samples["uid"].gather(setup.split.trained)
        trainer = Trainer(
            setup, run.path, device=self.device, workers=self.workers, group=self.group
        )
        start = trainer.resume()
        epochs, per_epoch = setup.training.epochs, len(trained)
        self.progress.phase("training", epochs * per_epoch, done=start * per_epoch)
        if start == 0:
            trainer.evaluate(epoch=-1)
        for epoch in range(start, epochs):
            batches = self._watched(trainer, epoch)
            if self.group.first:
                run.write_epoch(epoch, trained, batches)
            else:
                for _ in batches:
                    pass
            row = trainer.end_epoch(epoch)
            self.progress.note(f"epoch {epoch + 1} of {epochs}: {as_sentence(row)}")
            for note in trainer.fallbacks():
                self.progress.note(note)

    def _watched(self, trainer: Trainer, epoch: int) -> Iterator[ScoreBatch]:
        for batch in trainer.epoch(epoch):
            self._check()
            self.progress.advance(len(batch.rows))
            yield batch

    def _check(self) -> None:
        """Stop in all processes at the same step."""
        asked = False
        try:
            self.progress.check()
        except Interrupted:
            asked = True
        if self.group.any(flag=asked):
            raise Interrupted("stopped between two steps")

    def _record(self, setup: Setup) -> RunRecord:
        return RunRecord(
            schema_version=SCHEMA_VERSION,
            run_id=run_id(setup.config, setup.features.id, _identity(setup)),
            status="running",
            created_at=now(),
            config=setup.config,
            feature_set=setup.features.id,
            mimic_layers=tuple(setup.target),
            device=str(self.device.type),
            versions=filling.versions(),
            preprocessing=setup.preprocessing,
            preprocessing_sha256=setup.preprocessing_sha256,
            decoder=DECODER,
        )

    def _finish(self, run: Run, setup: Setup) -> Run:
        cached, trained = setup.features, setup.split.trained
        if setup.reference is not None:
            store_reference(run, cached, setup.reference, trained)
        run = finish_scores(run, cached, setup.segment, self_check=setup.self_check)
        seconds = {name: round(value, 3) for name, value in self.timings.items()}
        return run.update(
            status="done",
            finished_at=now(),
            timings=seconds,
            batch_size=min(setup.training.batch_size, len(trained)),
            reference_head=None if setup.reference is None else setup.reference.record,
            epochs=setup.training.epochs,
        )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[name] = time.perf_counter() - start


def _identity(setup: Setup) -> str:
    """The weights that training starts from, and the content of the reference head's file."""
    file = stored.file_identity(setup.config.head)
    return setup.model if file is None else f"{setup.model} {file}"
