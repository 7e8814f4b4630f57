"""What phase 1 computes from a loaded batch: features and embeddings, or tangents.

An encoder fills one feature set; several of them share one pass over the images. Letters: B
samples, U distinct images, F feature width, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimic_core.base.config import BOTH_SIDES, Precision, Side
from mimic_core.base.errors import ScoreError
from mimic_core.features.loading import LoadedBatch
from mimic_core.mimic.contrastive import Embedded
from mimic_core.mimic.forward_mode import directional_derivative
from mimic_core.mimic.scores import TaskVector
from mimic_core.models import classifiers, clip
from mimic_core.models.devices import autocast
from mimic_core.models.projections import find_projection, without_projection


class Encoder(Protocol):
    """Turns a loaded batch into arrays (B, ...) by name, and columns (B,) by name."""

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that every batch gives."""

    def encode(self, batch: LoadedBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Arrays and columns of one batch, on its device."""


class CheckedEncoder(Encoder, Protocol):
    """An encoder that strips a model of its last layer, and can tell whether it does so rightly."""

    def difference(self, batch: LoadedBatch) -> float:
        """Largest relative difference between last layer on features and the model itself."""


@dataclass(frozen=True)
class ReferenceEncoder:
    """Features before the last projections, embeddings and CLIP scores under the reference.

    Arrays are float16: ``image_features`` (B, F) and ``text_features`` where the tower named in
    ``sides`` ends in a linear projection, ``image_embedding`` and ``text_embedding`` (B, D), unit
    length. Column ``clip_score`` is float32, computed before rounding.
    """

    module: nn.Module
    device: torch.device
    precision: Precision
    sides: tuple[Side, ...]

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the stored arrays."""
        return (*(f"{side}_features" for side in self.sides), "image_embedding", "text_embedding")

    def encode(self, batch: LoadedBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See ``Encoder``."""
        arrays: dict[str, Tensor] = {}
        units: dict[Side, Tensor] = {}
        with torch.no_grad():
            for side in BOTH_SIDES:
                features, raw = self._tower(side, batch)
                units[side] = F.normalize(raw.float(), dim=-1)
                if side == "image":
                    units[side] = units[side][batch.image_of]
                    features = None if features is None else features[batch.image_of]
                if features is not None:
                    arrays[f"{side}_features"] = half(f"{side} features", features)
                arrays[f"{side}_embedding"] = half(f"{side} embedding", units[side])
        return arrays, {"clip_score": (units["image"] * units["text"]).sum(1)}

    def difference(self, batch: LoadedBatch) -> float:
        """Largest relative difference between features times projection and the model's embedding.

        Runs in float32 whatever the run's precision; 0 where no tower has a linear projection.
        """
        exact = replace(self, precision="fp32")
        worst = 0.0
        with torch.no_grad():
            for side in exact.sides:
                ours, own = exact._tower(side, batch)[1], _encode(exact.module, side, batch)  # noqa: SLF001
                worst = max(
                    worst, float((ours - own).abs().max() / own.abs().max().clamp(min=1e-30))
                )
        return worst

    def _tower(self, side: Side, batch: LoadedBatch) -> tuple[Tensor | None, Tensor]:
        """Features (None where the tower has no linear projection) and raw embeddings."""
        if side not in self.sides:
            with autocast(self.device, self.precision):
                return None, _encode(self.module, side, batch)
        projection = find_projection(self.module, side)
        with autocast(self.device, self.precision), without_projection(self.module, side):
            features = _encode(self.module, side, batch)
        features = features.float()
        raw = features @ projection.weight
        return features, raw if projection.bias is None else raw + projection.bias


@dataclass(frozen=True)
class TangentEncoder:
    """Embeddings under the model and their derivatives along the task vector, in one forward pass.

    Arrays (B, D), float32 because scores are exact: ``image_embedding``, ``text_embedding``, and
    ``image_tangent``, ``text_tangent`` for the towers that hold mimic layers.
    """

    module: nn.Module
    vector: TaskVector
    device: torch.device
    precision: Precision

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the stored arrays."""
        tangents = (f"{side}_tangent" for side in tangent_sides(self.vector.layers))
        return ("image_embedding", "text_embedding", *tangents)

    def encode(self, batch: LoadedBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See ``Encoder``."""
        with torch.no_grad():
            embedded = embed_with_tangents(
                self.module, self.vector, batch, device=self.device, precision=self.precision
            )
        named = {
            "image_embedding": embedded.image,
            "text_embedding": embedded.text,
            "image_tangent": embedded.image_tangent,
            "text_tangent": embedded.text_tangent,
        }
        return {name: value for name, value in named.items() if value is not None}, {}


def embed_with_tangents(
    module: nn.Module,
    vector: TaskVector,
    batch: LoadedBatch,
    *,
    device: torch.device,
    precision: Precision = "fp32",
) -> Embedded:
    """A batch's unit embeddings (B, D) and their derivatives along ``v / ||v||``, float32."""
    image, image_tangent = _tower_with_tangent(module, vector, "image", batch, device, precision)
    text, text_tangent = _tower_with_tangent(module, vector, "text", batch, device, precision)
    return Embedded(
        image[batch.image_of],
        text,
        None if image_tangent is None else image_tangent[batch.image_of],
        text_tangent,
    )


def tangent_sides(layers: Sequence[str]) -> tuple[Side, ...]:
    """The towers that hold at least one of the mimic layers."""
    towers = [name for name in layers if name not in ("logit_scale", "logit_bias")]
    held = {"image" if name.startswith("visual.") else "text" for name in towers}
    return tuple(side for side in BOTH_SIDES if side in held)


def _encode(module: nn.Module, side: Side, batch: LoadedBatch) -> Tensor:
    """Raw embeddings of the batch's distinct images (U, D) or of its captions (B, D)."""
    if side == "image":
        return clip.encode_image(module, batch.images)
    return clip.encode_text(module, batch.tokens)


def _tower_with_tangent(
    module: nn.Module,
    vector: TaskVector,
    side: Side,
    batch: LoadedBatch,
    device: torch.device,
    precision: Precision,
) -> tuple[Tensor, Tensor | None]:
    def forward() -> tuple[Tensor, ...]:
        with autocast(device, precision):
            raw = _encode(module, side, batch)
        return (F.normalize(raw.float(), dim=-1),)

    if side not in tangent_sides(vector.layers):
        return forward()[0], None
    return directional_derivative(module, vector.unit(), forward)[0]


def half(what: str, values: Tensor) -> Tensor:
    """``values`` in float16; a value beyond its range is an error, not an infinity."""
    half = values.half()
    if not torch.isfinite(half).all():
        raise ScoreError(
            f"the reference gives {what} that are not finite in float16",
            got=float(values.abs().max()),
            allowed="magnitudes up to 65,504",
            next_step="use --precision fp32; if it persists, use snapshot mode",
        )
    return half


@dataclass(frozen=True, eq=False)
class ImageEncoder:
    """What a linear head sees of an image, in float16.

    Of a CLIP model ``image_embedding`` (B, D), unit length, on which its zero-shot head is linear;
    column ``clip_score`` is the cosine to the class of the sample's label. Of classifiers
    ``image_features`` (B, F): what their last layer sees.

    Args:
        classes: Unit text embedding (D,) of each label; None for models without a text tower.
    """

    module: nn.Module
    device: torch.device
    precision: Precision
    classes: dict[str, Tensor] | None

    @property
    def arrays(self) -> tuple[str, ...]:
        """The name of the one stored array."""
        return ("image_features",) if self.classes is None else ("image_embedding",)

    def encode(self, batch: LoadedBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See ``encoders.Encoder``."""
        with torch.no_grad():
            features = self._features(batch)[batch.image_of]
            columns = {}
            if self.classes is not None:
                named = torch.stack([self.classes[str(label)] for label in batch.labels])
                columns["clip_score"] = (features * named).sum(1)
        return {self.arrays[0]: half("image features", features)}, columns

    def _features(self, batch: LoadedBatch) -> Tensor:
        """(U, F) float32."""
        with autocast(self.device, self.precision):
            if self.classes is None:
                return classifiers.features(self.module, batch.images).float()
            raw = clip.encode_image(self.module, batch.images)
        return F.normalize(raw.float(), dim=-1)

    def difference(self, batch: LoadedBatch) -> float:
        """Largest relative difference between classifier on features and the model's own logits.

        Runs in float32 whatever the run's precision; 0 where there is no linear classifier.
        """
        layer = None if self.classes is not None else classifiers.linear_head(self.module)
        if layer is None:
            return 0.0
        with torch.no_grad():
            exact = replace(self, precision="fp32")
            ours = layer(exact._features(batch))  # noqa: SLF001
            own: Tensor = self.module(batch.images)
        return float((ours - own).abs().max() / own.abs().max().clamp(min=1e-30))
