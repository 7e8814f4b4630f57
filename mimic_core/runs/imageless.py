"""The rows of a pool that have no image, beside the samples of its feature set.

They have no rows in the arrays of the samples, and no scores; in a run's table they come last.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mimic_core.base.schema import MEASURED_COLUMNS, SAMPLE_COLUMNS, WITHOUT_IMAGE
from mimic_core.runs import stored
from mimic_core.runs.featureset import INDEX_REMEDY, FeatureSet


def indexed(features: FeatureSet, shard: str) -> pl.DataFrame | None:
    """Those of ``shard`` as they were indexed; None where all have an image."""
    path = features.path / "index" / f"{shard}.{WITHOUT_IMAGE}.parquet"
    if not path.exists():
        return None
    return stored.read_table(path, SAMPLE_COLUMNS, remedy=INDEX_REMEDY)


def file_of(features: FeatureSet, shard: str) -> Path:
    """Where those of ``shard`` are once their captions are measured; embeddings lie beside it."""
    return features.path / WITHOUT_IMAGE / f"{shard}.parquet"


def scan(features: FeatureSet) -> pl.LazyFrame | None:
    """Those of the pool, with the columns of ``FeatureSet.scan``; None where there are none."""
    paths = [file_of(features, shard) for shard in features.shards]
    needed = {**SAMPLE_COLUMNS, **MEASURED_COLUMNS}
    scans = [
        stored.scan_table(path, needed, remedy=stored.FEATURES_REMEDY)
        for path in paths
        if path.exists()
    ]
    return pl.concat(scans, how="diagonal_relaxed") if scans else None


def count(features: FeatureSet) -> int:
    """How many there are in the pool."""
    rows = scan(features)
    return 0 if rows is None else int(rows.select(pl.len()).collect().item())
