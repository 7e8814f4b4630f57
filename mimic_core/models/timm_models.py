"""timm's image models, for labelled images: one way from a specification to a classifier.

A tag, a file, a folder and a repository are the same in the end: an architecture of timm's, the
words of its checkpoint, and weights. The size that the checkpoint names is the size that the model
is built at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mimic_core.base.errors import ModelError
from mimic_core.models import hub
from mimic_core.models.building import (
    Built,
    built,
    do_not_fit,
    require_room,
)
from mimic_core.models.checkpoints import Weights, find_weights, open_weights
from mimic_core.models.class_names import written_names
from mimic_core.models.configs import (
    FLAG,
    SIZE,
    Fields,
    Value,
    checked,
    either,
    listed,
    number,
    read_json,
    whole,
)
from mimic_core.models.names import TIMM_CONFIG, ModelSpec, require_timm, timm_tags
from mimic_core.models.preprocessing import (
    TIMM_KEYS,
    Settings,
    chosen_preprocessing,
    completed,
    nothing_said,
    require_agreement,
    shared,
    timm_words,
)

# What a config's model_args may set: how an architecture is put together, in bounded numbers.
_COUNT = whole(1, 65_536)
_MANY = either(_COUNT, *(listed(_COUNT, length) for length in range(1, 9)))
_WORD = Value("a short word", lambda v: isinstance(v, str) and v.isidentifier() and len(v) < 40)
MODEL_ARGS: Fields = {
    **dict.fromkeys(("img_size", "patch_size", "window_size"), SIZE),
    **dict.fromkeys(("num_classes", "reg_tokens"), whole(0, 1_000_000)),
    "in_chans": whole(3, 3),
    **dict.fromkeys(("embed_dim", "num_heads", "dims", "channels"), _MANY),
    **dict.fromkeys(
        ("depth", "depths", "layers"),
        either(whole(1, 512), *(listed(whole(1, 512), n) for n in range(1, 9))),
    ),
    "mlp_ratio": number(0.01, 64),
    "init_values": number(0, 10).or_null(),
    **dict.fromkeys(
        ("drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate"), number(0, 1)
    ),
    **dict.fromkeys(
        ("global_pool", "act_layer", "norm_layer", "pos_embed"),
        either(_WORD, Value("''", lambda v: v == "")),
    ),
    **dict.fromkeys(
        (
            "class_token",
            "no_embed_class",
            "qkv_bias",
            "qk_norm",
            "pre_norm",
            "fc_norm",
            "dynamic_img_size",
            "strict_img_size",
            "dynamic_img_pad",
            "use_fc_norm",
        ),
        FLAG.or_null(),
    ),
}


@dataclass(frozen=True)
class _Found:
    """A checkpoint: timm's name for it, what its config says, and its weights, if in a file.

    ``said`` are settings of the preprocessing by the place that says them.
    """

    arch: str
    said: dict[str, Settings]
    weights: Path | None
    label_names: tuple[str, ...] = ()
    options: Mapping[str, Any] | None = None
    dynamic: bool | None = None

    @property
    def base(self) -> str:
        """The architecture without a tag."""
        return self.arch.partition(".")[0]


def load(spec: ModelSpec, choice: str | None, like: Settings | None) -> Built:
    """Build ``spec``; the arguments are those of ``open_clip_models.load``.

    Raises:
        ModelError: It cannot be had, built or matched to its weights, or nothing says how images
            are prepared for it.
    """
    found = _found(spec)
    settings, origin = _settings(spec, found, choice, like)
    weights = None if found.weights is None else open_weights(found.weights)
    module = _module(spec, found, settings["size"], weights)
    names = written_names(weights.path) if weights is not None else ()
    named = found.arch if spec.kind in ("folder", "hub") else spec.arch
    return Built(module, settings, origin, named, classes=names or found.label_names)


def preprocessing(spec: ModelSpec) -> tuple[Settings, str]:
    """How images are prepared for ``spec``, and where that is written; no weights are read.

    Raises:
        ModelError: Nothing says it, or two places disagree.
    """
    return _settings(spec, _found(spec), None, None)


# --- what is to be built ---


def _found(spec: ModelSpec) -> _Found:
    if spec.kind in ("folder", "hub"):
        if spec.kind == "folder":
            file, weights = Path(spec.arch, TIMM_CONFIG), find_weights(Path(spec.arch))
        else:
            file, weights = hub.repository_files(spec.arch, TIMM_CONFIG)
        return _with_config(spec, None, file, weights)
    if spec.kind == "file":
        weights = Path(spec.weights)
        return _with_config(spec, spec.arch, weights.with_name(TIMM_CONFIG), weights)
    arch = f"{spec.arch}.{spec.weights}" if spec.kind == "tag" else spec.arch
    return _Found(arch, _published_words(arch), None)


def _published_words(arch: str) -> dict[str, Settings]:
    """The settings of the checkpoint that a tag names; nothing without a tag."""
    if not arch.partition(".")[2]:
        return {}
    return {f"published with {arch}": timm_words(published(arch), arch)}


def _with_config(spec: ModelSpec, arch: str | None, file: Path, weights: Path) -> _Found:
    """A file of weights with the config beside it, if that is one of timm's."""
    written = read_json(file, "model config") if file.is_file() or arch is None else {}
    if isinstance(written.get("architecture"), str) and "pretrained_cfg" not in written:
        written = {"pretrained_cfg": written, **written}  # timm's first layout has all in one
    config = written.get("pretrained_cfg") or {}
    if not isinstance(config, dict):
        raise ModelError(
            "the model config has a wrong pretrained_cfg",
            got=str(file),
            allowed="a JSON object",
            next_step="correct it, or move it away and choose --preprocess",
        )
    named = written.get("architecture") or config.get("architecture") or arch
    if arch is None:
        arch = str(named)
        require_timm(arch, f"{file}: {arch}"[:300])
    elif str(named).partition(".")[0] != spec.base:
        raise ModelError(
            "the config beside the weights is of another architecture",
            got=spec.text,
            allowed=f"timm:{str(named)[:100]}:{weights}, as {file} says",
            next_step="correct the architecture, or move the config away",
        )
    said = {file.name: timm_words(config, file.name)}
    options = written.get("model_args") or {}
    clean = checked(options if isinstance(options, dict) else {"": 0}, MODEL_ARGS, file)
    if config.get("fixed_input_size") and "img_size" in clean:  # as timm reads them
        size = clean["img_size"]
        args_size = [size, size] if isinstance(size, int) else list(size)
        said[f"model_args of {file.name}"] = {"size": args_size}
    names = written.get("label_names") or config.get("label_names")
    labels = tuple(map(str, names)) if isinstance(names, list) else ()
    fixed = config.get("fixed_input_size")
    return _Found(
        arch,
        {place: words for place, words in {**said, **_published_words(arch)}.items() if words},
        weights,
        labels,
        {key: value for key, value in clean.items() if key not in ("img_size", "num_classes")},
        fixed if isinstance(fixed, bool) else None,
    )


