"""What a loader hands back, and how large a model would be before any of it is allocated.

A config of a few bytes can ask for more memory than any machine has. A model is therefore built on
the meta device first, where tensors have shapes and no values, and its parameters are counted: they
must fit into this machine, and a file of weights must hold that many.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mimic_core.base.errors import ModelError
from mimic_core.models.checkpoints import Weights
from mimic_core.models.names import ModelSpec

Tokenizer = Callable[[list[str]], Tensor]
# A larger table of positions is interpolated from a smaller one, and an architecture may keep
# counters that a file lacks; nothing else makes a model larger than its weights.
_ROOM = 2.0
_SMALL = 1_000_000
_CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Built:
    """A model as its library builds it, weights loaded, with all that belongs to it.

    ``architecture`` is what the weights alone do not say, for the model's identity.
    """

    module: nn.Module
    preprocessing: dict[str, Any]
    preprocessing_origin: str
    architecture: object
    tokenizer: Tokenizer | None = None
    classes: tuple[str, ...] = ()


def built(spec: ModelSpec, make: Callable[[], nn.Module]) -> nn.Module:
    """What ``make`` makes, on the CPU, with the seed of ``spec``; the generators stay as they are.

    Raises:
        ModelError: It cannot be made.
    """
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Of a classifier of no classes, which is what a file without one asks for.
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            torch.manual_seed(spec.seed)
            return make()
    except ModelError:
        raise
    except Exception as error:  # libraries and the hub raise many kinds; all mean one thing
        raise ModelError(
            f"the model cannot be loaded ({type(error).__name__}: {first_line(error)})",
            got=spec.text,
            allowed="an architecture that can be built, with weights that can be had",
            next_step="if weights must be downloaded, check the network or fetch them on another "
            "machine and give the file; else check config and weights",
        ) from error


def require_room(
    spec: ModelSpec, make: Callable[[], nn.Module], weights: Weights | None, part: str = ""
) -> nn.Module:
    """Build on the meta device alone and hold the size against the weights and this machine.

    Args:
        weights: Those that are to be loaded, if it is a file.
        part: The submodule that they are for; all of the module without one.

    Returns:
        The module on the meta device.

    Raises:
        ModelError: It is too large, or cannot be built.
    """
    with torch.device("meta"):
        whole = built(spec, make)
    module = whole.get_submodule(part)
    needed = sum(tensor.numel() for tensor in module.state_dict().values())
    if weights is not None and needed > _ROOM * weights.numbers + _SMALL:
        raise ModelError(
            "the weights are far too few for the architecture",
            got=f"{weights.path}: {weights.numbers:,} numbers",
            allowed=f"{needed:,} numbers, as {spec.arch} has",
            next_step="give the architecture that the checkpoint was trained with",
        )
    held, memory = sum(t.nbytes for t in whole.state_dict().values()), _memory()
    if held > memory:
        raise ModelError(
            f"the model has {needed:,} parameters, more than this machine's memory holds",
            got=spec.text,
            allowed=f"{memory / 1e9:,.0f} GB",
            next_step="check the config, or use a machine with more memory",
        )
    return whole


def _memory() -> int:
    """Bytes of memory that this process may have."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(_CGROUP.read_text()))
    except (OSError, ValueError):  # no limit of a container's
        return physical


def do_not_fit(spec: ModelSpec, what: str, error: BaseException | str) -> ModelError:
    """The error for weights of another architecture."""
    return ModelError(
        f"the weights do not fit {what} ({' '.join(str(error).split())[:300]})",
        got=spec.text,
        allowed="a checkpoint of that architecture, with all of its parameters",
        next_step="give the architecture that the checkpoint was trained with",
    )


def require_fitting_images(
    spec: ModelSpec, settings: dict[str, Any], forward: Callable[[Tensor], Tensor]
) -> None:
    """Raise a ``ModelError`` unless one image, prepared as ``settings`` say, goes through."""
    height, width = settings["size"]
    try:
        with torch.no_grad():
            forward(torch.zeros(1, 3, height, width))
    except Exception as error:  # whatever the layers raise
        raise ModelError(
            "the model cannot take images as they are prepared for it "
            f"({type(error).__name__}: {first_line(error)})",
            got=f"{spec.text}: {height} x {width} pixels",
            allowed="the size and the three channels that the model was built for",
            next_step="check the size in the model's config, or choose --preprocess",
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error) or repr(error)).splitlines()[0][:300]
