"""A finished run of any size with made-up scores and captions, for benches that read runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from mimic_core.base import files
from mimic_core.base.config import ProbeConfig, RunConfig, SourceConfig
from mimic_core.base.schema import (
    MEASURED_COLUMNS,
    SAMPLE_COLUMNS,
    SCHEMA_VERSION,
    SCORE_COLUMNS,
    SKIP_COLUMNS,
)
from mimic_core.runs import run as runs
from mimic_core.runs.featureset import FEATURES_DIR, FeatureSet
from mimic_core.runs.record import RunRecord
from mimic_core.runs.run import Run

SHARD = 500_000
NOISY_SHARE = 0.3
BATCH = 256
WORDS = np.array(["a", "red", "dog", "cat", "on", "the", "grass", "photo", "of", "two", "birds"])


def write_big_run(root: Path, rows: int, epochs: int) -> Run:
    """Write a run of ``rows`` samples under ``root``: uids, captions, measures, five score files.

    Three of ten samples score lower in every epoch, with overlap; a user column ``topic`` has ten
    values.
    """
    features = _features(root, rows)
    config = RunConfig(
        source=SourceConfig(path="made-up"),
        reference="made-up",
        probe=ProbeConfig(epochs=epochs, batch_size=BATCH),
    )
    record = RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=f"made-up-{rows}-{epochs}",
        status="running",
        created_at="2026-01-02T03:04:05+00:00",
        config=config,
        feature_set=features.id,
        batch_size=BATCH,
        samples=rows,
        epochs=epochs,
    )
    run = runs.start_run(root, record)
    uids = features.scan().select("uid").collect()["uid"]
    noisy = noisy_rows(rows)
    for epoch in range(epochs):
        scores = made_up_scores(noisy, epoch)
        frame = pl.DataFrame(
            {"uid": uids, "epoch": np.full(rows, epoch, np.int32), **scores}, schema=SCORE_COLUMNS
        )
        files.write_parquet(run.path / "scores" / f"epoch-{epoch:05d}.parquet", frame)
    return run.update(status="done")


def noisy_rows(rows: int) -> np.ndarray:
    """Which of the made-up samples are noisy, (N,) bool."""
    return np.asarray(np.random.default_rng(7).random(rows) < NOISY_SHARE)


def made_up_scores(noisy: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
    """Step, loss, mimic score and weight of one epoch, each (N,)."""
    random = np.random.default_rng(epoch)
    score = random.standard_normal(len(noisy), dtype=np.float32)
    score *= np.float32(0.3)
    score += np.where(noisy, np.float32(0), np.float32(1))
    weight = np.exp(score)
    weight /= np.float32(weight.mean(dtype=np.float64) * BATCH)
    step = (np.arange(len(noisy)) // BATCH).astype(np.int32)
    return {"step": step, "loss": 3 - score, "mimic_score": score, "mimic_weight": weight}


def _features(root: Path, rows: int) -> FeatureSet:
    path = root / FEATURES_DIR / f"made-up-{rows}"
    sizes = {f"{i:05d}": min(SHARD, rows - start) for i, start in enumerate(range(0, rows, SHARD))}
    info = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": "made up",
        "arrays": [],
        "shards": sizes,
    }
    files.write_json(path / "features.json", info)
    features = FeatureSet.open(path)
    for shard, samples in zip(sizes, _samples(rows), strict=True):
        features.write_shard(shard, samples, pl.DataFrame(schema=SKIP_COLUMNS), {})
    return FeatureSet.open(path)


def _samples(rows: int) -> Iterator[pl.DataFrame]:
    for number, start in enumerate(range(0, rows, SHARD)):
        size = min(SHARD, rows - start)
        random = np.random.default_rng([1, number])
        digits = random.bytes(16 * size).hex()
        uids = [digits[32 * i : 32 * i + 32] for i in range(size)]
        words = WORDS[random.integers(0, len(WORDS), (6, size))]
        caption = pl.DataFrame(words.T.tolist(), orient="row").select(
            pl.concat_str(pl.all(), separator=" ")
        )
        whole = {"image_offset": 0, "image_length": -1, "width": 224, "height": 224}
        columns = {
            "uid": pl.Series(uids),
            "key": pl.Series(range(start, start + size)).cast(pl.String),
            "shard": pl.repeat(f"{number:05d}", size, eager=True),
            "caption": caption.to_series(),
            "label": pl.repeat(None, size, dtype=pl.String, eager=True),
            **{name: pl.repeat(value, size, eager=True) for name, value in whole.items()},
            "image_kind": pl.repeat("range", size, eager=True),
            "image_path": pl.repeat("pool.tar", size, eager=True),
            "image_member": pl.repeat("", size, eager=True),
            "caption_tokens": pl.Series(random.integers(3, 78, size)),
            "caption_length": caption.to_series().str.len_chars(),
            "clip_score": pl.Series(random.normal(0.25, 0.05, size)),
        }
        schema = {**SAMPLE_COLUMNS, **MEASURED_COLUMNS}
        frame = pl.DataFrame({name: columns[name].cast(dtype) for name, dtype in schema.items()})
        yield frame.with_columns(pl.Series("topic", WORDS[random.integers(0, 10, size)].tolist()))
