"""A finished run on any pool, without a model: what exports of real layouts are made from."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from mimic_core.base import files
from mimic_core.base.config import ProbeConfig, RunConfig, SourceConfig
from mimic_core.base.identity import digest
from mimic_core.base.schema import IMAGE_COLUMNS, SCHEMA_VERSION, Locator, ScoreBatch
from mimic_core.runs import run as runs
from mimic_core.runs.featureset import FeatureSet, locate
from mimic_core.runs.record import RunRecord, run_id
from mimic_core.runs.run import Run
from mimic_core.sources.index import build_index
from mimic_core.sources.opening import open_source
from mimic_core.sources.reading import read_image
from tests.fakes import CREATED_AT, PREPROCESSING


def run_on(pool: Path, root: Path, **settings: Any) -> Run:
    """A run of one epoch on ``pool`` under the runs root ``root``; scores are random."""
    config = SourceConfig(path=str(pool), **settings)
    source = open_source(config)
    path = root / "features" / f"pool-{digest([str(pool), settings])}"
    account = build_index(source, config, path)
    info = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": source.fingerprint(),
        "arrays": [],
        "shards": dict.fromkeys(source.shards, 0),
        "location": locate(source.root, path),
        "indexed": account,
    }
    files.write_json(path / "features.json", info)
    features = FeatureSet.open(path)
    for shard in source.shards:
        features.write_shard(
            shard, _measured(features.index(shard), source.root), features.index_skips(shard), {}
        )
    return _scored(root, config, features)


def _measured(rows: pl.DataFrame, root: Path) -> pl.DataFrame:
    sizes = []
    for place in rows.select(IMAGE_COLUMNS.keys()).iter_rows():
        with Image.open(io.BytesIO(read_image(root, Locator(*place)))) as image:
            sizes.append(image.size)
    text = pl.coalesce("caption", pl.lit(""))
    return rows.with_columns(
        pl.Series("width", [size[0] for size in sizes], pl.Int32),
        pl.Series("height", [size[1] for size in sizes], pl.Int32),
        text.str.split(" ").list.len().cast(pl.Int32).alias("caption_tokens"),
        text.str.len_chars().cast(pl.Int32).alias("caption_length"),
        pl.lit(0.25, pl.Float32).alias("clip_score"),
    )


def _scored(root: Path, config: SourceConfig, features: FeatureSet) -> Run:
    settings = RunConfig(source=config, reference="none", probe=ProbeConfig(epochs=1, batch_size=2))
    count = len(features.samples)
    made = RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=run_id(settings, features.id, None),
        status="running",
        created_at=CREATED_AT,
        config=settings,
        feature_set=features.id,
        mimic_layers=("none",),
        batch_size=2,
        samples=count,
        skipped=len(features.skipped),
        epochs=1,
        versions={},
        preprocessing=PREPROCESSING,
        preprocessing_sha256="",
        decoder="Pillow",
        self_check={},
        direction_check=None,
        timings={},
    )
    run = runs.start_run(root, made)
    drawn = np.random.default_rng(0).normal(size=(3, count)).astype(np.float32)
    batch = ScoreBatch(0, 0, np.arange(count), *drawn)
    run.write_epoch(0, features.samples["uid"], [batch])
    files.write_parquet(run.path / "skipped.parquet", features.skipped)
    return run.update(status="done", finished_at=CREATED_AT)
