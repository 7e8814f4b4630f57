"""Grad-Mimic against plain training in probe mode: only the image projection is trained.

The paper's linear probing carried over to pairs (docs/method.md): the reference's frozen features,
a fresh projection, equal steps. Held-out clean pairs are no part of the feature set that is trained
on. Letters: N pairs.
"""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mimic_core.base.config import ProbeConfig
from mimic_core.base.draws import draw_batches, uid_words
from mimic_core.features.stored import read_ends
from mimic_core.mimic.losses import clip_losses
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.probe import Probe
from mimic_core.scoring.training.evaluation import recall_at_1

ARRAYS = ("image_features", "image_embedding", "text_features", "text_embedding")
BATCH = 64
KEPT = 0.7  # the clean share of the pool, which nobody knows beforehand
FILTERED = "plain on the CLIP score's top 70 %"


@dataclass(frozen=True)
class ProbePlan:
    """How many epochs' worth of steps, and which temperatures."""

    epochs: int = 4
    temperatures: tuple[float, ...] = (0.5, 0.2, 0.1, 0.05, 0.02)


@dataclass(frozen=True)
class Way:
    """What one training has led to: metrics by step, and the mean effective share of a batch,
    1 / (B sum w^2), that its weights leave.
    """

    metrics: list[dict[str, float]]
    share: float


class HeldOut:
    """Held-out pairs as the reference's features see them."""

    def __init__(self, features: FeatureSet, rows: np.ndarray) -> None:
        def taken(name: str) -> Tensor:
            return torch.from_numpy(features.array(name).take(rows)).float()

        self._features, self._texts = taken("image_features"), taken("text_embedding")
        self._words, self._images = uid_words(features.samples["uid"].gather(rows)), rows
        ends = read_ends(features)
        self._scale = ends.scaling.scale
        self.reference = ends.projections["image"].weight

    def measured(self, weight: Tensor, step: int) -> dict[str, float]:
        """Loss and recall at 1 with the projection ``weight``."""
        images = F.normalize(self._features @ weight, dim=1)
        losses = []
        size = min(BATCH, len(images))
        for draw in draw_batches(self._words, batch_size=size, seed=0, epoch=0):
            pair = images[draw.rows], self._texts[draw.rows]
            losses.append(clip_losses(*pair, self._scale)[: draw.scored])
        return {
            "step": step,
            "held_out_loss": float(torch.cat(losses).double().mean()),
            "image_to_text_recall_at_1": recall_at_1(images, self._texts, self._images),
            "text_to_image_recall_at_1": recall_at_1(self._texts, images, self._images),
        }


def subset(features: FeatureSet, rows: np.ndarray, folder: Path) -> FeatureSet:
    """A feature set of the samples at ``rows`` alone, in ``folder``."""
    folder.mkdir(parents=True)
    shutil.copy(features.path / "head.safetensors", folder)
    made = FeatureSet(folder, {**features.info, "shards": ["all"]})
    arrays = {name: features.array(name).take(rows) for name in ARRAYS}
    made.write_shard("all", features.samples[rows], features.skipped, arrays)
    return made


def probe_training(
    features: FeatureSet, held_out: HeldOut, *, temperature: float | None, steps: int, seed: int
) -> Way:
    """Train for ``steps`` steps; measured every seven, a quarter of an epoch of the demo.

    Args:
        temperature: Of the mimic weights; None trains plainly.
    """
    config = ProbeConfig(
        epochs=1,  # as many as it takes
        batch_size=BATCH,
        temperature=temperature or 0.05,
        weighting="uniform" if temperature is None else "mimic",
        seed=seed,
    )
    probe = Probe(features, config)
    metrics, shares, step = [held_out.measured(probe.weight, 0)], [], 0
    for epoch in itertools.count():
        for batch in probe.run(epoch):
            step += 1
            if temperature is not None and len(batch.rows) == probe.batch_size:
                shares.append(1 / float(np.square(batch.mimic_weight).sum()) / probe.batch_size)
            if step % 7 == 0 or step == steps:
                metrics.append(held_out.measured(probe.weight, step))
            if step == steps:
                return Way(metrics, float(np.mean(shares)) if shares else 1.0)
    raise AssertionError  # the loop has no end


def probe_trainings(
    features: FeatureSet,
    parts: tuple[np.ndarray, np.ndarray],
    plan: ProbePlan,
    *,
    seed: int,
    folder: Path,
) -> dict[str, Way]:
    """Every way to train: plainly first, then Grad-Mimic at each temperature, then plainly on the
    best by CLIP score; and the reference's own projection.

    Args:
        parts: The held-out and the trained positions in ``features``.
    """
    held_out = HeldOut(features, parts[0])
    mine = subset(features, parts[1], folder / "all")
    steps = plan.epochs * -(-len(parts[1]) // BATCH)

    def trained(on: FeatureSet, temperature: float | None) -> Way:
        return probe_training(on, held_out, temperature=temperature, steps=steps, seed=seed)

    found = {"plain": trained(mine, None)}
    for value in plan.temperatures:
        found[f"mimic, temperature {value:g}"] = trained(mine, value)
    scores = features.samples["clip_score"].to_numpy()[parts[1]]
    best = np.sort(parts[1][np.argsort(-scores)[: round(KEPT * len(scores))]])
    found[FILTERED] = trained(subset(features, best, folder / "best"), None)
    found["the reference itself"] = Way([held_out.measured(held_out.reference, 0)], 1.0)
    return found
