"""The table of a training run's metrics: one row per evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from mimic_core.base import files
from mimic_core.runs import stored

METRIC_COLUMNS: dict[str, pl.DataType] = {
    "epoch": pl.Int32(),
    "step": pl.Int64(),
    "train_loss": pl.Float32(),
    "held_out_loss": pl.Float32(),
    "accuracy": pl.Float32(),
    "image_to_text_recall_at_1": pl.Float32(),
    "text_to_image_recall_at_1": pl.Float32(),
    "held_out": pl.Int64(),
    "uniform_batches": pl.Int64(),
}
"""``epoch`` is -1 before training; ``step`` counts the updates done; ``train_loss`` is the mean of
the losses logged in the epoch, null inside an epoch; ``uniform_batches`` counts those of the epoch
whose weighting fell back to equal weights. Null where it does not apply."""


class MetricsFile:
    """The rows so far, on disk after each one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep_until(self, epoch: int, step: int) -> None:
        """Drop what an unfinished try has written after ``epoch``, which ended with ``step``."""
        if self._path.exists():
            rows = self._read()
            self._write(rows.filter((pl.col("epoch") <= epoch) & (pl.col("step") <= step)))

    def add(self, row: dict[str, Any]) -> None:
        """Append one row; what it leaves out is null."""
        rows: Sequence[pl.DataFrame] = [pl.DataFrame([row], schema=METRIC_COLUMNS)]
        if self._path.exists():
            rows = [self._read(), *rows]
        self._write(pl.concat(rows))

    def _read(self) -> pl.DataFrame:
        return stored.read_table(self._path, METRIC_COLUMNS, remedy=stored.RUN_REMEDY)

    def _write(self, rows: pl.DataFrame) -> None:
        files.write_parquet(self._path, rows)


def as_sentence(row: dict[str, Any]) -> str:
    """One row for people: what was measured, in a few words."""
    words = {
        "train_loss": "training loss",
        "held_out_loss": "held-out loss",
        "accuracy": "accuracy",
        "image_to_text_recall_at_1": "recall@1 image to text",
        "text_to_image_recall_at_1": "text to image",
    }
    parts = [f"{text} {row[name]:.4g}" for name, text in words.items() if row.get(name) is not None]
    return ", ".join(parts) or "nothing is held out"
