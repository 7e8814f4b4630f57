"""open_clip's models: one way from a specification to a module with weights and a tokenizer.

A published tag, a file, a folder and a repository are the same in the end: a checked config and a
file of weights that our own reader has seen first.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mimic_core.base.errors import ModelError
from mimic_core.models import classifiers, hub
from mimic_core.models.building import (
    Built,
    built,
    do_not_fit,
    first_line,
    require_room,
)
from mimic_core.models.checkpoints import Weights, find_weights, open_weights
from mimic_core.models.class_names import written_names
from mimic_core.models.configs import open_clip_config
from mimic_core.models.names import OPEN_CLIP_CONFIG, ModelSpec, open_clip_tags
from mimic_core.models.preprocessing import (
    Settings,
    checked_settings,
    chosen_preprocessing,
    completed,
    nothing_said,
    require_agreement,
    shared,
)


@dataclass(frozen=True)
class _Found:
    """Where a model is: its config, the preprocessing by the place that says it, its weights.

    ``tokenizer`` is the folder or repository of a tokenizer of transformers'; ``published`` is
    open_clip's entry for weights that are still to be downloaded.
    """

    config: dict[str, Any]
    said: dict[str, Mapping[str, Any]]
    weights: Path | None
    tokenizer: str
    architecture: object
    published: Mapping[str, Any] | None = None


def load(spec: ModelSpec, choice: str | None, like: Settings | None) -> Built:
    """Build ``spec``.

    Args:
        choice: Name or file of the preprocessing; None for the checkpoint's own.
        like: Preprocessing to be taken as it is.

    Raises:
        ModelError: It cannot be had, built or matched to its weights, or nothing says how images
            are prepared for it.
    """
    with _quiet():
        found = _found(spec)
        settings, origin = _settings(spec, found, choice, like)
        make = _maker(found.config)
        file = found.weights
        if found.published is not None:
            file = _downloaded(spec, found.published)
        weights = _weights(file)
        tower = weights is not None and classifiers.holds_tower_classifier(weights.shapes)
        require_room(spec, make, weights, "visual" if tower else "")
        module = built(spec, make)
        if tower and weights is not None:
            module = classifiers.tower_classifier(module, spec, weights.tensors())
            names = written_names(weights.path)
            return Built(module, settings, origin, found.architecture, classes=names)
        if file is not None:
            _load(module, spec, file, weights)
        return Built(module, settings, origin, found.architecture, _tokenizer(spec, found))


def preprocessing(spec: ModelSpec) -> tuple[Settings, str]:
    """How images are prepared for ``spec``, and where that is written; no weights are read.

    Raises:
        ModelError: Nothing says it, or two places disagree.
    """
    return _settings(spec, _found(spec), None, None)


# --- what is to be built ---


def _found(spec: ModelSpec) -> _Found:
    if spec.kind in ("folder", "hub"):
        return _packed(spec)
    published, quick = None, False
    said: dict[str, Mapping[str, Any]] = {}
    if spec.arch.endswith(".json"):
        written = open_clip_config(Path(spec.arch))
        config, said = written["model_cfg"], {spec.arch: written["preprocess_cfg"]}
        identity: object = config
    else:
        import open_clip

        config = open_clip.get_model_config(spec.arch)
        if spec.kind == "tag":
            quick = needs_quick_gelu(spec)
            published = open_clip.get_pretrained_cfg(spec.arch, spec.weights)
            said["published with the checkpoint"] = published
        identity = [open_clip.get_model_config(spec.arch), quick]
        config |= {"quick_gelu": True} if quick else {}
    weights = Path(spec.weights) if spec.kind == "file" else None
    if weights is not None:
        beside = weights.with_name(OPEN_CLIP_CONFIG)
        if beside.is_file() and beside.resolve() != Path(spec.arch).resolve():
            said[str(beside)] = _beside(spec, config, beside)
    name = config["text_cfg"].get("hf_tokenizer_name") or ""
    return _Found(config, said, weights, name, identity, published)


def _packed(spec: ModelSpec) -> _Found:
    """A folder or a repository: config and weights in one place."""
    if spec.kind == "folder":
        file, weights = Path(spec.arch, OPEN_CLIP_CONFIG), find_weights(Path(spec.arch))
    else:
        file, weights = hub.repository_files(spec.arch, OPEN_CLIP_CONFIG)
    written = open_clip_config(file)
    config = written["model_cfg"]
    name = config["text_cfg"].get("hf_tokenizer_name") or ""
    tokenizer = spec.arch if spec.kind == "folder" and name else name  # its own, as open_clip does
    identity = f"hf-hub:{spec.arch}" if spec.kind == "hub" else config
    return _Found(config, {file.name: written["preprocess_cfg"]}, weights, tokenizer, identity)


def _downloaded(spec: ModelSpec, published: Mapping[str, Any]) -> Path:
    from open_clip.pretrained import download_pretrained

    try:
        return Path(download_pretrained(dict(published)))
    except Exception as error:  # networks and caches fail in many ways
        raise ModelError(
            f"the weights cannot be downloaded ({first_line(error)})",
            got=spec.text,
            allowed="weights in the cache, or a network",
            next_step="check the network, or fetch them on another machine and give the file as "
            "ARCH:PATH",
        ) from error


def _beside(spec: ModelSpec, config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The preprocessing in the config beside a local file, if it is the same architecture's."""
    written = open_clip_config(file)
    sizes = [one["vision_cfg"].get("image_size", 224) for one in (config, written["model_cfg"])]
    if sizes[0] != sizes[1]:
        raise ModelError(
            "the model's image size is said in two ways",
            got=spec.text,
            allowed=f"one size: {sizes[0]} is the architecture's, {sizes[1]} from {file}",
            next_step=f"use the config beside the weights: {file}:{spec.weights}",
        )
    return dict(written["preprocess_cfg"])


