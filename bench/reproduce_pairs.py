"""The demo pool of image-caption pairs: three ways to score it, and training on it.

Scores: probe and snapshot as the product makes them (``score_pool``); training from random weights
logs a score at every visit. Training uses the product's own step, optimiser and evaluation on
images that are decoded once; ``python -m mimic_core train`` runs the same steps. Held out are clean
pairs alone, so that the loss there says what was learned and not what was memorised.

Letters: N samples, S epochs.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from reproduce_probe import ProbePlan
from torch import nn

from mimic_core.base.config import ProbeConfig, RunConfig, SnapshotConfig, SourceConfig, TrainConfig
from mimic_core.base.draws import Draw, order, uid_words
from mimic_core.features.filling import loader_for
from mimic_core.features.loading import LoadedBatch
from mimic_core.models.layers import default_mimic_layers
from mimic_core.models.load import load_model
from mimic_core.runs.history import History
from mimic_core.runs.run import Run
from mimic_core.scoring.pipeline import score_pool
from mimic_core.scoring.training.data import Plan
from mimic_core.scoring.training.evaluation import evaluate
from mimic_core.scoring.training.objectives import PairObjective
from mimic_core.scoring.training.optimisation import Updater, limit_logit_scale
from mimic_core.scoring.training.step import Aids, Learner, Visit, visit_batch
from mimic_core.sources.opening import open_source

DEMO = Path(__file__).parents[1] / "data_samples"
REFERENCE = str(DEMO / "reference")
START = f"{DEMO / 'reference' / 'open_clip_config.json'}:random:"


@dataclass(frozen=True)
class Settings:
    """How much is computed.

    Full training: ``epochs`` from random weights, by which time plain training does best on
    held-out pairs, and ``later`` epochs from a start that has seen ``early`` plain epochs.
    ``layers`` and ``everything`` are the temperatures for weights on the mimic layers alone and on
    all parameters; the first of ``layers`` is the paper's best. Fine-tuning: ``tuned`` epochs at
    ``tuning_rate``, the authors' learning rate, of the reference with a fresh last block. ``probe``
    is for probe mode; ``samples`` limits the pool (None: all).
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 4
    early: int = 2
    later: int = 2
    batch_size: int = 64
    learning_rate: float = 1e-3
    held_out: int = 300
    layers: tuple[float, ...] = (0.05, 0.003)
    everything: tuple[float, ...] = (0.003,)
    tuned: int = 1
    tuning_rate: float = 1e-4
    probe: ProbePlan = field(default_factory=ProbePlan)
    samples: int | None = None


@dataclass(frozen=True)
class Pool:
    """The decoded pool. ``held_out`` and ``trained`` are positions; ``truth`` has uid, is_noisy,
    noise_kind and clip_score of all N samples in their order.
    """

    batch: LoadedBatch
    truth: pl.DataFrame
    reference: nn.Module
    held_out: np.ndarray
    trained: np.ndarray

    def take(self, rows: np.ndarray) -> LoadedBatch:
        """The samples at ``rows``."""
        batch, chosen = self.batch, torch.from_numpy(rows)
        return replace(
            batch,
            rows=rows,
            images=batch.images[batch.image_of[chosen]],
            image_of=torch.arange(len(rows)),
            tokens=batch.tokens[chosen],
        )


@dataclass
class Trained:
    """What a training has logged. ``metrics``: step, held_out_loss, both recalls; ``share`` is the
    mean over batches of the effective share of the batch, 1 / (B sum w^2), that the weights leave;
    ``early`` is the model after the first epochs.
    """

    early: nn.Module
    history: History
    metrics: list[dict[str, float]] = field(default_factory=list)
    share: float = 1.0


def scored_runs(settings: Settings, folder: Path, seed: int) -> Iterator[tuple[str, Run]]:
    """Finished probe and snapshot runs of the demo pool by mode."""
    source = SourceConfig(path=str(DEMO / "pool"), sample=settings.samples)
    ways: tuple[tuple[str, ProbeConfig | None, SnapshotConfig | None], ...] = (
        ("probe", ProbeConfig(seed=seed), None),
        ("snapshot", None, SnapshotConfig(seed=seed)),
    )
    for mode, probe, snapshot in ways:
        config = RunConfig(source=source, reference=REFERENCE, probe=probe, snapshot=snapshot)
        yield mode, score_pool(config, runs_root=folder, device="cpu", workers=0)


