"""What phase 1 computes for labelled images: features of the frozen reference, one pass.

Letters: B samples, U distinct images, F feature width, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimic_core.base.schema import Precision
from mimic_core.features.encoders import half
from mimic_core.features.loading import LoadedBatch
from mimic_core.models import classifiers, clip
from mimic_core.models.load import autocast
from mimic_core.runs.featureset import FeatureSet


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


def features_array(features: FeatureSet) -> str:
    """The name of the array that a labelled feature set's heads work on."""
    return "image_features" if features.has_array("image_features") else "image_embedding"
