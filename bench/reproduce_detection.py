"""Who finds wrong labels: AUROC of scores, F1 of ensembles, and what the reference alone says.

Everything is judged against the clean labels, and F1 is that of dropping wrong ones. Ensembles vote
on a run with mimic weights, at the paper's batch of 32 and at the product's 256. Letters: M scored
images, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mimic_core.filters.ensembles.config import (
    EnsembleConfig,
    GaussianMixture,
    KMeans,
    LabelModel,
    Majority,
    MeanRank,
    Threshold,
    TopPercent,
    Unanimous,
)
from mimic_core.filters.ensembles.ensemble import ensemble
from mimic_core.filters.ensembles.splits import mixture_cut
from mimic_core.mimic.losses import cross_entropy_losses
from mimic_core.runs.history import History
from mimic_core.stats.detection import auroc, detection
from mimic_core.stats.label_issues import label_issues

AGGREGATIONS = (Majority(), Unanimous(), MeanRank(), LabelModel())
BATCHES = (32, 256)
PAPERS = BATCHES[0]
DISAGREES = "reference predicts another class"


@dataclass(frozen=True, eq=False)
class Noisy:
    """Labels (M,) of the scored part and which of them are wrong; ``noise`` names them."""

    noise: str
    labels: np.ndarray
    wrong: np.ndarray

    @property
    def rate(self) -> float:
        """The share of wrong labels."""
        return float(self.wrong.mean())


@dataclass(frozen=True)
class Found:
    """What one filter finds; F1 is 0 where it drops nothing and so finds nothing."""

    binarise: str
    aggregate: str
    f1: float
    kept: float


def binarisations(rate: float) -> dict[str, Any]:
    """Every way to turn a step's scores into votes; the last is told the true rate of noise."""
    return {
        "weight >= 1/B": Threshold(),
        "k-means on scores": KMeans(),
        "k-means on weights": KMeans(column="mimic_weight"),
        "GMM on scores": GaussianMixture(),
        "GMM on weights": GaussianMixture(column="mimic_weight"),
        "top share, true rate told": TopPercent(percent=100 * (1 - rate)),
    }


def ensembles_find(history: History, noisy: Noisy) -> Iterator[Found]:
    """Every ensemble on a run at the paper's batch; at other batches the majorities alone."""
    papers = history.batch_size == PAPERS
    for name, binarise in binarisations(noisy.rate).items():
        for aggregate in AGGREGATIONS if papers else AGGREGATIONS[:1]:
            keep = ensemble(history, EnsembleConfig(binarise=binarise, aggregate=aggregate)).keep
            shown = name if papers else f"batch {history.batch_size}: {name}"
            yield _found(shown, aggregate.kind, keep, noisy)


def reference_finds(logits: Tensor, noisy: Noisy) -> Iterator[Found]:
    """What the reference's logits (M, C) say of each label, without any training."""
    losses = _losses(logits, noisy)
    issues = label_issues(logits.double().softmax(1).numpy(), noisy.labels)
    kept = {
        DISAGREES: logits.argmax(1).numpy() == noisy.labels,
        "label issue": ~issues,
        "reference's loss, two normal components": -losses >= mixture_cut(np.sort(-losses)),
    }
    for name, keep in kept.items():
        yield _found(name, "none", keep, noisy)


def scores_order(mimic: History, plain: History, noisy: Noisy) -> Iterator[tuple[str, float]]:
    """AUROC of the means over the epochs of a run with mimic weights, and of plain training."""
    batch = f"batch {mimic.batch_size}"
    yield f"mimic score, mimic training, {batch}", _auroc(-mimic.mimic_score.mean(0), noisy)
    yield f"mimic score, plain training, {batch}", _auroc(-plain.mimic_score.mean(0), noisy)
    yield f"loss, plain training, {batch}", _auroc(plain.loss.mean(0), noisy)


def reference_orders(logits: Tensor, noisy: Noisy) -> tuple[str, float]:
    """AUROC of the reference's loss on each label, from its logits (M, C)."""
    return "loss of the reference", _auroc(_losses(logits, noisy), noisy)


def _losses(logits: Tensor, noisy: Noisy) -> np.ndarray:
    found: np.ndarray = cross_entropy_losses(logits, torch.from_numpy(noisy.labels)).numpy()
    return found


def _auroc(values: np.ndarray, noisy: Noisy) -> float:
    found = auroc(values, noisy.wrong)
    assert found is not None  # some labels are wrong, and some are right
    return found


def _found(binarise: str, aggregate: str, keep: np.ndarray, noisy: Noisy) -> Found:
    f1 = detection(keep, pl.Series(noisy.wrong)).f1
    return Found(binarise, aggregate, 0.0 if f1 is None else f1, float(keep.mean()))
