"""One forward pass of a training step: losses, mimic scores, and the way back to the weights.

A step needs, from one forward pass, the scores (to make the weights) and then gradients of weighted
losses. Two ways, the same results:

- ``trace_graph``: any mimic layers. Forward mode along the task vector runs through the module up
  to its outputs and through the losses (method.md section 4); the graph of the primal values is
  kept.
- ``trace_head``: the mimic layer is the last linear layer of a classifier. Everything about its
  gradients is a closed form of its inputs and the loss's gradient at its outputs.

A batch may be shared among processes: each traces its rows, and losses and scores are those of the
whole batch. Letters: B batch (whole), b rows of this process, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from mimic_core.base.errors import ScoreError
from mimic_core.features.loading import LoadedBatch
from mimic_core.mimic.contrastive import Embedded, Scaling, score_planted
from mimic_core.mimic.forward_mode import directional_derivative
from mimic_core.mimic.geometry import GraphGeometry, LinearGeometry, cross_entropy_geometry
from mimic_core.mimic.losses import require_finite
from mimic_core.mimic.scores import TaskVector
from mimic_core.mimic.weightings import Geometry, mimic_scores_of
from mimic_core.models import classifiers
from mimic_core.scoring.training.distributed import Group
from mimic_core.scoring.training.objectives import LabelObjective, Objective


class Way(Protocol):
    """The way back from a batch's losses to the weights of this process."""

    def pull(self, weights: Tensor) -> dict[str, Tensor]:
        """This process's part of ``sum_i weights_i g_i`` on the mimic layers; the graph stays."""

    def backward(self, weights: Tensor, parameters: Sequence[Tensor]) -> None:
        """Add this process's part of the gradient of ``sum_i weights_i loss_i`` to ``parameters``;
        the graph is gone afterwards.
        """


@dataclass(frozen=True)
class Swap:
    """Samples of a batch that are scored once more with a label or caption that is wrong on purpose
    (``mimic_core.stats.direction``).

    ``places`` (K,) int64 in the batch; for labelled images ``labels`` (K,), class numbers; for
    pairs ``partners`` (K,), the places in the batch of those whose captions they get.
    """

    places: Tensor
    labels: Tensor | None = None
    partners: Tensor | None = None


@dataclass(frozen=True)
class Swapped:
    """Mimic scores (K,) of method ``proj``, and the geometry where it is a closed form."""

    scores: Tensor
    geometry: Geometry | None = None


@dataclass(frozen=True)
class Trace:
    """What one forward pass leaves; all of the whole batch but for the way back.

    ``scores`` (B,) are mimic scores of method ``proj``; ``correct`` (B,) bool says whether a sample
    is classified right, None for pairs. ``swapped`` scores samples with other labels or captions.
    """

    geometry: Geometry
    scores: Tensor
    correct: Tensor | None
    way: Way
    swapped: Callable[[Swap], Swapped]


@dataclass(frozen=True)
class GraphWay:
    """Through the graph. ``outputs`` are this process's; the graph of ``losses`` (B,) begins at
    ``leaves``, the whole batch's.
    """

    outputs: tuple[Tensor, ...]
    leaves: tuple[Tensor, ...]
    losses: Tensor
    layers: Mapping[str, Tensor]
    row_outputs: int
    group: Group

    def pull(self, weights: Tensor, *, differentiable: bool = False) -> dict[str, Tensor]:
        """See ``Way``. Walks only the graph between the mimic layers and the losses."""
        cotangents = self.cotangents(weights, differentiable=differentiable)
        return pulled(
            self.outputs, cotangents, self.layers, keep=True, differentiable=differentiable
        )

    def backward(self, weights: Tensor, parameters: Sequence[Tensor]) -> None:
        """See ``Way``."""
        cotangents = self.cotangents(weights)
        torch.autograd.backward(self.outputs, cotangents, inputs=list(parameters))

    def cotangents(self, weights: Tensor, *, differentiable: bool = False) -> list[Tensor]:
        """Gradient of ``sum_i weights_i loss_i`` at this process's outputs.

        What all rows share counts once in every process, so each takes an equal part of it.
        """
        whole = torch.autograd.grad(
            self.losses, self.leaves, weights, retain_graph=True, create_graph=differentiable
        )
        rows = self.group.part(len(self.losses))
        return [
            part[rows] if i < self.row_outputs else part / self.group.size
            for i, part in enumerate(whole)
        ]


