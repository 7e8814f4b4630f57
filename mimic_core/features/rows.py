"""Rows of a stored array as tensors: what every probe reads its batches from."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mimic_core.mimic.widening import widened
from mimic_core.runs.featureset import FeatureSet

# Features up to this size are held in memory (as float16); larger ones are read batch by batch.
IN_MEMORY_BYTES = 2 << 30
_BLOCK = 65_536


class Rows:
    """Rows of the array ``name`` of a finished feature set as float32 tensors on the device."""

    def __init__(self, features: FeatureSet, name: str, device: torch.device) -> None:
        array = features.array(name)
        size = len(array) * array.width * array.dtype.itemsize
        self._device = device
        self.width = array.width
        # What is held in memory needs no map, and a map keeps a file open for every shard.
        self._rows = torch.from_numpy(array.read()).to(device) if size <= IN_MEMORY_BYTES else array

    def take(self, rows: np.ndarray) -> Tensor:
        """Rows (B,) as (B, width) float32."""
        if isinstance(self._rows, Tensor):
            return self._rows[torch.from_numpy(rows).to(self._device)].float()
        return torch.from_numpy(self._rows.take(rows)).to(self._device).float()

    def mean_length(self, rows: np.ndarray) -> float:
        """Root mean square of the lengths of ``rows`` (M,); 1 where all are zero."""
        squares = 0.0
        for start in range(0, len(rows), _BLOCK):
            squares += float(widened(self.take(rows[start : start + _BLOCK])).square().sum())
        return math.sqrt(squares / len(rows)) or 1.0
