"""One step of Grad-Mimic training: one forward pass, one backward pass, whatever the weighting.

The forward pass gives losses and mimic scores (``mimic_core.scoring.training.tracing``), the
weighting turns them into weights, and the backward pass takes the gradients of the update:

- ``reweight="all"``: every parameter gets ``sum_i w_i dloss_i``: one backward pass.
- ``reweight="layers"``: the mimic layers get ``sum_i w_i g_i``, every other parameter the mean
  gradient. The two differ only between the losses and the mimic layers, so the weighted gradient
  is pulled back that short way first, and the backward pass of the mean leaves the mimic layers
  out. With the mimic layer near the losses the extra way costs about as much as is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mimic_core.base.config import TrainConfig
from mimic_core.features.loading import LoadedBatch
from mimic_core.mimic.scores import cosines, mimic_weights, vector_towards
from mimic_core.mimic.weightings import Weighed, batch_weights, weighs_everything
from mimic_core.scoring.training.distributed import Group
from mimic_core.scoring.training.objectives import Objective
from mimic_core.scoring.training.tracing import Swap, Trace, trace_batch


@dataclass(frozen=True)
class Visit:
    """What is logged of one batch; all (B,), on the device, detached; ``planted`` (K,), None where
    no sample has been scored a second time, or this cannot be done for the cosine.
    """

    losses: Tensor
    mimic_scores: Tensor
    mimic_weights: Tensor
    train_weights: Tensor
    correct: Tensor | None
    note: str | None
    planted: Tensor | None = None


@dataclass(frozen=True)
class Aids:
    """What some weightings compare with; ``swap`` is what the direction check compares with."""

    comparison: Mapping[str, Tensor] | None = None
    reference_losses: Tensor | None = None
    swap: Swap | None = None


@dataclass(frozen=True)
class Learner:
    """What is trained, on what, and where to: ``target`` maps the mimic layers to the reference's
    values of them.
    """

    module: nn.Module
    objective: Objective
    target: Mapping[str, Tensor]
    config: TrainConfig
    group: Group = field(default_factory=Group)


def visit_batch(
    learner: Learner,
    batch: LoadedBatch,
    aids: Aids,
    *,
    scale: Callable[[Tensor], Tensor] = lambda x: x,
) -> Visit:
    """Score a batch, weigh its samples and add its re-weighted gradient to the parameters.

    Args:
        batch: This process's rows of it.
        scale: See ``add_gradients``.
    """
    module, config = learner.module, learner.config
    vector = vector_towards(module, learner.target)
    trace = trace_batch(module, learner.objective, batch, vector, learner.group)
    visit = weigh(trace, config, aids)
    parameters = dict(module.named_parameters())
    add_gradients(
        trace,
        visit.train_weights,
        layers={name: parameters[name] for name in learner.target},
        others=[
            value
            for name, value in parameters.items()
            if name not in learner.target and value.requires_grad  # a module may freeze its own
        ],
        reweight_all=config.reweight == "all" or weighs_everything(config.weighting),
        scale=scale,
    )
    return visit


def weigh(trace: Trace, config: TrainConfig, aids: Aids) -> Visit:
    """Scores and weights of a traced batch."""
    assert config.temperature is not None  # resolved before training starts
    scores = trace.scores
    if config.method == "cos":
        scores = cosines(scores, trace.geometry.norms())
    ours = mimic_weights(scores, temperature=config.temperature)
    weighed = Weighed(ours)
    if config.weighting != "mimic":
        weighed = batch_weights(
            config.weighting,
            trace.geometry,
            temperature=config.temperature,
            method=config.method,
            scores=scores,
            comparison=aids.comparison,
            reference_losses=aids.reference_losses,
        )
    return Visit(
        trace.geometry.losses,
        scores,
        ours,
        weighed.weights,
        trace.correct,
        weighed.note,
        None if aids.swap is None else _planted(trace, aids.swap, config),
    )


def _planted(trace: Trace, swap: Swap, config: TrainConfig) -> Tensor | None:
    found = trace.swapped(swap)
    if config.method == "cos":
        return None if found.geometry is None else cosines(found.scores, found.geometry.norms())
    return found.scores


def add_gradients(
    trace: Trace,
    weights: Tensor,
    *,
    layers: Mapping[str, Tensor],
    others: Sequence[Tensor],
    reweight_all: bool,
    scale: Callable[[Tensor], Tensor] = lambda x: x,
) -> None:
    """Add the batch's re-weighted gradient to the parameters; the trace is used up.

    Args:
        weights: (B,)
        layers: The mimic layers by name.
        others: All other parameters that are trained.
        reweight_all: The weights count for all parameters, not for the mimic layers alone.
        scale: Multiplies what goes backward: the share of an accumulated batch, the loss scale.
    """
    if reweight_all or not others:
        trace.way.backward(scale(weights), [*layers.values(), *others])
        return
    for name, gradient in trace.way.pull(scale(weights)).items():
        parameter = layers[name]
        added = gradient.detach().to(parameter.dtype)
        parameter.grad = added if parameter.grad is None else parameter.grad + added
    trace.way.backward(scale(torch.full_like(weights, 1 / len(weights))), others)
