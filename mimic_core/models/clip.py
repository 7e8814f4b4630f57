"""open_clip's interface as typed functions, in one place: modules there are plain ``nn.Module``s.

Letters: B batch, U images, L tokens, D embedding width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mimic_core.base.config import LossName


def encode_image(module: nn.Module, images: Tensor, *, normalize: bool = False) -> Tensor:
    """Image embeddings (U, D) of ``images`` (U, 3, H, W)."""
    open_clip_model: Any = module
    embeddings: Tensor = open_clip_model.encode_image(images, normalize=normalize)
    return embeddings


def encode_text(module: nn.Module, tokens: Tensor, *, normalize: bool = False) -> Tensor:
    """Text embeddings (B, D) of ``tokens`` (B, L) int64."""
    open_clip_model: Any = module
    embeddings: Tensor = open_clip_model.encode_text(tokens, normalize=normalize)
    return embeddings


def logit_scale(module: nn.Module) -> Tensor:
    """Multiplier of the cosines (stored as its logarithm)."""
    open_clip_model: Any = module
    scale: Tensor = open_clip_model.logit_scale.exp()
    return scale


def logit_bias(module: nn.Module) -> Tensor | None:
    """What SigLIP models add to their logits; None for CLIP models."""
    bias: Tensor | None = getattr(module, "logit_bias", None)
    return bias


def loss_name(module: nn.Module) -> LossName:
    """The contrastive loss a model was made for: SigLIP models have a logit bias."""
    return "clip" if logit_bias(module) is None else "siglip"
