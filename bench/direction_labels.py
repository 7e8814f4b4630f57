"""Labelled runs for the calibration of the direction check: probes, and trainings of whole models.

Every run starts from images with clean labels, spoils the labels, and goes towards a reference that
may be good, weak, too small, too large or wrong altogether. Letters: N scored images, F features,
C classes, S epochs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from direction_figures import Made, gathered
from feature_sets import one_shard
from label_training import CPU, Given, visits
from reproduce_images import Images, Referred, cifar, digits, module_of, referred
from reproduce_numbers import Say, with_noise
from torch import Tensor

from mimic_core.base.config import ProbeConfig, TrainConfig
from mimic_core.base.draws import Draw
from mimic_core.base.schema import ScoreBatch
from mimic_core.mimic.losses import cross_entropy_losses
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.direction import POSITIONS
from mimic_core.scoring.labels.class_head import ClassHead
from mimic_core.scoring.labels.logistic import fit_logistic
from mimic_core.scoring.labels.probe import LabelProbe
from mimic_core.scoring.training.planting import Planting
from mimic_core.scoring.training.step import Aids

SCORED = 1500
SETTINGS = (  # batch, temperature, learning rate; taken in turn
    (32, 1.0, 1e-3),
    (256, 1.0, 1e-3),
    (32, 1.0, 1e-2),
    (16, 0.3, 1e-3),
    (512, 1.0, 1e-2),
    (64, 0.05, 1e-2),
    (256, 0.3, 1e-2),
)
DIGITS_NOISE = ("0", "0.1", "0.3", "0.4", "0.6", "0.7", "pairs 0.3")
CIFAR_NOISE = ("0", "0.1", "0.4", "0.7", "noisy_aggre", "noisy_random2", "noisy_worse")


@dataclass(frozen=True, eq=False)
class Backbone:
    """Images as a frozen network sees them: features (N_all, F), and its own head."""

    name: str
    seen: Referred
    later: bool = False
    """The second ``SCORED`` images are scored, not the first."""

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions for references, and to be scored."""
        reference, scored, _ = self.seen.images.parts()
        return reference, scored[SCORED:] if self.later else scored[:SCORED]


def backbones(name: str, say: Say) -> Iterator[Backbone]:
    """The backbones of a data set: from random weights to trained."""
    images = digits() if name == "digits" else cifar()
    if name == "unseen":  # other images, other networks
        for epochs in (1, 30):
            seen = referred(images, epochs, say, seed=1)
            yield Backbone(f"cifar10n, {epochs} epochs", seen, later=True)
        return
    for epochs in (0, 10, 100) if name == "digits" else (0, 3, 15):
        yield Backbone(f"{name}, {epochs} epochs", referred(images, epochs, say))
    if name == "digits":
        none = torch.zeros(images.classes, images.pixels.shape[1])
        yield Backbone("digits, pixels", Referred(images, images.pixels, none, none[:, 0]))


def heads(backbone: Backbone) -> dict[str, tuple[Tensor, Tensor]]:
    """References: weight (C, F) and bias (C,) by name."""
    features, labels = backbone.seen.features, backbone.seen.images.labels
    part = np.random.default_rng(0).permutation(backbone.parts[0])
    brightness = backbone.seen.images.pixels.flatten(1).mean(1).numpy()
    other = np.argsort(np.argsort(brightness)) * 10 // len(brightness)

    def fit(count: int, decay: float, targets: np.ndarray = labels) -> tuple[Tensor, Tensor]:
        rows = part[:count]
        found = fit_logistic(
            lambda some: features[torch.from_numpy(rows[some])],
            targets[rows],
            classes=10,
            width=features.shape[1],
            weight_decay=decay,
        )
        return found.weight, found.bias

    good, bias = fit(len(part), 1e-2)
    draw = torch.Generator().manual_seed(1)
    made = {
        "all trusted": (good, bias),
        "500 trusted": fit(500, 1e-2),
        "50 trusted": fit(50, 1e-2),
        "200 trusted, barely regularised": fit(200, 1e-4),
        "100 trusted, strongly regularised": fit(100, 1.0),
        "a tenth as long": (0.1 * good, 0.1 * bias),
        "ten times as long": (10 * good, 10 * bias),
        "another task's": fit(500, 1e-2, other),
        "shuffled": (good[torch.randperm(10, generator=draw)], bias),
        "random": (torch.randn(good.shape, generator=draw) * good.std(), 0 * bias),
    }
    if float(backbone.seen.weight.abs().sum()):
        made["the network's own"] = (backbone.seen.weight, backbone.seen.bias)
    return made


