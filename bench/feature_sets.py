"""Feature sets made up by the benches: one shard of given samples and arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up

from mimic_core.base.schema import SAMPLE_COLUMNS, SCHEMA_VERSION, SKIP_COLUMNS
from mimic_core.runs.featureset import FeatureSet


def one_shard(
    folder: Path, samples: pl.DataFrame, arrays: dict[str, np.ndarray], *, task: str = "pairs"
) -> FeatureSet:
    """A finished feature set in ``folder``; columns of samples that are not given are null.

    Args:
        samples: One row per sample (N), ``uid`` among its columns.
        arrays: By name, (N, F) each.
        task: ``pairs`` or ``labels``.
    """
    info = {"schema_version": SCHEMA_VERSION, "shards": ["all"], "arrays": list(arrays)}
    features = FeatureSet(folder, info | {"task": task})
    missing = [
        pl.lit(None, dtype).alias(name)
        for name, dtype in SAMPLE_COLUMNS.items()
        if name not in samples.columns
    ]
    nothing = pl.DataFrame(schema=SKIP_COLUMNS)
    features.write_shard("all", samples.with_columns(missing), nothing, arrays)
    return features
