"""Training runs as learning curves: which can be laid side by side, their names, their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from app.library import DEMO_POOL, located
from mimic_core.base.config import TrainConfig
from mimic_core.runs.run import Run

MEASURES: dict[str, str] = {
    "train_loss": "training loss",
    "held_out_loss": "held-out loss",
    "accuracy": "accuracy",
    "image_to_text_recall_at_1": "recall@1, image to text",
    "text_to_image_recall_at_1": "recall@1, text to image",
}
"""Columns of ``metrics.parquet`` that are drawn, and how people call them."""

_SPOKEN = {"learning_rate": "rate", "batch_size": "batch", "reweight": "weights on"}


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One training run.

    Attributes:
        name: Short, and unlike that of the other curves.
        points: epoch Float64 (how many are done, 0 before training) and ``MEASURES``; by epoch.
        done: Whether the run is finished.
    """

    run_id: str
    name: str
    points: pl.DataFrame
    done: bool

    def measure(self, column: str) -> pl.DataFrame:
        """Epoch and ``column`` where it was measured."""
        return self.points.select("epoch", column).drop_nulls()

    def last(self, column: str) -> float | None:
        """The newest value of a measure."""
        values = self.measure(column)[column]
        return None if values.is_empty() else float(values[-1])


def training_of(run: Run) -> TrainConfig:
    """The settings of a training run."""
    training = run.record.config.training
    assert training is not None  # the caller has a training run
    return training


def pool_label(pool: str) -> str:
    """A key of ``by_pool`` for a chooser: without the folders that its pool is in."""
    path, comma, rest = pool.partition(", ")
    name = "Demo pool" if Path(path) == DEMO_POOL else Path(path).name
    return f"{name}{comma}{rest}"


def by_pool(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The training runs, finished or not, by what they train on; in the order of ``runs``."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.record.config.training is not None and (run.path / "metrics.parquet").exists():
            found.setdefault(_pool(run), []).append(run)
    return found


def _pool(run: Run) -> str:
    """The pool as a heading; equal for runs on the same samples."""
    source = located(run.record.config).source
    parts = [" and ".join(Path(path).resolve().as_posix() for path in source.paths)]
    if source.sample is not None:
        parts.append(f"{source.sample:,} samples drawn by seed {source.sample_seed}")
    if source.label_column is not None:
        parts.append(f"labels from {source.label_column}")
    return ", ".join(parts)


def names(runs: Sequence[Run]) -> list[str]:
    """The weighting of each run, and whatever else tells them apart."""
    settings = [_settings(run) for run in runs]
    fields = dict.fromkeys(field for one in settings for field in one if field != "weighting")
    telling = [
        field for field in fields if len({one[field] for one in settings if field in one}) > 1
    ]
    found = []
    for one in settings:
        extra = [
            f"{_SPOKEN.get(field, field.replace('_', ' '))} {one[field]}"
            for field in telling
            if field in one
        ]
        found.append(", ".join([one["weighting"], *extra]))
    twins = {name for name in found if found.count(name) > 1}
    return [
        f"{name}, {datetime.fromisoformat(run.record.created_at):%d %b %H:%M:%S}"
        if name in twins
        else name
        for name, run in zip(found, runs, strict=True)
    ]


def _settings(run: Run) -> dict[str, str]:
    """What may tell the run from others, as text."""
    config = located(run.record.config)
    values = training_of(run).model_dump()
    values |= {"reference": config.reference, "precision": config.precision}
    values["mimic_layers"] = " + ".join(run.record.mimic_layers)
    values["model"] = Path(str(values["model"])).name
    if values["weighting"] == "uniform":
        del values["reweight"]  # equal weights are the mean gradient either way
    return {name: "none" if value is None else str(value) for name, value in values.items()}


def curve(run: Run, name: str) -> Curve:
    """The run's metrics so far.

    Raises:
        RunError: Nothing has been measured yet.
    """
    rows = run.metrics().sort("step", "epoch")
    ended = rows.filter((pl.col("epoch") >= 0) & pl.col("train_loss").is_not_null())
    per_epoch = ended["step"][0] / (ended["epoch"][0] + 1) if len(ended) else None
    if per_epoch is None:  # how long an epoch is shows when one has ended
        rows = rows.filter(pl.col("epoch") < 0)
    points = rows.select(
        (pl.col("step") / (per_epoch or 1.0)).cast(pl.Float64).alias("epoch"), *MEASURES
    )
    return Curve(run.id, name, points, run.done)


def measured(curves: Sequence[Curve]) -> list[str]:
    """The measures that any of the curves has."""
    return [
        name
        for name in MEASURES
        if any(one.points[name].null_count() < len(one.points) for one in curves)
    ]


def is_share(column: str) -> bool:
    """Whether a measure is a part of 1, to be shown in per cent."""
    return column.endswith(("accuracy", "recall_at_1"))


def same_held_out(runs: Sequence[Run]) -> bool:
    """Whether all runs are measured on the same held-out samples, by the same labels."""
    splits = set()
    for run in runs:
        training = training_of(run)
        seed = training.seed if training.held_out else None
        judges = training.held_out_label_column
        splits.add((training.held_out, seed, training.held_out_column, judges))
    return len(splits) <= 1


def table(curves: Sequence[Curve]) -> pl.DataFrame:
    """The newest figures of each run, one row each: what the charts say, for reading."""
    shown = measured(curves)
    return pl.DataFrame(
        {
            "run": [one.name for one in curves],
            "state": ["finished" if one.done else "not finished" for one in curves],
            "epochs": [round(float(one.points["epoch"].max() or 0), 2) for one in curves],  # type: ignore[arg-type]
            **{MEASURES[name]: [one.last(name) for one in curves] for name in shown},
        }
    )
