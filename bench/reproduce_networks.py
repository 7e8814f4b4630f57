"""Whole networks trained on wrong labels, towards references of the same and of another backbone.

CIFAR-10N. A network is pre-trained on the first half of the reference's part; the references are
trained on clean labels of the second half:

- "head alone": the pre-trained network, its last layer a logistic regression
- "same backbone": the pre-trained network, fine-tuned as a whole
- "another backbone": a network of the same architecture from other random weights, trained on both
  halves in as many steps

The model that is trained is the pre-trained network with a fresh last layer, which is the mimic
layer, or with a fresh last block too; all of it learns, on the first half of the scored part. Held
out is the first half of the test part. Letters: M scored images, C classes, S epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from label_training import Given, visits
from reproduce_images import Images, cifar, features_of, fit, fitted, module_of
from reproduce_labels import Collected, noisy_labels
from reproduce_numbers import Say, Table, parts, steps_to
from torch import Tensor, nn

from mimic_core.base.config import Reweight, TrainConfig, WeightingName
from mimic_core.base.draws import Draw
from mimic_core.mimic.losses import cross_entropy_losses
from mimic_core.scoring.labels.probe import INITIAL_LOGITS
from mimic_core.scoring.training.step import Aids
from mimic_core.stats.detection import auroc

Start = Literal["fresh head", "fresh last block"]


@dataclass(frozen=True)
class Way:
    """One way to train: from where, its weighting, for which parameters, towards what; ``once``
    with the first seed alone.
    """

    weighting: WeightingName
    reference: str
    reweight: Reweight = "layers"
    start: Start = "fresh head"
    once: bool = False

    @property
    def name(self) -> str:
        """In words, apart from the start."""
        if self.weighting == "uniform":
            return "plain"
        whose = "all parameters" if self.reweight == "all" else "last layer"
        return f"{self.weighting}, {whose}; reference: {self.reference}"


ALONE, SAME, OTHER = "head alone", "same backbone", "another backbone"
BLOCK: Final = "fresh last block"
PLAIN = Way("uniform", SAME)
WAYS = (
    PLAIN,
    Way("mimic", SAME, once=True),
    Way("mimic", SAME, "all"),
    Way("mimic", ALONE, "all", once=True),
    Way("mimic", OTHER, "all"),
    Way("rho", SAME, "all", once=True),
    Way("rho", OTHER, "all", once=True),
    Way("uniform", SAME, start=BLOCK, once=True),
    Way("mimic", SAME, "all", BLOCK, once=True),
    Way("rho", SAME, "all", BLOCK, once=True),
)


@dataclass(frozen=True)
class NetworkPlan:
    """How much is computed."""

    seeds: tuple[int, ...] = (0, 1, 2)
    noise: tuple[str, ...] = ("0.5",)
    ways: tuple[Way, ...] = WAYS
    pre_training: int = 20
    fine_tuning: int = 10
    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3
    temperature: float = 1.0
    scored: int = 1500
    held_out: int = 1000


@dataclass(frozen=True, eq=False)
class Networks:
    """The pre-trained network, and the references by name."""

    start: Any
    references: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Run:
    """One training: ``curve`` on held-out images (step, held_out_loss, accuracy), and mimic scores
    (S, M).
    """

    curve: list[dict[str, float]]
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class Held:
    """What is never trained on: ``pixels`` (T, 3, H, W) and clean ``labels`` (T,)."""

    pixels: Tensor
    labels: np.ndarray

    def measured(self, module: Any, step: int) -> dict[str, float]:
        """Loss and accuracy of ``module`` after ``step`` updates."""
        logits = logits_of(module.get_classifier(), features_of(module, self.pixels))
        targets = torch.from_numpy(self.labels)
        return {
            "step": step,
            "held_out_loss": float(F.cross_entropy(logits, targets)),
            "accuracy": float((logits.argmax(1) == targets).float().mean()),
        }


def reproduce_networks(plan: NetworkPlan, say: Say) -> dict[str, Table]:
    """Every way to train, at every noise, over seeds; and what the references' heads read."""
    images, found, read = cifar(), Collected(), Collected()
    made = networks(images, plan, say)
    _, scored, test = (torch.from_numpy(part) for part in images.parts())
    test = test[: plan.held_out]
    held = Held(images.pixels[test], images.labels[test])
    for name, reference in made.references.items():
        for figure, value in reading(made.start, reference, held).items():
            read.add(value, name, figure)
    for seed in plan.seeds:
        starts = {
            "fresh head": with_fresh_head(made.start, images, seed),
            BLOCK: with_fresh_block(made.start, images, seed),
        }
        for noisy in noisy_labels(images, (0.5,), seed):
            if noisy.noise not in plan.noise:
                continue
            labels, wrong = noisy.labels[: plan.scored], noisy.wrong[: plan.scored]
            pixels = images.pixels[scored[: plan.scored]]
            given = Given(pixels, labels, tuple(map(str, range(images.classes))))
            plain: dict[str, Run] = {}
            for way in plan.ways:
                if way.once and seed != plan.seeds[0]:
                    continue
                reference = made.references[way.reference]
                run = trained(deepcopy(starts[way.start]), reference, given, held, way, plan, seed)
                plain.setdefault(way.start, run)
                for figure, value in figures(run, plain[way.start], wrong).items():
                    found.add(value, noisy.noise, way.start, way.name, figure)
                say(f"networks, seed {seed}, {noisy.noise}, {way.start}, {way.name}: done")
            for name, reference in made.references.items():
                value = _auroc(losses_of(reference, given).numpy(), wrong)
                found.add(value, noisy.noise, "–", f"the loss of: {name}", "AUROC")
    return {
        "trainings": found.table("noise", "start", "way", "figure", value="value"),
        "reading": read.table("reference", "figure", value="value"),
    }


