"""AdamW for a single tensor (Loshchilov and Hutter, arXiv 1711.05101).

The same operations as ``torch.optim.AdamW``, to the bit. Importing that one loads torch's compiler:
a first step takes 1.31 s of a processor against 0.03 s here (``bench/linear_heads.py``), and live
tuning makes one in the app.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

_FAST, _SLOW, _EPSILON = 0.9, 0.999, 1e-8  # the usual decay rates of both moments


@dataclass
class AdamW:
    """State of the optimiser; ``step`` changes ``weight`` in place."""

    weight: Tensor
    learning_rate: float
    weight_decay: float
    _steps: int = 0
    _mean: Tensor = field(init=False)
    _square: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._mean = torch.zeros_like(self.weight)
        self._square = torch.zeros_like(self.weight)

    def step(self, gradient: Tensor) -> None:
        """One update with ``gradient`` (shape of the weight)."""
        self._steps += 1
        self.weight.mul_(1 - self.learning_rate * self.weight_decay)
        self._mean.lerp_(gradient, 1 - _FAST)
        self._square.mul_(_SLOW).addcmul_(gradient, gradient, value=1 - _SLOW)
        size = self.learning_rate / (1 - _FAST**self._steps)
        spread = self._square.sqrt().div_(math.sqrt(1 - _SLOW**self._steps)).add_(_EPSILON)
        self.weight.addcdiv_(self._mean, spread, value=-size)