def needs_quick_gelu(spec: ModelSpec) -> bool:
    """Whether the tag's weights were trained with QuickGELU; open_clip would only warn.

    Raises:
        ModelError: The architecture has QuickGELU but the weights were trained without.
    """
    import open_clip

    trained = bool(open_clip.get_pretrained_cfg(spec.arch, spec.weights).get("quick_gelu", False))
    has_it = bool(open_clip.get_model_config(spec.arch).get("quick_gelu", False))
    if has_it and not trained:
        raise ModelError(
            "the architecture uses QuickGELU, but these weights were trained without it",
            got=spec.text,
            allowed="the architecture without QuickGELU for these weights",
            next_step=f"use {spec.arch.removesuffix('-quickgelu')}:{spec.weights}",
        )
    return trained


# --- preprocessing ---


def _settings(
    spec: ModelSpec, found: _Found, choice: str | None, like: Settings | None
) -> tuple[Settings, str]:
    """Complete settings, and where they are written."""
    if like is not None:
        return like, "the reference's"
    size = checked_settings(
        {"size": found.config["vision_cfg"].get("image_size", 224)}, "", timm=False
    )
    said = {
        place: checked_settings(words, place, timm=False)
        for place, words in found.said.items()
        if choice is None or {"mean", "std"} <= set(words)
    }
    if choice is not None:
        settings, origin = chosen_preprocessing(choice)
        own = next(iter(said.values()), {})
        return completed(settings, {**own, **size}), origin
    said = {place: words for place, words in said.items() if {"mean", "std"} <= set(words)}
    require_agreement({**said, "the architecture": size}, spec.text)
    if said:
        place, own = next(iter(said.items()))
        origin = place if spec.kind == "tag" else f"from {Path(place).name}"
        return completed(own, size), origin
    shared_by_all = None if spec.kind in ("folder", "hub") else _shared(spec.arch)
    if shared_by_all is not None:
        origin = f"shared by all published checkpoints of {spec.arch}"
        return completed(shared_by_all, size), origin
    if spec.kind == "random":
        # No training has fixed how images were prepared, so none can be wrong.
        origin = "open_clip's default, as random weights have none of their own"
        return completed(chosen_preprocessing("openai")[0], size), origin
    needed = f"{OPEN_CLIP_CONFIG} with preprocess_cfg beside the weights"
    raise nothing_said(spec.text, needed, "")


