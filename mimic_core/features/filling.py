"""Phase 1: one pass over a pool's images fills one or more feature sets (method.md section 4).

The unit of work is a shard; its result depends on the pool, the encoders and the batch size of
this phase (fixed below), and on nothing else: not on workers or interruptions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import torch

from mimic_core.base import files
from mimic_core.base.config import Precision, SourceConfig
from mimic_core.base.errors import ScoreError, SourceError
from mimic_core.base.identity import digest, slug
from mimic_core.base.progress import Progress
from mimic_core.base.schema import SCHEMA_VERSION
from mimic_core.features.loading import SampleLoader, default_workers, load_batches
from mimic_core.features.portions import (
    PoolImages,
    Portion,
    PortionDataset,
    plan_portions,
    pool_images,
)
from mimic_core.features.shard import Homes, ShardAtWork, Target
from mimic_core.models.load import LoadedModel
from mimic_core.models.preprocessing import image_transform
from mimic_core.runs.featureset import FEATURES_DIR, FeatureSet, locate
from mimic_core.sources.images import DECODER
from mimic_core.sources.index import build_index
from mimic_core.sources.path import Presence
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
        _require_images(indexed, config)
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

    Raises:
        SourceError: The pool is away, or has changed since it was indexed.

    Args:
        index: The feature set whose index names the samples (itself one of the targets, or filled).
        model: Gives preprocessing and tokenizer.
        workers: Loading processes; None chooses by the size of the pool.
    """
    counts: dict[str, int] = index.info["shards"]
    shards = tuple(counts)
    missing = [s for s in shards if any(not t.features.has_shard(s) for t in targets)]
    total = sum(counts.values())
    left = sum(counts[shard] for shard in missing)
    progress.phase("images", total, done=total - left)
    if not missing:
        return
    presences = [Presence.of(part.root) for part in source.parts.values()]
    images, loader = _images_of(index, targets), loader_for(source, model)
    size, plans = ENCODE_BATCH[device.type], []
    for shard in missing:
        own = images.own(shards.index(shard))
        plans += plan_portions(shard, counts[shard], size, None if own.all() else own)
    dataset = PortionDataset(plans, index.path / "index", loader)
    chosen = default_workers(left) if workers is None else workers
    stored = [(target, Homes(target, index, images)) for target in targets]
    work: ShardAtWork | None = None
    for portion in load_batches(dataset, workers=chosen, device=device):
        progress.check()
        if work is None:
            shard = portion.plan.shard
            lacking = [one for one in stored if not one[0].features.has_shard(shard)]
            number = shards.index(shard)
            work = ShardAtWork(number, index, images, lacking, loader=loader, size=size)
        with _memory_explained(portion):
            skipped = work.add(portion)
        progress.advance(portion.size, skipped=skipped)
        if portion.plan.last_of_shard:
            work.store()
            work = None
    for presence in presences:
        presence.require()
    _require_unchanged(source, index, targets, missing)


def _require_unchanged(
    source: Source, index: FeatureSet, targets: Sequence[Target], read: Sequence[str]
) -> None:
    """Refuse a pool that has changed since it was indexed: its images may be others by now.

    What was just ``read`` of it is forgotten, so that nothing is made of it if the pool comes back.

    Raises:
        SourceError: It has changed.
    """
    if source.fingerprint() == index.info["fingerprint"]:
        return
    for target in targets:
        for shard in read:
            target.features.forget_shard(shard)
    raise SourceError(
        "the pool has changed while its images were read",
        got=str(source.root),
        allowed="files that stay as they are while a run is made of them",
        next_step="wait until nothing writes there, and run the same command again",
    )


def _require_images(indexed: dict[str, Any], config: SourceConfig) -> None:
    """Refuse a pool that has rows, but not one image."""
    if not indexed["samples"]:
        raise SourceError(
            "no row of the pool has an image, so that nothing can be scored",
            got=f"{indexed.get('without_image', 0):,} rows with captions and addresses alone",
            allowed="a pool of which some images are there; the other rows are kept beside them",
            next_step="download images (img2dataset does), and give the folder that holds both, "
            f"shards and metadata, in the place of {config.path}",
        )


@contextmanager
def _memory_explained(portion: Portion) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ScoreError(
            "the device has too little memory for one forward pass",
            got=f"{portion.size} samples at a time",
            next_step="use --precision bf16, fewer or later mimic layers, or --device cpu",
        ) from error


def _images_of(index: FeatureSet, targets: Sequence[Target]) -> PoolImages:
    """The images of the pool.

    Shards that an earlier version has finished keep theirs to themselves: it has not stored what
    later shards would need of them.
    """
    images = pool_images(index)
    apart = {
        shard
        for number, shard in enumerate(index.shards)
        for target in targets
        if target.encoder.compares
        and len(images.carried_by(number))
        and target.features.has_shard(shard)
        and target.features.carried(shard) is None
    }
    return pool_images(index, apart=apart) if apart else images


def loader_for(source: Source, model: LoadedModel) -> SampleLoader:
    """Loads samples of ``source`` as ``model`` wants them."""
    tokenizer = model.tokenizer if source.task == "pairs" else None
    places = [part.root for part in source.parts.values()]
    return SampleLoader(source.root, image_transform(model.preprocessing), tokenizer, places=places)


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
