"""Image classifiers as features and a last linear layer: timm's models, and CLIP image towers.

Letters: U images, F feature width, C classes.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mimic_core.errors import ModelError
from mimic_core.modelling import timm_models


class TowerClassifier(nn.Module):
    """A CLIP model's image tower with a linear head on its embedding of unit length."""

    def __init__(self, visual: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.visual = visual
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Logits (U, C) of ``images`` (U, 3, H, W)."""
        logits: Tensor = self.head(features(self, images))
        return logits


def features(module: nn.Module, images: Tensor) -> Tensor:
    """What the last layer sees (U, F) of ``images`` (U, 3, H, W)."""
    if isinstance(module, TowerClassifier):
        return F.normalize(module.visual(images).float(), dim=-1)
    return timm_models.features_of(module, images)


def head(module: nn.Module) -> nn.Linear:
    """The last layer.

    Raises:
        ModelError: It is not a linear one.
    """
    model: Any = module
    found = module.head if isinstance(module, TowerClassifier) else model.get_classifier()
    if not isinstance(found, nn.Linear):
        raise ModelError(
            "the model does not end in a linear layer, which labelled images need",
            got=type(found).__name__,
            allowed="timm models with a linear classifier, CLIP image towers",
            next_step="choose another architecture",
        )
    return found


def head_name(module: nn.Module) -> str:
    """The last layer's name in the module, such as ``head`` or ``fc``."""
    last = head(module)
    names: list[str] = [name for name, part in module.named_modules() if part is last]
    return names[0]
