"""Inner products of per-sample gradients on the mimic layers, without building the gradients.

Two ways to the same numbers (``mimic_core.mimic.weightings.Geometry``):

- ``LinearGeometry``: the mimic layer is the last linear layer and the loss of a sample depends on
  its own output alone. Then ``g_i = d_i a_i'`` with the layer's input a_i and the loss's gradient
  d_i at its output, so ``||g_i|| = ||d_i|| ||a_i||`` and ``<g_i, g_j> = <d_i, d_j> <a_i, a_j>``:
  matrices only.
- ``GraphGeometry``: any layers and any losses, by reverse mode through the part of the graph
  between the mimic layers and the losses.

Letters: B batch, F input width, C output width (classes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mimic_core.mimic.losses import cross_entropy_losses

# Gradients of a whole batch are kept up to this size while their Gram matrix is made.
GRAM_BYTES = 2 << 30


class Pull(Protocol):
    """``sum_i u_i g_i`` by mimic layer, for cotangents u (B,)."""

    def __call__(self, weights: Tensor, *, differentiable: bool = False) -> dict[str, Tensor]:
        """``differentiable``: as a function of ``weights`` that can itself be differentiated."""


@dataclass(frozen=True)
class LinearGeometry:
    """Closed form for a last linear layer, ``outputs = inputs @ weight.T + bias``.

    Args:
        losses: (B,), detached.
        inputs: a (B, F).
        gradients: d (B, C): each sample's loss differentiated by its own outputs.
        weight: The weight's parameter name.
        bias: The bias's name where it is a mimic layer too.
        transposed: The weight is stored as (F, C), as bare projections are, not as (C, F).
    """

    losses: Tensor
    inputs: Tensor
    gradients: Tensor
    weight: str
    bias: str | None = None
    transposed: bool = False

    def products(self, direction: Mapping[str, Tensor]) -> Tensor:
        """<g_i, direction> (B,)."""
        matrix = direction[self.weight]
        along = self.inputs @ (matrix if self.transposed else matrix.T)
        if self.bias is not None:
            along = along + direction[self.bias]
        return (self.gradients * along).sum(1)

    def norms(self) -> Tensor:
        """||g_i|| (B,)."""
        squares = self.inputs.square().sum(1)
        if self.bias is not None:
            squares = squares + 1
        lengths: Tensor = torch.linalg.vector_norm(self.gradients, dim=1)
        return lengths * squares.sqrt()

    def gram(self) -> Tensor:
        """<g_i, g_j> (B, B)."""
        inputs = self.inputs @ self.inputs.T
        if self.bias is not None:
            inputs = inputs + 1
        return inputs * (self.gradients @ self.gradients.T)

    def weighted_gradient(self, weights: Tensor) -> dict[str, Tensor]:
        """sum_i weights_i g_i by parameter name."""
        weighted = self.gradients * weights[:, None]
        matrix = self.inputs.T @ weighted if self.transposed else weighted.T @ self.inputs
        gradient = {self.weight: matrix}
        if self.bias is not None:
            gradient[self.bias] = weighted.sum(0)
        return gradient

    def mean_gradient(self) -> dict[str, Tensor]:
        """The mean of the g_i by parameter name."""
        return self.weighted_gradient(torch.full_like(self.losses, 1 / len(self.losses)))


def cross_entropy_geometry(
    inputs: Tensor,
    logits: Tensor,
    labels: Tensor,
    *,
    weight: str,
    bias: str | None = None,
    transposed: bool = False,
) -> LinearGeometry:
    """The geometry of a linear classifier under cross-entropy: d_i = softmax(logits_i) - onehot_i.

    Args:
        inputs: (B, F).
        logits: (B, C).
        labels: Class numbers (B,) int64.
    """
    outputs = logits.detach().float()
    gradients = torch.softmax(outputs, 1)
    # p - 1 of the label, as minus the sum of the others: where p is near 1, the difference would
    # keep few digits, and with them go those of the cosine.
    rows = torch.arange(len(labels), device=labels.device)
    gradients[rows, labels] = 0
    gradients[rows, labels] = -gradients.sum(1)
    losses = cross_entropy_losses(outputs, labels)
    return LinearGeometry(losses, inputs.detach().float(), gradients, weight, bias, transposed)


class GraphGeometry:
    """Any mimic layers and losses, by reverse mode.

    Args:
        losses: (B,), detached.
        pull: The way back from the losses to the mimic layers.
        total: Sums a tensor over the processes that share the batch.
    """

    def __init__(
        self, losses: Tensor, pull: Pull, *, total: Callable[[Tensor], Tensor] = lambda x: x
    ) -> None:
        self.losses = losses
        self._pull = pull
        self._total = total

    def products(self, direction: Mapping[str, Tensor]) -> Tensor:
        """<g_i, direction> (B,), in two passes whatever B.

        ``u -> <sum_i u_i g_i, direction>`` is linear in u, so its gradient by u is what is asked.
        """
        u = torch.ones_like(self.losses).requires_grad_(True)
        try:
            total = _inner(self._pull(u, differentiable=True), direction)
            (products,) = torch.autograd.grad(total, u)
        except RuntimeError as error:
            if "derivative" not in str(error) and "implemented" not in str(error):
                raise
            # Fused attention above the mimic layers cannot be differentiated twice.
            rows = (self._pull(unit) for unit in self._units())
            products = torch.stack([_inner(row, direction) for row in rows])
        return self._total(products.detach())

    def norms(self) -> Tensor:
        """||g_i|| (B,), one pass for each."""
        return torch.stack([torch.linalg.vector_norm(self._row(unit)) for unit in self._units()])

    def gram(self) -> Tensor:
        """<g_i, g_j> (B, B), one pass for each sample."""
        first = self._row(self._units()[0])
        if len(self.losses) * first.numel() * first.element_size() <= GRAM_BYTES:
            rows = torch.stack([first, *(self._row(unit) for unit in self._units()[1:])])
            return rows @ rows.T
        columns = []
        for unit in self._units():
            pulled = {name: self._total(part) for name, part in self._pull(unit).items()}
            columns.append(self.products(pulled))
        gram = torch.stack(columns)
        return (gram + gram.T) / 2

    def _units(self) -> Tensor:
        return torch.eye(len(self.losses), dtype=self.losses.dtype, device=self.losses.device)

    def _row(self, unit: Tensor) -> Tensor:
        """One sample's gradient over all mimic layers, as one vector."""
        parts = [part.detach().float().flatten() for part in self._pull(unit).values()]
        return self._total(torch.cat(parts))


def _inner(gradient: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> Tensor:
    parts = [(gradient[name].float() * direction[name].float()).sum() for name in gradient]
    return torch.stack(parts).sum()
