"""Contrastive losses, their derivatives along the task vector, and their gradients, in blocks.

Phase 2 of snapshot mode and every step of probe mode end here: a batch has become matrices
(method.md sections 4 and 5). The logits of B samples are a (B, B) matrix; working on blocks of rows
keeps memory at O(block x B) for any batch size, and the closed forms need no autograd.

With logits ``L = s U T' + b`` and ``L*`` their derivative along the task vector::

    clip     loss_i = 1/2 (lse_j L_ij + lse_j L_ji) - L_ii
             loss*_i = 1/2 (sum_j P_ij L*_ij + sum_j Q_ji L*_ji) - L*_ii
    siglip   loss_i = sum_j -logsigmoid(y_ij L_ij)
             loss*_i = sum_j -y_ij sigmoid(-y_ij L_ij) L*_ij

where P and Q are the softmaxes over rows and columns and y is +1 on the diagonal, else -1.

Letters: B batch, D embedding width. float32 throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mimic_core.schema import LossName

# A block of logits and the arrays derived from it stay within this many elements (64 MiB each).
BLOCK_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Embedded:
    """A batch after its towers: normalised embeddings (B, D), and their derivatives along
    ``v / ||v||`` where the mimic layers reach them (None means zero).
    """

    image: Tensor
    text: Tensor
    image_tangent: Tensor | None = None
    text_tangent: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Head:
    """The contrastive head: loss, logit scale and bias, and their derivatives (zero unless they are
    mimic layers themselves).
    """

    loss: LossName
    scale: float
    bias: float = 0.0
    scale_tangent: float = 0.0
    bias_tangent: float = 0.0


def losses_and_scores(
    batch: Embedded, head: Head, *, block: int | None = None
) -> tuple[Tensor, Tensor]:
    """Losses (B,) and mimic scores (B,) of a batch; the scores are minus the derivatives.

    Args:
        block: Rows at a time; by default what ``BLOCK_ELEMENTS`` allows.
    """
    if head.loss == "siglip":
        return _siglip(batch, head, block)
    B = len(batch)
    row_lse, row_dot = torch.empty(B), torch.empty(B)
    column = _RunningSoftmax(B, batch.image.device)
    row_lse, row_dot = row_lse.to(batch.image.device), row_dot.to(batch.image.device)
    for rows, logits, tangents in _blocks(batch, head, block):
        row_lse[rows] = torch.logsumexp(logits, 1)
        softmax = torch.exp(logits - row_lse[rows, None])
        row_dot[rows] = (softmax * tangents).sum(1)
        column.add(logits, tangents)
    diagonal, diagonal_dot = _diagonal(batch, head)
    losses = 0.5 * (row_lse + column.lse()) - diagonal
    return losses, diagonal_dot - 0.5 * (row_dot + column.mean())


def embedding_gradients(
    batch: Embedded, head: Head, weights: Tensor, *, block: int | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients (B, D) of ``sum_i weights_i loss_i`` with respect to image and text embeddings."""
    image_grad, text_grad = torch.zeros_like(batch.image), torch.zeros_like(batch.text)
    plain = Embedded(batch.image, batch.text)
    column_lse = _column_lse(plain, head, block) if head.loss == "clip" else None
    for rows, logits, _ in _blocks(plain, head, block):
        if column_lse is None:
            signs = _signs(rows, logits)
            grad = -signs * torch.sigmoid(-signs * logits) * weights[rows, None]
        else:
            grad = torch.softmax(logits, 1).mul_(0.5 * weights[rows, None])
            grad += torch.exp(logits - column_lse).mul_(0.5 * weights)
            _subtract_diagonal(grad, rows, weights)
        grad *= head.scale
        image_grad[rows] = grad @ batch.text
        text_grad += grad.T @ batch.image[rows]
    return image_grad, text_grad


