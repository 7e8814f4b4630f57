"""The training loop: epochs of steps, evaluation, checkpoints.

Letters: B batch (of all processes together).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimic_core.base.draws import Draw, fitting_batch_size
from mimic_core.base.identity import image_numbers
from mimic_core.base.schema import ScoreBatch
from mimic_core.features.filling import ENCODE_BATCH
from mimic_core.features.loading import LoadedBatch, default_workers, load_batches
from mimic_core.mimic.weightings import needs_comparison, needs_reference_losses
from mimic_core.runs.metrics import MetricsFile
from mimic_core.scoring.job import Job
from mimic_core.scoring.training import state
from mimic_core.scoring.training.comparison import mean_gradient
from mimic_core.scoring.training.data import (
    Plan,
    SampleReader,
    Slices,
    TrainingSet,
    batches_from,
    words_of,
)
from mimic_core.scoring.training.distributed import Group, local_processes
from mimic_core.scoring.training.evaluation import evaluate
from mimic_core.scoring.training.optimisation import Updater, limit_logit_scale
from mimic_core.scoring.training.planting import Planting
from mimic_core.scoring.training.reference_losses import LossesOf, label_losses_of, pair_losses_of
from mimic_core.scoring.training.setup import Setup
from mimic_core.scoring.training.step import Aids, Learner, Visit, visit_batch


class Trainer:
    """Trains the module of ``setup`` in place; one per process.

    Args:
        folder: The run directory, where the first process keeps checkpoints and metrics.
    """

    def __init__(self, setup: Setup, folder: Path, job: Job, group: Group) -> None:
        self._setup = setup
        self._config = setup.training
        self._group = group
        self._device = device = job.device
        self._workers = job.workers
        split = setup.split
        self._plan = Plan(
            words_of(setup.features, split.trained),
            split.trained,
            fitting_batch_size(self._config.batch_size, len(split.trained)),
            self._config.seed,
            self._config.epochs,
        )
        self._rows = SampleReader(setup.features.path, setup.loader)
        parameters = dict(setup.module.named_parameters())
        self._learner = Learner(setup.module, setup.objective, setup.target, self._config, group)
        self._everything = list(parameters.values())
        self._updater = Updater(
            parameters,
            self._config,
            total=self._config.epochs * math.ceil(self._plan.steps / self._config.accumulate),
            device=device,
            precision=setup.config.precision,
        )
        self._checkpoints = folder / "checkpoints"
        self._metrics = MetricsFile(folder / "metrics.parquet")
        self._batches: Iterator[LoadedBatch] = iter(())
        self._clean: list[LoadedBatch] | None = None
        self._planting = Planting(
            self._plan.words, setup.features.samples[self._plan.rows], setup.classes
        )
        self._reference_losses: LossesOf | None = None
        if needs_reference_losses(self._config.weighting):
            self._reference_losses = _reference_losses(setup, device)
        self._loss_sum = 0.0
        self._fallbacks = Counter[str]()

    @property
    def batch_size(self) -> int:
        """B: the batch size asked for, or the whole pool."""
        return self._plan.batch_size

    def resume(self) -> int:
        """Go on from the last finished epoch; returns the epoch to begin with."""
        done = state.finished_epoch(self._checkpoints)
        start = 0 if done is None else done + 1
        if done is not None:
            state.restore(self._checkpoints, done, self._setup.module, self._updater)
        if self._group.first:
            self._metrics.keep_until(-2 if done is None else done, self._updater.step)
        compares = needs_comparison(self._config.weighting) == "pool"
        dataset = TrainingSet(
            self._plan, self._rows, self._group, comparison=compares, flip=self._config.flip
        )
        self._batches = batches_from(
            dataset,
            start,
            self._plan.steps,
            workers=self._loading(len(self._plan.rows), sharing=local_processes()),
            device=self._device,
        )
        return start

    def epoch(self, epoch: int) -> Iterator[ScoreBatch]:
        """Train one epoch; ``resume`` comes before the first, ``end_epoch`` after each."""
        self._loss_sum, self._fallbacks = 0.0, Counter()
        draws, together = self._plan.draws(epoch), self._config.accumulate
        for draw in draws:
            first = draw.step - draw.step % together
            visit = self._visit(draw, share=1 / min(together, len(draws) - first))
            updates = draw.step == min(first + together, len(draws)) - 1
            if updates:
                self._update()
            yield self._logged(epoch, draw, visit)
            # The last update of an epoch is evaluated by end_epoch.
            if updates and draw.step < len(draws) - 1 and self._is_due():
                self.evaluate(epoch)

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Evaluate and keep what the epoch has led to; returns the row of metrics."""
        row = self.evaluate(
            epoch,
            train_loss=self._loss_sum / len(self._plan.rows),
            uniform_batches=self._fallbacks.total(),
        )
        if self._group.first:
            state.store(
                self._checkpoints,
                epoch,
                self._setup.module,
                self._updater,
                classes=self._setup.classes,
            )
        self._group.wait()
        return row

    def fallbacks(self) -> list[str]:
        """Why how many batches of the last epoch were weighted uniformly."""
        return [
            f"{count} of {self._plan.steps} batches were weighted uniformly: {reason}"
            for reason, count in sorted(self._fallbacks.items())
        ]

    def evaluate(self, epoch: int, **measured: float) -> dict[str, Any]:
        """One row of metrics for the present weights, stored; by the first process alone."""
        held = self._setup.split.held_out
        row: dict[str, Any] = {"epoch": epoch, "step": self._updater.step, **measured}
        row["held_out"] = len(held)
        if not self._group.first:
            return row
        if len(held):
            size = ENCODE_BATCH[self._device.type]
            samples = self._setup.features.samples
            found = evaluate(
                self._setup.module,
                self._setup.objective,
                load_batches(
                    Slices(self._rows, held, size, self._setup.split.held_out_labels),
                    workers=self._loading(len(held), sharing=1),  # the others wait meanwhile
                    device=self._device,
                ),
                words=words_of(self._setup.features, held),
                images=image_numbers(samples[held]),
                batch_size=self._plan.batch_size,
                seed=self._config.seed,
            )
            row |= asdict(found)
        self._metrics.add(row)
        return row

    def _is_due(self) -> bool:
        """Whether the update just made is one of every N that are evaluated."""
        every = self._config.evaluate_every
        return every is not None and self._updater.step % every == 0

    def _visit(self, draw: Draw, *, share: float) -> Visit:
        """Forward and backward pass of one batch; its gradients are added."""
        batch = next(self._batches)
        return visit_batch(
            self._learner,
            batch,
            self._aids(draw),
            scale=lambda cotangents: self._updater.scale(cotangents * share),
        )

    def _aids(self, draw: Draw) -> Aids:
        """What the weighting compares this batch with."""
        compares = needs_comparison(self._config.weighting)
        others: list[LoadedBatch] | None = None
        group = self._group
        if compares == "pool":
            others = [next(self._batches)]
        elif compares == "clean":
            if self._clean is None:
                self._clean = self._load_clean()
            others, group = self._clean, Group()  # each process has them all
        losses = self._reference_losses
        return Aids(
            None if others is None else self._comparison(others, group),
            None if losses is None else losses(self._plan.rows[draw.rows]),
            self._planting.swap(draw, self._device),
        )

    def _load_clean(self) -> list[LoadedBatch]:
        """In parts no larger than this process's part of a batch, which is known to fit."""
        rows, labels = self._setup.split.clean, self._setup.clean_labels
        size = self._plan.batch_size // self._group.size
        parts = Slices(self._rows, rows, size)
        workers = self._loading(len(rows), sharing=local_processes())
        batches = load_batches(parts, workers=workers, device=torch.device("cpu"))
        if labels is None:
            return list(batches)
        return [
            replace(batch, labels=[*labels[start : start + size]])
            for start, batch in zip(range(0, len(rows), size), batches, strict=True)
        ]

    def _comparison(self, parts: list[LoadedBatch], group: Group) -> dict[str, Tensor]:
        layers = list(self._setup.target)
        return mean_gradient(self._setup.module, self._setup.objective, parts, layers, group)

    def _update(self) -> None:
        self._group.sum_gradients(self._everything)
        self._updater.update()
        limit_logit_scale(self._setup.module)

    def _logged(self, epoch: int, draw: Draw, visit: Visit) -> ScoreBatch:
        def kept(values: Tensor) -> np.ndarray:
            return values[: draw.scored].detach().cpu().numpy()

        losses = kept(visit.losses)
        self._loss_sum += float(losses.astype(np.float64).sum())
        if visit.note is not None:
            self._fallbacks[visit.note] += 1
        return ScoreBatch(
            epoch,
            draw.step,
            draw.rows[: draw.scored],
            losses,
            kept(visit.mimic_scores),
            kept(visit.mimic_weights),
            kept(visit.train_weights),
            None if visit.correct is None else kept(visit.correct),
            planted=None if visit.planted is None else self._planting.planted(draw, visit.planted),
        )

    def _loading(self, samples: int, *, sharing: int) -> int:
        """Loading processes: as asked for, else this process's share of the machine."""
        return default_workers(samples, sharing=sharing) if self._workers is None else self._workers


def _reference_losses(setup: Setup, device: torch.device) -> LossesOf:
    if setup.reference is None:
        return pair_losses_of(setup.features, device)
    return label_losses_of(setup.features, setup.reference.head, device)
