"""Mimic layers: those taken without a wish, and drawing their weights afresh."""

from __future__ import annotations

import math
import re
from copy import deepcopy

import torch
from torch import Tensor, nn

from mimic_core.base.errors import ModelError, require_layer

# The last linear map of an MLP block, as open_clip's and timm's towers name it; an attention pool's
# output projection stands in for towers without MLPs (ResNet).
MLP_OUTPUT = re.compile(r"\.mlp\.(c_proj|fc2|w3)\.weight$")
_POOL_OUTPUT = re.compile(r"\.attnpool\.c_proj\.weight$")


def default_mimic_layers(module: nn.Module) -> tuple[str, ...]:
    """The last MLP projection of the image tower (for a ResNet its attention pool's projection).

    Raises:
        ModelError: The image tower has neither.
    """
    names = [name for name, _ in module.named_parameters() if name.startswith("visual.")]
    if not names:
        names = [name for name, _ in module.named_parameters()]
    for pattern in (MLP_OUTPUT, _POOL_OUTPUT):
        found = [name for name in names if pattern.search(name)]
        if found:
            return (found[-1],)
    raise ModelError(
        "no default mimic layer: the image tower has no MLP projection",
        got=type(module).__name__,
        allowed=f"any parameter, for example {', '.join(names[-4:])}",
        next_step="name the mimic layers with --mimic-layer",
    )


def reinitialised(module: nn.Module, layers: tuple[str, ...], *, seed: int) -> nn.Module:
    """A copy of ``module`` whose parameters ``layers`` are drawn afresh (method.md section 6).

    Matrices: normal with standard deviation fan_in^-1/2 (open_clip's own for projections). Vectors:
    ones for weights, zeros for biases and the rest.
    """
    copy = deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(copy.named_parameters())
    for name in layers:
        require_layer(name, parameters)
        parameter = parameters[name]
        parameter.data.copy_(fresh_weight(name, tuple(parameter.shape), generator))
    return copy


def fresh_weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Freshly drawn values for the parameter ``name`` of ``shape``, on the CPU."""
    if len(shape) < 2:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    # nn.Linear and convolutions store (out, in, ...); CLIP's bare projections store (in, out).
    fan_in = math.prod(shape[1:]) if name.endswith("weight") else shape[0]
    return torch.randn(shape, generator=generator) / math.sqrt(fan_in)