def pulled(
    outputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    layers: Mapping[str, Tensor],
    *,
    keep: bool = False,
    differentiable: bool = False,
) -> dict[str, Tensor]:
    """``cotangents`` of a module's ``outputs`` pulled back to ``layers``; ``keep`` the graph."""
    attached = [i for i, value in enumerate(outputs) if value.requires_grad]
    gradients: Sequence[Tensor | None] = torch.autograd.grad(
        [outputs[i] for i in attached],
        list(layers.values()),
        [cotangents[i] for i in attached],
        retain_graph=keep,
        create_graph=differentiable,
        allow_unused=True,
    )
    pairs = zip(layers.items(), gradients, strict=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in pairs}


def trace_batch(
    module: nn.Module, objective: Objective, batch: LoadedBatch, vector: TaskVector, group: Group
) -> Trace:
    """The cheaper of the two ways that is exact for these mimic layers."""
    if isinstance(objective, LabelObjective) and is_head_alone(module, vector.layers):
        return trace_head(module, objective, batch, vector, group)
    return trace_graph(module, objective, batch, vector, group)


def trace_graph(
    module: nn.Module, objective: Objective, batch: LoadedBatch, vector: TaskVector, group: Group
) -> Trace:
    """Run ``module`` on this process's rows with the mimic layers dual, then the losses.

    Raises:
        ScoreError: A loss or a score is not finite, or no loss depends on the mimic layers.
    """
    pairs = directional_derivative(module, vector.unit(), lambda: objective.outputs(module, batch))
    if all(tangent is None for _, tangent in pairs):
        raise ScoreError(
            "the losses do not depend on the mimic layers",
            got=", ".join(vector.layers),
            next_step="choose mimic layers that the forward pass uses",
        )
    outputs = tuple(value for value, _ in pairs)
    leaves, targets = whole_batch(objective, [batch], outputs, group)
    tangents = [
        tangent if tangent is None or i >= objective.row_outputs else group.gather(tangent)
        for i, (_, tangent) in enumerate(pairs)
    ]
    losses, scores = _losses_and_scores(objective, leaves, tangents, targets)
    layers = {name: module.get_parameter(name) for name in vector.layers}
    way = GraphWay(outputs, leaves, losses, layers, objective.row_outputs, group)
    geometry = GraphGeometry(losses.detach(), way.pull, total=group.total)
    correct = None if targets is None else leaves[0].detach().argmax(1) == targets
    values = [leaf.detach() for leaf in leaves]
    return Trace(geometry, scores, correct, way, lambda swap: swapped(values, tangents, swap))


@dataclass(frozen=True)
class HeadWay:
    """In closed form on the last layer, and through the graph below it."""

    logits: Tensor
    geometry: LinearGeometry
    rows: slice

    def pull(self, weights: Tensor) -> dict[str, Tensor]:
        """See ``Way``."""
        return self._own().weighted_gradient(weights[self.rows])

    def backward(self, weights: Tensor, parameters: Sequence[Tensor]) -> None:
        """See ``Way``."""
        cotangents = self._own().gradients * weights[self.rows, None]
        torch.autograd.backward(self.logits, cotangents, inputs=list(parameters))

    def _own(self) -> LinearGeometry:
        """Of the rows of this process."""
        whole, rows = self.geometry, self.rows
        return replace(
            whole,
            losses=whole.losses[rows],
            inputs=whole.inputs[rows],
            gradients=whole.gradients[rows],
        )


def trace_head(
    module: nn.Module,
    objective: LabelObjective,
    batch: LoadedBatch,
    vector: TaskVector,
    group: Group,
) -> Trace:
    """An ordinary forward pass of a classifier whose mimic layers are its last layer's.

    Raises:
        ScoreError: A loss or a score is not finite.
    """
    features = objective.features(module, batch)
    logits = objective.logits(module, features)
    labels = group.gather(objective.targets(batch))
    whole = group.gather(logits)
    geometry = head_geometry(module, group.gather(features), whole, labels, vector.layers)
    scores = mimic_scores_of(geometry, vector)
    correct = whole.argmax(1) == labels
    way = HeadWay(logits, geometry, group.part(len(labels)))

    def again(swap: Swap) -> Swapped:
        assert swap.labels is not None  # of labelled images
        inputs, outputs = geometry.inputs[swap.places], whole.detach()[swap.places]
        other = head_geometry(module, inputs, outputs, swap.labels, vector.layers)
        return Swapped(mimic_scores_of(other, vector), other)

    return Trace(geometry, scores, correct, way, again)