def published(arch: str) -> dict[str, Any]:
    """What timm knows of an architecture's checkpoint; of its first one without a tag."""
    import timm

    config: Any = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    return {} if config is None else dict(config.to_dict())


# --- preprocessing ---


def _settings(
    spec: ModelSpec, found: _Found, choice: str | None, like: Settings | None
) -> tuple[Settings, str]:
    """Complete settings, and where they are written."""
    if like is not None:
        return like, "the reference's"
    default = timm_words(published(found.base), found.base)
    if choice is not None:
        settings, origin = chosen_preprocessing(choice)
        sizes = {place: words for place, words in found.said.items() if "size" in words}
        own = next(iter(sizes.values()), default)
        return completed(settings, {"size": own.get("size", [224, 224])}), origin
    require_agreement(found.said, spec.text)
    own = {key: value for words in found.said.values() for key, value in words.items()}
    missing = [key for key in TIMM_KEYS if key not in own and key != "crop_mode"]
    origin = next(iter(found.said), "")
    if spec.kind == "tag":
        origin = "published with the checkpoint"
    elif origin == TIMM_CONFIG:
        origin = f"from {TIMM_CONFIG}"
    if missing:
        rest, rest_origin = _unsaid(spec, found, default)
        origin = origin if {"mean", "std"} <= set(own) else rest_origin
        own = {**rest, **own}
    return completed(own, {"crop_mode": "center"}), origin


