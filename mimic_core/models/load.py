"""Models and reference models: loading, devices, precision, default mimic layers.

``load_model`` turns a specification (``mimic_core.models.checkpoints``) into a frozen, evaluated
``LoadedModel`` with its own preprocessing and tokenizer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mimic_core.base.config import LossName
from mimic_core.base.errors import ModelError
from mimic_core.base.identity import digest
from mimic_core.models import classifiers, clip, timm_models
from mimic_core.models.checkpoints import ModelSpec, architecture, parse_spec, read_state_dict
from mimic_core.models.class_names import written_names
from mimic_core.models.open_clip_models import (
    Tokenizer,
    build,
    load_weights,
    open_clip_tokenizer,
    quiet_open_clip,
)
from mimic_core.models.preprocessing import resolve_preprocessing


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode whose parameters need no gradient.

    ``preprocessing`` is complete (size, mean, std, interpolation, resize mode) and
    ``preprocessing_origin`` says where it is written. ``identity`` distinguishes models: equal for
    equal architecture, tokenizer and weights, whatever their path. An image model (timm's, or a
    CLIP image tower with a classifier) has no ``tokenizer``; ``classes`` names the outputs of its
    classifier as far as that is known.
    """

    module: nn.Module
    spec: ModelSpec
    preprocessing: dict[str, Any]
    preprocessing_origin: str
    tokenizer: Tokenizer | None
    identity: str
    classes: tuple[str, ...] = ()

    @property
    def loss(self) -> LossName | None:
        """The contrastive loss it was made for; None for an image model."""
        return None if self.tokenizer is None else clip.loss_name(self.module)

    @property
    def preprocessing_sha256(self) -> str:
        """Hash of the preprocessing, 64 hex."""
        return digest(self.preprocessing, length=64)


def load_model(text: str, *, preprocess: str | None = None) -> LoadedModel:
    """Load the model named by ``text`` (forms: ``mimic_core.models.checkpoints``): CPU, float32.

    Args:
        preprocess: Name or JSON file of the image preprocessing; None takes the checkpoint's own.

    Raises:
        ModelError: It cannot be found, downloaded, read or matched to its architecture, or its
            preprocessing is written nowhere.
    """
    if timm_models.is_timm(text):
        return _load_timm(text, preprocess)
    spec = parse_spec(text)
    with quiet_open_clip():
        module = build(spec)
        if spec.kind == "file":
            tensors = read_state_dict(Path(spec.weights))
            if classifiers.holds_tower_classifier(tensors):
                return _tower_classifier(module, spec, tensors, preprocess)
            load_weights(module, spec, tensors)
        module = module.eval().requires_grad_(False)
        tokenizer = open_clip_tokenizer(spec)
    _require_finite_weights(module, spec)
    settings, origin = resolve_preprocessing(spec, module, preprocess)
    identity = digest([architecture(spec), type(tokenizer).__name__, weights_identity(module)])
    return LoadedModel(module, spec, settings, origin, tokenizer, identity)


def _tower_classifier(
    clip_model: nn.Module, spec: ModelSpec, tensors: dict[str, Tensor], preprocess: str | None
) -> LoadedModel:
    """What labelled training makes of a CLIP model: its image tower with a classifier."""
    found = classifiers.tower_classifier(clip_model, spec, tensors)
    module = found.eval().requires_grad_(False)
    _require_finite_weights(module, spec)
    settings, origin = resolve_preprocessing(spec, module, preprocess)
    identity = digest([architecture(spec), "classifier", weights_identity(module)])
    classes = written_names(Path(spec.weights))
    return LoadedModel(module, spec, settings, origin, None, identity, classes)


def _load_timm(text: str, preprocess: str | None) -> LoadedModel:
    """An image model of timm's, with its classifier."""
    spec = timm_models.parse_timm(text)
    module = timm_models.build(spec).eval().requires_grad_(False)
    _require_finite_weights(module, spec)
    settings, origin = timm_models.preprocessing_of(spec, module, preprocess)
    identity = digest([spec.arch, weights_identity(module)])
    classes = timm_models.class_names(spec)
    return LoadedModel(module, spec, settings, origin, None, identity, classes)


def weights_identity(module: nn.Module) -> str:
    """First 16 hex digits of the SHA-256 over every parameter's and buffer's name and values."""
    checksum = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        checksum.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        checksum.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return checksum.hexdigest()[:16]


def _require_finite_weights(module: nn.Module, spec: ModelSpec) -> None:
    for name, tensor in module.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ModelError(
                f"the checkpoint holds non-finite weights in {name}",
                got=spec.text,
                next_step="use another checkpoint",
            )
