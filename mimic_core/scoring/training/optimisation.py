"""The optimiser of a training run: AdamW or SGD, learning rate by step, clipping, loss scaling.

Everything that decides the next update is in ``state``, as tensors by name, so that a resumed run
goes on to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mimic_core.base.config import Precision, TrainConfig

# CLIP keeps its logits' multiplier at most this (Radford et al., arXiv 2103.00020, section 2.5).
MAX_LOGIT_SCALE = 100.0


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """The rate of update ``step`` (from 0) of ``total``: warm-up, then constant or cosine to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    passed = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, passed)))


class Updater:
    """Turns the gradients of ``parameters`` into updates.

    Matrices decay; vectors and scalars (norms, biases, the logit scale) do not, as is usual for
    CLIP models.

    Args:
        parameters: All that is trained, by name.
        total: Updates of the whole run.
        device, precision: Of the forward pass; ``fp16`` scales the loss against underflow.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        config: TrainConfig,
        *,
        total: int,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.step = 0
        self._config = config
        self._total = total
        self._parameters = parameters
        self._optimiser = _optimiser(parameters, config)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def scale(self, cotangents: Tensor) -> Tensor:
        """``cotangents`` as they are to be sent backward."""
        scaled: Tensor = self._scaler.scale(cotangents)
        return scaled

    def update(self) -> None:
        """One update from the gradients there are, which are gone afterwards."""
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self._config, self.step, self._total)
        if self._config.clip_norm is not None:
            self._scaler.unscale_(self._optimiser)
            torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._config.clip_norm)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._optimiser.zero_grad(set_to_none=True)
        self.step += 1

    def state(self) -> dict[str, Tensor]:
        """What ``load`` needs to go on."""
        tensors = {"step": torch.tensor(self.step)}
        for name, parameter in self._parameters.items():
            for key, value in self._optimiser.state.get(parameter, {}).items():
                if value is not None:
                    tensors[f"{key}|{name}"] = torch.as_tensor(value).detach().cpu()
        scaler = self._scaler.state_dict()
        if scaler:
            tensors["scale"] = torch.tensor(scaler["scale"], dtype=torch.float64)
            tensors["growth_tracker"] = torch.tensor(scaler["_growth_tracker"])
        return tensors

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state``."""
        self.step = int(state["step"])
        for key, value in state.items():
            kind, _, name = key.partition("|")
            if name:
                parameter = self._parameters[name]
                # AdamW counts its steps on the CPU; moments live beside their parameters.
                place = value.clone() if kind == "step" else value.to(parameter.device, copy=True)
                self._optimiser.state[parameter][kind] = place
        if "scale" in state:
            scaler: dict[str, Any] = self._scaler.state_dict()
            scaler["scale"] = float(state["scale"])
            scaler["_growth_tracker"] = int(state["growth_tracker"])
            self._scaler.load_state_dict(scaler)


def limit_logit_scale(module: nn.Module) -> None:
    """Keep a CLIP model's logit scale, stored as a logarithm, where CLIP training keeps it."""
    scale = getattr(module, "logit_scale", None)
    if isinstance(scale, nn.Parameter) and getattr(module, "logit_bias", None) is None:
        with torch.no_grad():
            scale.clamp_(max=math.log(MAX_LOGIT_SCALE))


def _optimiser(
    parameters: Mapping[str, nn.Parameter], config: TrainConfig
) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters.values() if p.ndim >= 2]},
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            groups,
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