def head_geometry(
    module: nn.Module, features: Tensor, logits: Tensor, labels: Tensor, layers: Sequence[str]
) -> LinearGeometry:
    """Of a whole batch: ``features`` (B, F), ``logits`` (B, C) and ``labels`` (B,) of all its rows.

    Raises:
        ScoreError: A loss is not finite.
    """
    name = classifiers.head_name(module)
    geometry = cross_entropy_geometry(
        features,
        logits,
        labels,
        weight=f"{name}.weight",
        bias=f"{name}.bias" if f"{name}.bias" in layers else None,
    )
    require_finite(geometry.losses)
    return geometry


def swapped(outputs: Sequence[Tensor], tangents: Sequence[Tensor | None], swap: Swap) -> Swapped:
    """Scores with other labels or captions, from a whole batch's outputs and their derivatives."""
    if swap.labels is not None:
        logits, along = outputs[0][swap.places], tangents[0]
        assert along is not None  # the losses depend on the mimic layers
        slopes = along[swap.places].float()
        chosen = slopes.gather(1, swap.labels[:, None])[:, 0]
        return Swapped(chosen - (torch.softmax(logits.float(), 1) * slopes).sum(1))
    assert swap.partners is not None  # of pairs
    image, text, *scalars = outputs
    scale, bias, *_ = [*(float(value) for value in scalars), 0.0]
    rates = [0.0 if value is None else float(value) for value in (*tangents[2:], None)]
    scaling = Scaling("siglip" if len(scalars) > 1 else "clip", scale, bias, rates[0], rates[1])
    batch = Embedded(image, text, tangents[0], tangents[1])
    pairs = Embedded(
        image[swap.places],
        text[swap.partners],
        None if tangents[0] is None else tangents[0][swap.places],
        None if tangents[1] is None else tangents[1][swap.partners],
    )
    found = score_planted(batch, scaling, pairs, swap.places, without=swap.partners)
    return Swapped(found.scores)


def is_head_alone(module: nn.Module, layers: Sequence[str]) -> bool:
    """Whether ``layers`` are the last layer's weight, or its weight and bias."""
    name = classifiers.head_name(module)
    return {f"{name}.weight"} <= set(layers) <= {f"{name}.weight", f"{name}.bias"}


def whole_batch(
    objective: Objective, parts: Sequence[LoadedBatch], outputs: Sequence[Tensor], group: Group
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """The whole batch's outputs, as leaves of a new graph, and its targets.

    ``parts`` are this process's rows, and ``outputs`` what the module makes of all of them.
    """
    leaves = tuple(
        (group.gather(value) if i < objective.row_outputs else value.detach()).requires_grad_(True)
        for i, value in enumerate(outputs)
    )
    own = [targets for part in parts if (targets := objective.targets(part)) is not None]
    return leaves, group.gather(torch.cat(own)) if own else None


def _losses_and_scores(
    objective: Objective,
    leaves: Sequence[Tensor],
    tangents: list[Tensor | None],
    targets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Losses (B,) on the graph from ``leaves``, and minus their derivatives along the tangents."""
    with forward_ad.dual_level():
        duals = [
            leaf if tangent is None else forward_ad.make_dual(leaf, tangent)  # type: ignore[no-untyped-call]
            for leaf, tangent in zip(leaves, tangents, strict=True)
        ]
        pair = forward_ad.unpack_dual(objective.losses(tuple(duals), targets))  # type: ignore[no-untyped-call]
        losses, scores = pair.primal, -pair.tangent.detach().float()
    require_finite(losses)
    require_finite(scores, what="score")
    return losses, scores


@contextmanager
def only_trainable(module: nn.Module, layers: Sequence[str]) -> Iterator[None]:
    """Inside, only ``layers`` need gradients: no graph is kept of what lies upstream of them."""
    wanted = set(layers)
    before = {name: p.requires_grad for name, p in module.named_parameters()}
    try:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in wanted)
        yield
    finally:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(before[name])
