"""The part of the reference that phase 2 needs, stored beside its features.

Letters: F feature width, D embedding width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mimic_core.base import files
from mimic_core.base.config import BOTH_SIDES, Side
from mimic_core.base.errors import RunError
from mimic_core.mimic.contrastive import Scaling
from mimic_core.mimic.losses import widened
from mimic_core.models import clip
from mimic_core.models.projections import Projection, find_projection
from mimic_core.runs.featureset import FeatureSet

# Features up to this size are held in memory (as float16); larger ones are read batch by batch.
IN_MEMORY_BYTES = 2 << 30
_BLOCK = 65_536

_FILE = "head.safetensors"
# One entry: safetensors writes several in a random order, and equal runs would differ in bytes.
_NAMES = "names"


@dataclass(frozen=True)
class TowerEnds:
    """What the reference's towers end in: logit scale and bias, and each side's projection."""

    scaling: Scaling
    projections: Mapping[Side, Projection]


def contrastive_scaling(module: nn.Module) -> Scaling:
    """Scale and bias of a model's contrastive loss."""
    bias = clip.logit_bias(module)
    return Scaling(
        loss=clip.loss_name(module),
        scale=float(clip.logit_scale(module)),
        bias=0.0 if bias is None else float(bias),
    )


def store_ends(features: FeatureSet, module: nn.Module, sides: tuple[Side, ...]) -> None:
    """Write what the reference's towers end in beside its features, unless it is there."""
    projections = {side: find_projection(module, side) for side in sides}
    write_ends(features, TowerEnds(contrastive_scaling(module), projections))


def write_ends(features: FeatureSet, ends: TowerEnds) -> None:
    """Write ``ends`` beside the features, unless there are some."""
    from safetensors.torch import save

    if (features.path / _FILE).exists():
        return
    scaling = ends.scaling
    tensors = {"logit_scale": torch.tensor(scaling.scale), "logit_bias": torch.tensor(scaling.bias)}
    names = {"loss": str(scaling.loss)}
    for side, projection in ends.projections.items():
        names[side] = projection.name
        tensors[f"{side}.weight"] = projection.weight.float().cpu().contiguous()
        if projection.bias is not None:
            tensors[f"{side}.bias"] = projection.bias.float().cpu().contiguous()
    files.write_bytes(
        features.path / _FILE, save(tensors, metadata={_NAMES: json.dumps(names, sort_keys=True)})
    )


def read_ends(features: FeatureSet) -> TowerEnds:
    """Read what ``store_ends`` wrote.

    Raises:
        RunError: The file is missing or damaged.
    """
    path = features.path / _FILE
    if not path.exists():
        raise RunError(
            "the feature set does not hold what the towers of its reference end in",
            got=str(path),
            next_step="score the pool with a reference first",
        )
    try:
        return _read_ends(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"what the reference's towers end in is damaged on disk ({error})",
            got=str(path),
            next_step="delete that file and score the pool again: no image is read anew",
        ) from error


def _read_ends(path: Path) -> TowerEnds:
    with safe_open(path, framework="pt") as file:
        names = json.loads(file.metadata()[_NAMES])
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return TowerEnds(
        Scaling(
            loss="siglip" if names["loss"] == "siglip" else "clip",
            scale=float(tensors["logit_scale"]),
            bias=float(tensors["logit_bias"]),
        ),
        {
            side: Projection(names[side], tensors[f"{side}.weight"], tensors.get(f"{side}.bias"))
            for side in BOTH_SIDES
            if side in names
        },
    )


def features_array(features: FeatureSet) -> str:
    """The name of the array that a labelled feature set's heads work on."""
    return "image_features" if features.has_array("image_features") else "image_embedding"


class Rows:
    """Rows of the array ``name`` of a finished feature set as float32 tensors on the device."""

    def __init__(self, features: FeatureSet, name: str, device: torch.device) -> None:
        array = features.array(name)
        self._device = device
        self.width = array.width
        self._of, array = array.rows, array.stored  # images are held once, however many share one
        size = len(array) * array.width * array.dtype.itemsize
        # What is held in memory needs no map, and a map keeps a file open for every shard.
        self._rows = torch.from_numpy(array.read()).to(device) if size <= IN_MEMORY_BYTES else array

    def take(self, rows: np.ndarray) -> Tensor:
        """Rows (B,) as (B, width) float32."""
        if self._of is not None:
            rows = self._of[rows]
        if isinstance(self._rows, Tensor):
            return self._rows[torch.from_numpy(rows).to(self._device)].float()
        return torch.from_numpy(self._rows.take(rows)).to(self._device).float()

    def blocks(self, rows: np.ndarray) -> Iterator[Tensor]:
        """``rows`` (M,) in order, ``_BLOCK`` at a time."""
        return (self.take(rows[start : start + _BLOCK]) for start in range(0, len(rows), _BLOCK))

    def mean_length(self, rows: np.ndarray) -> float:
        """Root mean square of the lengths of ``rows`` (M,); 1 where all are zero."""
        squares = sum(float(widened(block).square().sum()) for block in self.blocks(rows))
        return math.sqrt(squares / len(rows)) or 1.0
