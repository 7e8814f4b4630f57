"""The last linear projection of a tower: found, stripped off, described.

Probe mode re-initialises and trains this projection alone (method.md section 5). Letters: F feature
width, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mimic_core.base.config import Side
from mimic_core.base.errors import ModelError


@dataclass(frozen=True)
class Projection:
    """``embedding = features @ weight + bias``: ``weight`` (F, D), ``bias`` (D,) or None.

    ``name`` is the parameter's exact name in the model, whose own orientation may be (D, F).
    """

    name: str
    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class _Place:
    """Where a projection sits: attribute ``attribute`` of module ``owner``, named ``name``."""

    owner: Any
    attribute: str
    name: str
    removed: Callable[[nn.Linear], nn.Module | None]


def find_projection(model: nn.Module, side: Side) -> Projection:
    """The last linear projection of the tower ``side``.

    Raises:
        ModelError: The tower ends otherwise; the message names what can be used instead.
    """
    place = _place(model, side)
    held = getattr(place.owner, place.attribute)
    if isinstance(held, nn.Linear):
        bias: Tensor | None = held.bias  # annotated as always there, which it is not
        weight = held.weight.detach().T
        return Projection(f"{place.name}.weight", weight, bias if bias is None else bias.detach())
    return Projection(place.name, held.detach())


@contextmanager
def without_projection(model: nn.Module, side: Side) -> Iterator[None]:
    """Inside, the tower ``side`` returns the features (B, F) before its last projection."""
    place = _place(model, side)
    held = getattr(place.owner, place.attribute)
    removed = place.removed(held) if isinstance(held, nn.Linear) else None
    try:
        setattr(place.owner, place.attribute, removed)
        yield
    finally:
        setattr(place.owner, place.attribute, held)


def _place(model: nn.Module, side: Side) -> _Place:
    found = _image_place(model) if side == "image" else _text_place(model)
    if found is not None:
        return found
    raise ModelError(
        f"the {side} tower of this model does not end in a linear projection, which probe mode "
        "trains",
        got=type(getattr(model, "visual" if side == "image" else "text", model)).__name__,
        allowed="open_clip ViT and ResNet towers, timm towers with a linear projection",
        next_step="use --mode snapshot (its default mimic layer is the last MLP), or probe the "
        "other tower with --side",
    )


def _image_place(model: nn.Module) -> _Place | None:
    visual: Any = getattr(model, "visual", None)
    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        return _Place(visual, "proj", "visual.proj", _nothing)
    pool = getattr(visual, "attnpool", None)
    if isinstance(getattr(pool, "c_proj", None), nn.Linear):
        # The attention function multiplies by c_proj itself, so it must stay, as the identity.
        return _Place(pool, "c_proj", "visual.attnpool.c_proj", _identity_like)
    head = getattr(visual, "head", None)
    if isinstance(getattr(head, "proj", None), nn.Linear):
        return _Place(head, "proj", "visual.head.proj", _pass_through)
    return _timm_classifier_place(visual)


def _timm_classifier_place(visual: Any) -> _Place | None:
    """A timm tower without a projection of open_clip's uses its classifier as one."""
    trunk = getattr(visual, "trunk", None)
    head = getattr(visual, "head", None)
    if trunk is None or (head is not None and list(head.children())):
        return None
    classifier = trunk.get_classifier()
    if not isinstance(classifier, nn.Linear):
        return None
    path = next(name for name, module in trunk.named_modules() if module is classifier)
    parent, _, attribute = path.rpartition(".")
    return _Place(trunk.get_submodule(parent), attribute, f"visual.trunk.{path}", _pass_through)


def _text_place(model: nn.Module) -> _Place | None:
    owners: list[tuple[Any, str]] = [(model, ""), (getattr(model, "text", None), "text.")]
    for owner, prefix in owners:
        for attribute in ("text_projection", "proj"):
            held = getattr(owner, attribute, None)
            if isinstance(held, nn.Parameter):
                return _Place(owner, attribute, prefix + attribute, _nothing)
            if isinstance(held, nn.Linear):
                removed = _nothing if attribute == "text_projection" else _pass_through
                return _Place(owner, attribute, prefix + attribute, removed)
    return None


def _nothing(_: nn.Linear) -> None:
    return None


def _pass_through(_: nn.Linear) -> nn.Module:
    return nn.Identity()


def _identity_like(linear: nn.Linear) -> nn.Module:
    width = linear.in_features
    same = nn.Linear(width, width, bias=linear.bias is not None)
    same.to(linear.weight.device, linear.weight.dtype)
    with torch.no_grad():
        same.weight.copy_(torch.eye(width))
        if linear.bias is not None:
            same.bias.zero_()
    return same.requires_grad_(False)
