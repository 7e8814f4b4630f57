"""Independent oracle: mimic scores by plain reverse mode, one gradient per sample, in float64.

Written from the definition (method.md section 1) without the forward-mode code: the model is copied
to float64, each sample's loss is differentiated on its own, and the gradients are multiplied with
``theta_ref - theta_t`` by explicit dot products. The per-sample losses are written out again too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Truth:
    """What the definition gives for one batch; all float64.

    ``gradients`` maps each mimic layer to the stacked per-sample gradients (B, *parameter shape).
    """

    losses: Tensor
    proj: Tensor
    cos: Tensor
    gradients: dict[str, Tensor]
    norm: float


def reverse_mode(
    model: nn.Module,
    reference: nn.Module,
    layers: Sequence[str],
    losses_of: Callable[[nn.Module], Tensor],
) -> Truth:
    """Scores of a batch from one ``autograd.grad`` per sample.

    Args:
        losses_of: Runs the forward pass of the float64 copy it is given; returns losses (B,).
    """
    here = copy.deepcopy(model).double().requires_grad_(True)
    there = dict(copy.deepcopy(reference).double().named_parameters())
    parameters = {name: here.get_parameter(name) for name in layers}
    direction = {name: there[name].detach() - p.detach() for name, p in parameters.items()}
    norm = sum(float((d * d).sum()) for d in direction.values()) ** 0.5
    losses = losses_of(here)
    kept: dict[str, list[Tensor]] = {name: [] for name in layers}
    proj, cos = [], []
    for i in range(len(losses)):
        gradients = torch.autograd.grad(
            losses[i], list(parameters.values()), retain_graph=True, allow_unused=True
        )
        dot = length = 0.0
        for name, gradient in zip(layers, gradients, strict=True):
            g = torch.zeros_like(direction[name]) if gradient is None else gradient
            dot += float(torch.dot(g.flatten(), direction[name].flatten()))
            length += float((g * g).sum())
            kept[name].append(g)
        proj.append(-dot / norm)
        cos.append(-dot / norm / length**0.5 if length > 0 else 0.0)
    return Truth(
        losses=losses.detach(),
        proj=torch.tensor(proj, dtype=torch.float64),
        cos=torch.tensor(cos, dtype=torch.float64),
        gradients={name: torch.stack(list_) for name, list_ in kept.items()},
        norm=norm,
    )


def relative_difference(ours: Tensor, truth: Tensor) -> float:
    """Largest absolute difference, divided by the largest absolute value of ``truth``."""
    scale = float(truth.abs().max())
    worst = float((ours.detach().double() - truth).abs().max())
    return worst if scale == 0.0 else worst / scale


def contrastive_losses(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss of each pair (B,), from log-softmaxes pair by pair."""
    logits = scale * image @ text.T
    rows, columns = torch.log_softmax(logits, 1), torch.log_softmax(logits, 0)
    return torch.stack([-(rows[i, i] + columns[i, i]) / 2 for i in range(len(logits))])


def sigmoid_losses(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's loss of each image (B,), term by term: -log sigmoid(z_ij (s cos_ij + b))."""
    losses = []
    for i in range(len(image)):
        signs = torch.full((len(text),), -1.0, dtype=image.dtype)
        signs[i] = 1.0
        terms = torch.log1p(torch.exp(-signs * (scale * text @ image[i] + bias)))
        losses.append(terms.sum())
    return torch.stack(losses)


def label_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each sample (B,) against class numbers (B,)."""
    return torch.stack([-torch.log_softmax(x, 0)[y] for x, y in zip(logits, labels, strict=True)])
