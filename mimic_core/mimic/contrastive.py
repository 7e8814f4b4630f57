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

from mimic_core.base.config import LossName, Side

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
class Scaling:
    """What makes logits of cosines: loss, logit scale and bias, and the derivatives of the last two
    (zero unless they are mimic layers themselves).
    """

    loss: LossName
    scale: float
    bias: float = 0.0
    scale_tangent: float = 0.0
    bias_tangent: float = 0.0


def steepest(batch: Embedded, scaling: Scaling) -> float:
    """A bound on the derivatives ``L*`` of the logits: embeddings have length 1.

    The scale of a batch's scores even where they cancel, as those of equal samples do.
    """
    tangents = [t for t in (batch.image_tangent, batch.text_tangent) if t is not None]
    along = sum(float(tangent.norm(dim=1).max()) for tangent in tangents)
    return scaling.scale * along + abs(scaling.scale_tangent) + abs(scaling.bias_tangent)


@dataclass(frozen=True)
class ScoredLogits:
    """What one look at a batch's logits gives: losses (B,) and mimic scores (B,).

    The rest serves ``embedding_gradient``: log-sum-exps (B,) of rows and columns (CLIP), and the
    logits themselves where they fit into one block.
    """

    losses: Tensor
    scores: Tensor
    row_lse: Tensor | None = None
    column_lse: Tensor | None = None
    logits: Tensor | None = None


def score_logits(batch: Embedded, scaling: Scaling, *, block: int | None = None) -> ScoredLogits:
    """Losses and mimic scores of a batch; the scores are minus the derivatives.

    Args:
        block: Rows at a time; by default what ``BLOCK_ELEMENTS`` allows.
    """
    if scaling.loss == "siglip":
        return _siglip(batch, scaling, block)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    column, kept = _RunningSoftmax(len(batch), batch.image.device), None
    for rows, logits, tangents in _blocks(batch, scaling, block):
        lse = torch.logsumexp(logits, 1)
        mean = (torch.exp(logits - lse[:, None]) * tangents).sum(1)
        # The positive pairs' logits, from the same products as the sums: so no loss is below zero.
        own, own_tangents = (m.diagonal(offset=rows.start) for m in (logits, tangents))
        parts.append((lse, mean, own.clone(), own_tangents.clone()))
        column.add(logits, tangents)
        kept = logits if len(logits) == len(batch) else None
    row_lse, row_mean, own, own_tangents = (torch.cat(part) for part in zip(*parts, strict=True))
    column_lse = column.lse()
    losses = 0.5 * (row_lse + column_lse) - own
    scores = own_tangents - 0.5 * (row_mean + column.mean())
    return ScoredLogits(losses, scores, row_lse, column_lse, kept)


