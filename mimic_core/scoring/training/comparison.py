"""The mean gradient of the samples that some weightings compare a batch with.

They may be more than fit through one forward pass. Then their outputs are computed part by part
without a graph, and each part is run a second time to take its share of the gradient: the result is
that of one pass, contrastive losses included, with the memory of one part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mimic_core.features.loading import LoadedBatch
from mimic_core.mimic.geometry import LinearGeometry
from mimic_core.mimic.losses import require_finite
from mimic_core.scoring.training.distributed import Group
from mimic_core.scoring.training.objectives import LabelObjective, Objective
from mimic_core.scoring.training.tracing import (
    GraphWay,
    head_geometry,
    is_head_alone,
    only_trainable,
    pulled,
    whole_batch,
)


def mean_gradient(
    module: nn.Module,
    objective: Objective,
    parts: Sequence[LoadedBatch],
    layers: Sequence[str],
    group: Group,
) -> dict[str, Tensor]:
    """Gradient of the mean loss of one batch on the mimic layers, and on nothing else.

    Args:
        parts: This process's rows of the batch, in parts that are on the device one at a time.
    """
    if isinstance(objective, LabelObjective) and is_head_alone(module, layers):
        return _of_the_head(module, objective, parts, layers, group).mean_gradient()
    with only_trainable(module, layers), torch.enable_grad():
        gradient = _through_the_graph(module, objective, parts, layers, group)
    return {name: group.total(part.detach()) for name, part in gradient.items()}


def _of_the_head(
    module: nn.Module,
    objective: LabelObjective,
    parts: Sequence[LoadedBatch],
    layers: Sequence[str],
    group: Group,
) -> LinearGeometry:
    with torch.no_grad():
        features = torch.cat([objective.features(module, part) for part in _placed(module, parts)])
        logits = group.gather(objective.logits(module, features))
    labels = group.gather(torch.cat([objective.targets(part) for part in parts]))
    return head_geometry(module, group.gather(features), logits, labels, layers)


def _through_the_graph(
    module: nn.Module,
    objective: Objective,
    parts: Sequence[LoadedBatch],
    layers: Sequence[str],
    group: Group,
) -> dict[str, Tensor]:
    """This process's share of the gradient; a single part keeps its graph and runs only once."""
    rows = objective.row_outputs
    with torch.set_grad_enabled(len(parts) == 1):
        found = [objective.outputs(module, part) for part in _placed(module, parts)]
    outputs = (*(torch.cat(column) for column in list(zip(*found, strict=True))[:rows]),)
    outputs += found[0][rows:]
    leaves, targets = whole_batch(objective, parts, outputs, group)
    losses = objective.losses(leaves, targets)
    require_finite(losses)
    parameters = {name: module.get_parameter(name) for name in layers}
    way = GraphWay(outputs, leaves, losses, parameters, rows, group)
    mean = torch.full_like(losses.detach(), 1 / len(losses))
    if len(parts) == 1:
        return way.pull(mean)
    cotangents, start = way.cotangents(mean), 0
    gradient = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for part in _placed(module, parts):
        again = objective.outputs(module, part)
        stop = start + len(again[0])
        # What all rows share counts once, so each part takes an equal share of it.
        own = [
            value[start:stop] if i < rows else value / len(parts)
            for i, value in enumerate(cotangents)
        ]
        for name, value in pulled(again, own, parameters).items():
            gradient[name] += value
        start = stop
    return gradient


def _placed(module: nn.Module, parts: Sequence[LoadedBatch]) -> Iterator[LoadedBatch]:
    """Each part where the module is; a large batch stays in the host's memory."""
    device = next(module.parameters()).device
    return (part.to(device) for part in parts)
