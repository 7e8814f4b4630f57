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

Arrays = dict[str, Tensor]


class Encoder(Protocol):
    """Turns distinct images and the texts of samples into arrays by name.

    A row of an array depends on its image or text alone, but for the last bit of float32 sums,
    which may change with the number of rows.
    """

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that are stored: those of images begin with ``image_``."""

    @property
    def compares(self) -> bool:
        """Whether images and texts have unit vectors, whose cosines are CLIP scores."""

    def encode_images(self, images: Tensor) -> tuple[Arrays, Tensor | None]:
        """Arrays (U, ...) of images (U, 3, H, W), and their unit vectors (U, D) before rounding."""

    def encode_texts(
        self, tokens: Tensor, labels: Sequence[str | None]
    ) -> tuple[Arrays, Tensor | None]:
        """Arrays (B, ...) of captions (B, L), and unit vectors (B, D) to compare images with."""


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

    @property
    def compares(self) -> bool:
        """Always."""
        return True

    def encode_images(self, images: Tensor) -> tuple[Arrays, Tensor]:
        """See ``Encoder``."""
        return self._encode("image", images)

    def encode_texts(self, tokens: Tensor, labels: Sequence[str | None]) -> tuple[Arrays, Tensor]:  # noqa: ARG002 - captions
        """See ``Encoder``."""
        return self._encode("text", tokens)

    def _encode(self, side: Side, inputs: Tensor) -> tuple[Arrays, Tensor]:
        with torch.no_grad():
            features, raw = self._tower(side, inputs)
            unit = F.normalize(raw.float(), dim=-1)
            arrays = {f"{side}_embedding": half(f"{side} embedding", unit)}
            if features is not None:
                arrays[f"{side}_features"] = half(f"{side} features", features)
        return arrays, unit

    def difference(self, batch: LoadedBatch) -> float:
        """Largest relative difference between features times projection and the model's embedding.

        Runs in float32 whatever the run's precision; 0 where no tower has a linear projection.
        """
        exact = replace(self, precision="fp32")
        worst = 0.0
        with torch.no_grad():
            for side in exact.sides:
                inputs = batch.images if side == "image" else batch.tokens
                ours, own = exact._tower(side, inputs)[1], _embed(exact.module, side, inputs)  # noqa: SLF001
                worst = max(
                    worst, float((ours - own).abs().max() / own.abs().max().clamp(min=1e-30))
                )
        return worst

    def _tower(self, side: Side, inputs: Tensor) -> tuple[Tensor | None, Tensor]:
        """Features (None where the tower has no linear projection) and raw embeddings."""
        if side not in self.sides:
            with autocast(self.device, self.precision):
                return None, _embed(self.module, side, inputs)
        projection = find_projection(self.module, side)
        with autocast(self.device, self.precision), without_projection(self.module, side):
            features = _embed(self.module, side, inputs)
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

    @property
    def compares(self) -> bool:
        """Never: CLIP scores are the reference's."""
        return False

    def encode_images(self, images: Tensor) -> tuple[Arrays, None]:
        """See ``Encoder``."""
        return self._encode("image", images), None

    def encode_texts(self, tokens: Tensor, labels: Sequence[str | None]) -> tuple[Arrays, None]:  # noqa: ARG002 - captions
        """See ``Encoder``."""
        return self._encode("text", tokens), None

    def _encode(self, side: Side, inputs: Tensor) -> Arrays:
        with torch.no_grad():
            unit, tangent = _tower_with_tangent(
                self.module, self.vector, side, inputs, self.device, self.precision
            )
        arrays = {f"{side}_embedding": unit}
        return arrays if tangent is None else arrays | {f"{side}_tangent": tangent}


def embed_with_tangents(
    module: nn.Module,
    vector: TaskVector,
    batch: LoadedBatch,
    *,
    device: torch.device,
    precision: Precision = "fp32",
) -> Embedded:
    """A batch's unit embeddings (B, D) and their derivatives along ``v / ||v||``, float32."""
    image, image_tangent = _tower_with_tangent(
        module, vector, "image", batch.images, device, precision
    )
    text, text_tangent = _tower_with_tangent(
        module, vector, "text", batch.tokens, device, precision
    )
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


def _embed(module: nn.Module, side: Side, inputs: Tensor) -> Tensor:
    """Raw embeddings (U, D) of images (U, 3, H, W), or (B, D) of captions (B, L)."""
    return (
        clip.encode_image(module, inputs) if side == "image" else clip.encode_text(module, inputs)
    )


def _tower_with_tangent(
    module: nn.Module,
    vector: TaskVector,
    side: Side,
    inputs: Tensor,
    device: torch.device,
    precision: Precision,
) -> tuple[Tensor, Tensor | None]:
    def forward() -> tuple[Tensor, ...]:
        with autocast(device, precision):
            raw = _embed(module, side, inputs)
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

    @property
    def compares(self) -> bool:
        """Where there is a text tower."""
        return self.classes is not None

    def encode_images(self, images: Tensor) -> tuple[Arrays, Tensor]:
        """See ``encoders.Encoder``."""
        with torch.no_grad():
            features = self._features(images)
        return {self.arrays[0]: half("image features", features)}, features

    def encode_texts(
        self,
        tokens: Tensor,  # noqa: ARG002 - there are none
        labels: Sequence[str | None],
    ) -> tuple[Arrays, Tensor | None]:
        """See ``encoders.Encoder``."""
        if self.classes is None:
            return {}, None
        return {}, torch.stack([self.classes[str(label)] for label in labels])

    def _features(self, images: Tensor) -> Tensor:
        """(U, F) float32."""
        with autocast(self.device, self.precision):
            if self.classes is None:
                return classifiers.features(self.module, images).float()
            raw = clip.encode_image(self.module, images)
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
            ours = layer(exact._features(batch.images))  # noqa: SLF001
            own: Tensor = self.module(batch.images)
        return float((ours - own).abs().max() / own.abs().max().clamp(min=1e-30))
