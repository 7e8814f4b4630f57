"""Label noise: accuracy of every weighting, detection by every ensemble, retained share.

Everything is measured over seeds that set the injected noise, the fresh head and the order of the
batches; the reference and the parts are the same throughout. Accuracy is against clean labels of
the test part; detection is judged on the run with mimic weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import polars as pl
import torch
from reproduce_heads import Heads, HeadSettings
from reproduce_images import CIFAR, Referred, cifar, digits, referred
from reproduce_numbers import Say, Table, pearson, spread, with_noise

from mimic_core.base.config import WeightingName
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
from mimic_core.mimic.losses import cross_entropy_losses
from mimic_core.runs.history import History
from mimic_core.stats.detection import auroc, detection

SETS = ("digits", "cifar10n")
WEIGHTINGS: tuple[WeightingName, ...] = get_args(WeightingName)
# Digits has a quarter of the images and so a quarter of the steps: at 1e-3 heads are on their way.
LEARNING_RATES = {"digits": 1e-2, "cifar10n": 1e-3}
AGGREGATIONS = (Majority(), Unanimous(), MeanRank(), LabelModel())
DISAGREES = "reference predicts another class"


@dataclass(frozen=True)
class LabelPlan:
    """How much is computed."""

    seeds: tuple[int, ...] = (0, 1, 2)
    rates: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7)
    weightings: tuple[WeightingName, ...] = WEIGHTINGS
    digits_epochs: int = 200
    cifar_epochs: int = 40
    rates_tried: tuple[float, ...] = (1e-3, 1e-2)
    temperatures_tried: tuple[float, ...] = (1.0, 0.3)


@dataclass(frozen=True, eq=False)
class Noisy:
    """Labels (M,) of the scored part and which of them are wrong; ``noise`` names them."""

    noise: str
    labels: np.ndarray
    wrong: np.ndarray


def missing(name: str) -> str | None:
    """Why the data set ``name`` is left out; None where it is there."""
    if name == "cifar10n" and not CIFAR.is_file():
        return f"cifar10n: {CIFAR.name} is not in ../shared/data"
    return None


def reproduce_labels(name: str, plan: LabelPlan, say: Say) -> dict[str, Any]:
    """All tables of the data set ``name``."""
    images = digits() if name == "digits" else cifar()
    epochs = plan.digits_epochs if name == "digits" else plan.cifar_epochs
    say(f"{name}: training the reference")
    seen = referred(images, epochs, say)
    with TemporaryDirectory() as folder:
        return label_tables(seen, plan, Path(folder), say)


def noisy_labels(seen: Referred, plan: LabelPlan, seed: int) -> Iterator[Noisy]:
    """Injected noise at every rate, then the labels that people gave."""
    scored = seen.images.parts()[1]
    clean = seen.images.labels[scored]
    for rate in plan.rates:
        labels, wrong = with_noise(clean, rate, seen.images.classes, seed)
        yield Noisy(f"{rate:g}", labels, wrong)
    for name, labels in seen.images.human.items():
        yield Noisy(name, labels[scored], labels[scored] != clean)


class _Collected:
    """Values over seeds by key, in order of first appearance."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def add(self, value: float | None, *key: str) -> None:
        """One seed's value; None counts as 0: an ensemble that drops nothing finds nothing."""
        self._values[key].append(0.0 if value is None else value)

    def table(self, *columns: str, value: str) -> Table:
        """One row per key."""
        return [
            {**dict(zip(columns, key, strict=True)), value: spread(values)}
            for key, values in self._values.items()
        ]

    def values(self, *key: str) -> list[float]:
        """Of one key."""
        return self._values[key]


def label_tables(seen: Referred, plan: LabelPlan, folder: Path, say: Say) -> dict[str, Any]:
    """All tables of the images of ``seen``; features are written below ``folder``."""
    reference, scored, test = seen.images.parts()
    base = HeadSettings(learning_rate=LEARNING_RATES[seen.images.name])
    rate, accuracy, order = _Collected(), _Collected(), _Collected()
    f1, retained = _Collected(), _Collected()
    for seed in plan.seeds:
        for noisy in noisy_labels(seen, plan, seed):
            rate.add(float(noisy.wrong.mean()), noisy.noise)
            heads = Heads.of(seen, noisy.labels, folder / f"{seed}-{noisy.noise}")
            for name in plan.weightings:
                history, right = heads.train(replace(base, weighting=name, seed=seed))
                accuracy.add(right, noisy.noise, name)
                if name in ("mimic", "uniform"):
                    _add_order(order, history, noisy, name)
                if name == "mimic":
                    _add_detection(f1, retained, history, noisy)
            _add_reference(seen, order, f1, retained, noisy)
        say(f"{seen.images.name}: seed {seed} done")
    return {
        "images": {"reference": len(reference), "scored": len(scored), "test": len(test)},
        "reference_accuracy": {"test": seen.accuracy(test), "scored": seen.accuracy(scored)},
        "learning_rate": base.learning_rate,
        "noise_rate": rate.table("noise", value="rate"),
        "accuracy": accuracy.table("noise", "weighting", value="accuracy"),
        "auroc": order.table("noise", "score", value="auroc"),
        "detection": f1.table("noise", "binarise", "aggregate", value="f1"),
        "retained": retained.table("noise", "binarise", "aggregate", value="share"),
        "pearson": _correlations(retained, plan),
        "settings": _settings(seen, plan, base, folder),
    }


