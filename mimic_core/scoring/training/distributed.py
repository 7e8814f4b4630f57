"""The processes that train together: one group, made by ``torchrun``, or this process alone.

Each process holds a part of every batch, in order: process r of R has rows r B/R to (r + 1) B/R.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

from mimic_core.base.errors import ConfigError

# Others wait while the first process reads the pool, evaluates and writes: hours on a large pool.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Group:
    """``size`` processes of which this one is number ``rank``; alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def require_even(self, whole: int) -> None:
        """Refuse a batch of ``whole`` rows that cannot be shared out evenly.

        Raises:
            ConfigError: It cannot.
        """
        if whole % self.size:
            raise ConfigError(
                "the batch cannot be shared out evenly among the processes",
                got=f"{whole} samples, {self.size} processes",
                allowed="a multiple of the number of processes",
                next_step="choose another --batch-size",
            )

    def part(self, whole: int) -> slice:
        """This process's rows of a batch of ``whole`` rows.

        Raises:
            ConfigError: The rows cannot be shared out evenly.
        """
        self.require_even(whole)
        share = whole // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def gather(self, part: Tensor) -> Tensor:
        """The rows of all processes, in order, from each one's ``part``; carries no gradient."""
        part = part.detach().contiguous()
        if self.size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        torch.distributed.all_gather(parts, part)
        return torch.cat(parts)

    def total(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over the processes."""
        if self.size == 1:
            return value
        summed = value.detach().clone()
        torch.distributed.all_reduce(summed)
        return summed

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace each parameter's gradient by its sum over the processes."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def any(self, *, flag: bool) -> bool:
        """Whether ``flag`` is set in any process."""
        if self.size == 1:
            return flag
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        return bool(self.total(torch.tensor(float(flag), device=device)) > 0)

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()


def launched() -> bool:
    """Whether ``torchrun`` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_processes() -> int:
    """How many processes of this machine train together."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def first_process() -> bool:
    """Whether this process is the one that writes and speaks, inside and outside of a group."""
    return int(os.environ.get("RANK", "0")) == 0


def own_device(device: str | None) -> str | None:
    """The device of this process: its own GPU where ``torchrun`` started several."""
    if launched() and device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """The group of processes that ``torchrun`` started, left again at the end."""
    if not launched():
        yield Group()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Group(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()
