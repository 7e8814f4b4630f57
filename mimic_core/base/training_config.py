"""The settings of Grad-Mimic training, a part of ``mimic_core.base.schema``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mimic_core.base.frozen import Frozen

Method = Literal["proj", "cos"]
WeightingName = Literal["uniform", "mimic", "grand", "agra", "grad_match", "rho", "influence"]
Reweight = Literal["layers", "all"]
Optimiser = Literal["adamw", "sgd"]
Schedule = Literal["constant", "cosine"]

CLEAN_PER_CLASS = 10  # samples of each class that the weighting ``influence`` looks at


class TrainConfig(Frozen):
    """Settings of Grad-Mimic training (method.md section 2; ``docs/training.md``).

    ``model`` is what training starts from; the reference of the run gives the direction.
    ``mimic_layers`` is empty for the default: a classifier's head, else the last image MLP.
    ``temperature`` None is 0.05 for CLIP models and 1 for timm's, the authors' own choices.
    ``reweight``: the weights count for the mimic layers alone, all other parameters taking the mean
    gradient, or for all parameters. ``batch_size`` counts the samples of one batch over all
    processes; ``accumulate`` batches, each with its own loss and weights, make one update.
    ``held_out`` is the share of images, by hash of (seed, place), that are never trained on;
    ``held_out_column`` and ``clean_column`` mark samples (``mimic_core.sources.marks``).
    ``held_out_label_column`` has the labels by which held-out images are judged; None takes those
    of the pool.
    """

    model: str
    mimic_layers: tuple[str, ...] = ()
    weighting: WeightingName = "mimic"
    reweight: Reweight = "layers"
    method: Method = "proj"
    temperature: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    epochs: int = Field(default=5, ge=1, le=10_000)
    batch_size: int = Field(default=32, ge=2, le=65_536)
    accumulate: int = Field(default=1, ge=1, le=10_000)
    optimiser: Optimiser = "adamw"
    learning_rate: float = Field(default=1e-4, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=1e-5, ge=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: Schedule = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    held_out: float = Field(default=0.0, ge=0, lt=1)
    held_out_column: str | None = None
    held_out_label_column: str | None = None
    clean_column: str | None = None
    clean_per_class: int = Field(default=CLEAN_PER_CLASS, ge=1)
    evaluate_every: int | None = Field(default=None, ge=1)
    flip: bool = False
    compile: bool = False
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _judged_if_held_out(self) -> TrainConfig:
        if self.held_out_label_column is not None and not self.holds_out:
            raise ValueError("held_out_label_column needs held_out or held_out_column")
        return self

    @property
    def holds_out(self) -> bool:
        """Whether any samples are held out."""
        return self.held_out > 0 or self.held_out_column is not None
