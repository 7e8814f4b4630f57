"""Probe mode: Grad-Mimic on cached features (method.md section 5).

The model is the reference with one last projection drawn afresh; that projection is the mimic layer
and all that is trained. With the features cached, a step is a few matrix products: forward pass,
scores by the closed forms of ``mimic_core.contrastive``, weights, AdamW on the weighted loss.

Letters: N samples, B batch, F feature width, D embedding width. float32; features are read as
float16.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mimic_core import mimic
from mimic_core.adamw import AdamW
from mimic_core.batches import Draw, draw_batches, fitting_batch_size
from mimic_core.contrastive import (
    Embedded,
    ScoredLogits,
    embedding_gradient,
    normalise,
    score_logits,
    through_normalise,
)
from mimic_core.errors import ConfigError, ScoreError
from mimic_core.featureset import FeatureSet
from mimic_core.heads import read_head
from mimic_core.losses import clip_losses, require_finite, siglip_losses
from mimic_core.models import fresh_weight
from mimic_core.sampling import uid_words
from mimic_core.schema import ProbeConfig, ScoreBatch

# Features up to this size are held in memory (as float16); larger ones are read batch by batch.
IN_MEMORY_BYTES = 2 << 30


class Probe:
    """Grad-Mimic on one feature set: the trained projection and the optimiser's state.

    Args:
        features: A finished feature set of the reference.
        config: Settings; ``config.side`` names the tower whose projection is trained.

    Raises:
        ConfigError: The tower's features are not stored because it has no linear projection.
        ScoreError: The pool is too small.
    """

    def __init__(
        self, features: FeatureSet, config: ProbeConfig, *, device: torch.device | str = "cpu"
    ) -> None:
        reference = read_head(features)
        if config.side not in reference.projections:
            raise ConfigError(
                f"the reference's {config.side} tower has no linear projection to probe",
                got=config.side,
                allowed=", ".join(reference.projections) or "no side of this reference",
                next_step="probe the other side, or use --mode snapshot",
            )
        self.config = config
        self.device = torch.device(device)
        self._head = reference.head
        self._projection = reference.projections[config.side]
        self._target = self._projection.weight.to(self.device)
        bias = self._projection.bias
        self._bias = 0.0 if bias is None else bias.to(self.device)
        other = "text" if config.side == "image" else "image"
        self._features = _Rows(features, f"{config.side}_features", self.device)
        self._others = _Rows(features, f"{other}_embedding", self.device)
        self._words = uid_words(features.samples["uid"])
        self.batch_size = fitting_batch_size(config.batch_size, len(self._words))
        generator = torch.Generator().manual_seed(config.seed)
        fresh = fresh_weight("projection", tuple(self._target.shape), generator)
        self.weight = fresh.to(self.device)
        self._optimiser = AdamW(self.weight, config.learning_rate, config.weight_decay)

    @property
    def mimic_layers(self) -> tuple[str, ...]:
        """The projection's exact parameter name in the model."""
        return (self._projection.name,)

    def run(self, epoch: int) -> Iterator[ScoreBatch]:
        """Score and train one epoch; call with 0, 1, 2, ... in turn.

        Raises:
            ScoreError: A loss is not finite, or the projection has reached the reference exactly.
        """
        for draw in self._draws(epoch):
            batch = self._step(draw)
            yield ScoreBatch(epoch, draw.step, draw.rows[: draw.scored], *batch)

    def self_check(self) -> float:
        """Largest difference between our scores and reverse mode on two samples, relative to the
        largest score of their batch. It is the projection that is compared, also for ``cos``.
        """
        draw = next(self._draws(0))
        features, others = self._load(draw.rows)
        scores = self._score(features, others)[1].scores
        weight = self.weight.clone().requires_grad_(True)
        direction = self._target - self.weight
        worst = 0.0
        losses = self._autograd_losses(weight, features, others)
        for i in range(2):
            (gradient,) = torch.autograd.grad(losses[i], weight, retain_graph=True)
            expected = -(gradient * direction).sum() / direction.norm()
            worst = max(worst, float((scores[i] - expected).abs()))
        return worst / max(float(scores.abs().max()), 1e-30)

    def segment_losses(self, positions: tuple[float, ...], *, batches: int = 8) -> list[float]:
        """Mean loss on the first ``batches`` batches with the projection at each position between
        the present one (0) and the reference's (1).
        """
        draws = [draw for draw, _ in zip(self._draws(0), range(batches), strict=False)]
        means = []
        for position in positions:
            weight = torch.lerp(self.weight, self._target, position)
            losses = [self._autograd_losses(weight, *self._load(draw.rows)) for draw in draws]
            means.append(float(torch.cat(losses).mean()))
        return means

    def _draws(self, epoch: int) -> Iterator[Draw]:
        return draw_batches(
            self._words, batch_size=self.batch_size, seed=self.config.seed, epoch=epoch
        )

    def _load(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        return self._features.take(rows), self._others.take(rows)

    def _step(self, draw: Draw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Losses, scores and weights of the counted samples; then one optimiser step."""
        features, others = self._load(draw.rows)
        scores, scored, batch, norms = self._score(features, others)
        require_finite(scored.losses, step=draw.step)
        weights = mimic.mimic_weights(scores, temperature=self.config.temperature)
        trained = torch.full_like(weights, 1 / len(weights))
        if self.config.weighting == "mimic":
            trained = weights
        side = self.config.side
        gradient = embedding_gradient(batch, self._head, scored, trained, side=side)
        unit = batch.image if side == "image" else batch.text
        self._optimiser.step(features.T @ through_normalise(gradient, unit, norms))
        losses = scored.losses[: draw.scored].cpu().numpy()
        return losses, scores[: draw.scored].cpu().numpy(), weights[: draw.scored].cpu().numpy()

    def _score(
        self, features: Tensor, others: Tensor
    ) -> tuple[Tensor, ScoredLogits, Embedded, Tensor]:
        """Scores (B,) by the chosen method, the scored logits, the batch, and raw norms (B, 1)."""
        direction = self._target - self.weight
        length = direction.norm()
        if not float(length) > 0:
            raise ScoreError(
                "the trained projection has become equal to the reference's",
                got=float(length),
                allowed="a task vector with a norm above zero",
                next_step="use fewer epochs or a lower learning rate",
            )
        raw = features @ self.weight + self._bias
        unit, tangent, norms = normalise(raw, features @ (direction / length))
        batch = Embedded(unit, others, image_tangent=tangent)
        if self.config.side == "text":
            batch = Embedded(others, unit, text_tangent=tangent)
        scored = score_logits(batch, self._head)
        scores = scored.scores
        if self.config.method == "cos":
            weight = self.weight.clone().requires_grad_(True)
            attached = self._autograd_losses(weight, features, others)
            scores = mimic.cosines(scores, mimic.gradient_norms(attached, [weight]))
        return scores, scored, batch, norms

    def _autograd_losses(self, weight: Tensor, features: Tensor, others: Tensor) -> Tensor:
        """The same losses (B,) by plain torch operations, for reverse mode."""
        unit = F.normalize(features @ weight + self._bias, dim=1)
        image, text = (unit, others) if self.config.side == "image" else (others, unit)
        if self._head.loss == "siglip":
            return siglip_losses(image, text, self._head.scale, self._head.bias)
        return clip_losses(image, text, self._head.scale)


class _Rows:
    """Rows of a stored array as float32 tensors on the device."""

    def __init__(self, features: FeatureSet, name: str, device: torch.device) -> None:
        array = features.array(name)
        size = len(array) * array.width * array.dtype.itemsize
        self._held = torch.from_numpy(array.read()) if size <= IN_MEMORY_BYTES else None
        self._array = array
        self._device = device
        if self._held is not None:
            self._held = self._held.to(device)

    def take(self, rows: np.ndarray) -> Tensor:
        """Rows (B,) as (B, width) float32."""
        if self._held is not None:
            return self._held[torch.from_numpy(rows).to(self._device)].float()
        return torch.from_numpy(self._array.take(rows)).to(self._device).float()


def probe_scores(
    features: FeatureSet, config: ProbeConfig, *, device: torch.device | str = "cpu"
) -> Iterator[ScoreBatch]:
    """All batches of all epochs, in order. See ``Probe``."""
    probe = Probe(features, config, device=device)
    for epoch in range(config.epochs):
        yield from probe.run(epoch)
