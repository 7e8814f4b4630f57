"""From a model's name to its architecture and weights, with nothing assumed silently.

A specification is one of::

    ARCH:TAG            open_clip architecture and published weights    ViT-B-32:laion2b_s34b_b79k
    ARCH:PATH           the same with a local .safetensors or .pt file  ViT-B-32:/weights/last.pt
    ARCH:random:SEED    random weights                                  ViT-B-32:random:0
    CONFIG.json:PATH, CONFIG.json:random:SEED                           a custom open_clip config
    FOLDER              open_clip_config.json and weights               data_samples/reference
    hf-hub:ORG/NAME     a Hugging Face repository in open_clip's layout

Weights are read without executing code: safetensors, or torch files with ``weights_only``.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mimic_core.base.errors import ModelError

FORMS = "ARCH:TAG, ARCH:PATH, ARCH:random:SEED, CONFIG.json:PATH, a folder, or hf-hub:ORG/NAME"
CONFIG_NAME = "open_clip_config.json"
WeightsKind = Literal["tag", "file", "random", "folder", "hub"]


@dataclass(frozen=True)
class ModelSpec:
    """A parsed specification. ``arch``: a built-in name, a config path, a folder or a hub name."""

    text: str
    arch: str
    kind: WeightsKind
    weights: str = ""

    @property
    def seed(self) -> int:
        """Seed of random weights."""
        return int(self.weights)

    @property
    def config_file(self) -> Path | None:
        """The JSON file that holds the architecture, if one was named."""
        if self.kind == "folder":
            return Path(self.arch) / CONFIG_NAME
        return Path(self.arch) if self.arch.endswith(".json") else None


def parse_spec(text: str) -> ModelSpec:
    """Read a specification; nothing is loaded.

    Raises:
        ModelError: It has none of the accepted forms, or names a file or tag that does not exist.
    """
    if text.startswith("hf-hub:"):
        return ModelSpec(text, text, "hub")
    folder = Path(text.removeprefix("local-dir:"))
    if folder.is_dir():
        if not (folder / CONFIG_NAME).is_file():
            raise ModelError(
                f"the model folder holds no {CONFIG_NAME}",
                got=str(folder),
                allowed=f"a folder with {CONFIG_NAME} and a .safetensors or .pt file",
                next_step="name the folder that open_clip's push or save wrote",
            )
        return ModelSpec(text, str(folder), "folder")
    arch, _, weights = text.partition(":")
    if not weights:
        raise ModelError(
            "the model specification names no weights and is not a folder",
            got=text,
            allowed=FORMS,
            next_step=f"for example {arch}:random:0, or a published tag",
        )
    require_architecture(arch)
    if weights.startswith("random"):
        return ModelSpec(text, arch, "random", _seed(text, weights))
    if Path(weights).is_file():
        return ModelSpec(text, arch, "file", weights)
    return ModelSpec(text, arch, "tag", _tag(text, arch, weights))


def _seed(text: str, weights: str) -> str:
    seed = weights.removeprefix("random").removeprefix(":") or "0"
    if not seed.isdecimal():
        raise ModelError(
            "the seed of random weights must be a whole number",
            got=text,
            allowed="ARCH:random:SEED",
            next_step="for example ViT-B-32:random:0",
        )
    return seed


def _tag(text: str, arch: str, weights: str) -> str:
    import open_clip

    tags = [] if arch.endswith(".json") else open_clip.list_pretrained_tags_by_model(arch)
    if weights not in tags:
        raise ModelError(
            "the weights are neither a file on this machine nor a published tag",
            got=text,
            allowed=f"tags of {arch}: {', '.join(tags) or 'none'}; a file; random:SEED",
            next_step="correct the tag or the path",
        )
    return weights


def require_architecture(arch: str) -> None:
    """Raise a ``ModelError`` with near matches unless open_clip knows ``arch`` or it is a file."""
    import difflib

    import open_clip

    if arch.endswith(".json"):
        if Path(arch).is_file():
            return
        raise ModelError("the config file does not exist", got=arch, next_step="check the path")
    known = open_clip.list_models()
    if arch not in known:
        near = difflib.get_close_matches(arch, known, n=5, cutoff=0.4)
        raise ModelError(
            "open_clip has no architecture of that name",
            got=arch,
            allowed=f"near matches: {', '.join(near) or 'none'}; accepted forms: {FORMS}",
            next_step="all:: python -c 'import open_clip; print(open_clip.list_models())'",
        )


def read_config(path: Path) -> dict[str, Any]:
    """A custom config as ``{"model_cfg": ..., "preprocess_cfg": ...}``; bare model configs too.

    Raises:
        ModelError: It is not JSON or lacks the towers' settings.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the model config cannot be read ({error})",
            got=str(path),
            next_step="give an open_clip config in JSON",
        ) from error
    if isinstance(config, dict) and "embed_dim" in config:
        config = {"model_cfg": config}
    if not isinstance(config, dict) or not {"vision_cfg", "text_cfg", "embed_dim"} <= set(
        config.get("model_cfg", {})
    ):
        raise ModelError(
            "the model config lacks embed_dim, vision_cfg or text_cfg",
            got=str(path),
            allowed='an open_clip config, bare or under "model_cfg"',
            next_step="complete the config",
        )
    return {"preprocess_cfg": {}, **config}


