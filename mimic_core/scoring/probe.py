"""Probe mode for image-caption pairs: one tower's last projection, and the contrastive loss.

``PairLoss`` holds the pairs of a feature set under the reference's loss, and what there is of the
trained projection but its weight: probe mode and proofs share it.

Letters: N samples, B batch, F feature width, D embedding width. float32; features are read as
float16.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mimic_core.base.config import ProbeConfig, Side
from mimic_core.base.errors import ConfigError
from mimic_core.features.stored import Rows, read_ends
from mimic_core.mimic.contrastive import (
    Embedded,
    embedding_gradient,
    normalise,
    score_logits,
    score_planted,
    steepest,
    through_normalise,
)
from mimic_core.mimic.losses import contrastive_losses
from mimic_core.mimic.scores import gradient_norms
from mimic_core.models.layers import fresh_weight
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.learner import LinearLearner, Look

PAIR_WEIGHTINGS = ("mimic", "uniform")


class PairLoss:
    """The contrastive loss of one tower's trained projection (F, D) against the other tower.

    ``scaling`` is the loss, scale and bias of the reference, ``target`` its projection's weight.

    Args:
        features: A finished feature set of the reference.
        side: The tower whose projection is trained.

    Raises:
        ConfigError: The tower's features are not stored because it has no linear projection.
    """

    what = "projection"

    def __init__(self, features: FeatureSet, side: Side, device: torch.device) -> None:
        reference = read_ends(features)
        if side not in reference.projections:
            raise ConfigError(
                f"the reference's {side} tower has no linear projection to probe",
                got=side,
                allowed=", ".join(reference.projections) or "no side of this reference",
                next_step="probe the other side, or use --mode snapshot",
            )
        projection = reference.projections[side]
        self.scaling, self.side, self.layer = reference.scaling, side, projection.name
        self.target = projection.weight.to(device)
        self._bias = 0.0 if projection.bias is None else projection.bias.to(device)
        self._features = Rows(features, f"{side}_features", device)
        other = "text" if side == "image" else "image"
        self._others = Rows(features, f"{other}_embedding", device)

    def load(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features (B, F) of this side and embeddings (B, D) of the other."""
        return self._features.take(rows), self._others.take(rows)

    def fresh(self, seed: int) -> Tensor:
        """A fresh weight (F, D)."""
        generator = torch.Generator().manual_seed(seed)
        weight = fresh_weight("projection", tuple(self.target.shape), generator)
        return weight.to(self.target.device)

    def embed(
        self, weight: Tensor, features: Tensor, others: Tensor, unit: Tensor | None = None
    ) -> tuple[Embedded, Tensor]:
        """The batch with the projection at ``weight``, and its embeddings' raw norms (B, 1).

        Args:
            unit: (F, D), along which the embeddings are differentiated.
        """
        along = None if unit is None else features @ unit
        own, tangent, norms = normalise(features @ weight + self._bias, along)
        if self.side == "text":
            return Embedded(others, own, text_tangent=tangent), norms
        return Embedded(own, others, image_tangent=tangent), norms

    def look(
        self, weight: Tensor, features: Tensor, others: Tensor, unit: Tensor | None = None
    ) -> Look:
        """See ``learner.Loss``; without ``unit`` all scores are zero."""
        batch, lengths = self.embed(weight, features, others, unit)
        scored = score_logits(batch, self.scaling)
        own = batch.image if self.side == "image" else batch.text

        def gradients(weights: Tensor) -> tuple[Tensor]:
            gradient = embedding_gradient(batch, self.scaling, scored, weights, side=self.side)
            return (features.T @ through_normalise(gradient, own, lengths),)

        def norms_by_reverse_mode() -> Tensor:
            moved, scaling = weight.clone().requires_grad_(True), self.scaling
            again = self.embed(moved, features, others)[0]
            bias = scaling.bias if scaling.loss == "siglip" else None
            losses = contrastive_losses(again.image, again.text, scaling.scale, bias)
            return gradient_norms(losses, [moved])

        def again(places: Tensor, answers: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
            pairs = self._with_answers(batch, places, answers)

            def norms() -> Tensor:
                moved = weight.clone().requires_grad_(True)
                attached = self.embed(moved, features, others)[0]
                pairs = self._with_answers(attached, places, answers)
                return gradient_norms(
                    score_planted(attached, self.scaling, pairs, places).losses, [moved]
                )

            return score_planted(batch, self.scaling, pairs, places).scores, norms

        return Look(
            scored.losses,
            scored.scores,
            norms_by_reverse_mode,
            gradients,
            lambda: steepest(batch, self.scaling),
            again,
        )

    def _with_answers(self, batch: Embedded, places: Tensor, answers: Tensor) -> Embedded:
        """The samples (K,) at these places with ``answers`` (K, D) on the side that is frozen."""
        image, text = batch.image_tangent, batch.text_tangent
        if self.side == "image":
            return Embedded(batch.image[places], answers, None if image is None else image[places])
        own = None if text is None else text[places]
        return Embedded(answers, batch.text[places], text_tangent=own)

    def losses(self, weight: Tensor, features: Tensor, others: Tensor) -> Tensor:
        """Losses (B,) in blocks of rows, without a way back."""
        return score_logits(self.embed(weight, features, others)[0], self.scaling).losses

    def reverse_score(
        self, i: int, weight: Tensor, direction: Tensor, features: Tensor, others: Tensor
    ) -> Tensor:
        """See ``learner.Loss``. From row and column i of the logits alone: a check on two samples
        must not need the logits of all pairs, 17 GB for 65,536 samples.
        """
        moved = weight.clone().requires_grad_(True)
        batch = self.embed(moved, features, others)[0]
        row = self.scaling.scale * (batch.text @ batch.image[i]) + self.scaling.bias
        if self.scaling.loss == "siglip":
            signs = torch.full_like(row, -1.0)
            signs[i] = 1.0
            loss = -F.logsigmoid(signs * row).sum()
        else:
            column = self.scaling.scale * (batch.image @ batch.text[i]) + self.scaling.bias
            loss = 0.5 * (torch.logsumexp(row, 0) + torch.logsumexp(column, 0)) - row[i]
        gradient: Tensor = torch.autograd.grad(loss, moved)[0]
        return gradient.mul(direction).sum().neg().div(direction.norm())


class Probe(LinearLearner):
    """Grad-Mimic on one feature set of pairs.

    Args:
        features: A finished feature set of the reference.
        config: Settings; ``config.side`` names the tower whose projection is trained.

    Raises:
        ConfigError: The tower's features are not stored because it has no linear projection, or
            the weighting is not for pairs.
        ScoreError: The pool is too small.
    """

    def __init__(
        self, features: FeatureSet, config: ProbeConfig, *, device: torch.device | str = "cpu"
    ) -> None:
        if config.weighting not in PAIR_WEIGHTINGS:
            raise ConfigError(
                "this weighting needs labels, or training of the whole model",
                got=f"--weighting {config.weighting}",
                allowed=", ".join(PAIR_WEIGHTINGS),
                next_step="choose one of them, or use the command train",
            )
        loss = PairLoss(features, config.side, torch.device(device))
        super().__init__(
            loss,
            config,
            load=loss.load,
            target=loss.target,
            weight=loss.fresh(config.seed),
            samples=features.samples,
            planted="caption",
        )