def score_planted(
    batch: Embedded,
    scaling: Scaling,
    planted: Embedded,
    places: Tensor,
    *,
    without: Tensor | None = None,
) -> ScoredLogits:
    """Losses and scores (K,) of pairs that each take a place in the batch, all else unchanged.

    Each is what ``score_logits`` would give its place if it alone were put there. Plain operations,
    so that autograd can go through the losses.

    Args:
        planted: K pairs.
        places: Their places in the batch (K,) int64.
        without: For each (K,) a sample that is taken out of the batch: the one whose caption it
            has, where that one is in the batch itself.
    """
    losses, scores = [], []
    step = max(1, BLOCK_ELEMENTS // len(batch))
    for start in range(0, len(places), step):
        some = slice(start, start + step)
        part = _take(planted, some)
        gone = None if without is None else without[some]
        forth = _planted_logits(
            part.image, part.image_tangent, batch.text, batch.text_tangent, scaling
        )
        back = _planted_logits(
            part.text, part.text_tangent, batch.image, batch.image_tangent, scaling
        )
        found = _planted_losses(
            forth, back, _own_logits(part, scaling), places[some], gone, scaling
        )
        losses.append(found[0])
        scores.append(found[1])
    return ScoredLogits(torch.cat(losses), torch.cat(scores))


def embedding_gradient(
    batch: Embedded,
    scaling: Scaling,
    scored: ScoredLogits,
    weights: Tensor,
    *,
    side: Side,
    block: int | None = None,
) -> Tensor:
    """Gradient (B, D) of ``sum_i weights_i loss_i`` with respect to one side's unit embeddings.

    Args:
        scored: What ``score_logits`` returned for this batch.
        weights: (B,)
    """
    out = torch.zeros_like(batch.image if side == "image" else batch.text)
    for rows, logits in _logit_blocks(batch, scaling, scored, block):
        if scored.row_lse is None or scored.column_lse is None:
            signs = _signs(rows, logits)
            grad = -signs * torch.sigmoid(-signs * logits) * weights[rows, None]
        else:
            grad = torch.exp(logits - scored.row_lse[rows, None]).mul_(0.5 * weights[rows, None])
            grad += torch.exp(logits - scored.column_lse).mul_(0.5 * weights)
            grad.diagonal(offset=rows.start).sub_(weights[rows])
        if side == "image":
            out[rows] = grad @ batch.text
        else:
            out.addmm_(grad.T, batch.image[rows])
    return out.mul_(scaling.scale)


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
    batch: Embedded, scaling: Scaling, block: int | None
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
            tangents = (batch.image_tangent[rows] @ text.T).mul_(scaling.scale)
        if batch.text_tangent is not None:
            tangents.addmm_(image, batch.text_tangent.T, alpha=scaling.scale)
        if scaling.scale_tangent or scaling.bias_tangent:
            tangents += scaling.scale_tangent * cosines + scaling.bias_tangent
        yield rows, cosines.mul_(scaling.scale).add_(scaling.bias), tangents


def _logit_blocks(
    batch: Embedded, scaling: Scaling, scored: ScoredLogits, block: int | None
) -> Iterator[tuple[slice, Tensor]]:
    """The logits again: as kept, or computed anew block by block."""
    if scored.logits is not None:
        yield slice(0, len(batch)), scored.logits
        return
    for rows, logits, _ in _blocks(Embedded(batch.image, batch.text), scaling, block):
        yield rows, logits


def _take(batch: Embedded, rows: slice) -> Embedded:
    tangents = [None if t is None else t[rows] for t in (batch.image_tangent, batch.text_tangent)]
    return Embedded(batch.image[rows], batch.text[rows], *tangents)


def _planted_logits(
    one: Tensor,
    one_tangent: Tensor | None,
    other: Tensor,
    other_tangent: Tensor | None,
    scaling: Scaling,
) -> tuple[Tensor, Tensor]:
    """Logits (K, B) of embeddings (K, D) and (B, D), and their derivatives."""
    cosines = one @ other.T
    tangents = cosines * scaling.scale_tangent + scaling.bias_tangent
    if one_tangent is not None:
        tangents = tangents + scaling.scale * (one_tangent @ other.T)
    if other_tangent is not None:
        tangents = tangents + scaling.scale * (one @ other_tangent.T)
    return scaling.scale * cosines + scaling.bias, tangents


def _own_logits(pairs: Embedded, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """Logits (K,) of pairs, and their derivatives."""
    cosines = (pairs.image * pairs.text).sum(1)
    tangents = cosines * scaling.scale_tangent + scaling.bias_tangent
    if pairs.image_tangent is not None:
        tangents = tangents + scaling.scale * (pairs.image_tangent * pairs.text).sum(1)
    if pairs.text_tangent is not None:
        tangents = tangents + scaling.scale * (pairs.image * pairs.text_tangent).sum(1)
    return scaling.scale * cosines + scaling.bias, tangents


def _planted_losses(
    forth: tuple[Tensor, Tensor],
    back: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    places: Tensor,
    without: Tensor | None,
    scaling: Scaling,
) -> tuple[Tensor, Tensor]:
    """Losses and scores (K,) from logits with their derivatives: of the image to all texts (K, B),
    of the text to all images (K, B), and of the pair itself (K,).
    """
    if scaling.loss == "siglip":
        logits, tangents = _placed(forth, own, places)
        signs = torch.full_like(logits, -1.0).scatter(1, places[:, None], 1.0)
        parts = -F.logsigmoid(signs * logits)
        slopes = signs * torch.sigmoid(-signs * logits) * tangents
        if without is not None:
            parts = parts.scatter(1, without[:, None], 0.0)
            slopes = slopes.scatter(1, without[:, None], 0.0)
        return parts.sum(1), slopes.sum(1)
    total = mean = torch.zeros_like(own[0])
    for side in (forth, back):
        logits, tangents = _placed(side, own, places)
        if without is not None:
            logits = logits.scatter(1, without[:, None], -torch.inf)
        total = total + torch.logsumexp(logits, 1)
        mean = mean + (torch.softmax(logits, 1) * tangents).sum(1)
    return 0.5 * total - own[0], own[1] - 0.5 * mean


def _placed(
    side: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], places: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits and derivatives (K, B) with those of the pair itself in its place."""
    where = places[:, None]
    return side[0].scatter(1, where, own[0][:, None]), side[1].scatter(1, where, own[1][:, None])


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


def _siglip(batch: Embedded, scaling: Scaling, block: int | None) -> ScoredLogits:
    losses, scores, kept = [], [], None
    for rows, logits, tangents in _blocks(batch, scaling, block):
        signs = _signs(rows, logits)
        losses.append(-F.logsigmoid(signs * logits).sum(1))
        scores.append((signs * torch.sigmoid(-signs * logits) * tangents).sum(1))
        kept = logits if len(logits) == len(batch) else None
    return ScoredLogits(torch.cat(losses), torch.cat(scores), logits=kept)


def _signs(rows: slice, logits: Tensor) -> Tensor:
    signs = torch.full_like(logits, -1.0)
    signs.diagonal(offset=rows.start).fill_(1.0)
    return signs
