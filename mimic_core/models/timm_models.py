"""timm's image models, for labelled images: ``timm:ARCH:TAG``, ``timm:ARCH:PATH``, random weights.

ARCH may carry a tag (``vit_base_patch16_224.dino``): with a local file, that says how images were
prepared where the published checkpoints of the architecture disagree.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mimic_core.base.errors import ModelError
from mimic_core.models.checkpoints import ModelSpec, read_state_dict
from mimic_core.models.class_names import written_names
from mimic_core.models.preprocessing import chosen_preprocessing

PREFIX = "timm:"
FORMS = "timm:ARCH:TAG, timm:ARCH:PATH, timm:ARCH:random:SEED"
CONFIG_NAME = "config.json"  # beside the weights, as timm's own repositories have it
_KEYS = ("mean", "std", "interpolation", "crop_pct", "crop_mode")


def is_timm(text: str) -> bool:
    """Whether a model specification names a model of timm's."""
    return text.startswith(PREFIX)


def parse_timm(text: str) -> ModelSpec:
    """Read a specification; nothing is loaded. ``arch`` is timm's name, with a tag if given.

    Raises:
        ModelError: It has none of the accepted forms, or names what does not exist.
    """
    arch, _, weights = text.removeprefix(PREFIX).partition(":")
    _require_architecture(arch, text)
    if weights.startswith("random"):
        seed = weights.removeprefix("random").removeprefix(":") or "0"
        if seed.isdecimal():
            return ModelSpec(text, arch, "random", seed)
    elif Path(weights).is_file():
        return ModelSpec(text, arch, "file", weights)
    elif weights in (tags := _tags(arch)):
        return ModelSpec(text, arch, "tag", weights)
    tags = _tags(arch)
    raise ModelError(
        "the weights are neither a file on this machine nor a published tag",
        got=text,
        allowed=f"{FORMS}; tags of {arch}: {', '.join(tags) or 'none'}",
        next_step=f"correct them, or use timm:{arch}:random:0 to try things out",
    )


def _require_architecture(arch: str, text: str) -> None:
    import timm

    base, _, tag = arch.partition(".")
    if not timm.is_model(base) or (tag and tag not in _tags(base)):
        near = difflib.get_close_matches(base, timm.list_models(), n=5, cutoff=0.4)
        raise ModelError(
            "timm has no architecture of that name",
            got=text,
            allowed=f"near matches: {', '.join(near) or 'none'}; accepted forms: {FORMS}",
            next_step="all: python -c 'import timm; print(timm.list_models())'",
        )


def _tags(arch: str) -> list[str]:
    import timm

    base = arch.partition(".")[0]
    names: list[str] = timm.list_pretrained(f"{base}.*")
    return [name.partition(".")[2] for name in names]


def build(spec: ModelSpec) -> nn.Module:
    """The model with its classifier, on the CPU.

    Raises:
        ModelError: It cannot be built, downloaded or matched to its weights.
    """
    import timm

    base = spec.arch.partition(".")[0]
    tensors = read_state_dict(Path(spec.weights)) if spec.kind == "file" else None
    options: dict[str, Any] = {"pretrained": spec.kind == "tag"}
    name = f"{base}.{spec.weights}" if spec.kind == "tag" else base
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed if spec.kind == "random" else 0)
            if tensors is not None:
                options["num_classes"] = _class_count(base, tensors)
            module: nn.Module = timm.create_model(name, **options)
    except ModelError:
        raise
    except Exception as error:  # timm and the hub raise many kinds; all mean one thing
        raise ModelError(
            f"the model cannot be loaded ({type(error).__name__}: "
            f"{(str(error) or repr(error)).splitlines()[0][:300]})",
            got=spec.text,
            next_step="if weights must be downloaded, check the network or fetch them on another "
            "machine and give the file as timm:ARCH:PATH",
        ) from error
    if tensors is not None:
        _load(module, spec, tensors)
    return module


def _load(module: nn.Module, spec: ModelSpec, tensors: dict[str, Tensor]) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(
            f"the weights do not fit the architecture {spec.arch} "
            f"({' '.join(str(error).split())[:300]})",
            got=spec.weights,
            next_step="give the architecture that the checkpoint was trained with",
        ) from error


