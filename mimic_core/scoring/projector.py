"""One projection that is trained on cached features: what probe mode and proofs share.

A step is ``embed``, the losses of ``mimic_core.mimic.contrastive``, and ``descend`` with one weight
per sample. Probe mode puts the mimic scores between the two; plain training weighs all alike.

Letters: B batch, F feature width, D embedding width. float32; features are read as float16.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimic_core.base.config import Side
from mimic_core.base.errors import ConfigError
from mimic_core.features.stored import ReferenceHead, Rows, read_head
from mimic_core.mimic.adamw import AdamW
from mimic_core.mimic.contrastive import (
    Embedded,
    Head,
    ScoredLogits,
    embedding_gradient,
    normalise,
    score_logits,
    through_normalise,
)
from mimic_core.mimic.losses import require_finite
from mimic_core.models.layers import fresh_weight
from mimic_core.models.projections import Projection
from mimic_core.runs.featureset import FeatureSet


def reference_projection(features: FeatureSet, side: Side) -> tuple[ReferenceHead, Projection]:
    """The reference's head, and the projection of that tower.

    Raises:
        ConfigError: The tower's features are not stored because it has no linear projection.
    """
    reference = read_head(features)
    if side not in reference.projections:
        raise ConfigError(
            f"the reference's {side} tower has no linear projection to probe",
            got=side,
            allowed=", ".join(reference.projections) or "no side of this reference",
            next_step="probe the other side, or use --mode snapshot",
        )
    return reference, reference.projections[side]


def stored_pairs(features: FeatureSet, side: Side, device: torch.device) -> tuple[Rows, Rows]:
    """Features of one side, and embeddings of the other."""
    other = "text" if side == "image" else "image"
    return (
        Rows(features, f"{side}_features", device),
        Rows(features, f"{other}_embedding", device),
    )


class Projector:
    """A fresh projection (F, D) and its optimiser's state; everything else is frozen.

    Args:
        head: Loss, scale and bias of the reference.
        projection: The reference's, whose shape and bias are taken.
        side: The tower it belongs to.
        seed: Of the fresh weight.
    """

    def __init__(
        self,
        head: Head,
        projection: Projection,
        *,
        side: Side,
        seed: int,
        learning_rate: float,
        weight_decay: float,
        device: torch.device,
    ) -> None:
        self.head = head
        self.side = side
        self.bias: Tensor | float = 0.0
        if projection.bias is not None:
            self.bias = projection.bias.to(device)
        generator = torch.Generator().manual_seed(seed)
        fresh = fresh_weight("projection", tuple(projection.weight.shape), generator)
        self.weight = fresh.to(device)
        self._optimiser = AdamW(self.weight, learning_rate, weight_decay)

    def embed(
        self, features: Tensor, others: Tensor, direction: Tensor | None = None
    ) -> tuple[Embedded, Tensor]:
        """The batch with this side's embeddings, and their raw norms (B, 1).

        Args:
            features: (B, F)
            others: Embeddings (B, D) of the other side.
            direction: (F, D), along which the embeddings are differentiated.
        """
        raw = features @ self.weight + self.bias
        along = None if direction is None else features @ direction
        unit, tangent, norms = normalise(raw, along)
        if self.side == "text":
            return Embedded(others, unit, text_tangent=tangent), norms
        return Embedded(unit, others, image_tangent=tangent), norms

    def descend(
        self,
        features: Tensor,
        batch: Embedded,
        norms: Tensor,
        scored: ScoredLogits,
        weights: Tensor,
    ) -> None:
        """One optimiser step on ``sum_i weights_i loss_i`` of what ``embed`` returned."""
        gradient = embedding_gradient(batch, self.head, scored, weights, side=self.side)
        unit = batch.image if self.side == "image" else batch.text
        self._optimiser.step(features.T @ through_normalise(gradient, unit, norms))

    def plain_step(self, features: Tensor, others: Tensor) -> Tensor:
        """One step in which all samples weigh alike; returns their losses (B,) before it."""
        batch, norms = self.embed(features, others)
        scored = score_logits(batch, self.head)
        require_finite(scored.losses)
        weights = torch.full_like(scored.losses, 1 / len(batch))
        self.descend(features, batch, norms, scored, weights)
        return scored.losses
