"""The reference's losses of any batch, from what it has left in its feature set: no forward pass.

Stored arrays are float16, so these losses are those of the rounded embeddings or features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mimic_core.base.config import BOTH_SIDES
from mimic_core.features.stored import Rows, features_array, read_ends
from mimic_core.mimic.contrastive import Embedded, score_logits
from mimic_core.mimic.losses import cross_entropy_losses
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.labels.class_head import ClassHead

LossesOf = Callable[[np.ndarray], Tensor]
"""Losses (B,) of the samples at the given positions (B,), as one batch."""


def pair_losses_of(features: FeatureSet, device: torch.device) -> LossesOf:
    """Of the pairs of a finished feature set."""
    images, texts = (Rows(features, f"{side}_embedding", device) for side in BOTH_SIDES)
    scaling = read_ends(features).scaling

    def losses(rows: np.ndarray) -> Tensor:
        return score_logits(Embedded(images.take(rows), texts.take(rows)), scaling).losses

    return losses


def label_losses_of(features: FeatureSet, head: ClassHead, device: torch.device) -> LossesOf:
    """Of the labelled images of a finished feature set, under the reference head."""
    stored = Rows(features, features_array(features), device)
    labels = features.samples["label"]
    here = head.to(device)

    def losses(rows: np.ndarray) -> Tensor:
        numbers = torch.tensor(head.numbers(labels.gather(rows).to_list()), device=device)
        return cross_entropy_losses(here.logits(stored.take(rows)), numbers)

    return losses
