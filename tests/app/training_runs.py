"""Finished and unfinished training runs on disk that no model has seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mimic_core.base import files
from mimic_core.base.config import RunConfig, TrainConfig
from mimic_core.runs import record
from mimic_core.runs import run as runs
from mimic_core.runs.metrics import MetricsFile
from mimic_core.runs.run import Run
from tests.fakes import fake_run

PER_EPOCH = 4  # updates
HELD_OUT = 10


def fake_training(
    root: Path,
    *,
    n: int = 40,
    epochs: int = 2,
    done: bool = True,
    measured: bool = True,
    labels: bool = False,
    created_at: str = "2026-03-02T03:04:05+00:00",
    **settings: Any,
) -> Run:
    """A training run on the fake pool under ``root``, with the metrics of every epoch."""
    base = fake_run(root, n=n, epochs=epochs)
    training = TrainConfig(model="ViT-B-32:random:1", epochs=epochs, **settings)
    config = RunConfig(source=base.record.config.source, reference="ref", training=training)
    name = record.run_id(config, base.record.feature_set, "weights")
    changes = {"run_id": name, "config": config, "created_at": created_at, "status": "running"}
    run = runs.start_run(root, record.RunRecord(**{**base.record.model_dump(), **changes}))
    for file in base.epoch_files():
        files.write_bytes(run.path / "scores" / file.name, file.read_bytes())
    files.write_bytes(run.path / "skipped.parquet", (base.path / "skipped.parquet").read_bytes())
    if measured:
        metrics = MetricsFile(run.path / "metrics.parquet")
        for epoch in range(-1, epochs):
            metrics.add(row(epoch, labels=labels))
    return run.update(status="done", held_out=HELD_OUT, epochs=epochs) if done else run


def row(epoch: int, *, labels: bool = False) -> dict[str, Any]:
    """The metrics after ``epoch``: losses fall by halves, shares rise by tenths."""
    share = (epoch + 2) / 10
    found = {
        "epoch": epoch,
        "step": PER_EPOCH * (epoch + 1),
        "train_loss": None if epoch < 0 else 2.0**-epoch,
        "held_out_loss": 4 * 2.0**-epoch,
        "held_out": HELD_OUT,
    }
    if labels:
        return found | {"accuracy": share}
    both = ("image_to_text_recall_at_1", "text_to_image_recall_at_1")
    return found | dict.fromkeys(both, share)
