"""The model and the reference of labelled training: classifiers over the classes of one head.

The reference is its backbone with the reference head as last layer; the model is its own backbone
with a head over the same classes, its own or a fresh one. Letters: C classes, F feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mimic_core.base.errors import ModelError, require_layer
from mimic_core.models import classifiers
from mimic_core.models.classifiers import TowerClassifier
from mimic_core.models.layers import fresh_weight
from mimic_core.models.load import LoadedModel
from mimic_core.scoring.labels.class_head import ClassHead, own_head
from mimic_core.scoring.snapshot import require_same_architecture


def pair_classifiers(
    model: LoadedModel,
    reference: LoadedModel,
    head: ClassHead,
    *,
    seed: int,
    note: Callable[[str], None],
) -> tuple[nn.Module, nn.Module]:
    """Put heads over the classes of ``head`` on both modules, and return them, changed.

    Args:
        head: The reference head, for the reference's features.
        seed: Draws the model's head where it has none over these classes.

    Raises:
        ModelError: The two differ in architecture, or do not end in a linear layer that can be
            replaced.
    """
    for loaded in (model, reference):
        _require_place_for_head(loaded.module)
    own = _kept_head(model, head)
    if own is None:
        note(f"the model's head is drawn afresh, over {len(head.classes)} classes")
        generator = torch.Generator().manual_seed(seed)
        weight = fresh_weight("head.weight", tuple(head.weight.shape), generator)
        own = ClassHead(head.classes, weight, torch.zeros(len(head.classes)))
    else:
        guessed = "" if model.classes else "; nothing names its outputs, so their order is assumed"
        note(f"the model's own head is over the same classes and is kept{guessed}")
    modules = _with_head(model.module, own), _with_head(reference.module, head)
    require_same_architecture(*modules)
    return modules


def require_layers(model: LoadedModel, layers: Sequence[str]) -> None:
    """Raise a ``ModelError`` unless the classifier made of ``model`` will have all ``layers``."""
    module: Any = model.module
    _require_place_for_head(module)
    names = {name for name, _ in module.named_parameters()}
    if model.tokenizer is not None:  # its image tower will get a head
        names = {name for name in names if name.startswith("visual.")}
        names |= {"head.weight", "head.bias"}
    elif classifiers.linear_head(module) is None:  # timm knows where it will be
        heads = getattr(module, "pretrained_cfg", {}).get("classifier") or "head"
        first = heads if isinstance(heads, str) else heads[0]
        names |= {f"{first}.weight", f"{first}.bias"}
    for layer in layers:
        require_layer(layer, dict.fromkeys(sorted(names)))


def _kept_head(model: LoadedModel, head: ClassHead) -> ClassHead | None:
    """The model's classifier in the order of the head's classes; None where it is no such."""
    try:
        own = own_head(model, width=head.weight.shape[1], labels=head.classes)
    except ModelError:
        return None
    if set(own.classes) != set(head.classes):
        return None
    rows = own.numbers(head.classes)
    return ClassHead(head.classes, own.weight[rows], own.bias[rows])


def _with_head(module: nn.Module, head: ClassHead) -> nn.Module:
    """A classifier of ``module``'s features, with ``head`` as its last layer."""
    model: Any = module
    count, width = head.weight.shape
    changed = module
    if hasattr(module, "visual"):
        changed = TowerClassifier(model.visual, nn.Linear(width, count))
    else:
        with torch.random.fork_rng(devices=[]):  # timm draws values that are overwritten at once
            model.reset_classifier(count)
    layer = classifiers.head(changed)
    _require_width(layer, width)
    with torch.no_grad():
        layer.weight.copy_(head.weight)
        held: Tensor | None = layer.bias
        if held is not None:
            held.copy_(head.bias)
    device = head.weight.device
    return changed.eval().to(device)


def _require_place_for_head(module: nn.Module) -> None:
    """A tower gets a head of its own; an image model must let its own be replaced, as timm's do."""
    if hasattr(module, "visual") or hasattr(module, "reset_classifier"):
        return
    raise ModelError(
        "training puts a head over the pool's classes on the model, which has no place for one",
        got=type(module).__name__,
        allowed="a CLIP model, a timm model, or a module with reset_classifier(classes)",
        next_step="give the module a method reset_classifier(classes), or use the command score",
    )


def _require_width(layer: nn.Linear, width: int) -> None:
    if layer.in_features != width:
        raise ModelError(
            "model and reference differ in architecture: their features have different widths",
            got=f"{layer.in_features} and {width}",
            allowed="the same architecture in both",
            next_step="choose a model and a reference of one architecture",
        )
