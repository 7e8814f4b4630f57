"""Models and reference models: loading, devices, precision, default mimic layers.

``load_model`` turns a specification (``mimic_core.checkpoints``) into a frozen, evaluated
``LoadedModel`` with its own preprocessing and tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mimic_core import clip
from mimic_core.checkpoints import (
    CONFIG_NAME,
    ModelSpec,
    architecture,
    needs_quick_gelu,
    parse_spec,
    read_config,
    read_state_dict,
)
from mimic_core.errors import ConfigError, ModelError
from mimic_core.mimic import require_layer
from mimic_core.preprocessing import resolve_preprocessing
from mimic_core.schema import LossName, Precision, digest

# The last linear map of an MLP block, as open_clip's and timm's towers name it; an attention pool's
# output projection stands in for towers without MLPs (ResNet).
_MLP_OUTPUT = re.compile(r"\.mlp\.(c_proj|fc2|w3)\.weight$")
_POOL_OUTPUT = re.compile(r"\.attnpool\.c_proj\.weight$")

Tokenizer = Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode whose parameters need no gradient.

    ``preprocessing`` is complete (size, mean, std, interpolation, resize mode) and
    ``preprocessing_origin`` says where it is written. ``identity`` distinguishes models: equal for
    equal architecture, tokenizer and weights, whatever their path.
    """

    module: nn.Module
    spec: ModelSpec
    preprocessing: dict[str, Any]
    preprocessing_origin: str
    tokenizer: Tokenizer
    identity: str

    @property
    def loss(self) -> LossName:
        """The contrastive loss it was made for."""
        return clip.loss_name(self.module)

    @property
    def preprocessing_sha256(self) -> str:
        """Hash of the preprocessing, 64 hex."""
        return digest(self.preprocessing, length=64)


def load_model(text: str, *, preprocess: str | None = None) -> LoadedModel:
    """Load the model named by ``text`` (forms: see ``mimic_core.checkpoints``) on the CPU, float32.

    Args:
        preprocess: Name or JSON file of the image preprocessing; None takes the checkpoint's own.

    Raises:
        ModelError: It cannot be found, downloaded, read or matched to its architecture, or its
            preprocessing is written nowhere.
    """
    spec = parse_spec(text)
    with _quiet_open_clip():
        module = _build(spec)
        if spec.kind == "file":
            _load_weights(module, spec)
        module = module.eval().requires_grad_(False)
        tokenizer = _tokenizer(spec)
    _require_finite_weights(module, spec)
    settings, origin = resolve_preprocessing(spec, module, preprocess)
    identity = digest([architecture(spec), type(tokenizer).__name__, weights_identity(module)])
    return LoadedModel(module, spec, settings, origin, tokenizer, identity)


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
    for pattern in (_MLP_OUTPUT, _POOL_OUTPUT):
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


def _build(spec: ModelSpec) -> nn.Module:
    """The module; weights from a local file are loaded afterwards, all others here."""
    import open_clip

    options: dict[str, Any] = {"require_pretrained": spec.kind in ("tag", "folder", "hub")}
    seed = spec.seed if spec.kind == "random" else 0
    try:
        with torch.random.fork_rng(devices=[]), _open_clip_name(spec) as name:
            torch.manual_seed(seed)
            if spec.kind == "tag":
                options |= {"pretrained": spec.weights, "force_quick_gelu": needs_quick_gelu(spec)}
            if spec.kind in ("random", "file"):
                options |= {"load_weights": False, "pretrained_text": False}
            if spec.kind == "folder":
                _refuse_unsafe_folder(Path(spec.arch))
            module: nn.Module = open_clip.create_model(name, weights_only=True, **options)
            return module
    except ModelError:
        raise
    except Exception as error:  # open_clip, timm and the hub raise many kinds; all mean one thing
        raise ModelError(
            f"the model cannot be loaded ({type(error).__name__}: {_first_line(error)})",
            got=spec.text,
            next_step="if weights must be downloaded, check the network or fetch them on another "
            "machine and give the file as ARCH:PATH; else check config and weights",
        ) from error


def _refuse_unsafe_folder(folder: Path) -> None:
    """Read a folder's torch file by our own reader first: its refusal names the reason."""
    if not any(folder.glob("*.safetensors")):
        for file in sorted([*folder.glob("*.bin"), *folder.glob("*.pth"), *folder.glob("*.pt")]):
            read_state_dict(file)


@contextmanager
def _open_clip_name(spec: ModelSpec) -> Iterator[str]:
    """The name under which open_clip builds the architecture."""
    if spec.kind == "folder":
        yield f"local-dir:{spec.arch}"
    elif spec.config_file is not None:
        with tempfile.TemporaryDirectory() as folder:
            config = read_config(spec.config_file)
            (Path(folder) / CONFIG_NAME).write_text(json.dumps(config))
            yield f"local-dir:{folder}"
    else:
        yield spec.arch


def _load_weights(module: nn.Module, spec: ModelSpec) -> None:
    """Load a local file through open_clip's conversions, after our own safe read of it."""
    from open_clip.factory import load_checkpoint

    tensors = read_state_dict(Path(spec.weights))
    with tempfile.TemporaryDirectory() as folder:
        from safetensors.torch import save_file

        clean = Path(folder) / "weights.safetensors"
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, clean)
        try:
            load_checkpoint(module, str(clean), strict=True)
        except (RuntimeError, KeyError, AttributeError) as error:
            raise ModelError(
                f"the weights do not fit the architecture {spec.arch} "
                f"({' '.join(str(error).split())[:300]})",
                got=spec.weights,
                next_step="give the architecture that the checkpoint was trained with",
            ) from error


def _tokenizer(spec: ModelSpec) -> Tokenizer:
    import open_clip

    try:
        with _open_clip_name(spec) as name:
            tokenizer: Tokenizer = open_clip.get_tokenizer(name)
            return tokenizer
    except Exception as error:  # Hugging Face tokenizers raise many kinds
        raise ModelError(
            f"the model's tokenizer cannot be loaded ({_first_line(error)})",
            got=spec.text,
            next_step="make its tokenizer files available in the Hugging Face cache, and install "
            "transformers if the message asks for it",
        ) from error


def _require_finite_weights(module: nn.Module, spec: ModelSpec) -> None:
    for name, tensor in module.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ModelError(
                f"the checkpoint holds non-finite weights in {name}",
                got=spec.text,
                next_step="use another checkpoint",
            )


def _first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0][:300]


@contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """open_clip logs to the root logger, where 'initialized randomly' would alarm users."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
