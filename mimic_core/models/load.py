"""Models and reference models: loading, devices, precision, default mimic layers.

``load_model`` turns a specification (``mimic_core.models.checkpoints``) into a frozen, evaluated
``LoadedModel`` with its own preprocessing and tokenizer.
"""

from __future__ import annotations

import hashlib
import math
import re
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mimic_core.base.errors import ConfigError, ModelError
from mimic_core.base.schema import LossName, Precision, digest
from mimic_core.mimic.scores import require_layer
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

# The last linear map of an MLP block, as open_clip's and timm's towers name it; an attention pool's
# output projection stands in for towers without MLPs (ResNet).
MLP_OUTPUT = re.compile(r"\.mlp\.(c_proj|fc2|w3)\.weight$")
_POOL_OUTPUT = re.compile(r"\.attnpool\.c_proj\.weight$")


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


def default_mimic_layers(module: nn.Module) -> tuple[str, ...]:
    """The last MLP projection of the image tower (for a ResNet its attention pool's projection).

    Raises:
        ModelError: The image tower has neither.
    """
    names = [name for name, _ in module.named_parameters() if name.startswith("visual.")]
    if not names:
        names = [name for name, _ in module.named_parameters()]
    for pattern in (MLP_OUTPUT, _POOL_OUTPUT):
        found = [name for name in names if pattern.search(name)]
        if found:
            return (found[-1],)
    raise ModelError(
        "no default mimic layer: the image tower has no MLP projection",
        got=type(module).__name__,
        allowed=f"any parameter, for example {', '.join(names[-4:])}",
        next_step="name the mimic layers with --mimic-layer",
    )


def reinitialised(module: nn.Module, layers: tuple[str, ...], *, seed: int) -> nn.Module:
    """A copy of ``module`` whose parameters ``layers`` are drawn afresh (method.md section 6).

    Matrices: normal with standard deviation fan_in^-1/2 (open_clip's own for projections). Vectors:
    ones for weights, zeros for biases and the rest.
    """
    copy = deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(copy.named_parameters())
    for name in layers:
        require_layer(name, parameters)
        parameter = parameters[name]
        parameter.data.copy_(fresh_weight(name, tuple(parameter.shape), generator))
    return copy


def fresh_weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Freshly drawn values for the parameter ``name`` of ``shape``, on the CPU."""
    if len(shape) < 2:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    # nn.Linear and convolutions store (out, in, ...); CLIP's bare projections store (in, out).
    fan_in = math.prod(shape[1:]) if name.endswith("weight") else shape[0]
    return torch.randn(shape, generator=generator) / math.sqrt(fan_in)


def pick_device(name: str | None = None) -> torch.device:
    """The device to compute on: ``name``, else CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: The named device does not exist here.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"the device cannot be used ({str(error).splitlines()[0]})",
            got=name,
            allowed="cuda, cuda:N, mps or cpu, as far as this machine has them",
            next_step="leave --device away to let Mimicscope choose",
        ) from error
    if device.type not in ("cuda", "mps", "cpu"):
        raise ConfigError(
            "Mimicscope does not compute on devices of this kind",
            got=name,
            allowed="cuda, cuda:N, mps or cpu",
            next_step="leave --device away to let Mimicscope choose",
        )
    return device


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The context in which a forward pass runs at ``precision``."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def _require_finite_weights(module: nn.Module, spec: ModelSpec) -> None:
    for name, tensor in module.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ModelError(
                f"the checkpoint holds non-finite weights in {name}",
                got=spec.text,
                next_step="use another checkpoint",
            )