def _class_count(arch: str, tensors: dict[str, Tensor]) -> int:
    """Outputs of the classifier in a state dict; 0 where it has none."""
    names = _published(arch).get("classifier")
    first = names if isinstance(names, str) else (names or ("",))[0]
    weight = tensors.get(f"{first}.weight")
    return 0 if weight is None else len(weight)


def classifier(module: nn.Module) -> nn.Linear | None:
    """The model's last layer; None where it is not a linear one."""
    timm_model: Any = module
    found = timm_model.get_classifier()
    return found if isinstance(found, nn.Linear) else None


def features_of(module: nn.Module, images: Tensor) -> Tensor:
    """What the classifier sees: pre-logits (U, F) of ``images`` (U, 3, H, W)."""
    timm_model: Any = module
    features: Tensor = timm_model.forward_head(timm_model.forward_features(images), pre_logits=True)
    return features


def preprocessing_of(
    spec: ModelSpec, module: nn.Module, choice: str | None
) -> tuple[dict[str, Any], str]:
    """Complete preprocessing settings and where they are written.

    Args:
        choice: Name of a known family or a JSON file; None for the checkpoint's own.

    Raises:
        ModelError: The choice is neither, or nothing says what the checkpoint's own is.
    """
    timm_model: Any = module
    size = list(timm_model.pretrained_cfg["input_size"][1:])
    if choice is not None:
        settings, origin = chosen_preprocessing(choice)
        plain = {"mode": "RGB", "fill_color": 0, "size": size}
        return {key: _plain(v) for key, v in sorted({**plain, **settings}.items())}, origin
    config, origin = _own(spec, timm_model.pretrained_cfg)
    return {"size": size, **{key: _plain(config[key]) for key in _KEYS}}, origin


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _own(spec: ModelSpec, built: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The checkpoint's own settings; never those of another checkpoint without a word."""
    base, _, tag = spec.arch.partition(".")
    if spec.kind == "tag":
        return built, "published with the checkpoint"
    written = _config_beside(spec)
    if {"mean", "std"} <= set(written):
        return {**built, **written}, f"from {CONFIG_NAME}"
    if tag:
        return {**built, **_published(spec.arch)}, f"published with {spec.arch}"
    if spec.kind == "random":
        return built, "timm's default, as random weights have none of their own"
    found = [_published(f"{base}.{name}") for name in _tags(base)]
    distinct = {json.dumps([config.get(key) for key in _KEYS[:3]]) for config in found}
    if len(distinct) == 1:
        return built, f"shared by all published checkpoints of {base}"
    raise ModelError(
        "nothing says how images were prepared for this checkpoint",
        got=spec.text,
        allowed=f"{CONFIG_NAME} beside the weights; timm:{base}.TAG:PATH, prepared as for that "
        "tag; or --preprocess",
        next_step=f"tags of {base}: {', '.join(_tags(base)) or 'none'}; or choose --preprocess "
        "openai, imagenet, siglip or a JSON file",
    )


def _published(arch: str) -> dict[str, Any]:
    """What timm knows of an architecture's checkpoint."""
    import timm

    config = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    return {} if config is None else dict(vars(config))


def _config_beside(spec: ModelSpec) -> dict[str, Any]:
    """``pretrained_cfg`` of the ``config.json`` beside a local file; empty where there is none."""
    path = Path(spec.weights).with_name(CONFIG_NAME)
    if spec.kind != "file" or not path.is_file():
        return {}
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(
            f"the model config cannot be read ({error})",
            got=str(path),
            next_step="correct it, or move it away and choose --preprocess",
        ) from error
    config = written.get("pretrained_cfg", {}) if isinstance(written, dict) else {}
    names = written.get("label_names") if isinstance(written, dict) else None
    return {**config, **({"label_names": names} if names else {})}


def class_names(spec: ModelSpec) -> tuple[str, ...]:
    """Names of the classifier's outputs, from the file of the weights or else from ``config.json``
    beside it; empty where nothing says them.
    """
    written = written_names(Path(spec.weights)) if spec.kind == "file" else ()
    if written:
        return written
    names = _config_beside(spec).get("label_names")
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