def decoded(run: Run, settings: Settings) -> Pool:
    """The pool of ``run`` in memory."""
    loaded = load_model(REFERENCE)
    source = open_source(run.record.config.source)
    samples = run.features.samples
    parts = samples.partition_by("shard", maintain_order=True)
    batches = [loader_for(source, loaded).load(part) for part in parts]
    offsets = np.cumsum([0, *(len(batch.images) for batch in batches)])
    whole = replace(
        batches[0],
        images=torch.cat([batch.images for batch in batches]),
        image_of=torch.cat(
            [batch.image_of + int(o) for batch, o in zip(batches, offsets, strict=False)]
        ),
        tokens=torch.cat([batch.tokens for batch in batches]),
    )
    truth = samples.select("uid", "is_noisy", "noise_kind", "clip_score")
    held_out, trained = split(truth, settings.held_out)
    return Pool(whole, truth, loaded.module, held_out, trained)


def split(truth: pl.DataFrame, held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of ``held_out`` clean samples, drawn by hash of their uids, and of all others."""
    clean = np.flatnonzero(~truth["is_noisy"].to_numpy())
    drawn = clean[order(truth["uid"].gather(clean), 0)[:held_out]]
    return np.sort(drawn), np.setdiff1d(np.arange(len(truth)), drawn)


def with_fresh_block(reference: nn.Module, seed: int) -> nn.Module:
    """A copy of the demo's reference whose image tower ends in a block of random weights."""
    made = deepcopy(reference)
    drawn = load_model(f"{START}{seed}", preprocess="openai").module
    prefix = default_mimic_layers(made)[0].removesuffix("mlp.c_proj.weight")
    fresh = {name: value for name, value in drawn.state_dict().items() if name.startswith(prefix)}
    made.load_state_dict(fresh, strict=False)
    return made


def train(pool: Pool, start: nn.Module, config: TrainConfig, *, early: int) -> Trained:
    """Train a copy of ``start``; evaluated twice in each epoch, copied after ``early`` of them."""
    module = deepcopy(start).requires_grad_(True)
    stepper = _Stepper(pool, module, config)
    logged = np.zeros((3, config.epochs, len(pool.trained)), np.float32)
    metrics, shares, kept = [measured(pool, module, config, 0)], [], module
    for epoch in range(config.epochs):
        draws = stepper.plan.draws(epoch)
        for draw in draws:
            visit = stepper.step(draw)
            values = (visit.mimic_scores, visit.mimic_weights, visit.losses)
            for row, value in zip(logged, values, strict=True):
                row[epoch, draw.rows[: draw.scored]] = value[: draw.scored].numpy()
            shares.append(1 / float(visit.train_weights.square().sum()) / config.batch_size)
            if draw.step in (len(draws) // 2 - 1, len(draws) - 1):
                metrics.append(measured(pool, module, config, stepper.updater.step))
        if epoch + 1 == early:
            kept = deepcopy(module)
    uids = pool.truth["uid"].gather(pool.trained)
    epochs = tuple(range(config.epochs))
    history = History(uids, logged[0], logged[1], logged[2], epochs, config.batch_size)
    return Trained(kept, history, metrics, float(np.mean(shares)))


class _Stepper:
    """The product's training step on images in memory."""

    def __init__(self, pool: Pool, module: nn.Module, config: TrainConfig) -> None:
        self._pool = pool
        names = config.mimic_layers or default_mimic_layers(module)
        target = {name: pool.reference.get_parameter(name).detach() for name in names}
        self._learner = Learner(module, PairObjective(torch.device("cpu")), target, config)
        words = uid_words(pool.truth["uid"].gather(pool.trained))
        self.plan = Plan(words, pool.trained, config.batch_size, config.seed, config.epochs)
        self.updater = Updater(
            dict(module.named_parameters()),
            config,
            total=config.epochs * self.plan.steps,
            device=torch.device("cpu"),
            precision="fp32",
        )

    def step(self, draw: Draw) -> Visit:
        """One update; what is logged of its batch."""
        batch = self._pool.take(self.plan.rows[draw.rows])
        visit = visit_batch(self._learner, batch, Aids())
        self.updater.update()
        limit_logit_scale(self._learner.module)
        return visit


def measured(pool: Pool, module: nn.Module, config: TrainConfig, step: int) -> dict[str, float]:
    """Held-out metrics after ``step`` updates."""
    rows = pool.held_out
    found = evaluate(
        module,
        PairObjective(torch.device("cpu")),
        [pool.take(rows)],
        words=uid_words(pool.truth["uid"].gather(rows)),
        images=rows,
        batch_size=config.batch_size,
        seed=0,
    )
    values = {name: value for name, value in asdict(found).items() if value is not None}
    return {"step": step, **values}
