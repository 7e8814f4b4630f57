"""How images are prepared for a model: in the checkpoint's own words, never by a silent default.

Settings are in one of two vocabularies. timm's has ``crop_pct`` and ``crop_mode``, open_clip's
``resize_mode``, ``fill_color`` and ``mode``; ``size`` (height, width), ``mean``, ``std`` and
``interpolation`` are common. Wrong settings give scores that look plausible and are wrong, so they
are found, chosen or asked for, and recorded; two sources that disagree are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimic_core.base.errors import ModelError
from mimic_core.models.configs import SIZE, Value, either, listed, number, read_json, whole, word

Settings = dict[str, Any]
COMMON = ("size", "mean", "std", "interpolation")
OPEN_CLIP_KEYS = (*COMMON, "mode", "resize_mode", "fill_color")
TIMM_KEYS = (*COMMON, "crop_pct", "crop_mode")
PREPROCESS_KEYS = (*OPEN_CLIP_KEYS, "crop_pct", "crop_mode")
# Named preprocessing for --preprocess: mean, std, interpolation and resize of the known families.
NAMED_PREPROCESSING: dict[str, Settings] = {
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
_NUMBERS = listed(number(-1000, 1000), 3)
_POSITIVE = listed(number(1e-6, 1000), 3)
_RANDOM = "random"  # what open_clip calls either of two in training; in evaluation it is bicubic
_ALLOWED: dict[str, Value] = {
    "size": SIZE,
    "mean": either(_NUMBERS, number(-1000, 1000)),
    "std": either(_POSITIVE, number(1e-6, 1000)),
    "interpolation": word("bicubic", "bilinear"),
    "mode": word("RGB"),
    "resize_mode": word("shortest", "longest", "squash"),
    "fill_color": whole(0, 255),
}
_TIMM_ALLOWED: dict[str, Value] = {
    "size": SIZE,
    "mean": _NUMBERS,
    "std": _POSITIVE,
    "interpolation": word("bicubic", "bilinear", "nearest", "box", "hamming", "lanczos"),
    "crop_pct": number(0.05, 2),
    "crop_mode": word("center", "squash", "border"),
}


def checked_settings(words: Mapping[str, Any], where: str, *, timm: bool) -> Settings:
    """Settings as plain lists and numbers, sizes as [height, width]; keys of others are left out.

    Raises:
        ModelError: A value is of another kind; the message names it and ``where`` it is written.
    """
    allowed = _TIMM_ALLOWED if timm else _ALLOWED
    settings: Settings = {}
    for key in sorted(set(words) & set(allowed)):
        value = words[key]
        if value is None:
            continue
        if key == "interpolation" and value == _RANDOM and not timm:
            value = "bicubic"
        if not allowed[key].fits(value):
            raise ModelError(
                f"the image preprocessing has a wrong {key} ({where})",
                got=value if len(repr(value)) < 200 else repr(value)[:200],
                allowed=allowed[key].words,
                next_step="correct it, or choose --preprocess",
            )
        settings[key] = _pair(value) if key == "size" else _plain(value)
    if not timm:
        for key in ("mean", "std"):
            if key in settings and not isinstance(settings[key], list):
                settings[key] = [settings[key]] * 3
    return settings


def timm_words(config: Mapping[str, Any], where: str) -> Settings:
    """The settings in a ``pretrained_cfg`` of timm's, as far as it says them.

    The size is ``input_size``, as timm's own ``resolve_data_config`` takes it, and not the larger
    ``test_input_size`` that some checkpoints also name.

    Raises:
        ModelError: A value is malformed, or the images are not of three channels.
    """
    words = {key: config.get(key) for key in TIMM_KEYS if key != "size"}
    size = config.get("input_size")
    if size is not None:
        if not (isinstance(size, list | tuple) and len(size) == 3 and size[0] == 3):
            raise ModelError(
                f"the image preprocessing has a wrong input_size ({where})",
                got=size,
                allowed="three numbers: 3 channels, height, width; models of other than colour "
                "images cannot be used",
                next_step="choose a model for images of three channels",
            )
        words["size"] = list(size[1:])
    return checked_settings(words, where, timm=True)


def _pair(size: Any) -> list[int]:
    sides = [size] if isinstance(size, int) else list(size)
    return sides * 2 if len(sides) == 1 else sides


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def require_agreement(words: Mapping[str, Mapping[str, Any]], got: str) -> None:
    """Refuse places that say different things.

    Args:
        words: The settings by the place where they are written.
        got: The model's specification.

    Raises:
        ModelError: Two of them disagree; the message names key, values and places.
    """
    places = list(words)
    for number_of, first in enumerate(places):
        for second in places[number_of + 1 :]:
            for key in sorted(set(words[first]) & set(words[second])):
                ours, theirs = words[first][key], words[second][key]
                if ours != theirs:
                    raise ModelError(
                        "the image preprocessing is said in two ways",
                        got=got,
                        allowed=f"one {key}: {ours!r} is from {first}, {theirs!r} from {second}",
                        next_step="correct or remove one of them, or choose --preprocess",
                    )


def shared(published: list[Settings]) -> Settings | None:
    """What all published checkpoints of an architecture agree on in full; None where they differ
    or there are none.
    """
    distinct = {json.dumps(settings, sort_keys=True): settings for settings in published}
    return dict(published[0]) if len(distinct) == 1 else None


def nothing_said(got: str, allowed: str, next_step: str) -> ModelError:
    """The error for a checkpoint that nothing says the preprocessing of."""
    return ModelError(
        "nothing says how images were prepared for this checkpoint",
        got=got,
        allowed=f"{allowed}, or --preprocess",
        next_step=f"{next_step}choose --preprocess openai, imagenet, siglip or a JSON file",
    )


def chosen_preprocessing(choice: str) -> tuple[Settings, str]:
    """The preprocessing named by the user, and its origin: a known family, or a JSON file.

    The file has mean and std and any of the other keys of one vocabulary, bare or under
    ``preprocess_cfg``; timm's ``pretrained_cfg`` is read too. What it leaves open is open_clip's or
    timm's own default; the size is then the model's.

    Raises:
        ModelError: The choice is neither.
    """
    if choice in NAMED_PREPROCESSING:
        return dict(NAMED_PREPROCESSING[choice]), f"chosen: {choice}"
    path = Path(choice)
    if path.is_file():
        written = read_json(path, "preprocessing file")
        where = f"chosen: {path.name}"
        if isinstance(written.get("pretrained_cfg"), dict):
            written = timm_words(written["pretrained_cfg"], where)
        written = written.get("preprocess_cfg", written)
        known = isinstance(written, dict) and {"mean", "std"} <= set(written)
        if known and any(set(written) <= set(keys) for keys in (OPEN_CLIP_KEYS, TIMM_KEYS)):
            timm = bool({"crop_pct", "crop_mode"} & set(written))
            return checked_settings(written, where, timm=timm), where
    raise ModelError(
        "the preprocessing is neither a known name nor a JSON file with mean and std",
        got=choice,
        allowed=f"{', '.join(NAMED_PREPROCESSING)}, or a file with {', '.join(OPEN_CLIP_KEYS)}; "
        f"or with {', '.join(TIMM_KEYS)}",
        next_step="choose one of them with --preprocess",
    )


def completed(settings: Mapping[str, Any], own: Mapping[str, Any]) -> Settings:
    """Chosen settings, with the model's ``own`` where they leave something open, and the defaults
    of their kind where it is silent too.

    Raises:
        ModelError: Neither says the size.
    """
    keys: tuple[str, ...] = OPEN_CLIP_KEYS
    if {"crop_pct", "crop_mode"} & set(settings):
        keys = TIMM_KEYS
        defaults: Settings = {"interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center"}
    else:
        defaults = {"mode": "RGB", "fill_color": 0, "interpolation": "bicubic"}
        defaults["resize_mode"] = "shortest"
    own = {key: value for key, value in own.items() if key in keys}
    complete = {**defaults, **own, **settings}
    if "size" not in complete:
        raise ModelError(
            "nothing says the size of the model's images",
            got=", ".join(complete),
            allowed='a file with "size": [height, width] beside mean and std',
            next_step="give such a file as --preprocess",
        )
    return dict(sorted(complete.items()))


def image_transform(preprocessing: Settings) -> Any:
    """The deterministic evaluation transform for ``preprocessing``: PIL image to (3, H, W).

    Settings with ``crop_pct`` are timm's, all others open_clip's.
    """
    if "crop_pct" in preprocessing:
        from timm.data.transforms_factory import create_transform

        timms = {key: preprocessing[key] for key in TIMM_KEYS if key != "size"}
        return create_transform((3, *preprocessing["size"]), is_training=False, **timms)
    from open_clip.transform import PreprocessCfg, image_transform_v2

    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in preprocessing.items()}
    return image_transform_v2(PreprocessCfg(**settings), is_train=False)
