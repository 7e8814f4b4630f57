"""Building open_clip's models and tokenizers from a parsed specification."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mimic_core.base.errors import ModelError
from mimic_core.models.checkpoints import (
    CONFIG_NAME,
    ModelSpec,
    needs_quick_gelu,
    read_config,
    read_state_dict,
)

Tokenizer = Callable[[list[str]], Tensor]


def build(spec: ModelSpec) -> nn.Module:
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
            f"the model cannot be loaded ({type(error).__name__}: {first_line(error)})",
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


def load_weights(module: nn.Module, spec: ModelSpec, tensors: Mapping[str, Tensor]) -> None:
    """Load the ``tensors`` of a local file, read by our own safe reader, through open_clip's
    conversions.
    """
    from open_clip.factory import load_checkpoint

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


def open_clip_tokenizer(spec: ModelSpec) -> Tokenizer:
    """The tokenizer that goes with the model."""
    import open_clip

    try:
        with _open_clip_name(spec) as name:
            tokenizer: Tokenizer = open_clip.get_tokenizer(name)
            return tokenizer
    except Exception as error:  # Hugging Face tokenizers raise many kinds
        raise ModelError(
            f"the model's tokenizer cannot be loaded ({first_line(error)})",
            got=spec.text,
            next_step="make its tokenizer files available in the Hugging Face cache, and install "
            "transformers if the message asks for it",
        ) from error


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error) or repr(error)).splitlines()[0][:300]


@contextmanager
def quiet_open_clip() -> Iterator[None]:
    """open_clip logs to the root logger, where 'initialized randomly' would alarm users."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
