"""A name becomes a frozen, evaluated module with its own preprocessing and tokenizer.

Which names there are: ``mimic_core.models.names``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from mimic_core.base.config import LossName
from mimic_core.base.errors import ModelError
from mimic_core.base.identity import digest
from mimic_core.models import clip, open_clip_models, own_models, timm_models
from mimic_core.models.building import Built, Tokenizer, first_line, require_fitting_images
from mimic_core.models.classifiers import TowerClassifier
from mimic_core.models.names import ModelSpec, parse_spec
from mimic_core.models.preprocessing import Settings

_LOADERS = {
    "open_clip": open_clip_models.load,
    "timm": timm_models.load,
    "own": own_models.load,
}


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


def load_model(
    text: str, *, preprocess: str | None = None, like: Settings | None = None
) -> LoadedModel:
    """Load the model named by ``text``: CPU, float32.

    Args:
        preprocess: Name or JSON file of the image preprocessing; None takes the checkpoint's own.
        like: Preprocessing to be taken as it is, as of a model that sees a reference's images.

    Raises:
        ModelError: It cannot be found, downloaded, read or matched to its architecture, or its
            preprocessing is written nowhere.
    """
    spec = parse_spec(text)
    try:
        built = _LOADERS[spec.library](spec, preprocess, like)
    except (OSError, RecursionError) as error:
        raise ModelError(
            f"the model's files cannot be read ({type(error).__name__}: {first_line(error)})",
            got=text,
            allowed="files that this process may read",
            next_step="check the path and the permissions",
        ) from error
    module = built.module.eval().requires_grad_(False)
    if like is None:  # other models are held against the reference that has been tried
        captions = built.tokenizer is not None
        forward = partial(clip.encode_image, module) if captions else module
        require_fitting_images(spec, built.preprocessing, forward)
    _require_finite_weights(module, spec)
    parts = [built.architecture, *_kind(built), weights_identity(module)]
    return LoadedModel(
        module,
        spec,
        built.preprocessing,
        built.preprocessing_origin,
        built.tokenizer,
        digest(parts),
        built.classes,
    )


def _kind(built: Built) -> list[str]:
    """What an identity says besides architecture and weights."""
    if built.tokenizer is not None:
        return [type(built.tokenizer).__name__]
    return ["classifier"] if isinstance(built.module, TowerClassifier) else []


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
                allowed="finite numbers",
                next_step="use another checkpoint",
            )
