"""Did a sample train the reference? The comparison of the paper's Table 5.

Half of the scored part, drawn anew with each seed, trains the reference's head with its clean
labels; the other half does not, and everything is scored with clean labels. AUROC of telling the
two halves apart: 1/2 is chance. The backbone has seen neither half. Letters: M scored images,
S epochs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from reproduce_detection import BATCHES
from reproduce_heads import Heads, HeadSettings
from reproduce_images import Referred, fitted, referred
from reproduce_labels import LEARNING_RATES, Collected
from reproduce_numbers import Say, Table

from mimic_core.mimic.losses import cross_entropy_losses
from mimic_core.stats.detection import auroc


@dataclass(frozen=True)
class MembersPlan:
    """How much is computed: ``decays`` regularise the reference's head."""

    seeds: tuple[int, ...] = (0, 1, 2)
    decays: tuple[float, ...] = (0.1, 1e-2, 1e-4)


def reproduce_members(seen: Referred, plan: MembersPlan, say: Say) -> Table:
    """Trained features and those of random weights, every decay; one row each."""
    rows: Table = []
    for shown, backbone in _backbones(seen, say):
        for decay in plan.decays:
            with TemporaryDirectory() as folder:
                made = members_row(backbone, decay, plan.seeds, Path(folder))
            rows.append({"backbone": shown, "weight_decay": decay, **made})
        say(f"members, {seen.images.name}, {shown}: done")
    return rows


def _backbones(seen: Referred, say: Say) -> Iterator[tuple[str, Referred]]:
    yield "trained", seen
    if seen.images.name != "drawings":  # which has no network that could be drawn anew
        yield "random weights", referred(seen.images, 0, say)


def members_row(seen: Referred, decay: float, seeds: Sequence[int], folder: Path) -> dict[str, Any]:
    """AUROC of each way to tell members, and how often the reference is right on both halves."""
    found, right = Collected(), Collected()
    for seed in seeds:
        member = halved(len(seen.images.parts()[1]), seed)
        for name, value in member_aurocs(seen, member, decay, seed, folder / str(seed)):
            (right if name.startswith("right") else found).add(value, name)
    return {"auroc": found.table("way", value="auroc"), "right": right.table("half", value="share")}


def halved(count: int, seed: int) -> np.ndarray:
    """A random half of ``count``, rounded down, is true."""
    member = np.zeros(count, bool)
    member[np.random.default_rng((1, seed)).permutation(count)[: count // 2]] = True
    return member


def member_aurocs(
    seen: Referred, member: np.ndarray, decay: float, seed: int, folder: Path
) -> Iterator[tuple[str, float]]:
    """One seed's figures by name.

    Args:
        seen: Images and features; its head is not used.
        member: Who of the scored part (M,) trains the reference's head.
        decay: Of that head.
    """
    scored = seen.images.parts()[1]
    labels = seen.images.labels[scored]
    seen = fitted(seen.images, seen.features, scored[member], decay)
    logits = seen.logits(scored)
    losses = cross_entropy_losses(logits, torch.from_numpy(labels)).numpy()
    heads = Heads.of(seen, labels, folder)
    for size in BATCHES:
        settings = HeadSettings(
            seed=seed, batch_size=size, learning_rate=LEARNING_RATES[seen.images.name]
        )
        history, _ = heads.train(settings)
        yield f"mimic score, batch {size}", _auroc(history.mimic_score.mean(0), member)
    yield "loss of the reference", _auroc(-losses, member)
    plain = heads.train(replace(settings, batch_size=BATCHES[0], weighting="uniform"))[0]
    plain_loss = plain.loss.mean(0)
    yield "loss, plain training", _auroc(-plain_loss, member)
    yield "loss, plain training, less the reference's", _auroc(plain_loss - losses, member)
    correct = logits.argmax(1).numpy() == labels
    yield "right on members", float(correct[member].mean())
    yield "right on others", float(correct[~member].mean())


def _auroc(values: np.ndarray, member: np.ndarray) -> float:
    found = auroc(values, member)
    assert found is not None  # there are both
    return found
