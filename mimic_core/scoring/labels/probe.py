"""Probe mode for labelled images: Grad-Mimic on a linear head over cached features.

The model is a fresh linear head (weight and bias) on the reference's frozen features; the mimic
layer is its weight, the bias learns along. With x the features, p the predicted and y the labelled
distribution, the gradient of sample i on the weight is (p_i - y_i) x_i', so that everything is a
few matrix products (``mimic_core.mimic.geometry``): m_i = -<(p_i - y_i) x_i', v> / ||v||
(method.md sections 1 and 5).

Letters: N samples, B batch, F feature width, C classes. float32; features are read as float16.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mimic_core.base.config import CLEAN_PER_CLASS, ProbeConfig
from mimic_core.base.draws import Draw, draw_batches, draw_clean, fitting_batch_size, uid_words
from mimic_core.base.errors import ConfigError, ScoreError
from mimic_core.base.schema import ScoreBatch
from mimic_core.features.stored import Rows, features_array
from mimic_core.mimic import scores as mimic
from mimic_core.mimic import weightings
from mimic_core.mimic.adamw import AdamW
from mimic_core.mimic.geometry import LinearGeometry, cross_entropy_geometry
from mimic_core.mimic.losses import cross_entropy_losses, require_finite
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.labels.class_head import ClassHead
from mimic_core.sources.marks import Trusted

MIMIC_LAYER = "head.weight"
# Standard deviation of the fresh head's logits, whatever the length of the features: predictions
# start nearly even. A draw that ignored the length would fill the task vector with itself: on raw
# digits (length 60) the AUROC for swapped labels falls from 0.98 to 0.76.
INITIAL_LOGITS = 0.1


class LabelProbe:
    """Grad-Mimic on one labelled feature set: the trained head and the optimiser's state.

    Args:
        features: A finished feature set of labelled images.
        reference: The head to go towards; knows every label of the scored samples.
        scored: Rows of the feature set (M,) that are trained on and scored; None takes all.
        trusted: Samples known to be right, which the weighting ``influence`` needs.

    Raises:
        ConfigError: The weighting needs trusted samples and there are none.
        ModelError: A label is none of the reference head's classes.
        ScoreError: There are fewer than two samples.
    """

    mimic_layers = (MIMIC_LAYER,)

    def __init__(
        self,
        features: FeatureSet,
        reference: ClassHead,
        config: ProbeConfig,
        *,
        scored: np.ndarray | None = None,
        trusted: Trusted | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self._reference = reference.to(self.device)
        samples = features.samples
        self._places = np.arange(len(samples)) if scored is None else scored
        mine = samples.select("uid", "label")[self._places]
        self.uids: pl.Series = mine["uid"]
        self._labels = torch.tensor(reference.numbers(mine["label"].to_list()), device=self.device)
        self._features = Rows(features, features_array(features), self.device)
        self._words = uid_words(self.uids)
        self.batch_size = fitting_batch_size(config.batch_size, len(self._words))
        generator = torch.Generator().manual_seed(config.seed)
        shape = (len(reference.classes), self._features.width)
        spread = INITIAL_LOGITS / self._features.mean_length(self._places)
        self.weight = (torch.randn(shape, generator=generator) * spread).to(self.device)
        self.bias = torch.zeros(len(reference.classes), device=self.device)
        self._clean = self._clean_samples(samples, trusted)
        # A bias is not decayed: it has no direction that could grow without end.
        self._optimisers = (
            AdamW(self.weight, config.learning_rate, config.weight_decay),
            AdamW(self.bias, config.learning_rate, 0.0),
        )

    def run(self, epoch: int) -> Iterator[ScoreBatch]:
        """Score and train one epoch; call with 0, 1, 2, ... in turn.

        ``rows`` of the batches are positions in ``uids``.

        Raises:
            ScoreError: A loss is not finite, or the head has reached the reference exactly.
        """
        draws = itertools.chain(self._draws(epoch), self._draws(epoch))
        draw = next(draws)
        for following in draws:  # the next batch, in a circle, is what some weightings compare with
            yield self._step(epoch, draw, following)
            if following.step == 0:
                return
            draw = following

    def self_check(self) -> float:
        """Largest difference between our scores and reverse mode on two samples, relative to the
        largest score of their batch. It is the projection that is compared, also for ``cos``.
        """
        rows = next(self._draws(0)).rows
        features, labels = self._load(rows)
        geometry = self._geometry(features, labels)
        direction = self._reference.weight - self.weight
        unit = {MIMIC_LAYER: direction / direction.norm()}
        scores = -geometry.products(unit)
        weight = self.weight.clone().requires_grad_(True)
        losses = cross_entropy_losses(features @ weight.T + self.bias, labels)
        worst = 0.0
        for i in range(2):
            (gradient,) = torch.autograd.grad(losses[i], weight, retain_graph=True)
            expected = -(gradient * unit[MIMIC_LAYER]).sum()
            worst = max(worst, float((scores[i] - expected).abs()))
        return worst / max(float(scores.abs().max()), 1e-30)

    def segment_losses(self, positions: tuple[float, ...], *, batches: int = 8) -> list[float]:
        """Mean loss on the first ``batches`` batches with the weight at each position between the
        present one (0) and the reference's (1); the bias stays as it is.
        """
        draws = list(itertools.islice(self._draws(0), batches))
        means = []
        for position in positions:
            weight = torch.lerp(self.weight, self._reference.weight, position)
            losses = []
            for draw in draws:
                features, labels = self._load(draw.rows)
                losses.append(cross_entropy_losses(features @ weight.T + self.bias, labels))
            means.append(float(torch.cat(losses).mean()))
        return means

    def _draws(self, epoch: int) -> Iterator[Draw]:
        return draw_batches(
            self._words, batch_size=self.batch_size, seed=self.config.seed, epoch=epoch
        )

    def _load(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features (B, F) and class numbers (B,)."""
        return self._features.take(self._places[rows]), self._labels[torch.from_numpy(rows)]

    def _geometry(self, features: Tensor, labels: Tensor) -> LinearGeometry:
        logits = features @ self.weight.T + self.bias
        return cross_entropy_geometry(features, logits, labels, weight=MIMIC_LAYER)

    def _vector(self) -> mimic.TaskVector:
        direction = self._reference.weight - self.weight
        length = float(direction.norm())
        if not length > 0:
            raise ScoreError(
                "the trained head has become equal to the reference's",
                got=length,
                allowed="a task vector with a norm above zero",
                next_step="use fewer epochs or a lower learning rate",
            )
        return mimic.TaskVector({MIMIC_LAYER: direction}, length)

    def _step(self, epoch: int, draw: Draw, following: Draw) -> ScoreBatch:
        """Scores, weights and losses of the counted samples; then one optimiser step."""
        features, labels = self._load(draw.rows)
        geometry = self._geometry(features, labels)
        require_finite(geometry.losses, step=draw.step)
        scores = weightings.mimic_scores_of(geometry, self._vector(), method=self.config.method)
        weights = mimic.mimic_weights(scores, temperature=self.config.temperature)
        trained = weightings.batch_weights(
            self.config.weighting,
            geometry,
            temperature=self.config.temperature,
            method=self.config.method,
            scores=scores,
            comparison=self._comparison(following),
            reference_losses=self._reference_losses(features, labels),
        ).weights
        right = self._predicted(features) == labels
        gradient = geometry.weighted_gradient(trained)[MIMIC_LAYER]
        self._optimisers[0].step(gradient)
        self._optimisers[1].step((geometry.gradients * trained[:, None]).sum(0))
        counted = [
            values[: draw.scored].cpu().numpy()
            for values in (geometry.losses, scores, weights, trained, right)
        ]
        return ScoreBatch(epoch, draw.step, draw.rows[: draw.scored], *counted)

    def _predicted(self, features: Tensor) -> Tensor:
        return (features @ self.weight.T + self.bias).argmax(1)

    def _comparison(self, following: Draw) -> Mapping[str, Tensor] | None:
        """The mean gradient that the weighting compares with, if it does."""
        source = weightings.needs_comparison(self.config.weighting)
        if source == "pool":
            return self._geometry(*self._load(following.rows)).mean_gradient()
        if source == "clean" and self._clean is not None:
            return self._geometry(*self._clean).mean_gradient()
        return None

    def _reference_losses(self, features: Tensor, labels: Tensor) -> Tensor | None:
        if not weightings.needs_reference_losses(self.config.weighting):
            return None
        return cross_entropy_losses(self._reference.logits(features), labels)

    def _clean_samples(
        self, samples: pl.DataFrame, trusted: Trusted | None
    ) -> tuple[Tensor, Tensor] | None:
        """Features and class numbers of a few trusted samples of each class, drawn by uid."""
        if weightings.needs_comparison(self.config.weighting) != "clean":
            return None
        if trusted is None:
            raise ConfigError(
                "this weighting needs samples that are known to be right",
                got=f"--weighting {self.config.weighting}",
                allowed="a run with trusted samples",
                next_step="name them with --trusted, or choose another weighting",
            )
        labels = trusted.relabelled(samples)
        clean = draw_clean(
            samples["uid"],
            trusted.rows,
            seed=self.config.seed,
            each=CLEAN_PER_CLASS,
            classes=labels,
        )
        numbers = self._reference.numbers(labels.gather(clean).to_list())
        return self._features.take(clean), torch.tensor(numbers, device=self.device)