def needs_quick_gelu(spec: ModelSpec) -> bool:
    """Whether the tag's weights were trained with QuickGELU; open_clip would only warn.

    Raises:
        ModelError: The architecture has QuickGELU but the weights were trained without.
    """
    import open_clip

    trained = bool(open_clip.get_pretrained_cfg(spec.arch, spec.weights).get("quick_gelu", False))
    built = bool(open_clip.get_model_config(spec.arch).get("quick_gelu", False))
    if built and not trained:
        raise ModelError(
            "the architecture uses QuickGELU, but these weights were trained without it",
            got=spec.text,
            next_step=f"use {spec.arch.removesuffix('-quickgelu')}:{spec.weights}",
        )
    return trained


def architecture(spec: ModelSpec) -> object:
    """What the weights alone do not say: activation, pooling, context length."""
    import open_clip

    if spec.kind == "hub":
        return spec.arch
    if spec.config_file is not None:
        return read_config(spec.config_file)["model_cfg"]
    quick = spec.kind == "tag" and needs_quick_gelu(spec)
    return [open_clip.get_model_config(spec.arch), quick]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a local checkpoint, on the CPU, without executing any code.

    Accepts safetensors, a plain state dict, or a training checkpoint whose weights are under
    ``state_dict``, ``model_state_dict`` or ``model``; a common prefix ``module.`` is removed.

    Raises:
        ModelError: The file needs code to be unpickled, is damaged, or holds no weights.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise _damaged(path, error) from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            "the checkpoint is refused: it is a pickle that needs code to be executed "
            f"({str(error).splitlines()[0]})",
            got=str(path),
            allowed="safetensors, or a torch file that holds tensors only",
            next_step="on a machine where you trust it, save its state dict as safetensors",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return _tensors(path, loaded)


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"the checkpoint cannot be read ({str(error).splitlines()[0] if str(error) else error!r})",
        got=str(path),
        allowed="a .safetensors file, or a torch file with a state dict (no TorchScript archive)",
        next_step="check that the file is complete",
    )


def _no_weights(path: Path, loaded: object) -> ModelError:
    return ModelError(
        "the checkpoint holds no state dict",
        got=type(loaded).__name__,
        allowed="a mapping of parameter names to tensors",
        next_step=f"save model.state_dict() and use that file instead of {path.name}",
    )


def _tensors(path: Path, loaded: object) -> dict[str, Tensor]:
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise _no_weights(path, loaded)
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}
    if not tensors:
        raise _no_weights(path, loaded)
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors
