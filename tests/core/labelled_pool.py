"""Labelled feature sets that need no images, and small labelled pools on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from mimic_core.base import files
from mimic_core.base.schema import MEASURED_COLUMNS, SAMPLE_COLUMNS, SCHEMA_VERSION, SKIP_COLUMNS
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.labels.class_head import ClassHead
from tests.core.scoring_pool import picture, uid_of

CLASSES = ("cat", "dog", "owl")


def labelled_features(
    path: Path, *, samples: int = 60, width: int = 7, seed: int = 0, scale: float = 3.0
) -> FeatureSet:
    """A finished labelled feature set: features with a mean of their class, noisy labels.

    Columns of the pool: ``clean`` (the class), ``is_checked`` (a third), ``split``, ``number``.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(CLASSES), samples)
    centres = rng.normal(size=(len(CLASSES), width))
    features = scale * (centres[truth] + rng.normal(size=(samples, width)))
    noisy = np.where(rng.random(samples) < 0.3, rng.integers(0, 3, samples), truth)
    shards = {"00000": samples // 2, "00001": samples - samples // 2}
    info: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "task": "labels",
        "shards": shards,
        "arrays": ["image_features"],
    }
    files.write_json(path / "features.json", info)
    found = FeatureSet.open(path)
    start = 0
    for shard, count in shards.items():
        here = slice(start, start + count)
        numbers = range(start, start + count)
        blank = {name: [None] * count for name in {**SAMPLE_COLUMNS, **MEASURED_COLUMNS}}
        known = {
            "uid": [uid_of(number) for number in numbers],
            "key": [str(number) for number in numbers],
            "shard": [shard] * count,
            "label": [CLASSES[n] for n in noisy[here]],
        }
        table = pl.DataFrame({**blank, **known}, schema={**SAMPLE_COLUMNS, **MEASURED_COLUMNS})
        table = table.with_columns(
            pl.Series("clean", [CLASSES[n] for n in truth[here]]),
            pl.Series("is_checked", [number % 3 == 0 for number in numbers]),
            pl.Series("split", ["train" if number % 2 else "test" for number in numbers]),
            pl.Series("number", list(numbers)),
        )
        arrays = {"image_features": features[here].astype(np.float16)}
        found.write_shard(shard, table, pl.DataFrame(schema=SKIP_COLUMNS), arrays)
        start += count
    return FeatureSet.open(path)


def some_head(width: int = 7, seed: int = 5, classes: tuple[str, ...] = CLASSES) -> ClassHead:
    """A head with random weights."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(len(classes), width, generator=generator)
    return ClassHead(classes, weight, torch.randn(len(classes), generator=generator))


def write_class_folders(root: Path, *, per_class: int = 12) -> Path:
    """Class folders with noise pictures, one of which is broken."""
    number = 0
    for name in CLASSES:
        for _ in range(per_class):
            path = root / name / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number))
            number += 1
    (root / CLASSES[0] / "broken.png").write_bytes(b"no image")
    return root
