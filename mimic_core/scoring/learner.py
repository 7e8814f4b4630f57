"""One linear layer that Grad-Mimic trains on cached features (method.md section 5).

The model is the reference with its last linear layer drawn afresh; that layer is the mimic layer
and all that is trained. With the features cached, a step is a few matrix products: forward pass,
scores by the closed forms of ``mimic_core.mimic``, weights, AdamW on the weighted loss. The loss is
an object of its own: ``mimic_core.scoring.probe.PairLoss`` or
``mimic_core.scoring.labels.probe.LabelLoss``.

Letters: N samples, B batch. float32; features are read as float16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mimic_core.base.config import ProbeConfig
from mimic_core.base.draws import Draw, draw_batches, fitting_batch_size, uid_words
from mimic_core.base.errors import ScoreError
from mimic_core.base.schema import Planted, ScoreBatch
from mimic_core.mimic.adamw import AdamW
from mimic_core.mimic.geometry import LinearGeometry
from mimic_core.mimic.losses import require_finite
from mimic_core.mimic.scores import cosines, mimic_weights
from mimic_core.stats.direction import planted_places, planting

SEGMENT_SAMPLES = 65_536  # of the direction check, whose mean loss needs no more


@dataclass(frozen=True)
class Look:
    """A batch as the present weight sees it; all tensors (B,), detached.

    Attributes:
        scores: Mimic scores of method ``proj`` along the direction that was given.
        norms: Norms of the samples' gradients on the weight.
        gradients: Of ``sum_i w_i loss_i`` for weights w (B,), one for each trained parameter.
        steepest: A bound on the derivatives of the logits along the direction.
        again: Scores (K,) of method ``proj``, and the gradients' norms, of the samples at places
            (K,) of the batch with other answers, each on its own.
        correct: Whether each sample is classified right, bool.
        geometry: Where other weightings than ``uniform`` can be had; labels have it.
    """

    losses: Tensor
    scores: Tensor
    norms: Callable[[], Tensor]
    gradients: Callable[[Tensor], tuple[Tensor, ...]]
    steepest: Callable[[], float]
    again: Callable[[Tensor, Tensor], tuple[Tensor, Callable[[], Tensor]]]
    correct: Tensor | None = None
    geometry: LinearGeometry | None = None


Weigh = Callable[[Look, Tensor, Tensor, Draw], Tensor]
"""Weights (B,) of a batch by its look, scores and answers; the last is the next batch."""


class Loss(Protocol):
    """What the outputs of the layer named ``layer`` are judged by; ``what`` is what it is called.

    ``answers`` (B, ...) are what the loss compares the outputs with.
    """

    layer: str
    what: str

    def look(self, weight: Tensor, features: Tensor, answers: Tensor, unit: Tensor) -> Look:
        """The batch with the layer at ``weight``, scored along ``unit``, of the weight's shape."""

    def losses(self, weight: Tensor, features: Tensor, answers: Tensor) -> Tensor:
        """Losses (B,) alone."""

    def reverse_score(
        self, i: int, weight: Tensor, direction: Tensor, features: Tensor, answers: Tensor
    ) -> Tensor:
        """Score of sample ``i`` by reverse mode."""


class LinearLearner:
    """Trains one linear layer towards a reference's.

    Args:
        loss: On the layer's outputs.
        target: The reference's weight.
        load: Features (B, F) of the samples at positions (B,) in ``uids``, and their answers.
        weight: Where training begins; trained in place.
        bias: The same where the layer's bias learns along.
        weigh: By other weightings than ``mimic``; None weighs all alike.
        samples: Uids of the samples (N), and what the direction check plants others' of.
        planted: The name of that column: ``label`` or ``caption``.

    Raises:
        ScoreError: There are fewer than two samples.
    """

    def __init__(
        self,
        loss: Loss,
        config: ProbeConfig,
        *,
        load: Callable[[np.ndarray], tuple[Tensor, Tensor]],
        target: Tensor,
        weight: Tensor,
        samples: pl.DataFrame,
        planted: str,
        bias: Tensor | None = None,
        weigh: Weigh | None = None,
    ) -> None:
        self.config, self.uids, self.weight = config, samples["uid"], weight
        self._loss, self._target, self._load, self._weigh = loss, target, load, weigh
        self._words = uid_words(self.uids)
        self._partners = planting(self._words, samples, planted)
        self.batch_size = fitting_batch_size(config.batch_size, len(self._words))
        self._optimisers = [AdamW(weight, config.learning_rate, config.weight_decay)]
        if bias is not None:
            # A bias is not decayed: it has no direction that could grow without end.
            self._optimisers.append(AdamW(bias, config.learning_rate, 0.0))

    @property
    def mimic_layers(self) -> tuple[str, ...]:
        """The layer's exact parameter name in the model."""
        return (self._loss.layer,)

    def run(self, epoch: int) -> Iterator[ScoreBatch]:
        """Score and train one epoch; call with 0, 1, 2, ... in turn.

        ``rows`` of the batches are positions in ``uids``.

        Raises:
            ScoreError: A loss is not finite, or the layer has reached the reference's exactly.
        """
        draws = self._draws(epoch)
        # The next batch, in a circle, is what some weightings compare with.
        for draw, following in zip(draws, [*draws[1:], draws[0]], strict=True):
            yield self._step(epoch, draw, following)

    def self_check(self) -> float:
        """Largest difference between our scores and reverse mode on two samples that differ.

        Relative to the largest score of their batch, or to a hundredth of the largest derivative
        that a logit can have: among equal samples all scores are zero but for rounding. It is the
        projection that is compared, also for ``cos``.
        """
        batch = self._load(self._draws(0)[0].rows)
        look, direction = self.look(*batch), self._target - self.weight
        rows = [0, _another(*batch)]
        expected = [self._loss.reverse_score(i, self.weight, direction, *batch) for i in rows]
        worst = float((look.scores[rows] - torch.stack(expected)).abs().max())
        return worst / max(float(look.scores.abs().max()), 0.01 * look.steepest(), 1e-30)

    def segment_losses(self, positions: Sequence[float], *, batches: int = 8) -> list[float]:
        """Mean loss on the first ``batches`` batches, or as many as hold ``SEGMENT_SAMPLES``, with
        the weight at each position between the present one (0) and the reference's (1).
        """
        most = max(1, min(batches, SEGMENT_SAMPLES // self.batch_size))
        draws = self._draws(0)[:most]
        means = []
        for position in positions:
            weight = torch.lerp(self.weight, self._target, position)
            losses = [self._loss.losses(weight, *self._load(draw.rows)) for draw in draws]
            means.append(float(torch.cat(losses).mean()))
        return means

    def look(self, features: Tensor, answers: Tensor) -> Look:
        """A batch at the present weight, scored towards the reference."""
        direction = self._target - self.weight
        length = direction.norm()
        if not float(length) > 0:
            raise ScoreError(
                f"the trained {self._loss.what} has become equal to the reference's",
                got=float(length),
                allowed="a task vector with a norm above zero",
                next_step="use fewer epochs or a lower learning rate",
            )
        return self._loss.look(self.weight, features, answers, direction / length)

    def _draws(self, epoch: int) -> list[Draw]:
        seed = self.config.seed
        return list(draw_batches(self._words, batch_size=self.batch_size, seed=seed, epoch=epoch))

    def _step(self, epoch: int, draw: Draw, following: Draw) -> ScoreBatch:
        """Losses, scores and weights of the counted samples; then one optimiser step."""
        features, answers = self._load(draw.rows)
        look = self.look(features, answers)
        require_finite(look.losses, step=draw.step)
        scores = look.scores
        require_finite(scores, what="score", step=draw.step)
        if self.config.method == "cos":
            scores = cosines(scores, look.norms())
        weights = trained = mimic_weights(scores, temperature=self.config.temperature)
        if self.config.weighting != "mimic":
            trained = torch.full_like(weights, 1 / len(weights))
            if self._weigh is not None:
                trained = self._weigh(look, scores, answers, following)
        planted = self._planted(draw, look)
        for optimiser, gradient in zip(self._optimisers, look.gradients(trained), strict=True):
            optimiser.step(gradient)
        columns = [look.losses, scores, weights]
        if look.correct is not None:
            columns += [trained, look.correct]
        kept = [values[: draw.scored].cpu().numpy() for values in columns]
        return ScoreBatch(epoch, draw.step, draw.rows[: draw.scored], *kept, planted=planted)

    def _planted(self, draw: Draw, look: Look) -> Planted | None:
        """Scores with answers that are wrong on purpose; None where nobody is planted."""
        places, rows, partners = planted_places(draw, self._partners)
        if not len(places):
            return None
        answers = self._load(partners)[1]
        scores, norms = look.again(torch.from_numpy(places).to(self.weight.device), answers)
        if self.config.method == "cos":
            scores = cosines(scores, norms())
        return Planted(rows, partners, scores.cpu().numpy())


def _another(features: Tensor, answers: Tensor) -> int:
    """A row of the batch that differs from row 0 in both; 1 where there is none."""
    differs = (features != features[0]).any(1) & (answers != answers[0]).reshape(
        len(answers), -1
    ).any(1)
    return int(differs.int().argmax()) or 1
