"""Phase 1: one pass over a pool's images fills one or more feature sets (method.md section 4).

The unit of work is a shard; its result depends on the shard, the encoders and the batch size of
this phase (fixed below), and on nothing else: not on order, workers or interruptions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mimic_core.base import files
from mimic_core.base.config import Precision, SourceConfig
from mimic_core.base.errors import ScoreError
from mimic_core.base.identity import digest, slug
from mimic_core.base.progress import Progress
from mimic_core.base.schema import MEASURED_COLUMNS, SCHEMA_VERSION, SKIP_COLUMNS
from mimic_core.features.encoders import Encoder
from mimic_core.features.loading import (
    BatchDataset,
    LoadedBatch,
    SampleLoader,
    default_workers,
    load_batches,
    plan_batches,
)
from mimic_core.models.load import LoadedModel
from mimic_core.models.preprocessing import image_transform
from mimic_core.runs.featureset import FEATURES_DIR, FeatureSet, locate
from mimic_core.sources.images import DECODER
from mimic_core.sources.index import build_index
from mimic_core.sources.source import Source

# Samples per forward pass. Part of the result's bytes (float sums depend on it), so not a setting.
ENCODE_BATCH = {"cpu": 64, "mps": 128, "cuda": 512}


def feature_set_for(
    runs_root: Path,
    source: Source,
    config: SourceConfig,
    model: LoadedModel,
    *,
    precision: Precision,
    device: torch.device,
    arrays: tuple[str, ...],
    extra: dict[str, Any] | None = None,
    index_from: FeatureSet | None = None,
    progress: Progress,
) -> FeatureSet:
    """The feature set of a pool under a model: the one on disk, or a new one that holds the index.

    Args:
        extra: What else decides the arrays (mimic layers, the other model of a pair).
        index_from: Take the index of that feature set instead of reading the source.
    """
    identity = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": source.fingerprint(),
        "sample": config.sample,
        "sample_seed": config.sample_seed if config.sample else 0,
        "columns": [source.image_column, source.caption_column, source.label_column],
        "task": source.task,
        "model": model.identity,
        "preprocessing": model.preprocessing,
        "decoder": DECODER,
        "precision": precision,
        "device": device.type,
        "arrays": list(arrays),
        **(extra or {}),
    }
    path = runs_root / FEATURES_DIR / f"{slug(config.path)}-{digest(identity)}"
    location = locate(source.root, path)
    if (path / "features.json").exists():
        found = FeatureSet.open(path)
        if found.info["location"] != location:  # the same pool in a new place
            files.write_json(path / "features.json", {**found.info, "location": location})
        return FeatureSet.open(path)
    if index_from is None:
        indexed = build_index(source, config, path, progress)
        counts = {shard: _index_height(path, shard) for shard in source.shards}
    else:
        indexed = index_from.info["indexed"]
        counts = dict(index_from.info["shards"])
    info = {
        **identity,
        "model_spec": model.spec.text,
        "loss": model.loss if source.task == "pairs" else "cross_entropy",
        "preprocessing_origin": model.preprocessing_origin,
        "preprocessing_sha256": model.preprocessing_sha256,
        "layout": source.layout,
        "indexed": indexed,
        "shards": counts,
        "location": location,
        "versions": versions(),
    }
    files.write_json(path / "features.json", info)
    return FeatureSet.open(path)


@dataclass(frozen=True)
class Target:
    """A feature set to be filled and the encoder that fills it."""

    features: FeatureSet
    encoder: Encoder


def fill(
    index: FeatureSet,
    targets: Sequence[Target],
    *,
    source: Source,
    model: LoadedModel,
    device: torch.device,
    workers: int | None,
    progress: Progress,
) -> None:
    """Fill every target with what it lacks, in one pass over the images of the missing shards.

    Args:
        index: The feature set whose index names the samples (itself one of the targets, or filled).
        model: Gives preprocessing and tokenizer.
        workers: Loading processes; None chooses by the size of the pool.
    """
    counts: dict[str, int] = index.info["shards"]
    missing = [s for s in counts if any(not t.features.has_shard(s) for t in targets)]
    batch_size = ENCODE_BATCH[device.type]
    plans = [plan for shard in missing for plan in plan_batches(shard, counts[shard], batch_size)]
    total = sum(counts.values())
    left = sum(counts[shard] for shard in missing)
    progress.phase("images", total, done=total - left)
    if not plans:
        return
    dataset = BatchDataset(plans, index.path / "index", loader_for(source, model))
    chosen = default_workers(left) if workers is None else workers
    collected: dict[int, _Shard] = defaultdict(_Shard)
    for batch in load_batches(dataset, workers=chosen, device=device):
        progress.check()
        for number, target in enumerate(targets):
            if not target.features.has_shard(batch.shard):
                with _memory_explained(batch):
                    collected[number].add(batch, target.encoder if len(batch.rows) else None)
        progress.advance(batch.size, skipped=len(batch.skips))
        if batch.last_of_shard:
            for number, shard in collected.items():
                shard.store(targets[number], index)
            collected.clear()


@contextmanager
def _memory_explained(batch: LoadedBatch) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ScoreError(
            "the device has too little memory for one forward pass",
            got=f"{len(batch.tokens)} samples at a time",
            next_step="use --precision bf16, fewer or later mimic layers, or --device cpu",
        ) from error


@dataclass
class _Shard:
    """What has been computed of the shard at work; moved off the device when it is complete."""

    batches: list[LoadedBatch] = field(default_factory=list)
    arrays: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    columns: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))

    def add(self, batch: LoadedBatch, encoder: Encoder | None) -> None:
        if encoder is not None:
            arrays, columns = encoder.encode(batch)
            for name, value in arrays.items():
                self.arrays[name].append(value)
            for name, value in columns.items():
                self.columns[name].append(value)
        self.batches.append(_without_tensors(batch))

    def store(self, target: Target, index: FeatureSet) -> None:
        shard = self.batches[0].shard
        rows = np.concatenate([batch.rows for batch in self.batches])
        samples = index.index(shard)[rows].with_columns(
            pl.Series(
                name, [v for batch in self.batches for v in batch.measured.get(name, [])]
            ).cast(dtype)
            for name, dtype in MEASURED_COLUMNS.items()
            if name != "clip_score"
        )
        if "clip_score" in self.columns or not len(rows):
            scores = self._joined(self.columns.get("clip_score", []))
            samples = samples.with_columns(pl.Series("clip_score", scores, dtype=pl.Float32))
        elif index.info.get("task") == "labels":  # an image model gives no CLIP score
            samples = samples.with_columns(clip_score=pl.lit(None, pl.Float32))
        arrays = {name: self._joined(self.arrays.get(name, [])) for name in target.encoder.arrays}
        skips = [asdict(skip) for batch in self.batches for skip in batch.skips]
        skipped = pl.concat([index.index_skips(shard), pl.DataFrame(skips, schema=SKIP_COLUMNS)])
        target.features.write_shard(shard, samples, skipped, arrays)

    @staticmethod
    def _joined(parts: list[Tensor]) -> np.ndarray:
        return torch.cat(parts).cpu().numpy() if parts else np.empty((0, 0), np.float32)


def _without_tensors(batch: LoadedBatch) -> LoadedBatch:
    """The batch's bookkeeping alone, so that images are freed before the shard is complete."""
    nothing = torch.empty(0)
    return replace(batch, images=nothing, image_of=nothing, tokens=nothing)


def loader_for(source: Source, model: LoadedModel) -> SampleLoader:
    """Loads samples of ``source`` as ``model`` wants them."""
    tokenizer = model.tokenizer if source.task == "pairs" else None
    return SampleLoader(source.root, image_transform(model.preprocessing), tokenizer)


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    from importlib.metadata import version

    import mimic_core

    names = ("torch", "torchvision", "open_clip_torch", "timm", "polars", "numpy")
    return {"mimicscope": mimic_core.__version__, **{name: version(name) for name in names}}


def _index_height(path: Path, shard: str) -> int:
    return int(
        pl.scan_parquet(path / "index" / f"{shard}.parquet").select(pl.len()).collect().item()
    )
