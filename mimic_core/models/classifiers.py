"""Image classifiers as features and a last linear layer: timm's models, CLIP image towers, and
torch modules of a user's own.

Letters: U images, F feature width, C classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from mimic_core.base.errors import ModelError
from mimic_core.models import timm_models
from mimic_core.models.building import do_not_fit
from mimic_core.models.names import ModelSpec

# Where the last layer is looked for in modules that are not timm's.
HEADS = ("head", "head.fc", "fc", "classifier", "heads.head", "last_linear")


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


def holds_tower_classifier(names: Collection[str]) -> bool:
    """Whether a state dict of these names is a ``TowerClassifier``'s, as labelled training leaves
    it.
    """
    others = {name for name in names if not name.startswith("visual.")}
    return others == {"head.weight", "head.bias"} and len(names) > len(others)


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
        raise do_not_fit(spec, f"the image tower of {spec.arch}", error) from error
    return module


def features(module: nn.Module, images: Tensor) -> Tensor:
    """What the last layer sees (U, F) of ``images`` (U, 3, H, W); all of it where there is none."""
    if isinstance(module, TowerClassifier):
        return F.normalize(module.visual(images).float(), dim=-1)
    if _is_timms(module):
        return timm_models.features_of(module, images)
    last = linear_head(module)
    return _whole(module, images) if last is None else _seen_by(last, module, images)


def linear_head(module: nn.Module) -> nn.Linear | None:
    """The last layer; None where it is not a linear one."""
    if isinstance(module, TowerClassifier):
        return module.head
    if _is_timms(module):
        return timm_models.classifier(module)
    return next((found for place in HEADS if (found := _linear_at(module, place))), None)


def _is_timms(module: nn.Module) -> bool:
    return all(hasattr(module, n) for n in ("forward_features", "forward_head", "get_classifier"))


def _linear_at(module: nn.Module, place: str) -> nn.Linear | None:
    try:
        found = module.get_submodule(place)
    except AttributeError:
        return None
    return found if isinstance(found, nn.Linear) and found.out_features else None


def _whole(module: nn.Module, images: Tensor) -> Tensor:
    given: object = module(images)
    if not isinstance(given, Tensor) or given.ndim != 2:
        raise ModelError(
            "the model gives no row of features for each image",
            got=tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__,
            allowed="a tensor (images, features)",
            next_step="let the model return such a tensor",
        )
    return given


def _seen_by(last: nn.Linear, module: nn.Module, images: Tensor) -> Tensor:
    """What goes into the last layer of a module that cannot be asked for it."""
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        module(images)
    finally:
        hook.remove()
    if len(seen) != 1 or seen[0].ndim != 2:
        raise ModelError(
            "the model's last linear layer is not called once with one row for each image",
            got=[tuple(given.shape) for given in seen],
            allowed=f"a classifier whose last layer is named {', '.join(HEADS)}",
            next_step="name another layer otherwise, or let the model return features alone",
        )
    return seen[0]


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
            allowed="timm models with a linear classifier, CLIP image towers, modules with a "
            f"linear layer {', '.join(HEADS)}",
            next_step="choose another architecture",
        )
    return found


def head_name(module: nn.Module) -> str:
    """The last layer's name in the module, such as ``head`` or ``fc``."""
    last = head(module)
    names: list[str] = [name for name, part in module.named_modules() if part is last]
    return names[0]
