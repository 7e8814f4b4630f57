"""A model's config in JSON, read as a stranger's: known keys, known types, bounded numbers.

open_clip and timm hand a config's values to constructors, tokenizers and downloads. Here each key
is allowed by name with the values that it may have, so that no config can run code, fetch another
model or ask for memory without bound; anything else is refused by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimic_core.base.errors import ModelError

MAX_JSON_BYTES = 4_000_000
MAX_POSITIONS = 2**26  # numbers of a table of positions, which some models compute at once
# What has run code, or fetched it, in the libraries that read configs; named in the refusal.
RUNS_CODE = frozenset({"trust_remote_code", "auto_map", "custom_generate", "code_revision"})


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in a regular file of bounded size.

    Args:
        what: What it is, for messages: "model config".

    Raises:
        ModelError: It is no such file, or not a JSON object.
    """
    if not path.is_file():
        raise ModelError(
            f"the {what} is not a regular file",
            got=str(path),
            allowed="a JSON file",
            next_step="check the path",
        )
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_JSON_BYTES + 1)
        if len(raw) > MAX_JSON_BYTES:
            raise ValueError(f"it is larger than {MAX_JSON_BYTES:,} bytes")
        written = json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"the {what} cannot be read ({str(error)[:200]})",
            got=str(path),
            allowed="a JSON object",
            next_step="correct it",
        ) from error
    if not isinstance(written, dict):
        raise ModelError(
            f"the {what} cannot be read (it is not a JSON object)",
            got=str(path),
            allowed="a JSON object",
            next_step="correct it",
        )
    return written


@dataclass(frozen=True)
class Value:
    """What a key may hold: ``words`` for people, and the test."""

    words: str
    fits: Callable[[Any], bool]

    def or_null(self) -> Value:
        """The same, or null."""
        return Value(f"{self.words} or null", lambda value: value is None or self.fits(value))


Fields = Mapping[str, "Value | Fields"]


def whole(low: int, high: int) -> Value:
    """A whole number from ``low`` to ``high``."""
    return Value(
        f"a whole number from {low:,} to {high:,}",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high,
    )


def number(low: float, high: float) -> Value:
    """A finite number from ``low`` to ``high``."""
    return Value(
        f"a number from {low:g} to {high:g}",
        lambda v: isinstance(v, int | float) and not isinstance(v, bool) and low <= v <= high,
    )


def word(*allowed: str) -> Value:
    """One of the given words."""
    return Value(f"one of {', '.join(map(repr, allowed))}", lambda v: v in allowed)


def listed(of: Value, *lengths: int) -> Value:
    """A list of one of the given lengths."""
    return Value(
        f"a list of {' or '.join(map(str, lengths))}, each {of.words}",
        lambda v: isinstance(v, list | tuple) and len(v) in lengths and all(map(of.fits, v)),
    )


def either(*of: Value) -> Value:
    """Any of the given ones."""
    return Value(" or ".join(one.words for one in of), lambda v: any(one.fits(v) for one in of))


def _matching(pattern: str, words: str) -> Value:
    compiled = re.compile(pattern)
    return Value(
        words, lambda v: isinstance(v, str) and len(v) <= 500 and bool(compiled.fullmatch(v))
    )


FLAG = Value("true or false", lambda v: isinstance(v, bool))
NAME = _matching(r"\w[\w.-]*", "the name of an architecture")
PLACE = _matching(r"[^\0\n]+", "a name")
_SIZE = whole(1, 8192)
SIZE = either(_SIZE, listed(_SIZE, 1, 2))
_WIDTH, _COUNT, _RATIO = whole(1, 65_536), whole(1, 512), number(0.01, 64)
_NORM: Fields = {"eps": number(0, 1), "elementwise_affine": FLAG}
_ACT: Fields = {"approximate": word("none", "tanh")}
_BLOCK: Fields = {
    "mlp_ratio": _RATIO,
    "ls_init_value": number(0, 10).or_null(),
    "final_ln_after_pool": FLAG,
    "output_tokens": FLAG,
    "act_kwargs": _ACT,
    "norm_kwargs": _NORM,
    "block_type": word("default", "custom").or_null(),
    **dict.fromkeys(
        ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn"), FLAG
    ),
    "scale_fc": FLAG,
}
_VISION: Fields = {
    **_BLOCK,
    "layers": either(whole(1, 512), listed(_COUNT, 4)),
    "width": _WIDTH,
    "head_width": _WIDTH,
    "patch_size": whole(1, 1024).or_null(),
    "image_size": SIZE,
    "patch_dropout": number(0, 0.99),
    "attentional_pool": either(FLAG, word("parallel", "cascade")),
    "attn_pooler_queries": _WIDTH,
    "attn_pooler_heads": _COUNT,
    "no_ln_pre": FLAG,
    "pos_embed_type": word("learnable", "sin_cos_2d"),
    "pool_type": word("tok", "avg", "none", ""),
    "timm_model_name": NAME.or_null(),
    "timm_model_pretrained": FLAG,
    "timm_pool": _matching(r"\w*", "the name of a pooling").or_null(),
    "timm_proj": word("linear", "mlp", "none", "").or_null(),
    "timm_proj_bias": FLAG,
    "timm_drop": number(0, 1),
    "timm_drop_path": number(0, 1).or_null(),
}
_TEXT: Fields = {
    **_BLOCK,
    "context_length": whole(1, 8192),
    "vocab_size": whole(1, 4_000_000),
    "width": _WIDTH,
    "heads": _COUNT,
    "layers": whole(1, 512),
    "embed_cls": FLAG,
    "pad_id": whole(0, 4_000_000),
    "eos_id": whole(0, 4_000_000),
    "no_causal_mask": FLAG,
    "pool_type": word("first", "last", "argmax", "eos", "none"),
    "proj_bias": FLAG,
    "proj_type": word("linear", "none"),
    "hf_tokenizer_name": PLACE.or_null(),
    "tokenizer_mode": word("clips").or_null(),
    "tokenizer_kwargs": {
        "clean": word("lower", "whitespace", "canonicalize"),
        "strip_sep_token": FLAG,
        "language": _matching(r"\w+", "a language").or_null(),
    },
    "hf_model_name": PLACE.or_null(),
    "hf_model_pretrained": FLAG,
    "hf_proj_type": word("linear", "mlp").or_null(),
    "hf_pooler_type": _matching(r"\w+", "the name of a pooler").or_null(),
}
MODEL: Fields = {
    "embed_dim": _WIDTH,
    "vision_cfg": _VISION,
    "text_cfg": _TEXT,
    "multimodal_cfg": {
        **_TEXT,
        "dim_head": _WIDTH,
        "n_queries": _WIDTH,
        "attn_pooler_heads": _COUNT,
    },
    "quick_gelu": FLAG,
    "custom_text": FLAG,
    "init_logit_scale": number(-100, 100),
    "init_logit_bias": number(-1000, 1000).or_null(),
    "nonscalar_logit_scale": FLAG,
}


