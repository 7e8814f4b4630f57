"""Runs of image-caption pairs for the calibration: probes and snapshots on the demo's features.

The demo's clean pairs, some of whose captions are swapped, and the demo's own pool with all its
kinds of noise; the reference is the demo's, or one whose projection is spoiled. No image is read.
Letters: N pairs, F feature width, D embedding width.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from direction_figures import Made, Seen, gathered
from feature_sets import one_shard
from torch import Tensor

from mimic_core.base.config import ProbeConfig, Side, SnapshotConfig
from mimic_core.features.stored import TowerEnds, read_ends
from mimic_core.mimic.contrastive import normalise
from mimic_core.models.layers import fresh_weight
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.run import open_run
from mimic_core.scoring.direction import POSITIONS
from mimic_core.scoring.probe import Probe
from mimic_core.scoring.snapshot import Snapshot

DEMO = Path(__file__).parents[1] / "data_samples" / "runs"
SIDES: tuple[Side, ...] = ("image", "text")
NOISE = (0.0, 0.1, 0.3, 0.5, 0.7, None)  # shares of swapped captions; None: the demo as it is
SETTINGS = (  # batch, temperature, learning rate; taken in turn
    (256, 0.05, 1e-3),
    (32, 0.5, 1e-3),
    (64, 0.2, 1e-2),
    (512, 0.02, 1e-3),
    (16, 0.05, 1e-2),
)
# How much of the reference's projection is left, the rest being drawn; or columns in another order.
REFERENCES = {
    "the demo's": 1.0,
    "a third drawn": 0.66,
    "half drawn": 0.5,
    "two thirds drawn": 0.33,
    "random": 0.0,
    "shuffled": None,
}


class Pairs:
    """The demo's features with its projections spoiled and captions swapped."""

    def __init__(self, reference: str, share: float | None, seed: int) -> None:
        run = open_run(next(DEMO.glob("*/run.json")).parent)
        features, samples = run.features, run.features.samples
        self.ends = read_ends(features)
        noisy = samples["is_noisy"].to_numpy()
        rows = np.arange(len(samples)) if share is None else np.flatnonzero(~noisy)
        whose = rows.copy()
        if share:
            drawn = np.random.default_rng(seed).permutation(len(rows))[: round(share * len(rows))]
            whose[drawn] = np.roll(rows[drawn], 1)
        self.wrong = noisy if share is None else whose != rows
        self.weights = {
            side: _spoiled(self.ends.projections[side].weight, REFERENCES[reference], seed)
            for side in SIDES
        }
        self.features = {
            "image": _array(features, "image_features", rows),
            "text": _array(features, "text_features", whose),
        }
        columns = ("image_kind", "image_path", "image_offset", "image_member")
        captions = samples["caption"].gather(whose)
        self.samples = samples[rows].select("uid", *columns).with_columns(captions)

    def stored(self, side: Side, folder: Path) -> FeatureSet:
        """A feature set of these pairs; the reference's projection of ``side`` is the spoiled one.

        The other side keeps the demo's: with both spoiled nothing would be left to agree on.
        """
        folder.mkdir(parents=True)
        kept = {s: self.ends.projections[s].weight for s in SIDES} | {side: self.weights[side]}
        _store_ends(folder, self.ends, kept)
        arrays: dict[str, np.ndarray] = {}
        for one in SIDES:
            arrays[f"{one}_features"] = self.features[one].half().numpy()
            unit = F.normalize(self.features[one] @ kept[one], dim=1)
            arrays[f"{one}_embedding"] = unit.half().numpy()
        return one_shard(folder, self.samples, arrays)

    def tangents(self, features: FeatureSet, model: Tensor, folder: Path) -> FeatureSet:
        """What phase 1 of a snapshot stores of the model with the image projection ``model``."""
        target = read_ends(features).projections["image"].weight
        vector = target - model
        raw = self.features["image"] @ model
        unit, along, _ = normalise(raw, self.features["image"] @ (vector / vector.norm()))
        assert along is not None
        text = features.array("text_embedding").read()
        folder.mkdir(parents=True)
        arrays = {
            "image_embedding": unit.numpy(),
            "text_embedding": text.astype(np.float32),
            "image_tangent": along.numpy(),
        }
        return one_shard(folder, self.samples, arrays)


