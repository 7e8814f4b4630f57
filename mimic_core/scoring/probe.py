"""Probe mode: Grad-Mimic on cached features (method.md section 5).

The model is the reference with one last projection drawn afresh; that projection is the mimic layer
and all that is trained. With the features cached, a step is a few matrix products: forward pass,
scores by the closed forms of ``mimic_core.mimic.contrastive``, weights, AdamW on the weighted loss.

Letters: N samples, B batch, F feature width, D embedding width. float32; features are read as
float16.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mimic_core.base.config import ProbeConfig
from mimic_core.base.draws import Draw, draw_batches, fitting_batch_size, uid_words
from mimic_core.base.errors import ConfigError, ScoreError
from mimic_core.base.schema import ScoreBatch
from mimic_core.mimic import scores as mimic
from mimic_core.mimic.contrastive import Embedded, ScoredLogits, score_logits
from mimic_core.mimic.losses import clip_losses, require_finite, siglip_losses
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.projector import Projector, reference_projection, stored_pairs

PAIR_WEIGHTINGS = ("mimic", "uniform")
SEGMENT_SAMPLES = 65_536  # of the direction check, whose mean loss needs no more


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
        if config.weighting not in PAIR_WEIGHTINGS:
            raise ConfigError(
                "this weighting needs labels, or training of the whole model",
                got=f"--weighting {config.weighting}",
                allowed=", ".join(PAIR_WEIGHTINGS),
                next_step="choose one of them, or use the command train",
            )
        reference, self._projection = reference_projection(features, config.side)
        self.config = config
        self.device = torch.device(device)
        self._head = reference.head
        self._target = self._projection.weight.to(self.device)
        self._features, self._others = stored_pairs(features, config.side, self.device)
        self.uids = features.samples["uid"]
        self._words = uid_words(self.uids)
        self.batch_size = fitting_batch_size(config.batch_size, len(self._words))
        self._projector = Projector(
            self._head,
            self._projection,
            side=config.side,
            seed=config.seed,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            device=self.device,
        )
        self.weight = self._projector.weight

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
        for i in range(2):
            loss = self._loss_of(i, weight, features, others)
            (gradient,) = torch.autograd.grad(loss, weight)
            expected = -(gradient * direction).sum() / direction.norm()
            worst = max(worst, float((scores[i] - expected).abs()))
        return worst / max(float(scores.abs().max()), 1e-30)

    def segment_losses(self, positions: tuple[float, ...], *, batches: int = 8) -> list[float]:
        """Mean loss on the first ``batches`` batches, or as many as hold ``SEGMENT_SAMPLES``, with
        the projection at each position between the present one (0) and the reference's (1).
        """
        most = max(1, min(batches, SEGMENT_SAMPLES // self.batch_size))
        draws = list(islice(self._draws(0), most))
        means = []
        for position in positions:
            weight = torch.lerp(self.weight, self._target, position)
            losses = [self._losses_at(weight, *self._load(draw.rows)) for draw in draws]
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
        self._projector.descend(features, batch, norms, scored, trained)
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
        batch, norms = self._projector.embed(features, others, direction / length)
        scored = score_logits(batch, self._head)
        scores = scored.scores
        if self.config.method == "cos":
            weight = self.weight.clone().requires_grad_(True)
            attached = self._autograd_losses(weight, features, others)
            scores = mimic.cosines(scores, mimic.gradient_norms(attached, [weight]))
        return scores, scored, batch, norms

    def _autograd_losses(self, weight: Tensor, features: Tensor, others: Tensor) -> Tensor:
        """The same losses (B,) by plain torch operations, for reverse mode."""
        image, text = self._embeddings(weight, features, others)
        if self._head.loss == "siglip":
            return siglip_losses(image, text, self._head.scale, self._head.bias)
        return clip_losses(image, text, self._head.scale)

    def _loss_of(self, i: int, weight: Tensor, features: Tensor, others: Tensor) -> Tensor:
        """One of these losses from row and column i of the logits alone: a check on two samples
        must not need the logits of all pairs, 17 GB for 65,536 samples.
        """
        image, text = self._embeddings(weight, features, others)
        row = self._head.scale * (text @ image[i]) + self._head.bias
        if self._head.loss == "siglip":
            signs = torch.full_like(row, -1.0)
            signs[i] = 1.0
            return -F.logsigmoid(signs * row).sum()
        column = self._head.scale * (image @ text[i]) + self._head.bias
        return 0.5 * (torch.logsumexp(row, 0) + torch.logsumexp(column, 0)) - row[i]

    def _losses_at(self, weight: Tensor, features: Tensor, others: Tensor) -> Tensor:
        """The same losses (B,) in blocks of rows, without a way back."""
        return score_logits(
            Embedded(*self._embeddings(weight, features, others)), self._head
        ).losses

    def _embeddings(
        self, weight: Tensor, features: Tensor, others: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Unit embeddings (B, D) of images and of texts with the projection at ``weight``."""
        unit = F.normalize(features @ weight + self._projector.bias, dim=1)
        return (unit, others) if self.config.side == "image" else (others, unit)


def probe_scores(
    features: FeatureSet, config: ProbeConfig, *, device: torch.device | str = "cpu"
) -> Iterator[ScoreBatch]:
    """All batches of all epochs, in order. See ``Probe``."""
    probe = Probe(features, config, device=device)
    for epoch in range(config.epochs):
        yield from probe.run(epoch)