def spoiled(backbone: Backbone, noise: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) of the scored part, and which are wrong."""
    images, rows = backbone.seen.images, backbone.parts[1]
    clean = images.labels[rows]
    if noise in images.human:
        return images.human[noise][rows], images.human[noise][rows] != clean
    if noise.startswith("pairs"):  # every class has one that it is taken for
        _, wrong = with_noise(clean, float(noise.split()[1]), images.classes, seed)
        return np.where(wrong, (clean + 1) % images.classes, clean), wrong
    return with_noise(clean, float(noise), images.classes, seed)


def label_probes(backbone: Backbone, family: str, folder: Path) -> Iterator[Made]:
    """Probes towards every reference, at every kind of noise; settings are taken in turn."""
    kinds = DIGITS_NOISE if backbone.name.startswith("digits") else CIFAR_NOISE
    chosen = itertools.cycle(SETTINGS)
    stored: dict[str, tuple[FeatureSet, np.ndarray]] = {}
    for number, noise in enumerate(kinds):
        labels, wrong = spoiled(backbone, noise, seed=number)
        stored[noise] = _stored(backbone, labels, folder / f"{backbone.name} {noise}"), wrong
    for (name, head), (noise, (features, wrong)) in itertools.product(
        heads(backbone).items(), stored.items()
    ):
        batch, temperature, rate = next(chosen)
        config = ProbeConfig(
            epochs=5, batch_size=batch, temperature=temperature, learning_rate=rate
        )
        classes = tuple(map(str, range(10)))
        probe = LabelProbe(features, ClassHead(classes, *head), config)
        yield _probed(probe, ClassHead(classes, *head), features, wrong) | {
            "family": family,
            "mode": "probe on labels",
            "data": backbone.name,
            "reference": name,
            "noise": noise,
            "batch": batch,
            "temperature": temperature,
            "learning_rate": rate,
        }


def batch_pairs(backbone: Backbone, family: str, folder: Path) -> Iterator[Made]:
    """Probes that differ in nothing but the batch, on the labels that people gave."""
    classes = tuple(map(str, range(10)))
    head = ClassHead(classes, *heads(backbone)["all trusted"])
    for noise in backbone.seen.images.human and CIFAR_NOISE[-3:]:
        labels, wrong = spoiled(backbone, noise, seed=0)
        features = _stored(backbone, labels, folder / f"{backbone.name} {noise} batches")
        for batch in (32, 256):
            config = ProbeConfig(batch_size=batch, temperature=1.0)
            yield _probed(LabelProbe(features, head, config), head, features, wrong) | {
                "family": family,
                "mode": "probe on labels",
                "data": backbone.name,
                "reference": "all trusted",
                "noise": noise,
                "batch": batch,
                "temperature": config.temperature,
                "learning_rate": config.learning_rate,
                "pair": True,
            }


def _probed(probe: LabelProbe, head: ClassHead, features: FeatureSet, wrong: np.ndarray) -> Made:
    x = torch.from_numpy(features.array("image_features").read()).float()
    numbers = torch.tensor(head.numbers(features.samples["label"].to_list()))
    logits = head.logits(x)

    def seen(images: np.ndarray, whose: np.ndarray) -> np.ndarray:
        return -cross_entropy_losses(logits[images], numbers[whose]).numpy()

    agreed = (logits.argmax(1) == numbers).numpy()
    trusting = LabelProbe(features, head, probe.config, scored=np.flatnonzero(agreed))
    segments = (probe.segment_losses(POSITIONS), trusting.segment_losses(POSITIONS))
    norms, epochs = [], []
    for epoch in range(probe.config.epochs):
        norms.append(float((head.weight - probe.weight).norm()))
        epochs.append(list(probe.run(epoch)))
    return gathered(epochs, len(wrong), wrong, seen, right_by_chance=1 / 9, agreed=agreed) | {
        "segment": _fall(segments[0]),
        "segment_agreed": _fall(segments[1]),
        "norm_left": float((head.weight - probe.weight).norm()) / norms[0],
    }


def _fall(segment: list[float]) -> float:
    """By which share the loss falls on the way to the reference."""
    return 1 - segment[-1] / segment[0]


def _stored(backbone: Backbone, labels: np.ndarray, folder: Path) -> FeatureSet:
    rows = backbone.parts[1]
    samples = pl.DataFrame(
        {"uid": [f"{row:032x}" for row in rows], "label": [str(label) for label in labels]}
    )
    arrays = {"image_features": backbone.seen.features[torch.from_numpy(rows)].half().numpy()}
    return one_shard(folder, samples, arrays)


# --- whole models ---


def trainings(name: str, family: str, say: Say) -> Iterator[Made]:
    """Whole networks trained from other random weights than the reference's, or from its own."""
    images = digits() if name == "digits" else cifar()
    epochs = 60 if name == "digits" else 15
    reference = module_of(images, epochs, say, seed=0)
    early = module_of(images, max(1, epochs // 15), say, seed=0)
    kinds = ("0.4", "pairs 0.3") if name == "digits" else ("0.4", "noisy_worse")
    for noise, batch, start in itertools.product(kinds, (32, 128), ("fresh", "early", "fitted")):
        backbone = Backbone(name, Referred(images, images.pixels, torch.zeros(1), torch.zeros(1)))
        labels, wrong = spoiled(backbone, noise, seed=3)
        rows = backbone.parts[1]
        if start == "fresh":
            module = module_of(images, 0, say, seed=7)
        elif start == "early":  # on the reference's own way
            module = _copy(images, early)
        else:
            module = _copy(images, reference)
            with torch.no_grad():
                fresh = module_of(images, 0, say, seed=7).get_classifier()
                module.get_classifier().weight.copy_(fresh.weight)
        if name == "cifar10n":
            rows, labels, wrong = rows[:800], labels[:800], wrong[:800]
        yield _trained(
            module, reference, images.pixels[torch.from_numpy(rows)], labels, wrong, batch
        ) | {
            "family": family,
            "mode": "training on labels",
            "data": name,
            "reference": f"another network's layer, {start} model",
            "noise": noise,
            "batch": batch,
            "temperature": 1.0,
            "learning_rate": 1e-3,
        }


def _copy(images: Images, module: Any) -> Any:
    made = module_of(images, 0, lambda _: None, seed=0)
    made.load_state_dict(module.state_dict())
    return made


def _trained(
    module: Any,
    reference: Any,
    pixels: Tensor,
    labels: np.ndarray,
    wrong: np.ndarray,
    batch_size: int,
) -> Made:
    """The product's own training step on images in memory."""
    given = Given(pixels, labels, tuple(map(str, range(10))))
    planting = Planting(given.words, given.samples, given.classes)
    config = TrainConfig(model="-", batch_size=batch_size, learning_rate=1e-3, temperature=1.0)
    with torch.no_grad():
        logits = reference.eval()(pixels)
    epochs: list[list[ScoreBatch]] = [[] for _ in range(config.epochs)]

    def aids(draw: Draw) -> Aids:
        return Aids(swap=planting.swap(draw, CPU))

    for epoch, draw, visit in visits(module, reference, given, config, aids):
        kept = [v[: draw.scored].numpy() for v in
                (visit.losses, visit.mimic_scores, visit.mimic_weights)]  # fmt: skip
        planted = None if visit.planted is None else planting.planted(draw, visit.planted)
        epochs[epoch].append(
            ScoreBatch(epoch, draw.step, draw.rows[: draw.scored], *kept, planted=planted)
        )
    numbers = torch.from_numpy(labels)

    def seen(images: np.ndarray, whose: np.ndarray) -> np.ndarray:
        return -cross_entropy_losses(logits[images], numbers[whose]).numpy()

    agreed = (logits.argmax(1) == numbers).numpy()
    return gathered(epochs, len(labels), wrong, seen, right_by_chance=1 / 9, agreed=agreed)
