"""Pools for proofs: pairs that a projection can learn, of which some are spoiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mimic_core.base import files
from mimic_core.base.schema import MEASURED_COLUMNS, SAMPLE_COLUMNS, SCHEMA_VERSION, SKIP_COLUMNS
from mimic_core.features.stored import store_head
from mimic_core.filters.conditions import Category
from mimic_core.filters.recipe import Recipe
from mimic_core.runs.featureset import FeatureSet
from tests.core.scoring_pool import Towers, uid_of

LATENT, WIDTH, EMBEDDING = 6, 12, 8


def unit(raw: np.ndarray) -> np.ndarray:
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True))


def learnable(samples: int, *, seed: int, noise: float = 0.3) -> dict[str, np.ndarray]:
    """Arrays of a pool in which image and caption show the same six hidden numbers."""
    world = np.random.default_rng(7)
    rng = np.random.default_rng([seed, samples])
    hidden = rng.normal(size=(samples, LATENT))
    image = hidden @ world.normal(size=(LATENT, WIDTH)) + noise * rng.normal(size=(samples, WIDTH))
    text = hidden @ world.normal(size=(LATENT, EMBEDDING))
    text += noise * rng.normal(size=(samples, EMBEDDING))
    return {
        "image_features": image,
        "image_embedding": unit(image @ world.normal(size=(WIDTH, EMBEDDING))),
        "text_embedding": unit(text),
    }


def proving_set(
    path: Path,
    arrays: dict[str, np.ndarray],
    *,
    siglip: bool = False,
    columns: dict[str, Any] | None = None,
    prefix: str = "",
    order: np.ndarray | None = None,
    task: str = "pairs",
) -> FeatureSet:
    """A finished feature set of ``arrays`` in two shards; captions differ unless ``columns`` say
    otherwise.
    """
    count = len(next(iter(arrays.values())))
    info = {
        "schema_version": SCHEMA_VERSION,
        "task": task,
        "shards": {"00000": (count + 1) // 2, "00001": count // 2},
        "arrays": sorted(arrays),
    }
    files.write_json(path / "features.json", info)
    features = FeatureSet.open(path)
    store_head(features, Towers(WIDTH, EMBEDDING, siglip=siglip, seed=0), ("image",))
    values: dict[str, Any] = {
        name: [None] * count for name in {**SAMPLE_COLUMNS, **MEASURED_COLUMNS}
    }
    values |= {
        "uid": [uid_of(n) for n in range(count)],
        "key": [str(n) for n in range(count)],
        "caption": [f"{prefix}caption {n}" for n in range(count)],
    }
    table = pl.DataFrame(
        {**values, **(columns or {})},
        schema_overrides={**SAMPLE_COLUMNS, **MEASURED_COLUMNS},
    )
    rows = np.arange(count) if order is None else order
    for name, part in zip(info["shards"], np.array_split(rows, 2), strict=True):  # type: ignore[call-overload]
        features.write_shard(
            name,
            table[part].with_columns(shard=pl.lit(name)),
            pl.DataFrame(schema=SKIP_COLUMNS),
            {key: array[part].astype(np.float16) for key, array in arrays.items()},
        )
    return FeatureSet.open(path)


def spoiled_set(path: Path, samples: int = 400, *, seed: int = 0) -> FeatureSet:
    """Half of the pairs are shuffled among each other; ``good`` says which are not."""
    arrays = learnable(samples, seed=seed)
    rng = np.random.default_rng(seed)
    spoiled = rng.permutation(samples)[: samples // 2]
    arrays["text_embedding"][spoiled] = arrays["text_embedding"][np.roll(spoiled, 1)]
    good = np.ones(samples, bool)
    good[spoiled] = False
    half = rng.permutation(np.arange(samples) % 2 == 0)
    return proving_set(path, arrays, columns={"good": good, "coin": half})


def keeping(column: str, *values: bool | str) -> Recipe:
    """A recipe that keeps these values of a column."""
    return Recipe().with_condition(column, Category(column=column, values=values))
