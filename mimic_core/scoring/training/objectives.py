"""What is learned: pairs or labels, each as a forward pass up to its outputs and losses on them.

The forward pass of a batch is cut in two. ``outputs`` runs the module: one row per sample, and for
pairs the logit scale and bias that all rows share. ``losses`` needs no module: what a batch shared
among processes does after its rows have been gathered. Letters: B batch, D embedding width, C
classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimic_core.base.config import Precision
from mimic_core.features.loading import LoadedBatch
from mimic_core.mimic.losses import contrastive_losses, cross_entropy_losses
from mimic_core.models import classifiers, clip
from mimic_core.models.devices import autocast


class Objective(Protocol):
    """Pairs or labels."""

    @property
    def row_outputs(self) -> int:
        """How many of the outputs, the first ones, have one row per sample."""

    def outputs(self, module: nn.Module, batch: LoadedBatch) -> tuple[Tensor, ...]:
        """Run ``module`` at the objective's precision; float32."""

    def targets(self, batch: LoadedBatch) -> Tensor | None:
        """Class numbers (B,) int64; None for pairs."""

    def losses(self, outputs: tuple[Tensor, ...], targets: Tensor | None) -> Tensor:
        """Losses (B,) of a batch from its outputs."""


@dataclass(frozen=True)
class PairObjective:
    """Image-caption pairs under the model's own contrastive loss.

    Outputs: unit embeddings of images and texts (B, D), logit scale, and for SigLIP its bias.
    """

    device: torch.device
    precision: Precision = "fp32"
    row_outputs: int = 2

    def outputs(self, module: nn.Module, batch: LoadedBatch) -> tuple[Tensor, ...]:
        """See ``Objective``."""
        with autocast(self.device, self.precision):
            image = clip.encode_image(module, batch.images)
            text = clip.encode_text(module, batch.tokens)
        unit = F.normalize(image.float(), dim=-1)[batch.image_of]  # captions may share an image
        bias = clip.logit_bias(module)
        scalars = [clip.logit_scale(module), *([] if bias is None else [bias])]
        return (unit, F.normalize(text.float(), dim=-1), *scalars)

    def targets(self, batch: LoadedBatch) -> None:
        """Pairs have none: each image's own text is its target."""

    def losses(self, outputs: tuple[Tensor, ...], targets: Tensor | None) -> Tensor:
        """See ``Objective``."""
        assert targets is None
        image, text, scale, *bias = outputs
        return contrastive_losses(image, text, scale, bias[0] if bias else None)


@dataclass(frozen=True)
class LabelObjective:
    """Labelled images under cross-entropy, by a model whose last layer is linear.

    ``classes`` (C) names the model's outputs in their order. Output: logits (B, C).
    """

    classes: tuple[str, ...]
    device: torch.device
    precision: Precision = "fp32"
    row_outputs: int = 1

    @cached_property
    def _numbers(self) -> dict[str | None, int]:
        return {name: number for number, name in enumerate(self.classes)}

    def features(self, module: nn.Module, batch: LoadedBatch) -> Tensor:
        """What the last layer sees (B, F), float32."""
        with autocast(self.device, self.precision):
            return classifiers.features(module, batch.images).float()[batch.image_of]

    def logits(self, module: nn.Module, features: Tensor) -> Tensor:
        """The last layer, in float32 whatever the precision: it is small, and scores live on it."""
        head = classifiers.head(module)
        return F.linear(features, head.weight, head.bias)

    def outputs(self, module: nn.Module, batch: LoadedBatch) -> tuple[Tensor, ...]:
        """See ``Objective``."""
        return (self.logits(module, self.features(module, batch)),)

    def targets(self, batch: LoadedBatch) -> Tensor:
        """See ``Objective``."""
        numbers = [self._numbers[label] for label in batch.labels]
        return torch.tensor(numbers, device=self.device)

    def losses(self, outputs: tuple[Tensor, ...], targets: Tensor | None) -> Tensor:
        """See ``Objective``."""
        assert targets is not None
        return cross_entropy_losses(outputs[0], targets)