def normalise(raw: Tensor, tangent: Tensor | None = None) -> tuple[Tensor, Tensor | None, Tensor]:
    """Unit embeddings (B, D) of ``raw`` (B, D), their derivative, and the norms (B, 1)."""
    norms = raw.norm(dim=1, keepdim=True).clamp_min(1e-12)  # F.normalize's own floor
    unit = raw / norms
    if tangent is None:
        return unit, None, norms
    along = (unit * tangent).sum(1, keepdim=True)
    return unit, (tangent - unit * along) / norms, norms


def through_normalise(gradient: Tensor, unit: Tensor, norms: Tensor) -> Tensor:
    """Gradient (B, D) with respect to the raw embedding, from the one at the unit embedding."""
    return (gradient - unit * (unit * gradient).sum(1, keepdim=True)) / norms


def _blocks(
    batch: Embedded, head: Head, block: int | None
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Blocks of rows of the logits and of their derivatives."""
    B = len(batch)
    step = block or max(1, BLOCK_ELEMENTS // B)
    for start in range(0, B, step):
        rows = slice(start, min(start + step, B))
        image, text = batch.image[rows], batch.text
        cosines = image @ text.T
        tangents = torch.zeros_like(cosines)
        if batch.image_tangent is not None:
            tangents.addmm_(batch.image_tangent[rows], text.T, alpha=head.scale)
        if batch.text_tangent is not None:
            tangents.addmm_(image, batch.text_tangent.T, alpha=head.scale)
        if head.scale_tangent or head.bias_tangent:
            tangents += head.scale_tangent * cosines + head.bias_tangent
        yield rows, cosines.mul_(head.scale).add_(head.bias), tangents


def _diagonal(batch: Embedded, head: Head) -> tuple[Tensor, Tensor]:
    """The positive pairs' logits (B,) and their derivatives (B,)."""
    cosines = (batch.image * batch.text).sum(1)
    tangents = head.scale_tangent * cosines + head.bias_tangent
    if batch.image_tangent is not None:
        tangents = tangents + head.scale * (batch.image_tangent * batch.text).sum(1)
    if batch.text_tangent is not None:
        tangents = tangents + head.scale * (batch.image * batch.text_tangent).sum(1)
    return head.scale * cosines + head.bias, tangents


class _RunningSoftmax:
    """Log-sum-exp over rows that come in blocks, and a softmax-weighted mean over them."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._peak = torch.full((size,), -torch.inf, device=device)
        self._total = torch.zeros(size, device=device)
        self._weighted = torch.zeros(size, device=device)

    def add(self, logits: Tensor, values: Tensor) -> None:
        """Take in a block of rows (rows, B) of logits and values."""
        peak = torch.maximum(self._peak, logits.amax(0))
        rescale = torch.exp(self._peak - peak)
        weights = torch.exp(logits - peak)
        self._total = self._total * rescale + weights.sum(0)
        self._weighted = self._weighted * rescale + (weights * values).sum(0)
        self._peak = peak

    def lse(self) -> Tensor:
        """Log-sum-exp (B,) of every column."""
        return self._peak + self._total.log()

    def mean(self) -> Tensor:
        """Softmax-weighted mean (B,) of the values of every column."""
        return self._weighted / self._total


def _column_lse(batch: Embedded, head: Head, block: int | None) -> Tensor:
    column = _RunningSoftmax(len(batch), batch.image.device)
    for _, logits, tangents in _blocks(batch, head, block):
        column.add(logits, tangents)
    return column.lse()


def _siglip(batch: Embedded, head: Head, block: int | None) -> tuple[Tensor, Tensor]:
    losses, scores = [], []
    for rows, logits, tangents in _blocks(batch, head, block):
        signs = _signs(rows, logits)
        losses.append(-F.logsigmoid(signs * logits).sum(1))
        scores.append((signs * torch.sigmoid(-signs * logits) * tangents).sum(1))
    return torch.cat(losses), torch.cat(scores)


def _signs(rows: slice, logits: Tensor) -> Tensor:
    signs = torch.full_like(logits, -1.0)
    signs.diagonal(offset=rows.start).fill_(1.0)
    return signs


def _subtract_diagonal(grad: Tensor, rows: slice, weights: Tensor) -> None:
    grad.diagonal(offset=rows.start).sub_(weights[rows])
