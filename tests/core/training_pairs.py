"""Batches of tiny pairs as training loads them."""

from __future__ import annotations

import numpy as np
import torch

from mimic_core.features.loading import LoadedBatch
from mimic_core.scoring.training.objectives import PairObjective
from tests.core import tiny

PAIRS = PairObjective(torch.device("cpu"))


def batch_of(count: int, seed: int, *, rows: slice = slice(None)) -> LoadedBatch:
    """``rows`` of the batch ``tiny.pairs(count, seed)``."""
    images, tokens = tiny.pairs(count, seed)
    images, tokens = images[rows], tokens[rows]
    return LoadedBatch(
        shard="",
        last_of_shard=False,
        size=len(images),
        rows=np.arange(len(images)),
        images=images,
        image_of=torch.arange(len(images)),
        tokens=tokens,
    )
