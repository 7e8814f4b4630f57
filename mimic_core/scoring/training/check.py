"""Checks of a training run's scores before it starts, by other means than those it trains with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimic_core.features.loading import LoadedBatch
from mimic_core.mimic.forward_mode import directional_derivative
from mimic_core.mimic.losses import widened
from mimic_core.mimic.scores import TaskVector
from mimic_core.scoring.training.distributed import Group
from mimic_core.scoring.training.objectives import Objective
from mimic_core.scoring.training.tracing import only_trainable, trace_batch


def objective_losses(module: nn.Module, objective: Objective, batch: LoadedBatch) -> Tensor:
    """Losses (B,) of a batch by an ordinary forward pass."""
    return objective.losses(objective.outputs(module, batch), objective.targets(batch))


def self_check(
    module: nn.Module, objective: Objective, batch: LoadedBatch, vector: TaskVector
) -> float:
    """Largest difference between training's scores and reverse mode over a small batch.

    Relative to the longest of the samples' gradients, which no score can exceed, or to a hundredth
    of the largest derivative that a logit can have: the gradients of equal pairs are zero but for
    rounding. Give an objective in float32, whatever the run's precision.
    """
    with only_trainable(module, vector.layers):
        scores = trace_batch(module, objective, batch, vector, Group()).scores
        losses = objective_losses(module, objective, batch)
        worst = longest = 0.0
        for score, loss in zip(scores, losses, strict=True):
            gradient, along = _gradient(module, loss, vector)
            worst = max(worst, abs(float(score) + along))
            longest = max(longest, gradient)
        steep = _steepest(module, objective, batch, vector)
    return worst / max(longest, 0.01 * steep, 1e-30)


def _steepest(
    module: nn.Module, objective: Objective, batch: LoadedBatch, vector: TaskVector
) -> float:
    """A bound on the derivatives of the logits along the task vector."""
    outputs = directional_derivative(
        module, vector.unit(), lambda: objective.outputs(module, batch)
    )
    rows, shared = outputs[: objective.row_outputs], outputs[objective.row_outputs :]
    scale = float(shared[0][0]) if shared else 1.0  # of pairs; labels have their logits as rows
    along = sum(float(tangent.norm(dim=1).max()) for _, tangent in rows if tangent is not None)
    return scale * along + sum(float(t.abs()) for _, t in shared if t is not None)


def _gradient(module: nn.Module, loss: Tensor, vector: TaskVector) -> tuple[float, float]:
    """Norm of one loss's gradient on the mimic layers, and its part along the task vector."""
    parameters = [module.get_parameter(name) for name in vector.layers]
    parts = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    unit = vector.unit()
    square = along = 0.0
    for name, part in zip(vector.layers, parts, strict=True):
        if part is not None:
            square += float(widened(part).square().sum())
            along += float((widened(part) * widened(unit[name])).sum())
    return square**0.5, along
