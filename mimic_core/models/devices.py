"""Where to compute, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from mimic_core.base.config import Precision
from mimic_core.base.errors import ConfigError


def pick_device(name: str | None = None) -> torch.device:
    """The device to compute on: ``name``, else CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: The named device does not exist here.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"the device cannot be used ({str(error).splitlines()[0]})",
            got=name,
            allowed="cuda, cuda:N, mps or cpu, as far as this machine has them",
            next_step="leave --device away to let Mimicscope choose",
        ) from error
    if device.type not in ("cuda", "mps", "cpu"):
        raise ConfigError(
            "Mimicscope does not compute on devices of this kind",
            got=name,
            allowed="cuda, cuda:N, mps or cpu",
            next_step="leave --device away to let Mimicscope choose",
        )
    return device


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The context in which a forward pass runs at ``precision``."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)
