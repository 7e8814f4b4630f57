"""The tables of the pairs: who finds which noise, by epoch, and what Grad-Mimic saves in training.

AUROC is against clean pairs, 1 is perfect. The CLIP score is the reference's; the loss is that of
the model that is scored. A training is compared with plain training from the same start, with the
same batches: the steps after which its held-out loss is down to plain training's final one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from detection import GROUP, MISMATCHED
from reproduce_numbers import Say, Table, spread, steps_to
from reproduce_pairs import (
    START,
    Pool,
    Settings,
    Trained,
    decoded,
    scored_runs,
    train,
    with_fresh_block,
)
from reproduce_probe import Way, probe_trainings
from torch import nn

from mimic_core.base.config import TrainConfig
from mimic_core.models.load import load_model
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.history import History, run_history
from mimic_core.stats.detection import auroc

Key = tuple[str, ...]
FRESH_BLOCK = "the reference with a fresh last block"


@dataclass(frozen=True)
class Variant:
    """One way to train; ``config`` holds what differs from plain training."""

    name: str
    config: dict[str, Any]


def variants(settings: Settings, *, later: bool) -> list[Variant]:
    """Plain training first, then Grad-Mimic in both forms at every temperature; the later start
    leaves out the first one, whose weights are all but equal.
    """
    found = [Variant("plain", {"weighting": "uniform"})]
    layers = settings.layers[1:] if later else settings.layers
    for reweight, temperatures in (("layers", layers), ("all", settings.everything)):
        found += [
            Variant(
                f"mimic, {reweight}, temperature {value:g}",
                {"weighting": "mimic", "reweight": reweight, "temperature": value},
            )
            for value in temperatures
        ]
    return found


def collect_fine_tuning(settings: Settings, seed: int, say: Say) -> Collected:
    """The reference with a fresh last block, fine-tuned, for one seed."""
    with TemporaryDirectory() as folder:
        return _Collector(settings, seed, say).fine_tuned(Path(folder))


def collect_pairs(settings: Settings, seed: int, say: Say) -> Collected:
    """Everything about the pairs for one seed."""
    with TemporaryDirectory() as folder:
        return _Collector(settings, seed, say).collected(Path(folder))


def pair_tables(parts: Sequence[Collected]) -> dict[str, Any]:
    """All tables of the pairs, from what was collected for each seed."""

    def table(name: str, columns: Key, value: str) -> Table:
        values: dict[Key, list[float]] = defaultdict(list)
        for part in parts:
            for key, number in getattr(part, name).items():
                values[key].append(number)
        return [
            {**dict(zip(columns, key, strict=True)), value: spread(found)}
            for key, found in values.items()
        ]

    return {
        "pool": parts[0].pool,
        "detection": table("kinds", ("mode", "noise", "score"), "auroc"),
        "by_epoch": table("epochs", ("mode", "epoch", "score"), "auroc"),
        "training": table("trainings", ("start", "way", "figure"), "value"),
        "curves": [curve for part in parts for curve in part.curves],
    }


@dataclass
class Collected:
    """Values of one seed by key."""

    pool: dict[str, int] = field(default_factory=dict)
    kinds: dict[Key, float] = field(default_factory=dict)
    epochs: dict[Key, float] = field(default_factory=dict)
    trainings: dict[Key, float] = field(default_factory=dict)
    curves: Table = field(default_factory=list)


class _Collector:
    def __init__(self, settings: Settings, seed: int, say: Say) -> None:
        self._settings, self._seed, self._say = settings, seed, say
        self._found = Collected()

    def collected(self, folder: Path) -> Collected:
        """Score, train, and keep all figures."""
        settings, pool = self._settings, None
        for mode, run in scored_runs(settings, folder, self._seed):
            self._say(f"{mode}, seed {self._seed}")
            pool = pool or decoded(run, settings)
            self._judge(mode, run_history(run), pool)
            if mode == "probe":
                self._probe(run.features, pool, folder)
        assert pool is not None  # there are two modes
        self._found.pool = {"samples": len(pool.truth), "held_out": len(pool.held_out)}
        fresh = load_model(f"{START}{self._seed}", preprocess="openai").module
        early = self._train_all("random", fresh, pool)
        self._train_all(f"after {settings.early} epochs", early, pool, later=True)
        return self._found

    def fine_tuned(self, folder: Path) -> Collected:
        """Plain training and Grad-Mimic in both forms, at the paper's best temperature."""
        settings = self._settings
        short = replace(
            settings,
            epochs=settings.tuned,
            learning_rate=settings.tuning_rate,
            layers=settings.layers[:1],
            everything=settings.layers[:1],
        )
        self._settings = short
        _, run = next(scored_runs(short, folder, self._seed))
        pool = decoded(run, short)
        self._found.pool = {"samples": len(pool.truth), "held_out": len(pool.held_out)}
        self._train_all(FRESH_BLOCK, with_fresh_block(pool.reference, self._seed), pool)
        return self._found

    def _probe(self, features: FeatureSet, pool: Pool, folder: Path) -> None:
        parts = (pool.held_out, pool.trained)
        ways = probe_trainings(
            features, parts, self._settings.probe, seed=self._seed, folder=folder / "parts"
        )
        for name, way in ways.items():
            self._compare("probe", name, way, ways["plain"])

    def _judge(self, mode: str, history: History, pool: Pool) -> None:
        """AUROC of the means by kind of noise, and of every epoch for the mismatched."""
        truth = in_order(history, pool.truth)
        scores = {
            "mimic score": -history.mimic_score,
            "loss": history.loss,
            "CLIP score": -truth["clip_score"].to_numpy()[None],
        }
        for name, values in scores.items():
            for noise, found in by_kind(values.mean(0), truth):
                self._found.kinds[mode, noise, name] = found
        if history.steps > 1:
            for place, epoch in enumerate(history.epochs):
                for name in ("mimic score", "loss"):
                    _, found = next(by_kind(scores[name][place], truth))
                    self._found.epochs[mode, str(epoch + 1), name] = found

    def _train_all(
        self, start: str, module: nn.Module, pool: Pool, *, later: bool = False
    ) -> nn.Module:
        """Every variant from ``module``; returns the plain training's early model."""
        plain: Trained | None = None
        for variant in variants(self._settings, later=later):
            config = self._config(variant, later=later)
            trained = train(pool, module, config, early=self._settings.early)
            plain = plain or trained
            self._compare(start, variant.name, trained, plain)
            final = trained.metrics[-1]["held_out_loss"]
            self._say(f"{start}, {variant.name}, seed {self._seed}: held-out loss {final:.3f}")
            if variant.name in ("plain", self._shown()):
                self._judge(f"training from {start}, {variant.name}", trained.history, pool)
        assert plain is not None  # plain training is the first variant
        return plain.early

    def _shown(self) -> str:
        """The variant whose scores are judged beside plain training's: the sharpest one."""
        return f"mimic, layers, temperature {self._settings.layers[-1]:g}"

    def _config(self, variant: Variant, *, later: bool) -> TrainConfig:
        settings = self._settings
        base = TrainConfig(
            model="given",
            epochs=settings.later if later else settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            temperature=settings.layers[0],
            seed=self._seed + (1000 if later else 0),  # other batches than the start has seen
        )
        return TrainConfig.model_validate({**base.model_dump(), **variant.config})

    def _compare(self, start: str, way: str, trained: Trained | Way, plain: Trained | Way) -> None:
        curve: dict[str, Any] = {"start": start, "way": way, "seed": self._seed}
        curve |= {
            name: [row[name] for row in trained.metrics] for name in ("step", "held_out_loss")
        }
        self._found.curves.append(curve)
        level, total = plain.metrics[-1]["held_out_loss"], plain.metrics[-1]["step"]
        last = trained.metrics[-1]
        figures = {
            "held-out loss": last["held_out_loss"],
            "lowest held-out loss": min(row["held_out_loss"] for row in trained.metrics),
            "recall@1 image to text": last["image_to_text_recall_at_1"],
            "recall@1 text to image": last["text_to_image_recall_at_1"],
            "effective share of a batch": trained.share,
        }
        if last["step"]:  # else nothing was trained: it is the reference
            reached = steps_to(trained.metrics, level)
            # Not reached counts as no step saved, and is counted.
            figures["steps saved"] = 0.0 if reached is None else 1 - reached / total
            figures["reached"] = float(reached is not None)
            figures["held-out loss at the start"] = trained.metrics[0]["held_out_loss"]
        for name, value in figures.items():
            self._found.trainings[start, way, name] = value


def by_kind(values: np.ndarray, truth: pl.DataFrame) -> Iterator[tuple[str, float]]:
    """AUROC of ``values`` (high where noise is expected) for the mismatched and every kind."""
    noisy, kinds = truth["is_noisy"].to_numpy(), truth["noise_kind"].to_numpy()
    groups: list[tuple[str, Sequence[str]]] = [(GROUP, MISMATCHED)]
    groups += [(kind, (kind,)) for kind in sorted(set(kinds[noisy]))]
    for name, members in groups:
        positive = noisy & np.isin(kinds, members)
        known = positive | ~noisy
        found = auroc(values[known].astype(np.float64), positive[known])
        if found is not None:
            yield name, found


def in_order(history: History, truth: pl.DataFrame) -> pl.DataFrame:
    """``truth`` of the samples of ``history``, in its order."""
    return pl.DataFrame({"uid": history.uids}).join(
        truth, on="uid", how="left", maintain_order="left", validate="1:1"
    )