def _add_order(order: _Collected, history: History, noisy: Noisy, weighting: str) -> None:
    """AUROC of the mean score, and of plain training's mean loss."""
    names = {"mimic": "mimic score, mimic training", "uniform": "mimic score, plain training"}
    order.add(auroc(-history.mimic_score.mean(0), noisy.wrong), noisy.noise, names[weighting])
    if weighting == "uniform":
        order.add(auroc(history.loss.mean(0), noisy.wrong), noisy.noise, "loss, plain training")


def _add_reference(
    seen: Referred, order: _Collected, f1: _Collected, retained: _Collected, noisy: Noisy
) -> None:
    """What the reference alone finds: its loss on each label, and where it says another class."""
    logits = seen.logits(seen.images.parts()[1])
    losses = cross_entropy_losses(logits, torch.from_numpy(noisy.labels)).numpy()
    order.add(auroc(losses, noisy.wrong), noisy.noise, "loss of the reference")
    agrees = logits.argmax(1).numpy() == noisy.labels
    found = detection(agrees, pl.Series(noisy.wrong)).f1
    f1.add(found, noisy.noise, DISAGREES, "none")
    retained.add(float(agrees.mean()), noisy.noise, DISAGREES, "none")


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


def _add_detection(f1: _Collected, retained: _Collected, history: History, noisy: Noisy) -> None:
    truth = pl.Series(noisy.wrong)
    for name, binarise in binarisations(float(noisy.wrong.mean())).items():
        for aggregate in AGGREGATIONS:
            made = ensemble(history, EnsembleConfig(binarise=binarise, aggregate=aggregate))
            key = (noisy.noise, name, aggregate.kind)
            f1.add(detection(made.keep, truth).f1, *key)
            retained.add(made.kept / history.samples, *key)


def _correlations(retained: _Collected, plan: LabelPlan) -> Table:
    """Pearson's r of retained share and rate of injected noise: of means over seeds, and of all."""
    rows: Table = []
    keys = [(name, one.kind) for name in binarisations(0.5) for one in AGGREGATIONS]
    for key in [*keys, (DISAGREES, "none")]:
        shares = [retained.values(f"{rate:g}", *key) for rate in plan.rates]
        means = [float(np.mean(share)) for share in shares]
        points = [(rate, v) for rate, s in zip(plan.rates, shares, strict=True) for v in s]
        rows.append(
            {
                "binarise": key[0],
                "aggregate": key[1],
                "r_means": pearson(plan.rates, means),
                "r_points": pearson([a for a, _ in points], [b for _, b in points]),
                "retained": dict(zip([f"{r:g}" for r in plan.rates], means, strict=True)),
            }
        )
    return rows


def both_sets(sets: Mapping[str, dict[str, Any]]) -> Table:
    """Pearson's r of retained share and rate over all data sets together, from means over seeds."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for tables in sets.values():
        for row in tables["pearson"]:
            pairs = [(float(rate), share) for rate, share in row["retained"].items()]
            points[row["binarise"], row["aggregate"]] += pairs
    return [
        {
            "binarise": key[0],
            "aggregate": key[1],
            "r": pearson([rate for rate, _ in found], [share for _, share in found]),
        }
        for key, found in points.items()
    ]


def _settings(seen: Referred, plan: LabelPlan, base: HeadSettings, folder: Path) -> Table:
    """Noise 0.5 at other learning rates and temperatures: what the choice of settings decides."""
    accuracy = _Collected()
    clean = seen.images.labels[seen.images.parts()[1]]
    names: tuple[WeightingName, ...] = ("uniform", "mimic", "rho", "influence")
    for seed in plan.seeds:
        labels, _ = with_noise(clean, 0.5, seen.images.classes, seed)
        heads = Heads.of(seen, labels, folder / f"{seed}-settings")
        for rate in plan.rates_tried:
            for temperature in plan.temperatures_tried:
                for name in names:
                    changed = replace(
                        base,
                        weighting=name,
                        seed=seed,
                        learning_rate=rate,
                        temperature=temperature,
                    )
                    accuracy.add(heads.train(changed)[1], f"{rate:g}", f"{temperature:g}", name)
    return accuracy.table("learning_rate", "temperature", "weighting", value="accuracy")