def pair_runs(side: Side, family: str, folder: Path) -> Iterator[Made]:
    """Probes of one side towards every reference at every share of noise."""
    chosen = itertools.cycle(SETTINGS)
    for number, (reference, share) in enumerate(itertools.product(REFERENCES, NOISE)):
        batch, temperature, rate = next(chosen)
        config = ProbeConfig(
            side=side,
            epochs=5,
            batch_size=batch,
            temperature=temperature,
            learning_rate=rate,
            seed=number,
        )
        pairs = Pairs(reference, share, seed=number)
        features = pairs.stored(side, folder / f"{side} {number}")
        probe = Probe(features, config)
        segment = probe.segment_losses(POSITIONS)
        target = read_ends(features).projections[side].weight
        before = float((target - probe.weight).norm())
        epochs = [list(probe.run(epoch)) for epoch in range(config.epochs)]
        yield _made(pairs, features, epochs) | {
            "segment": 1 - segment[-1] / segment[0],
            "norm_left": float((target - probe.weight).norm()) / before,
            "family": family,
            "mode": "probe on captions",
            "data": f"demo, {side} projection",
            "reference": reference,
            "noise": "demo" if share is None else f"{share:g}",
            "batch": batch,
            "temperature": temperature,
            "learning_rate": rate,
        }


def snapshots(family: str, folder: Path) -> Iterator[Made]:
    """Models between a fresh projection and beyond the reference's, at fixed weights."""
    for number, (reference, share, place) in enumerate(
        itertools.product(("the demo's", "half drawn", "random"), (0.3, 0.7), (0.0, 0.5, 0.9))
    ):
        pairs = Pairs(reference, share, seed=100 + number)
        features = pairs.stored("image", folder / f"snapshot {number}")
        target = read_ends(features).projections["image"].weight
        fresh = fresh_weight("projection", tuple(target.shape), torch.Generator().manual_seed(7))
        config = SnapshotConfig(batch_size=(32, 256)[number % 2], repeats=2)
        model = torch.lerp(fresh, target, place)
        tangents = pairs.tangents(features, model, folder / f"tangents {number}")
        snapshot = Snapshot(tangents, pairs.ends.scaling, config)
        epochs = [list(snapshot.run(repeat)) for repeat in range(config.repeats)]
        yield _made(pairs, features, epochs) | {
            "family": family,
            "mode": "snapshot",
            "data": f"demo, model {place:.0%} of the way",
            "reference": reference,
            "noise": f"{share:g}",
            "batch": config.batch_size,
            "temperature": config.temperature,
            "learning_rate": None,
        }


def _made(pairs: Pairs, features: FeatureSet, epochs: list) -> Made:  # type: ignore[type-arg]
    image = torch.from_numpy(features.array("image_embedding").read()).float()
    text = torch.from_numpy(features.array("text_embedding").read()).float()

    def seen(images: np.ndarray, whose: np.ndarray) -> np.ndarray:
        found: np.ndarray = (image[images] * text[whose]).sum(1).numpy()
        return found

    agreed = _agreed(seen, len(image))
    return gathered(epochs, len(image), pairs.wrong, seen, right_by_chance=0.0, agreed=agreed)


def _agreed(seen: Seen, count: int) -> np.ndarray:
    """Whose caption goes better with the image than nine of ten others of the pool do."""
    every = np.arange(count)
    own = seen(every, every)
    others = np.stack([seen(every, np.roll(every, shift)) for shift in range(1, 20)])
    found: np.ndarray = (own > others).mean(0) >= 0.9
    return found


def _spoiled(weight: Tensor, left: float | None, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if left is None:
        return weight[:, torch.randperm(weight.shape[1], generator=generator)]
    drawn = torch.randn(weight.shape, generator=generator) * weight.std()
    return left * weight + (1 - left) * drawn


def _array(features: FeatureSet, name: str, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(features.array(name).take(rows)).float()


def _store_ends(folder: Path, ends: TowerEnds, weights: dict[Side, Tensor]) -> None:
    """As ``mimic_core.features.stored.store_ends`` does from a module."""
    from safetensors.torch import save_file

    tensors = {
        "logit_scale": torch.tensor(ends.scaling.scale),
        "logit_bias": torch.tensor(ends.scaling.bias),
    }
    names = {"loss": str(ends.scaling.loss)}
    for side, weight in weights.items():
        names[side] = ends.projections[side].name
        tensors[f"{side}.weight"] = weight.contiguous()
    save_file(tensors, folder / "head.safetensors", metadata={"names": json.dumps(names)})
