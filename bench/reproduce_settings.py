"""What the choice of settings decides: learning rate and temperature, down to 0.03; the backbone.

Temperatures: Grad-Mimic, Rho-loss and influence take their weights from a softmax; the lower its
temperature, the fewer samples a batch is left with. Backbones: the share that is kept at each rate
of noise, by how good the reference is. Letters: M scored images, B batch, S epochs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from reproduce_detection import Noisy, ensembles_find, scores_order
from reproduce_heads import Heads, HeadSettings
from reproduce_images import Referred, fitted, referred
from reproduce_labels import LEARNING_RATES, Collected, LabelPlan, noisy_labels
from reproduce_numbers import Say, Table, pearson

from mimic_core.base.config import WeightingName
from mimic_core.runs.history import History

WEIGHED: tuple[WeightingName, ...] = ("mimic", "rho", "influence")
SHOWN = ("weight >= 1/B", "k-means on scores", "GMM on scores")


@dataclass(frozen=True)
class SettingsPlan:
    """How much is computed."""

    labels: LabelPlan = field(default_factory=LabelPlan)
    learning_rates: tuple[float, ...] = (1e-3, 1e-2)
    temperatures: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03)
    noise: tuple[str, ...] = ("0.5", "noisy_worse")
    rates: tuple[float, ...] = (0.3, 0.5, 0.7)


def reproduce_temperatures(seen: Referred, plan: SettingsPlan, say: Say) -> Table:
    """Every learning rate and temperature."""
    found = Collected()
    with TemporaryDirectory() as folder:
        for seed in plan.labels.seeds:
            for noisy in noisy_labels(seen.images, (0.5,), seed):
                if noisy.noise not in plan.noise:
                    continue
                heads = Heads.of(seen, noisy.labels, Path(folder) / f"{seed}-{noisy.noise}")
                for rate in plan.learning_rates:
                    settings = HeadSettings(learning_rate=rate, seed=seed)
                    rows = temperature_figures(heads, noisy, settings, plan.temperatures)
                    for key, figure, value in rows:
                        found.add(value, noisy.noise, f"{rate:g}", *key, figure)
            say(f"temperatures, {seen.images.name}: seed {seed} done")
    return found.table(
        "noise", "learning_rate", "temperature", "weighting", "figure", value="value"
    )


def temperature_figures(
    heads: Heads, noisy: Noisy, settings: HeadSettings, temperatures: Sequence[float]
) -> Iterator[tuple[tuple[str, str], str, float]]:
    """Figures of one seed by (temperature, weighting) and name; plain training has none."""
    yield ("–", "uniform"), "accuracy", heads.train(replace(settings, weighting="uniform"))[1]
    for temperature in temperatures:
        for name in WEIGHED:
            changed = replace(settings, weighting=name, temperature=temperature)
            history, right = heads.train(changed)
            key = (f"{temperature:g}", name)
            yield key, "accuracy", right
            if name == "mimic":
                yield key, "effective share", effective_share(history)
                _, auroc = next(scores_order(history, history, noisy))
                yield key, "AUROC", auroc
                for found in ensembles_find(history, noisy):
                    if found.binarise in SHOWN and found.aggregate == "majority":
                        yield key, f"F1, {found.binarise}", found.f1


def effective_share(history: History) -> float:
    """The share of a batch that the weights leave, 1 / (B^2 times the mean of w^2): 1 where all
    weights are 1/B, 1/B where one sample has all.
    """
    mean = float(np.square(history.mimic_weight.astype(np.float64)).mean())
    return 1 / (history.batch_size**2 * mean)


# --- how good the backbone is ---


def reproduce_retention(seen: Referred, plan: SettingsPlan, say: Say) -> Table:
    """The share that is kept, by backbone, from weak to strong."""
    rows = []
    for shown, backbone in backbones(seen, plan.labels, say):
        with TemporaryDirectory() as folder:
            rows.append(retention_row(shown, backbone, plan, Path(folder)))
        say(f"retention, {shown}: done")
    return rows


def backbones(seen: Referred, plan: LabelPlan, say: Say) -> Iterator[tuple[str, Referred]]:
    """References from weak to strong, by name; ``seen`` is one of them.

    The last has seen the clean labels of the scored part too, as the authors' references have: the
    strongest that can be had here.
    """
    images = seen.images
    reference, scored, _ = images.parts()
    both = np.concatenate([reference, scored])
    if images.name == "drawings":
        yield "a tenth of the trusted", fitted(images, seen.features, reference[::10])
        yield "all trusted", seen
        yield "trusted and scored", fitted(images, seen.features, both, 1e-3)
        return
    most = plan.reference_epochs(images.name)
    yield "random weights", fitted(images, referred(images, 0, say).features, reference)
    for epochs in (most // 12, most // 3):
        yield f"{epochs} epochs", referred(images, epochs, say)
    yield f"{most} epochs", seen
    yield f"{most} epochs, scored part too", referred(images, most, say, rows=both)


def retention_row(shown: str, seen: Referred, plan: SettingsPlan, folder: Path) -> dict[str, Any]:
    """Kept shares and F1 of majorities at each rate of injected noise, over seeds."""
    kept, f1 = Collected(), Collected()
    settings = HeadSettings(learning_rate=LEARNING_RATES[seen.images.name])
    for seed in plan.labels.seeds:
        for noisy in noisy_labels(seen.images, plan.rates, seed):
            if noisy.noise in seen.images.human:
                continue
            heads = Heads.of(seen, noisy.labels, folder / f"{seed}-{noisy.noise}")
            history, _ = heads.train(replace(settings, seed=seed))
            for found in ensembles_find(history, noisy):
                if found.binarise in SHOWN and found.aggregate == "majority":
                    kept.add(found.kept, found.binarise, noisy.noise)
                    f1.add(found.f1, found.binarise, noisy.noise)
    scored, test = seen.images.parts()[1:]
    return {
        "backbone": shown,
        "accuracy": {"scored": seen.accuracy(scored), "test": seen.accuracy(test)},
        "retained": kept.table("binarise", "noise", value="share"),
        "f1": f1.table("binarise", "noise", value="f1"),
        "pearson": {name: _pearson(kept, name, plan.rates) for name in SHOWN},
    }


def _pearson(kept: Collected, binarise: str, rates: Sequence[float]) -> float:
    """Of retained share and rate, from means over seeds."""
    means = [float(np.mean(kept.values(binarise, f"{rate:g}"))) for rate in rates]
    return pearson(rates, means)