def networks(images: Images, plan: NetworkPlan, say: Say) -> Networks:
    """The pre-trained network and the three references."""
    reference = images.parts()[0]
    first, second = parts(len(reference), (len(reference) // 2,), seed=1)
    start = module_of(images, plan.pre_training, say, 0, reference[first])
    same = deepcopy(start)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        fit(same, images, reference[second], plan.fine_tuning, say)
    both = (plan.pre_training + plan.fine_tuning) // 2  # twice the images, so as many steps
    other = module_of(images, both, say, 1, reference)
    alone = deepcopy(start)
    made = fitted(images, features_of(start, images.pixels), reference[second])
    with torch.no_grad():
        alone.get_classifier().weight.copy_(made.weight)
        alone.get_classifier().bias.copy_(made.bias)
    found = {ALONE: alone, SAME: same, OTHER: other}
    return Networks(start, {name: module.eval() for name, module in found.items()})


def with_fresh_head(module: Any, images: Images, seed: int) -> Any:
    """A copy of ``module`` whose last layer is drawn anew, as small as the product's own draw."""
    made = deepcopy(module)
    features = features_of(made, images.pixels[:500])
    length = float(features.square().sum(1).mean().sqrt())
    head = made.get_classifier()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        drawn = torch.randn(head.weight.shape, generator=generator)
        head.weight.copy_(drawn * (INITIAL_LOGITS / length))
        head.bias.zero_()
    return made


def with_fresh_block(module: Any, images: Images, seed: int) -> Any:
    """A copy of ``module`` whose last block and last layer are drawn anew.

    The block's batch statistics are those of 500 images: a trained block has statistics, too.
    """
    made = deepcopy(module)
    block = made.stages[-1]
    block.load_state_dict(module_of(images, 0, print, seed).stages[-1].state_dict())
    norms = [one for one in block.modules() if isinstance(one, nn.BatchNorm2d)]
    made.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        made(images.pixels[:500])
    return with_fresh_head(made, images, seed)


def reading(start: Any, reference: Any, held: Held) -> dict[str, float]:
    """Accuracy of the reference's head on its own features, and on those of the model that is
    trained towards it: whether the direction means anything there.
    """
    found = {}
    for name, module in (("its own features", reference), ("the model's features", start)):
        logits = logits_of(reference.get_classifier(), features_of(module, held.pixels))
        found[name] = float((logits.argmax(1).numpy() == held.labels).mean())
    return found


def trained(
    module: Any, reference: Any, given: Given, held: Held, way: Way, plan: NetworkPlan, seed: int
) -> Run:
    """Train ``module`` in place; measured twice in each epoch."""
    config = TrainConfig(
        model="given",
        weighting=way.weighting,
        reweight=way.reweight,
        temperature=plan.temperature,
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        seed=seed,
    )
    losses = losses_of(reference, given) if way.weighting == "rho" else None

    def aids(draw: Draw) -> Aids:
        rows = torch.from_numpy(draw.rows)
        return Aids(reference_losses=None if losses is None else losses[rows])

    scores = np.zeros((config.epochs, len(given.labels)))
    curve, half = [held.measured(module, 0)], -(-len(given.labels) // plan.batch_size) // 2
    step = 0
    for epoch, draw, visit in visits(module, reference, given, config, aids):
        scores[epoch, draw.rows[: draw.scored]] = visit.mimic_scores[: draw.scored].numpy()
        step += 1
        if step % max(1, half) == 0:
            curve.append(held.measured(module, step))
    if curve[-1]["step"] != step:
        curve.append(held.measured(module, step))
    return Run(curve, scores)


def figures(run: Run, plain: Run, wrong: np.ndarray) -> dict[str, float]:
    """Of one training beside plain training on the same batches.

    Steps saved are those not needed to reach plain training's final held-out loss, as a share; none
    where it is not reached.
    """
    last, total = run.curve[-1], plain.curve[-1]["step"]
    reached = steps_to(run.curve, plain.curve[-1]["held_out_loss"])
    return {
        "accuracy": last["accuracy"],
        "held-out loss": last["held_out_loss"],
        "AUROC": _auroc(-run.scores.mean(0), wrong),
        "steps saved": 0.0 if reached is None else 1 - reached / total,
        "reached": float(reached is not None),
    }


def losses_of(module: Any, given: Given) -> Tensor:
    """Losses (M,) of the labels of ``given`` under ``module``."""
    logits = logits_of(module.get_classifier(), features_of(module, given.pixels))
    return cross_entropy_losses(logits, torch.from_numpy(given.labels))


def logits_of(head: Any, features: Tensor) -> Tensor:
    """(N, C) of features (N, F)."""
    with torch.no_grad():
        found: Tensor = F.linear(features, head.weight, head.bias)
    return found


def _auroc(values: np.ndarray, wrong: np.ndarray) -> float:
    found = auroc(values, wrong)
    assert found is not None  # there are both
    return found
