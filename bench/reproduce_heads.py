"""Linear probing on labelled images: the product's own probe on the references' features.

The paper's linear probing: frozen features, a fresh linear head, the reference's head for the
direction. Settings are the paper's (batch 32, five epochs, temperature 1) and the same for all
weightings; none is chosen by test accuracy. AGRA and Grad-Match compare with the next batch, the
influence weighting with ten clean images of each class from the reference's part.

Letters: M scored images, S epochs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from feature_sets import one_shard
from reproduce_images import Referred

from mimic_core.base.config import ProbeConfig, WeightingName
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.history import History
from mimic_core.scoring.labels.class_head import ClassHead
from mimic_core.scoring.labels.probe import LabelProbe
from mimic_core.sources.marks import Trusted

ARRAY = "image_features"


@dataclass(frozen=True)
class HeadSettings:
    """Of one training of a head."""

    weighting: WeightingName = "mimic"
    seed: int = 0
    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class Heads:
    """Heads on the scored part of ``referred``, whose labels are those of ``features``."""

    referred: Referred
    features: FeatureSet

    @classmethod
    def of(cls, referred: Referred, labels: np.ndarray, folder: Path) -> Heads:
        """Heads for ``labels`` (M,) of the scored part; the features are written to ``folder``."""
        given = referred.images.labels.copy()
        given[referred.images.parts()[1]] = labels
        samples = pl.DataFrame(
            {
                "uid": [f"{row:032x}" for row in range(len(given))],
                "label": [str(number) for number in given],
            }
        )
        arrays = {ARRAY: referred.features.half().numpy()}
        return cls(referred, one_shard(folder, samples, arrays))

    def train(self, settings: HeadSettings) -> tuple[History, float]:
        """Train a fresh head; its history and its accuracy on the test part, by clean labels."""
        reference, scored, test = self.referred.images.parts()
        clean = [str(number) for number in self.referred.images.labels[reference]]
        probe = LabelProbe(
            self.features,
            self._head(),
            ProbeConfig(
                weighting=settings.weighting,
                seed=settings.seed,
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                temperature=settings.temperature,
            ),
            scored=scored,
            trusted=Trusted(reference, clean),
        )
        logged = np.zeros((3, settings.epochs, len(scored)), np.float32)
        for epoch in range(settings.epochs):
            for batch in probe.run(epoch):
                values = (batch.mimic_score, batch.mimic_weight, batch.loss)
                for row, value in zip(logged, values, strict=True):
                    row[epoch, batch.rows] = value
        epochs = tuple(range(settings.epochs))
        history = History(probe.uids, logged[0], logged[1], logged[2], epochs, probe.batch_size)
        features = self.referred.features[torch.from_numpy(test)]
        predicted = (features @ probe.weight.T + probe.bias).argmax(1).numpy()
        return history, float((predicted == self.referred.images.labels[test]).mean())

    def _head(self) -> ClassHead:
        classes = tuple(str(number) for number in range(self.referred.images.classes))
        return ClassHead(classes, self.referred.weight, self.referred.bias)
