"""Probe mode for labelled images: Grad-Mimic on a linear head over cached features.

The model is a fresh linear head (weight and bias) on the reference's frozen features; the mimic
layer is its weight, the bias learns along. With x the features, p the predicted and y the labelled
distribution, the gradient of sample i on the weight is (p_i - y_i) x_i', so that everything is a
few matrix products (``mimic_core.mimic.geometry``): m_i = -<(p_i - y_i) x_i', v> / ||v||
(method.md sections 1 and 5).

Letters: N samples, B batch, F feature width, C classes. float32; features are read as float16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mimic_core.base.config import CLEAN_PER_CLASS, ProbeConfig
from mimic_core.base.draws import Draw, draw_clean
from mimic_core.base.errors import ConfigError
from mimic_core.features.stored import Rows, features_array
from mimic_core.mimic import weightings
from mimic_core.mimic.geometry import cross_entropy_geometry
from mimic_core.mimic.losses import cross_entropy_losses
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.labels.class_head import ClassHead
from mimic_core.scoring.learner import LinearLearner, Look
from mimic_core.sources.marks import Trusted

MIMIC_LAYER = "head.weight"
# Standard deviation of the fresh head's logits, whatever the length of the features: predictions
# start nearly even. A draw that ignored the length would fill the task vector with itself: on raw
# digits (length 60) the AUROC for swapped labels falls from 0.98 to 0.76.
INITIAL_LOGITS = 0.1


@dataclass
class LabelLoss:
    """Cross-entropy of a linear head with ``bias`` (C,), which learns along."""

    bias: Tensor
    layer: str = MIMIC_LAYER
    what: str = "head"

    def look(self, weight: Tensor, features: Tensor, labels: Tensor, unit: Tensor) -> Look:
        """See ``learner.Loss``."""
        logits = features @ weight.T + self.bias
        geometry = cross_entropy_geometry(features, logits, labels, weight=self.layer)

        def gradients(weights: Tensor) -> tuple[Tensor, Tensor]:
            own = geometry.weighted_gradient(weights)[self.layer]
            return own, (geometry.gradients * weights[:, None]).sum(0)

        def again(places: Tensor, others: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
            other = cross_entropy_geometry(
                features[places], logits[places], others, weight=self.layer
            )
            return -other.products({self.layer: unit}), other.norms

        scores = -geometry.products({self.layer: unit})
        correct = logits.argmax(1) == labels

        def steepest() -> float:
            return float(features.norm(dim=1).max() * unit.norm())

        return Look(
            geometry.losses,
            scores,
            geometry.norms,
            gradients,
            steepest,
            again,
            correct,
            geometry,
        )

    def losses(self, weight: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        """See ``learner.Loss``."""
        return cross_entropy_losses(features @ weight.T + self.bias, labels)

    def reverse_score(
        self, i: int, weight: Tensor, direction: Tensor, features: Tensor, labels: Tensor
    ) -> Tensor:
        """See ``learner.Loss``."""
        moved = weight.clone().requires_grad_(True)
        loss = self.losses(moved, features, labels)[i]
        gradient: Tensor = torch.autograd.grad(loss, moved)[0]
        return gradient.mul(direction / direction.norm()).sum().neg()


class LabelProbe(LinearLearner):
    """Grad-Mimic on one labelled feature set.

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
        self._device = torch.device(device)
        self._reference = reference.to(self._device)
        samples = features.samples
        self._places = np.arange(len(samples)) if scored is None else scored
        mine = samples.select("uid", "label")[self._places]
        self._labels = torch.tensor(reference.numbers(mine["label"].to_list()), device=self._device)
        self._features = Rows(features, features_array(features), self._device)
        generator = torch.Generator().manual_seed(config.seed)
        shape = (len(reference.classes), self._features.width)
        spread = INITIAL_LOGITS / self._features.mean_length(self._places)
        self.bias = torch.zeros(len(reference.classes), device=self._device)
        super().__init__(
            LabelLoss(self.bias),
            config,
            load=self._rows,
            target=self._reference.weight,
            weight=(torch.randn(shape, generator=generator) * spread).to(self._device),
            bias=self.bias,
            weigh=self._weights,
            samples=mine,
            planted="label",
        )
        self._clean = self._clean_samples(samples, trusted)

    def _rows(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features (B, F) and class numbers (B,)."""
        return self._features.take(self._places[rows]), self._labels[torch.from_numpy(rows)]

    def _weights(self, look: Look, scores: Tensor, labels: Tensor, following: Draw) -> Tensor:
        """See ``learner.Weigh``."""
        assert look.geometry is not None  # labels have one
        weighting, reference_losses = self.config.weighting, None
        if weightings.needs_reference_losses(weighting):
            logits = self._reference.logits(look.geometry.inputs)
            reference_losses = cross_entropy_losses(logits, labels)
        return weightings.batch_weights(
            weighting,
            look.geometry,
            temperature=self.config.temperature,
            method=self.config.method,
            scores=scores,
            comparison=self._comparison(following),
            reference_losses=reference_losses,
        ).weights

    def _comparison(self, following: Draw) -> Mapping[str, Tensor] | None:
        """The mean gradient that the weighting compares with, if it does."""
        source = weightings.needs_comparison(self.config.weighting)
        others = self._rows(following.rows) if source == "pool" else self._clean
        geometry = None if others is None else self.look(*others).geometry
        return None if geometry is None else geometry.mean_gradient()

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
        return self._features.take(clean), torch.tensor(numbers, device=self._device)