def _unsaid(spec: ModelSpec, found: _Found, default: Settings) -> tuple[Settings, str]:
    """What all published checkpoints of the architecture agree on, for what this one leaves open.

    Raises:
        ModelError: They do not agree, or there are none.
    """
    if spec.kind == "random":
        return default, "timm's default, as random weights have none of their own"
    base, tags = found.base, timm_tags(found.base)
    common = shared([timm_words(published(f"{base}.{tag}"), tag) for tag in tags])
    if common is None:
        raise nothing_said(
            spec.text,
            f"{TIMM_CONFIG} beside the weights, complete with {', '.join(TIMM_KEYS)}; "
            f"timm:{base}.TAG:PATH, prepared as for that tag",
            f"tags of {base}: {', '.join(tags) or 'none'}; or ",
        )
    return common, f"shared by all published checkpoints of {base}"


# --- module and weights ---


def _module(spec: ModelSpec, found: _Found, size: list[int], weights: Weights | None) -> nn.Module:
    """The classifier on the CPU, built for images of ``size``."""
    import timm

    options: dict[str, Any] = dict(found.options or {})

    def make(**more: Any) -> nn.Module:
        overlay: dict[str, Any] = {"input_size": (3, *size)} if spec.kind != "tag" else {}
        if found.dynamic is not None:
            overlay["fixed_input_size"] = found.dynamic
        module: nn.Module = timm.create_model(
            found.arch,
            pretrained=spec.kind == "tag",
            pretrained_cfg_overlay=overlay or None,
            **{**options, **more},
        )
        return module

    if weights is None:
        return built(spec, make)
    options["num_classes"] = _class_count(spec, found, weights, make)
    require_room(spec, make, weights)
    module = built(spec, make)
    _load(module, spec, weights)
    return module


def _load(module: nn.Module, spec: ModelSpec, weights: Weights) -> None:
    """Load all of the weights into all of the module; a layer of no outputs needs none."""
    try:
        result = module.load_state_dict(weights.tensors(), strict=False)
    except RuntimeError as error:
        raise do_not_fit(spec, f"the architecture {spec.arch}", error) from error
    own = module.state_dict()
    missing = [name for name in result.missing_keys if own[name].numel()]
    if missing or result.unexpected_keys:
        told = f"missing: {missing[:5]}; not known: {result.unexpected_keys[:5]}"
        raise do_not_fit(spec, f"the architecture {spec.arch}", told)


def _class_count(
    spec: ModelSpec, found: _Found, weights: Weights, make: Callable[..., nn.Module]
) -> int:
    """Outputs of the classifier in the weights; 0 where they have none."""
    names = published(found.arch).get("classifier")
    if not names:  # an architecture that is registered without a config: ask the module itself
        names = _last_layer(require_room(spec, make, None))
    first = names if isinstance(names, str) else (names or ("",))[0]
    return next(iter(weights.shapes.get(f"{first}.weight", (0,))), 0)


def _last_layer(module: nn.Module) -> str:
    last = classifier(module)
    return next((name for name, part in module.named_modules() if part is last), "")


def classifier(module: nn.Module) -> nn.Linear | None:
    """The model's last layer; None where it is not a linear one, or has no outputs."""
    timm_model: Any = module
    found = timm_model.get_classifier()
    return found if isinstance(found, nn.Linear) and found.out_features else None


def features_of(module: nn.Module, images: Tensor) -> Tensor:
    """What the classifier sees: pre-logits (U, F) of ``images`` (U, 3, H, W)."""
    timm_model: Any = module
    features: Tensor = timm_model.forward_head(timm_model.forward_features(images), pre_logits=True)
    return features
