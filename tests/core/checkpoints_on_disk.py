"""Tiny checkpoints as files: the architectures whose loading and projections are tested."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.core.tiny import VISION

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
PREPROCESS = {
    "size": 16,
    "mode": "RGB",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.25, 0.3],
    "interpolation": "bilinear",
    "resize_mode": "squash",
}
TIMM: dict[str, Any] = {"timm_model_pretrained": False, "image_size": 160}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT},
    "deeper-vit": {"embed_dim": 24, "vision_cfg": {**VISION, "layers": 3}, "text_cfg": TEXT},
    "siglip": {
        "embed_dim": 16,
        "init_logit_bias": -4.0,
        "init_logit_scale": 2.3,
        "custom_text": True,
        "vision_cfg": {
            **TIMM,
            "timm_model_name": "test_vit",
            "timm_pool": "",
            "timm_proj": "linear",
        },
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
    "resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
    "timm-classifier": {
        "embed_dim": 24,
        "vision_cfg": {
            **TIMM,
            "timm_model_name": "test_convnext",
            "timm_pool": "avg",
            "timm_proj": "",
        },
        "text_cfg": TEXT,
    },
    "timm-mlp": {
        "embed_dim": 24,
        "vision_cfg": {**TIMM, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "mlp"},
        "text_cfg": TEXT,
    },
}


def write_config(folder: Path, name: str = "vit", *, preprocess: bool = True) -> Path:
    """``open_clip_config.json`` in ``folder``; the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {"model_cfg": CONFIGS[name]}
    if preprocess:
        size = CONFIGS[name]["vision_cfg"]["image_size"]
        config["preprocess_cfg"] = {**PREPROCESS, "size": size}
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps(config))
    return path


def build(name: str = "vit", seed: int = 0) -> nn.Module:
    """The module of one of ``CONFIGS``, built by open_clip itself."""
    config = {key: value for key, value in CONFIGS[name].items() if key != "custom_text"}
    custom = CONFIGS[name].get("custom_text", False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cls = open_clip.CustomTextCLIP if custom else open_clip.CLIP
        module: nn.Module = cls(**config)
        return module.eval()


def write_model(folder: Path, name: str = "vit", seed: int = 0, **changed: Tensor) -> Path:
    """A model folder: config and safetensors. ``changed`` replaces tensors of the state dict."""
    write_config(folder, name)
    tensors = {**build(name, seed).state_dict(), **changed}
    save_file(
        {key: value.contiguous().clone() for key, value in tensors.items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


def fake_hub(cache: Path, patch: pytest.MonkeyPatch, repositories: Mapping[str, Path]) -> None:
    """A Hugging Face cache in ``cache`` that holds ``repositories``, and no network."""
    for name, files in repositories.items():
        place = cache / f"models--{name.replace('/', '--')}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text("abc")
        (place / "snapshots").mkdir()
        (place / "snapshots" / "abc").symlink_to(files.resolve())
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
