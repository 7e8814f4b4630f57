"""Per-sample losses as vectors, the form in which the mimic score needs them (method.md section 1).

Letters: B batch, D embedding width, C classes. All return (B,) float32 and are differentiable in
forward and in reverse mode. Inputs of lower precision are widened first: a loss and its derivative
are always float32 (float64 stays float64).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mimic_core.base.errors import ScoreError

# Apple's GPUs compute in float32 at most; to ask for more there is an error.
_WITHOUT_FLOAT64 = frozenset({"mps"})


def clip_losses(image: Tensor, text: Tensor, logit_scale: Tensor | float) -> Tensor:
    """In-batch contrastive loss of each pair, half over its row and half over its column.

    The mean over the batch is ``open_clip.ClipLoss``.

    Args:
        image, text: Normalised embeddings (B, D).
        logit_scale: Multiplier of the cosines (open_clip's ``logit_scale.exp()``).

    Returns:
        Losses (B,): loss i = 1/2 (CE over row i + CE over column i of the logits).
    """
    with _full_precision(image):
        logits = logit_scale * (_wide(image) @ _wide(text).T)
        rows, columns = torch.logsumexp(logits, 1), torch.logsumexp(logits, 0)
        return 0.5 * (rows + columns) - logits.diagonal()


def siglip_losses(
    image: Tensor, text: Tensor, logit_scale: Tensor | float, logit_bias: Tensor | float
) -> Tensor:
    """Pairwise sigmoid loss of each image against all texts of the batch.

    The mean over the batch is ``open_clip.SigLipLoss``. Loss i is the sum over row i: image i
    against its own text (positive) and all other texts (negative).

    Args:
        image, text: Normalised embeddings (B, D).
        logit_scale, logit_bias: The model's scale (already exponentiated) and bias.

    Returns:
        Losses (B,).
    """
    with _full_precision(image):
        logits = logit_scale * (_wide(image) @ _wide(text).T) + logit_bias
        signs = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
        return -F.logsigmoid(signs * logits).sum(1)


def contrastive_losses(
    image: Tensor, text: Tensor, logit_scale: Tensor | float, logit_bias: Tensor | float | None
) -> Tensor:
    """``siglip_losses`` of a model that has a logit bias, ``clip_losses`` of one without."""
    if logit_bias is None:
        return clip_losses(image, text, logit_scale)
    return siglip_losses(image, text, logit_scale, logit_bias)


def cross_entropy_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each sample.

    Args:
        logits: (B, C).
        labels: Class numbers (B,) int64, or class probabilities (B, C).

    Returns:
        Losses (B,).
    """
    # torch would pass over labels of -100 with a loss of 0; no label has this number.
    with _full_precision(logits):
        return F.cross_entropy(
            _wide(logits), labels, reduction="none", ignore_index=torch.iinfo(torch.int64).min
        )


def require_finite(
    values: Tensor, *, what: Literal["loss", "score"] = "loss", step: int | None = None
) -> None:
    """Refuse losses or scores that are infinite or NaN: their whole batch would be wrong.

    Raises:
        ScoreError: Names how many of the (B,) values are not finite and the first of them.
    """
    broken = ~torch.isfinite(values)
    if bool(broken.any()):
        first = int(broken.nonzero()[0])
        plural = "losses" if what == "loss" else "scores"
        where = "" if step is None else f" in step {step}"
        raise ScoreError(
            f"{int(broken.sum())} of {len(values)} {plural} are not finite{where}",
            got=f"{what} {float(values[first].detach())} at position {first} of the batch",
            allowed=f"finite {plural}",
            next_step="use --precision fp32, and check the checkpoint for non-finite weights",
        )


def _full_precision(values: Tensor) -> AbstractContextManager[object]:
    """Autocast would run the products in low precision; here it is switched off."""
    return torch.autocast(values.device.type, enabled=False)


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def widened(tensor: Tensor) -> Tensor:
    """``tensor`` in float64 without its graph; on the CPU where its device has no float64."""
    kept = tensor.detach()
    return (kept.cpu() if kept.device.type in _WITHOUT_FLOAT64 else kept).double()
