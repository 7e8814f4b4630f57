"""What is trained in a proof, and how it is judged: image-caption pairs, or labels.

A ``Task`` trains one model on some rows at a fixed number of steps, and gives the contributions of
the held-out samples to each metric (``mimic_core.proofs.metrics``). Nothing else of a proof knows
what kind of data it is about.

Letters: N samples, H held-out samples, B batch, F feature width, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mimic_core.base.draws import draw_batches, uid_words
from mimic_core.base.errors import ConfigError
from mimic_core.features.stored import Rows, features_array
from mimic_core.mimic.adamw import AdamW
from mimic_core.mimic.losses import require_finite, widened
from mimic_core.models.layers import fresh_weight
from mimic_core.proofs import metrics
from mimic_core.proofs.settings import ProveConfig
from mimic_core.proofs.trusted import class_numbers, trusted_labels
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.probe import PairLoss

LOSS = "held-out loss"
RECALL_AT = (1, 5)
MAX_JUDGED = 4096  # samples whose loss is taken together
PAIR_METRICS = (
    LOSS,
    *(f"image to text recall@{k}" for k in RECALL_AT),
    *(f"text to image recall@{k}" for k in RECALL_AT),
)
LABEL_METRICS = (LOSS, "accuracy")

Check = Callable[[], None]
Layer = tuple[Tensor, ...]
Look = Callable[[int, Layer], None]


class Task(ABC):
    """Trains on rows of a pool and judges what was trained.

    Attributes:
        metrics: Names of the metrics; the first is the loss, which decides.
        usable: Which rows of the pool can train, bool (N,).
        judgeable: Which can judge, bool (N,).
        device: Where it computes; on the CPU, several trainings may run at once.
    """

    kind: Literal["pairs", "labels"]
    metrics: tuple[str, ...]

    def __init__(
        self, features: FeatureSet, config: ProveConfig, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self._words = uid_words(features.samples["uid"])
        self.usable = self.judgeable = np.ones(len(self._words), bool)

    def fit(
        self,
        rows: np.ndarray,
        *,
        seed: int,
        steps: int,
        batch_size: int,
        check: Check,
        look: Look | None = None,
    ) -> tuple[Tensor, ...]:
        """A layer trained on ``rows`` (n,) int64 alone, at ``steps`` steps of ``batch_size``.

        Initialisation and the order of the samples depend on ``seed`` and the samples' uids, so
        two trainings with one seed differ only by what they train on. ``look`` sees the layer after
        every step, counted from 1, and leaves it as it is.
        """
        layer = self.fresh(seed)
        rate, decay = self.config.learning_rate, self.config.weight_decay
        optimisers = [AdamW(parameter, rate, decay) for parameter in layer]
        drawn = batches(self._words, rows, seed=seed, steps=steps, batch_size=batch_size)
        for done, batch in enumerate(drawn, 1):
            check()
            for optimiser, gradient in zip(optimisers, self.gradients(layer, batch), strict=True):
                optimiser.step(gradient)
            if look is not None:
                look(done, layer)
        return layer

    @abstractmethod
    def fresh(self, seed: int) -> tuple[Tensor, ...]:
        """What is trained, drawn afresh."""

    @abstractmethod
    def gradients(self, layer: tuple[Tensor, ...], batch: np.ndarray) -> tuple[Tensor, ...]:
        """Gradients of the mean loss of the rows ``batch`` (B,)."""

    @abstractmethod
    def contributions(self, layer: tuple[Tensor, ...], held_out: np.ndarray) -> np.ndarray:
        """Contributions (M, H) float64 of the held-out rows (H,) to the M metrics."""

    @abstractmethod
    def loss(self, layer: tuple[Tensor, ...], held_out: np.ndarray) -> float:
        """The first metric of the held-out rows (H,) alone, which costs less."""


class PairsTask(Task):
    """A fresh projection (F, D) of one tower, trained against the other tower's embeddings."""

    kind = "pairs"
    metrics = PAIR_METRICS

    def __init__(
        self, features: FeatureSet, config: ProveConfig, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(features, config, device)
        self._loss = PairLoss(features, config.side, self.device)

    def fresh(self, seed: int) -> tuple[Tensor]:
        """See ``Task``."""
        return (self._loss.fresh(seed),)

    def gradients(self, layer: tuple[Tensor, ...], batch: np.ndarray) -> tuple[Tensor, ...]:
        """See ``Task``."""
        look = self._loss.look(layer[0], *self._loss.load(batch))
        require_finite(look.losses)
        return look.gradients(torch.full_like(look.losses, 1 / len(batch)))

    def contributions(self, layer: tuple[Tensor, ...], held_out: np.ndarray) -> np.ndarray:
        """Loss in fixed batches of nearly equal size; recall over all held-out samples."""
        image, text = self._embedded(layer, held_out)
        return np.stack(
            [
                self._losses(image, text),
                *metrics.recall_contributions(image, text, RECALL_AT),
                *metrics.recall_contributions(text, image, RECALL_AT),
            ]
        )

    def loss(self, layer: tuple[Tensor, ...], held_out: np.ndarray) -> float:
        """See ``Task``."""
        return float(self._losses(*self._embedded(layer, held_out)).mean())

    def _embedded(
        self, layer: tuple[Tensor, ...], held_out: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        embedded, _ = self._loss.embed(layer[0], *self._loss.load(held_out))
        require_finite(embedded.image.sum(1))
        return _wide(embedded.image), _wide(embedded.text)

    def _losses(self, image: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Contributions (H,) to the loss."""
        scaling = self._loss.scaling
        judge = (
            metrics.siglip_contributions if scaling.loss == "siglip" else metrics.clip_contributions
        )
        losses = [
            judge(image[part] @ text[part].T * scaling.scale + scaling.bias)
            for part in judged_batches(len(image), self.config.batch_size)
        ]
        return np.concatenate(losses)


class LabelsTask(Task):
    """A fresh linear head, weight (F, C) and bias (C,), trained by cross-entropy on features.

    What has no label does not train, and what has none in ``config.trusted_label_column``, where
    that is given, does not judge.
    """

    kind = "labels"
    metrics = LABEL_METRICS

    def __init__(
        self, features: FeatureSet, config: ProveConfig, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(features, config, device)
        names, column = features.samples["label"], config.trusted_label_column
        known = names.drop_nulls().unique().sort()
        truth = names if column is None else trusted_labels(features.samples, column, known)
        labels, self._truth = class_numbers(names, known), class_numbers(truth, known)
        self.usable, self.judgeable = labels >= 0, self._truth >= 0
        self._labels = torch.from_numpy(labels).to(self.device)
        self._features = Rows(features, features_array(features), self.device)
        self._shape = (self._features.width, len(known))

    def fresh(self, seed: int) -> tuple[Tensor, Tensor]:
        """See ``Task``."""
        generator = torch.Generator().manual_seed(seed)
        weight = fresh_weight("head", self._shape, generator).to(self.device)
        return weight, torch.zeros(self._shape[1], device=self.device)

    def gradients(self, layer: tuple[Tensor, ...], batch: np.ndarray) -> tuple[Tensor, Tensor]:
        """See ``Task``."""
        weight, bias = layer
        features = self._features.take(batch)
        logits = features @ weight + bias
        require_finite(logits.sum(1))
        gradient = torch.softmax(logits, 1)
        labels = self._labels[torch.from_numpy(batch).to(self.device)]
        gradient[torch.arange(len(batch)), labels] -= 1
        gradient /= len(batch)
        return features.T @ gradient, gradient.sum(0)

    def contributions(self, layer: tuple[Tensor, ...], held_out: np.ndarray) -> np.ndarray:
        """Cross-entropy, and whether the class is right; classes on a level share it."""
        logits = _wide(self._features.take(held_out) @ layer[0] + layer[1])
        own = np.arange(len(held_out)), self._truth[held_out]
        peak = logits.max(1, keepdims=True)
        losses = np.log(np.exp(logits - peak).sum(1)) + peak[:, 0] - logits[own]
        best = logits == peak
        return np.stack([losses, best[own] / best.sum(1)])

    def loss(self, layer: tuple[Tensor, ...], held_out: np.ndarray) -> float:
        """See ``Task``."""
        return float(self.contributions(layer, held_out)[0].mean())


def open_task(features: FeatureSet, config: ProveConfig, device: torch.device | str) -> Task:
    """The task that the feature set's samples call for: labels where they have one, else pairs.

    Raises:
        ConfigError: The stored arrays serve neither.
    """
    if features.info.get("task") == "labels":
        return LabelsTask(features, config, device)
    if config.trusted_label_column is not None:
        raise ConfigError(
            "pairs have no labels to be judged by",
            got=config.trusted_label_column,
            allowed="a trusted label column for labelled pools only",
            next_step="leave --trusted-label-column away",
        )
    if features.has_array("image_embedding") and features.has_array("text_embedding"):
        return PairsTask(features, config, device)
    raise ConfigError(
        "the run's cached features cannot be trained on",
        got=", ".join(sorted(features.info["arrays"])),
        allowed="features and embeddings of image-caption pairs, or features of labelled images",
        next_step="score the pool in probe mode",
    )


def batches(
    words: np.ndarray, rows: np.ndarray, *, seed: int, steps: int, batch_size: int
) -> Iterator[np.ndarray]:
    """``steps`` batches (B,) of ``rows``, epoch after epoch, drawn as probe mode draws them."""
    done, epoch = 0, 0
    while done < steps:
        for draw in draw_batches(words[rows], batch_size=batch_size, seed=seed, epoch=epoch):
            if done == steps:
                return
            yield rows[draw.rows]
            done += 1
        epoch += 1


def judged_batches(held_out: int, batch_size: int) -> list[slice]:
    """The fixed batches in which every arm's held-out loss is taken, of nearly equal size.

    At most ``MAX_JUDGED``: a larger batch would need gigabytes for its logits, times the cores.
    """
    parts = -(-held_out // min(batch_size, MAX_JUDGED))
    edges = np.linspace(0, held_out, parts + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def _wide(values: Tensor) -> np.ndarray:
    return np.asarray(widened(values).cpu().numpy())
