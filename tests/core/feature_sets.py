"""Finished feature sets that no image and no model was needed for.

``write_features`` is the one writer; the others say what stands in the arrays: pure noise
(``feature_set``), classes with noisy labels (``labelled_features``), or pairs that a projection can
learn (``learnable``), of which half may be spoiled (``spoiled_set``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from mimic_core.base import files
from mimic_core.base.schema import MEASURED_COLUMNS, SAMPLE_COLUMNS, SCHEMA_VERSION, SKIP_COLUMNS
from mimic_core.features.stored import store_ends
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.labels.class_head import ClassHead
from tests.core.scoring_pool import CLASSES, caption_of, uid_of

LATENT, WIDTH, EMBEDDING = 6, 12, 8


def write_features(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    *,
    columns: Mapping[str, Any] | None = None,
    shards: int | Sequence[int] = 2,
    order: np.ndarray | None = None,
    task: str = "pairs",
    head: nn.Module | None = None,
    sides: Sequence[str] = ("image",),
) -> FeatureSet:
    """A finished feature set of ``arrays``, each (N, ...), stored as they are.

    Args:
        path: The folder of the feature set.
        columns: Columns of the samples, each N values, beside ``uid`` and ``key`` or in their
            place; columns of the schema that are not given are null.
        shards: Into how many shards the samples are cut, or how many each of them holds.
        order: In which order the samples lie; as numbered if not given.
        task: Of the pool, ``pairs`` or ``labels``.
        head: A model whose projections of ``sides`` are stored beside the arrays.
    """
    count = len(next(iter(arrays.values())))
    rows = np.arange(count) if order is None else order
    if isinstance(shards, int):
        parts = np.array_split(rows, shards)
    else:
        parts = np.split(rows, np.cumsum(shards)[:-1])
    names = [f"{number:05d}" for number in range(len(parts))]
    info = {
        "schema_version": SCHEMA_VERSION,
        "task": task,
        "shards": {name: len(part) for name, part in zip(names, parts, strict=True)},
        "arrays": sorted(arrays),
    }
    files.write_json(path / "features.json", info)
    features = FeatureSet.open(path)
    if head is not None:
        store_ends(features, head, tuple(sides))
    table = _samples(count, columns or {})
    for name, part in zip(names, parts, strict=True):
        features.write_shard(
            name,
            table[part].with_columns(shard=pl.lit(name)),
            pl.DataFrame(schema=SKIP_COLUMNS),
            {key: array[part] for key, array in arrays.items()},
        )
    return FeatureSet.open(path)


def _samples(count: int, columns: Mapping[str, Any]) -> pl.DataFrame:
    dtypes = {**SAMPLE_COLUMNS, **MEASURED_COLUMNS}
    values: dict[str, Any] = {name: [None] * count for name in dtypes}
    values |= {"uid": [uid_of(n) for n in range(count)], "key": [str(n) for n in range(count)]}
    return pl.DataFrame({**values, **columns}, schema_overrides=dtypes)


class Towers(nn.Module):
    """The parts of a CLIP model that phase 2 needs, with random projections."""

    def __init__(self, width: int, embedding: int, *, siglip: bool, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) * shape[0] ** -0.5)

        self.visual = nn.Module()
        self.visual.proj = draw(width, embedding)
        # a linear text projection with a bias, as SigLIP's
        self.text_projection = nn.Linear(width + 3, embedding)
        self.text_projection.weight = nn.Parameter(
            draw(width + 3, embedding).detach().T.contiguous()
        )
        self.text_projection.bias = draw(embedding)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.logit_bias = nn.Parameter(torch.tensor(-3.0)) if siglip else None
        self.requires_grad_(False)


def feature_set(
    path: Path,
    *,
    samples: int = 50,
    width: int = WIDTH,
    embedding: int = EMBEDDING,
    siglip: bool = False,
    seed: int = 0,
    shards: int = 2,
    shuffle: int | None = None,
) -> FeatureSet:
    """Random features of both sides; ``shuffle`` changes the order of the samples."""
    towers = Towers(width, embedding, siglip=siglip, seed=seed)
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(samples, width)).astype(np.float16)
    text = rng.normal(size=(samples, width + 3)).astype(np.float16)
    weight = towers.text_projection.weight.detach().numpy().T
    bias = towers.text_projection.bias.detach().numpy()
    arrays = {
        "image_features": image,
        "text_features": text,
        "image_embedding": _unit(image.astype(np.float32) @ towers.visual.proj.detach().numpy()),
        "text_embedding": _unit(text.astype(np.float32) @ weight + bias),
    }
    return write_features(
        path,
        _halved(arrays),
        columns={"caption": [caption_of(n) for n in range(samples)]},
        shards=shards,
        order=None if shuffle is None else np.random.default_rng(shuffle).permutation(samples),
        head=towers,
        sides=("image", "text"),
    )


def labelled_features(
    path: Path, *, samples: int = 60, width: int = 7, seed: int = 0, scale: float = 3.0
) -> FeatureSet:
    """Features with a mean of their class, and noisy labels.

    Columns of the pool: ``clean`` (the class), ``is_checked`` (a third), ``split``, ``number``.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(CLASSES), samples)
    centres = rng.normal(size=(len(CLASSES), width))
    features = scale * (centres[truth] + rng.normal(size=(samples, width)))
    noisy = np.where(rng.random(samples) < 0.3, rng.integers(0, 3, samples), truth)
    numbers = range(samples)
    columns = {
        "label": [CLASSES[n] for n in noisy],
        "clean": [CLASSES[n] for n in truth],
        "is_checked": [number % 3 == 0 for number in numbers],
        "split": ["train" if number % 2 else "test" for number in numbers],
        "number": list(numbers),
    }
    halves = (samples // 2, samples - samples // 2)
    arrays = _halved({"image_features": features})
    return write_features(path, arrays, columns=columns, shards=halves, task="labels")


def some_head(width: int = 7, seed: int = 5, classes: tuple[str, ...] = CLASSES) -> ClassHead:
    """A head with random weights."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(len(classes), width, generator=generator)
    return ClassHead(classes, weight, torch.randn(len(classes), generator=generator))


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
        "image_embedding": _unit(image @ world.normal(size=(WIDTH, EMBEDDING))),
        "text_embedding": _unit(text),
    }


def proving_set(
    path: Path,
    arrays: dict[str, np.ndarray],
    *,
    columns: dict[str, Any] | None = None,
    order: np.ndarray | None = None,
    task: str = "pairs",
) -> FeatureSet:
    """A feature set of ``arrays`` with a head; captions differ unless ``columns`` say otherwise."""
    count = len(next(iter(arrays.values())))
    return write_features(
        path,
        _halved(arrays),
        columns={"caption": [f"caption {n}" for n in range(count)], **(columns or {})},
        order=order,
        task=task,
        head=Towers(WIDTH, EMBEDDING, siglip=False, seed=0),
    )


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


def _halved(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays in the precision that encoders store."""
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def _unit(raw: np.ndarray) -> np.ndarray:
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True))