def _shared(arch: str) -> Settings | None:
    import open_clip

    if arch.endswith(".json"):
        return None
    return shared(
        [
            checked_settings(open_clip.get_pretrained_cfg(arch, tag), tag, timm=False)
            for tag in open_clip_tags(arch)
        ]
    )


# --- module, weights, tokenizer ---


def _maker(config: Mapping[str, Any]) -> Callable[[], nn.Module]:
    """Builds the architecture in open_clip's own way, with random weights."""
    import open_clip
    import torch

    config = json.loads(json.dumps(config))
    tower = config["text_cfg"].get("hf_model_name")
    if tower:
        config["text_cfg"]["hf_model_name"] = hub.text_tower_folder(tower)
    trunk = config["vision_cfg"].get("timm_model_name")
    if trunk:
        _require_timm_tower(trunk)

    def make() -> nn.Module:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, OPEN_CLIP_CONFIG).write_text(json.dumps({"model_cfg": config}))
            device = torch.get_default_device()
            module: nn.Module = open_clip.create_model(
                f"local-dir:{folder}",
                load_weights=False,
                pretrained_text=False,
                device=device,
            )
            return module

    return make


def _require_timm_tower(name: str) -> None:
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise ModelError(
            "the image tower is none of timm's",
            got=name,
            allowed="a model that timm has itself",
            next_step="correct timm_model_name in the config, or install a timm that has it",
        )


def _weights(file: Path | None) -> Weights | None:
    """What a file holds; None without one, and for the arrays that open_clip converts itself."""
    return None if file is None or file.suffix in (".npz", ".npy") else open_weights(file)


def _load(module: nn.Module, spec: ModelSpec, file: Path, weights: Weights | None) -> None:
    """Load a file through open_clip's conversions, after our own reader has seen it."""
    from open_clip.factory import load_checkpoint
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        if weights is not None and file.suffix != ".safetensors":
            file = Path(folder) / "weights.safetensors"
            tensors: dict[str, Tensor] = weights.tensors()
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
        try:
            load_checkpoint(module, str(file), strict=True)
        except Exception as error:  # conversions assume much about names and shapes
            raise do_not_fit(spec, f"the architecture {spec.arch}", error) from error


def _tokenizer(spec: ModelSpec, found: _Found) -> Any:
    """The tokenizer that goes with the model, as open_clip chooses it."""
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    text = found.config["text_cfg"]
    options = dict(text.get("tokenizer_kwargs", {}))
    length = text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    try:
        if found.tokenizer:
            folder = hub.tokenizer_folder(found.tokenizer)
            mode = text.get("tokenizer_mode")
            options |= {"tokenizer_mode": mode, "trust_remote_code": False}
            return HFTokenizer(folder, context_length=length, **options)
        if spec.kind in ("tag", "file", "random") and not spec.arch.endswith(".json"):
            return open_clip.get_tokenizer(spec.arch)  # knows some by the architecture's name
        return _own_tokenizer(length, json.dumps(options, sort_keys=True))
    except ModelError:
        raise
    except Exception as error:  # Hugging Face tokenizers raise many kinds
        raise ModelError(
            f"the model's tokenizer cannot be loaded ({first_line(error)})",
            got=spec.text,
            allowed="a tokenizer that open_clip or transformers has itself",
            next_step="make its tokenizer files available in the Hugging Face cache, and install "
            "transformers if the message asks for it",
        ) from error


@cache
def _own_tokenizer(length: Any, options: str) -> Any:
    """open_clip's own tokenizer, one for a model and its reference: it takes 0.06 s to make.

    Args:
        length: The context length.
        options: Other arguments, as JSON.
    """
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=length, **json.loads(options))


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs to the root logger, where 'initialized randomly' would alarm users."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