def checked(written: Mapping[str, Any], fields: Fields, path: Path, inside: str = "") -> Any:
    """``written`` with nothing in it but what ``fields`` allow.

    Raises:
        ModelError: It holds another key, or another value; the message names key and file.
    """
    clean: dict[str, Any] = {}
    for key, value in written.items():
        name = f"{inside}{key}"[:200]
        allowed = fields.get(key)
        if allowed is None:
            code = key in RUNS_CODE
            raise ModelError(
                f"the model config has a key that {'would let it run code' if code else 'is'}"
                f"{'' if code else ' not known'}: {name}",
                got=str(path),
                allowed=", ".join(fields),
                next_step="Mimicscope never runs a model's own code: use another checkpoint"
                if code
                else "take the key out of the config if the model is right without it",
            )
        if isinstance(allowed, Value):
            if not allowed.fits(value):
                raise ModelError(
                    f"the model config has a wrong value in {path}: {name}",
                    got=_short(value),
                    allowed=allowed.words,
                    next_step="correct the config",
                )
            clean[key] = value
        elif value is not None:  # open_clip reads a part that is null as one that is not there
            clean[key] = checked(_part(value, name, path), allowed, path, f"{name}.")
    return clean


def _part(value: Any, name: str, path: Path) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise ModelError(
        f"the model config has a wrong value in {path}: {name}",
        got=_short(value),
        allowed="a JSON object",
        next_step="correct the config",
    )


def _short(value: Any) -> Any:
    text = repr(value)
    return value if len(text) <= 200 else f"{text[:200]}…"


def open_clip_config(path: Path) -> dict[str, Any]:
    """A config as ``{"model_cfg": ..., "preprocess_cfg": ...}``, checked; bare model configs too.

    Raises:
        ModelError: It is not JSON, lacks the towers' settings, or holds what is not allowed.
    """
    written = read_json(path, "model config")
    if "embed_dim" in written:
        written = {"model_cfg": written}
    model = written.get("model_cfg", {})
    if not isinstance(model, dict) or not {"vision_cfg", "text_cfg", "embed_dim"} <= set(model):
        raise ModelError(
            "the model config lacks embed_dim, vision_cfg or text_cfg",
            got=str(path),
            allowed='an open_clip config, bare or under "model_cfg"',
            next_step="complete the config",
        )
    clean = checked(model, MODEL, path)
    for tower in ("vision_cfg", "text_cfg"):
        _part(clean.get(tower), tower, path)
    _require_moderate_positions(clean["vision_cfg"], path)
    preprocess = written.get("preprocess_cfg") or {}
    return {"model_cfg": clean, "preprocess_cfg": dict(_part(preprocess, "preprocess_cfg", path))}


def _require_moderate_positions(vision: Mapping[str, Any], path: Path) -> None:
    """Tables of positions are computed even where nothing else is allocated."""
    size, patch = vision.get("image_size", 224), vision.get("patch_size", 16) or 16
    sides = [size] * 2 if isinstance(size, int) else [*size, *size][:2]
    numbers = math.prod(side // patch for side in sides) * vision.get("width", 768)
    if numbers > MAX_POSITIONS:
        raise ModelError(
            f"the model config has an image_size too large for its patch_size in {path}",
            got=f"{sides} in patches of {patch}: {numbers:,} numbers of positions",
            allowed=f"at most {MAX_POSITIONS:,}",
            next_step="correct the config",
        )
