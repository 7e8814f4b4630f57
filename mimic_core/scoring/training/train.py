"""Grad-Mimic training of a whole model into a run directory (method.md section 2).

Every step scores its batch and re-weights it in one forward and one backward pass
(``mimic_core.scoring.training.step``); every sample is logged in every epoch. What an epoch has led
to is on disk before the next one begins, so the same call resumes and ends with the same bytes.

Several processes started by ``torchrun`` share each batch: losses, scores and weights are those of
the whole batch, whatever their number.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from mimic_core.base.config import RunConfig
from mimic_core.base.errors import ConfigError, Interrupted
from mimic_core.base.progress import Progress, Silent, Unheard
from mimic_core.models.devices import pick_device
from mimic_core.runs.lock import only_driver
from mimic_core.runs.metrics import as_sentence
from mimic_core.runs.run import Run, start_run
from mimic_core.scoring.direction import finish_scores
from mimic_core.scoring.job import Job, exact_convolutions, require_agreement, with_epochs
from mimic_core.scoring.labels import stored
from mimic_core.scoring.labels.stored import store_reference
from mimic_core.scoring.training.distributed import Group, joined, own_device
from mimic_core.scoring.training.setup import Setup, prepare
from mimic_core.scoring.training.trainer import Trainer


def train_pool(
    config: RunConfig,
    *,
    runs_root: Path,
    device: str | None = None,
    workers: int | None = None,
    epochs_used: int | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train on the pool of ``config`` and return its finished run.

    Args:
        runs_root: Where run directories and feature sets are kept.
        device: Where to compute; None chooses CUDA, MPS or CPU in that order.
        workers: Loading processes of each training process; None chooses by the size of the pool.
        epochs_used: What reads the run looks at so many first epochs (``Run.use_epochs``); None
            leaves a finished run as it is.

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
    config.require_epochs(epochs_used)
    chosen = pick_device(own_device(device))
    with joined(chosen) as group, exact_convolutions():
        say = progress or Silent()
        if not group.first:
            say = Unheard(say)
        run = _Job(config, runs_root.resolve(), chosen, workers, say, group).run()
        return with_epochs(run, epochs_used) if group.first else run


@dataclass
class _Job(Job):
    """In one process of the group."""

    group: Group

    def run(self) -> Run:
        with self.timed("preparation"):
            setup = prepare(self, self.group)
            require_agreement(setup.self_check)
        record = self.record(
            setup.config,
            setup.features,
            _identity(setup),
            mimic_layers=tuple(setup.target),
            device=self.device.type,
            reading=setup.reading,
        )
        if not self.group.first:
            self.group.wait()  # until the first process has made the directory
        run = start_run(self.runs_root, record)
        if self.group.first:
            self.group.wait()
        if run.done:
            self.progress.note(f"run {run.id} is finished already")
            return run
        # One lock for all processes of a group, whose first one writes.
        alone = only_driver(self.runs_root, run.id) if self.group.first else nullcontext()
        with alone:
            with self.timed("training"):
                self._train(run, setup)
            if self.group.first:
                run = self._finish(run, setup)
            self.group.wait()
        return run

    def _train(self, run: Run, setup: Setup) -> None:
        trained = setup.features.samples["uid"].gather(setup.split.trained)
        trainer = Trainer(setup, run.path, self, self.group)
        start = trainer.resume()
        epochs, per_epoch = setup.training.epochs, len(trained)
        self.progress.phase("training", epochs * per_epoch, done=start * per_epoch)
        if start == 0:
            trainer.evaluate(epoch=-1)
        for epoch in range(start, epochs):
            batches = self.watched(trainer.epoch(epoch))
            if self.group.first:
                run.write_epoch(epoch, trained, batches)
            else:
                for _ in batches:
                    pass
            row = trainer.end_epoch(epoch)
            self.progress.note(f"epoch {epoch + 1} of {epochs}: {as_sentence(row)}")
            for note in trainer.fallbacks():
                self.progress.note(note)

    def check(self) -> None:
        """Stop in all processes at the same step."""
        asked = False
        try:
            self.progress.check()
        except Interrupted:
            asked = True
        if self.group.any(flag=asked):
            raise Interrupted("stopped between two steps")

    def _finish(self, run: Run, setup: Setup) -> Run:
        cached, trained = setup.features, setup.split.trained
        if setup.reference is not None:
            store_reference(run, cached, setup.reference, trained)
        run = finish_scores(run, cached, setup.segment, self_check=setup.self_check)
        return self.finished(
            run,
            batch_size=min(setup.training.batch_size, len(trained)),
            reference_head=None if setup.reference is None else setup.reference.record,
            epochs=setup.training.epochs,
        )


def _identity(setup: Setup) -> str:
    """The weights that training starts from, and the content of the reference head's file."""
    file = stored.file_identity(setup.config.head)
    return setup.model if file is None else f"{setup.model} {file}"
