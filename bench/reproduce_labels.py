"""Label noise: accuracy of every weighting, detection by every ensemble, retained share.

Everything is measured over seeds that set the injected noise, the fresh head and the order of the
batches; the reference and the parts are the same throughout. Accuracy is against clean labels of
the test part; detection is judged on runs with mimic weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
from reproduce_detection import (
    AGGREGATIONS,
    BATCHES,
    DISAGREES,
    Found,
    Noisy,
    binarisations,
    ensembles_find,
    reference_finds,
    reference_orders,
    scores_order,
)
from reproduce_heads import Heads, HeadSettings
from reproduce_images import CIFAR, Images, Referred, cifar, digits, drawings, referred
from reproduce_numbers import Say, Table, pearson, spread, with_noise

from mimic_core.base.config import WeightingName

SETS = ("digits", "cifar10n", "drawings")
WEIGHTINGS: tuple[WeightingName, ...] = get_args(WeightingName)
SCORED: tuple[WeightingName, ...] = ("mimic", "uniform")  # whose runs are looked at
# Digits and drawings have a quarter of the images and so a quarter of the steps: at 1e-3 heads are
# on their way.
LEARNING_RATES = {"digits": 1e-2, "cifar10n": 1e-3, "drawings": 1e-2}


@dataclass(frozen=True)
class LabelPlan:
    """How much is computed."""

    seeds: tuple[int, ...] = (0, 1, 2)
    rates: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7)
    weightings: tuple[WeightingName, ...] = WEIGHTINGS
    digits_epochs: int = 200
    cifar_epochs: int = 40

    def reference_epochs(self, name: str) -> int:
        """Of the network that is the reference of the data set ``name``."""
        return self.digits_epochs if name == "digits" else self.cifar_epochs


def missing(name: str) -> str | None:
    """Why the data set ``name`` is left out; None where it is there."""
    if name == "cifar10n" and not CIFAR.is_file():
        return f"cifar10n: {CIFAR.name} is not in ../shared/data"
    return None


def reference_of(name: str, plan: LabelPlan, say: Say) -> Referred:
    """The images of the data set ``name`` with their reference."""
    if name == "drawings":
        return drawings()
    say(f"{name}: training the reference")
    return referred(digits() if name == "digits" else cifar(), plan.reference_epochs(name), say)


def reproduce_labels(seen: Referred, plan: LabelPlan, say: Say) -> dict[str, Any]:
    """All tables of the images of ``seen``."""
    with TemporaryDirectory() as folder:
        return label_tables(seen, plan, Path(folder), say)


def noisy_labels(images: Images, rates: Sequence[float], seed: int) -> Iterator[Noisy]:
    """The scored part's labels with injected noise at every rate, then those that people gave."""
    scored = images.parts()[1]
    clean = images.labels[scored]
    for rate in rates:
        labels, wrong = with_noise(clean, rate, images.classes, seed)
        yield Noisy(f"{rate:g}", labels, wrong)
    for name, labels in images.human.items():
        yield Noisy(name, labels[scored], labels[scored] != clean)


class Collected:
    """Values over seeds by key, in order of first appearance."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def add(self, value: float, *key: str) -> None:
        """One seed's value."""
        self._values[key].append(value)

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
    rate, accuracy, order = Collected(), Collected(), Collected()
    f1, retained = Collected(), Collected()

    def keep(found: Found, noisy: Noisy) -> None:
        f1.add(found.f1, noisy.noise, found.binarise, found.aggregate)
        retained.add(found.kept, noisy.noise, found.binarise, found.aggregate)

    for seed in plan.seeds:
        for noisy in noisy_labels(seen.images, plan.rates, seed):
            rate.add(noisy.rate, noisy.noise)
            heads = Heads.of(seen, noisy.labels, folder / f"{seed}-{noisy.noise}")
            runs = {
                (name, size): heads.train(replace(base, weighting=name, seed=seed, batch_size=size))
                for size in BATCHES
                for name in (plan.weightings if size == base.batch_size else SCORED)
            }
            for name in plan.weightings:
                accuracy.add(runs[name, base.batch_size][1], noisy.noise, name)
            for size in BATCHES:
                mimic, plain = (runs[name, size][0] for name in SCORED)
                for score, value in scores_order(mimic, plain, noisy):
                    order.add(value, noisy.noise, score)
                for found in ensembles_find(mimic, noisy):
                    keep(found, noisy)
            logits = seen.logits(scored)
            score, value = reference_orders(logits, noisy)
            order.add(value, noisy.noise, score)
            for found in reference_finds(logits, noisy):
                keep(found, noisy)
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
    }


def _correlations(retained: Collected, plan: LabelPlan) -> Table:
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


def all_sets(sets: Mapping[str, dict[str, Any]]) -> Table:
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


def ahead(sets: Mapping[str, dict[str, Any]], of: WeightingName = "mimic") -> Table:
    """In how many pairs of runs each other weighting trains a better head than ``of``.

    A pair has the data set, the noise and the seed in common; equal accuracies are neither.
    Injected noise and people's labels are counted separately. ``gain`` is the mean difference.
    """
    gaps: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for name, tables in sets.items():
        rows = {(row["noise"], row["weighting"]): row["accuracy"]["values"]
                for row in tables["accuracy"]}  # fmt: skip
        for (noise, weighting), values in rows.items():
            if weighting == of:
                continue
            kind = "injected" if noise[0].isdigit() else "people's"
            pairs = zip(values, rows[noise, of], strict=True)
            gaps[name, kind, weighting] += [other - own for other, own in pairs]
    return [
        {
            "data": name,
            "noise": kind,
            "weighting": weighting,
            "pairs": len(found),
            "ahead": sum(gap > 0 for gap in found),
            "behind": sum(gap < 0 for gap in found),
            "gain": float(np.mean(found)),
        }
        for (name, kind, weighting), found in gaps.items()
    ]
