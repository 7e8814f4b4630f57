"""How images are prepared for a model: the checkpoint's own settings, never a silent default.

open_clip falls back to OpenAI's mean and std for a bare weights file; scores made with the wrong
ones look plausible and are wrong. Here the settings are found, chosen or asked for, and recorded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from mimic_core.base.errors import ModelError
from mimic_core.models.checkpoints import CONFIG_NAME, ModelSpec, read_config

PREPROCESS_KEYS = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")
# Named preprocessing for --preprocess: mean, std, interpolation and resize of the known families.
NAMED_PREPROCESSING: dict[str, dict[str, Any]] = {
    "openai": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
    "imagenet": {
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    },
    "siglip": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}


def resolve_preprocessing(
    spec: ModelSpec, module: nn.Module, choice: str | None
) -> tuple[dict[str, Any], str]:
    """Complete preprocessing settings for a built model, and where they are written.

    Args:
        choice: Name of a known family or a JSON file; None for the checkpoint's own.

    Raises:
        ModelError: The choice is neither, or nothing says what the checkpoint's own is.
    """
    visual = getattr(module, "visual", None)
    attached = dict(getattr(visual, "preprocess_cfg", {}))
    if choice is not None:
        settings, origin = chosen_preprocessing(choice)
    elif spec.kind == "tag":
        settings, origin = attached, "published with the checkpoint"
    else:
        found = _own(spec)
        if found is None and spec.kind == "random":
            # No training has fixed how images were prepared, so none can be wrong.
            found = attached, "open_clip's default, as random weights have none of their own"
        if found is None:
            raise ModelError(
                "nothing says how images were prepared for this checkpoint",
                got=spec.text,
                allowed=f"{CONFIG_NAME} with preprocess_cfg beside the weights, or --preprocess",
                next_step="choose --preprocess openai, imagenet, siglip or a JSON file",
            )
        settings, origin = found
    complete = {**attached, **settings}
    complete["size"] = _pair(getattr(visual, "image_size", complete.get("size", 224)))
    return {key: _plain(value) for key, value in sorted(complete.items())}, origin


def _pair(size: int | tuple[int, int]) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def image_transform(preprocessing: dict[str, Any]) -> Any:
    """The deterministic evaluation transform for ``preprocessing``: PIL image to (3, H, W).

    Settings with ``crop_pct`` are timm's, all others open_clip's.
    """
    if "crop_pct" in preprocessing:
        from timm.data.transforms_factory import create_transform

        keys = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
        timms = {key: preprocessing[key] for key in keys}
        return create_transform((3, *preprocessing["size"]), is_training=False, **timms)
    from open_clip.transform import PreprocessCfg, image_transform_v2

    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in preprocessing.items()}
    return image_transform_v2(PreprocessCfg(**settings), is_train=False)


def _own(spec: ModelSpec) -> tuple[dict[str, Any], str] | None:
    """The preprocessing that belongs to the checkpoint and where that is written; None if nowhere.

    A bare weights file does not say how its images were prepared, and open_clip then takes OpenAI's
    mean and std without a word. Here the file's own ``open_clip_config.json`` counts, or, where all
    published checkpoints of the architecture agree, theirs (reported as such).
    """
    import open_clip

    candidates = [] if spec.config_file is None else [spec.config_file]
    if spec.kind == "hub":
        repository = spec.arch.removeprefix("hf-hub:")
        candidates.append(
            Path(open_clip.pretrained.download_pretrained_from_hf(repository, CONFIG_NAME))
        )
    if spec.kind == "file":
        candidates.append(Path(spec.weights).with_name(CONFIG_NAME))
    for file in candidates:
        if file.is_file():
            written = read_config(file)["preprocess_cfg"]
            if {"mean", "std"} <= set(written):
                return dict(written), f"from {file.name}"
    if spec.kind == "hub" or spec.arch.endswith(".json"):
        return None
    tags = open_clip.list_pretrained_tags_by_model(spec.arch)
    keys = ("mean", "std", "interpolation", "resize_mode")
    published = [open_clip.get_pretrained_cfg(spec.arch, tag) for tag in tags]
    distinct = {json.dumps({key: config.get(key) for key in keys}) for config in published}
    if len(distinct) != 1:
        return None
    return json.loads(distinct.pop()), f"shared by all published checkpoints of {spec.arch}"


def chosen_preprocessing(choice: str) -> tuple[dict[str, Any], str]:
    """The preprocessing named by the user: a known family, or a JSON file with mean and std.

    Raises:
        ModelError: The choice is neither.
    """
    if choice in NAMED_PREPROCESSING:
        return dict(NAMED_PREPROCESSING[choice]), f"chosen: {choice}"
    path = Path(choice)
    if path.is_file():
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(
                f"the preprocessing file is not JSON ({error})", got=choice, next_step="correct it"
            ) from error
        if isinstance(written, dict):
            written = written.get("preprocess_cfg", written)
        if (
            isinstance(written, dict)
            and {"mean", "std"} <= set(written)
            and set(written) <= set(PREPROCESS_KEYS)
        ):
            return written, f"chosen: {path.name}"
    raise ModelError(
        "the preprocessing is neither a known name nor a JSON file with mean and std",
        got=choice,
        allowed=f"{', '.join(NAMED_PREPROCESSING)}, or a file with {', '.join(PREPROCESS_KEYS)}",
        next_step="choose one of them with --preprocess",
    )
