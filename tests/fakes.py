"""Finished runs on disk that no model has seen: the fixtures of every test that reads runs.

``fake_run`` writes pool, feature set, scores, skipped samples and map in the layout of
``docs/formats.md``, through the real writers and without torch, the same bytes for the same
arguments. ``fake_training`` makes a training run of it, with the metrics of every epoch.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save

from mimic_core.base import files
from mimic_core.base.config import ProbeConfig, RunConfig, SnapshotConfig, SourceConfig, TrainConfig
from mimic_core.base.identity import digest
from mimic_core.base.schema import MEASURED_COLUMNS, SCHEMA_VERSION, SKIP_COLUMNS, ScoreBatch
from mimic_core.runs import record
from mimic_core.runs import run as runs
from mimic_core.runs.featureset import FEATURES_DIR, FeatureSet, locate
from mimic_core.runs.layout import MapConfig, map_method
from mimic_core.runs.metrics import MetricsFile
from mimic_core.runs.record import DirectionCheck, RunRecord
from mimic_core.runs.run import Run
from tests.fake_pool import (
    EMBEDDING_WIDTH,
    SCRIPT_CAPTION,
    TOPICS,
    TRICKY_CAPTION,
    Draw,
    draw_pool,
    samples_table,
    write_images,
)

__all__ = ["SCRIPT_CAPTION", "TOPICS", "TRICKY_CAPTION", "fake_run", "fake_training"]

FEATURE_WIDTH = 24
PREPROCESSING = {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
CREATED_AT = "2026-01-02T03:04:05+00:00"
PER_EPOCH = 4  # updates
HELD_OUT = 10  # samples


def fake_run(
    root: Path,
    *,
    n: int = 120,
    seed: int = 0,
    epochs: int = 3,
    truth: bool = True,
    with_map: bool = True,
    images: bool | int = True,
    snapshot: bool = False,
) -> Run:
    """Write a pool of ``n`` samples, its feature set and one finished run under ``root``.

    Sample 0 is captioned ``SCRIPT_CAPTION`` and sample 1 ``TRICKY_CAPTION``; user columns are
    ``topic``, ``aesthetic`` (a tenth missing) and, with ``truth``, ``is_noisy`` and ``noise_kind``
    ("clean", "swapped_caption", "junk_caption"). Noisy samples score lower, with overlap.

    Args:
        root: The runs root; the pool goes to ``root/pools``.
        n: Number of readable samples, at least 2; three more are skipped.
        seed: Another seed is another pool and another run.
        epochs: Epochs of the probe, or repeats of a snapshot.
        truth: Whether the pool knows its noisy samples.
        with_map: Whether the map is there already.
        images: Whether the images exist (two webdataset shards of tiny PNGs), or how many at most
            in a shard, which all others share.
        snapshot: Whether the run is a snapshot instead of a probe.
    """
    draw = draw_pool(n, seed)
    pool = root / "pools" / f"fake-{seed}"
    samples = samples_table(draw, seed, truth=truth)
    if images:
        most = None if images is True else images
        samples = write_images(pool, samples, draw.size, most)
    features = _write_features(root, pool, samples, draw)
    if with_map:
        _write_map(features, draw)
    return _write_run(root, pool, features, draw, epochs=epochs, snapshot=snapshot)


def _write_features(root: Path, pool: Path, samples: pl.DataFrame, draw: Draw) -> FeatureSet:
    shards = {"00000": (len(samples) + 1) // 2 + 2, "00001": len(samples) // 2 + 1}  # with skipped
    fingerprint = hashlib.sha256(samples.write_ndjson().encode()).hexdigest()
    path = root / FEATURES_DIR / f"{pool.name}-{digest([fingerprint])}"
    arrays = {
        "image_features": _widen(draw.embedding),
        "text_features": _widen(draw.text),
        "image_embedding": draw.embedding,
        "text_embedding": draw.text,
    }
    info = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint,
        "sample": None,
        "sample_seed": 0,
        "columns": [None, None],
        "model": ["fake-reference"],
        "model_spec": "fake-reference",
        "loss": "clip",
        "preprocessing": PREPROCESSING,
        "preprocessing_origin": "fake-reference",
        "preprocessing_sha256": digest(PREPROCESSING, length=64),
        "precision": "fp32",
        "decoder": "Pillow",
        "device": "cpu",
        "arrays": sorted(arrays),
        "layout": "webdataset",
        "shards": shards,
        "location": locate(pool, path),
        "versions": {"mimicscope": "0.1.0"},
    }
    files.write_json(path / "features.json", info)
    features = FeatureSet.open(path)
    for shard in shards:
        here = (samples["shard"] == shard).to_numpy()
        rows = samples.filter(pl.Series(here))
        plain = [name for name in rows.columns if name not in MEASURED_COLUMNS]
        files.write_parquet(path / "index" / f"{shard}.parquet", rows.select(plain))
        features.write_shard(
            shard,
            rows,
            _skipped().filter(pl.col("shard") == shard),
            {name: array[here].astype(np.float16) for name, array in arrays.items()},
        )
    _write_head(path)
    return FeatureSet.open(path)


def _write_head(path: Path) -> None:
    """Projections (F, D) that cut the features down to the embedding, so that both agree."""
    cut = np.eye(FEATURE_WIDTH, EMBEDDING_WIDTH, dtype=np.float32)
    tensors = {
        "logit_scale": np.array(20, np.float32),
        "logit_bias": np.array(0, np.float32),
        "image.weight": cut,
        "text.weight": cut,
    }
    names = {"loss": "clip", "image": "visual.proj", "text": "text_projection"}
    metadata = {"names": json.dumps(names, sort_keys=True)}
    files.write_bytes(path / "head.safetensors", save(tensors, metadata=metadata))


def _widen(embedding: np.ndarray) -> np.ndarray:
    """Features (N, F) whose first columns are the embedding (N, D)."""
    extra = np.sin(np.cumsum(embedding, axis=1)[:, : FEATURE_WIDTH - EMBEDDING_WIDTH])
    return np.concatenate([embedding, extra], axis=1)


def _skipped() -> pl.DataFrame:
    rows = [
        ("skipped-0", "00000", "corrupt_image", "the PNG ends early"),
        ("skipped-1", "00000", "empty_caption", ""),
        ("skipped-2", "00001", "missing_image", "no image beside the caption"),
    ]
    return pl.DataFrame(rows, schema=SKIP_COLUMNS, orient="row")


def _write_map(features: FeatureSet, draw: Draw) -> None:
    angle = 2 * np.pi * draw.topic / len(TOPICS)
    place = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 6
    place = (place + draw.rng.normal(size=place.shape)).astype(np.float32)
    uids = features.samples["uid"]
    frame = pl.DataFrame({"uid": uids, "map_x": place[:, 0], "map_y": place[:, 1]})
    files.write_parquet(features.path / "map.parquet", frame)
    config = {**MapConfig().model_dump(mode="json"), "method": map_method(len(uids), MapConfig())}
    files.write_json(features.path / "map.json", config)


def _write_run(
    root: Path, pool: Path, features: FeatureSet, draw: Draw, *, epochs: int, snapshot: bool
) -> Run:
    config = RunConfig(
        source=SourceConfig(path=str(pool)),
        reference="fake-reference",
        probe=None if snapshot else ProbeConfig(epochs=epochs, batch_size=32),
        snapshot=SnapshotConfig(repeats=epochs, batch_size=32) if snapshot else None,
    )
    name = record.run_id(config, features.id, None)
    made = RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=name,
        status="running",
        created_at=CREATED_AT,
        config=config,
        feature_set=features.id,
        mimic_layers=("visual.proj",),
        batch_size=32,
        samples=len(features.samples),
        skipped=len(features.skipped),
        epochs=epochs,
        versions={"mimicscope": "0.1.0"},
        preprocessing=PREPROCESSING,
        preprocessing_sha256=digest(PREPROCESSING, length=64),
        decoder="Pillow",
        self_check={"max_difference": 1e-9},
        direction_check=_direction_check(),
        timings={"features": 1.5, "probe": 0.25},
    )
    run = runs.start_run(root, made)
    for epoch in range(epochs):
        run.write_epoch(epoch, features.samples["uid"], _epoch(draw, epoch))
    files.write_parquet(run.path / "skipped.parquet", features.skipped)
    return run.update(status="done", finished_at=CREATED_AT)


def _epoch(draw: Draw, epoch: int, *, batch_size: int = 32) -> list[ScoreBatch]:
    """One epoch's batches: noisy samples score lower, and more so with every epoch."""
    n = len(draw.topic)
    rng = np.random.default_rng([epoch, n])
    score = draw.utility * (1 + 0.3 * epoch) + 0.01 * rng.normal(size=n)
    order = rng.permutation(n)
    batches = []
    for step, start in enumerate(range(0, n, batch_size)):
        rows = order[start : start + batch_size]
        weight = np.exp((score[rows] - score[rows].max()) / 0.05)
        batches.append(
            ScoreBatch(
                epoch=epoch,
                step=step,
                rows=rows,
                loss=(2.5 - 10 * score[rows] + 0.2 * rng.random(len(rows))).astype(np.float32),
                mimic_score=score[rows].astype(np.float32),
                mimic_weight=(weight / weight.sum()).astype(np.float32),
            )
        )
    return batches


def _direction_check() -> DirectionCheck:
    return DirectionCheck(
        segment=((0.0, 5.5), (0.25, 3.9), (0.5, 2.8), (0.75, 2.1), (1.0, 1.8)),
        share_positive=0.78,
        rank_with_clip_score=0.71,
        rank_with_loss=-0.64,
        level="good",
        verdict="The loss falls all the way to the reference model, so scores point to it.",
    )


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
            metrics.add(metrics_row(epoch, labels=labels))
    return run.update(status="done", held_out=HELD_OUT, epochs=epochs) if done else run


def metrics_row(epoch: int, *, labels: bool = False) -> dict[str, Any]:
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
