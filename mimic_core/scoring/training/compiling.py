"""``torch.compile`` for the parts of a model that carry no tangents.

Forward mode through compiled code breaks the graph or fails (seen in torch 2.15), so whatever lies
on the way from the mimic layers to the losses stays eager. With the head of a classifier as the
mimic layer no forward mode is needed at all, and everything below the head is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mimic_core.base.config import BOTH_SIDES
from mimic_core.features.encoders import tangent_sides
from mimic_core.models.classifiers import TowerClassifier
from mimic_core.scoring.training.objectives import LabelObjective, Objective
from mimic_core.scoring.training.tracing import is_head_alone


def compile_plain_parts(module: nn.Module, objective: Objective, layers: Sequence[str]) -> str:
    """Compile in place what carries no tangents; returns what that was, in words."""
    model: Any = module
    if isinstance(objective, LabelObjective):
        if not is_head_alone(module, layers):
            return "nothing is compiled: the mimic layers are not the head alone"
        if isinstance(module, TowerClassifier):
            module.visual.compile()
        else:
            model.forward_features = torch.compile(model.forward_features)
        return "everything below the head is compiled"
    sides = tangent_sides(layers)
    if "image" not in sides:
        model.visual.compile()
    if "text" not in sides:
        (model.text if hasattr(model, "text") else model.transformer).compile()
    plain = [side for side in BOTH_SIDES if side not in sides]
    if not plain:
        return "nothing is compiled: both towers carry tangents"
    return f"the {' and the '.join(plain)} tower is compiled; scores are computed eagerly"
