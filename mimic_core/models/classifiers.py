"""Image classifiers as features and a last linear layer: timm's models, and CLIP image towers.

Letters: U images, F feature width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from mimic_core.base.errors import ModelError
from mimic_core.models import timm_models
from mimic_core.models.checkpoints import ModelSpec


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


def holds_tower_classifier(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is that of a ``TowerClassifier``, as labelled training leaves it."""
    others = {name for name in tensors if not name.startswith("visual.")}
    return others == {"head.weight", "head.bias"} and len(tensors) > len(others)


def tower_classifier(
    clip_model: nn.Module, spec: ModelSpec, tensors: Mapping[str, Tensor]
) -> TowerClassifier:
    """A stored ``TowerClassifier``; of ``clip_model`` the image tower's architecture is used.

    Raises:
        ModelError: The weights are those of another architecture.
    """
    count, width = tensors["head.weight"].shape
    tower: nn.Module = clip_model.get_submodule("visual")
    module = TowerClassifier(tower, nn.Linear(width, count))
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ModelError(
            f"the weights do not fit the image tower of {spec.arch} "
            f"({' '.join(str(error).split())[:300]})",
            got=spec.weights,
            next_step="give the architecture that the checkpoint was trained with",
        ) from error
    return module


def features(module: nn.Module, images: Tensor) -> Tensor:
    """What the last layer sees (U, F) of ``images`` (U, 3, H, W)."""
    if isinstance(module, TowerClassifier):
        return F.normalize(module.visual(images).float(), dim=-1)
    return timm_models.features_of(module, images)


def linear_head(module: nn.Module) -> nn.Linear | None:
    """The last layer; None where it is not a linear one."""
    return module.head if isinstance(module, TowerClassifier) else timm_models.classifier(module)


def head(module: nn.Module) -> nn.Linear:
    """The last layer.

    Raises:
        ModelError: It is not a linear one.
    """
    found = linear_head(module)
    if found is None:
        raise ModelError(
            "the model does not end in a linear layer, which labelled images need",
            got=type(module).__name__,
            allowed="timm models with a linear classifier, CLIP image towers",
            next_step="choose another architecture",
        )
    return found


def head_name(module: nn.Module) -> str:
    """The last layer's name in the module, such as ``head`` or ``fc``."""
    last = head(module)
    names: list[str] = [name for name, part in module.named_modules() if part is last]
    return names[0]
