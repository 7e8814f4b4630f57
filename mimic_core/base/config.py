"""TODO mimic_core/base/config.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mimic_core.base.errors import ConfigError

ScoreMode = Literal["probe", "snapshot"]
Mode = Literal["probe", "snapshot", "training"]
Side = Literal["image", "text"]
Task = Literal["pairs", "labels"]
LossName = Literal["clip", "siglip"]
Precision = Literal["fp32", "bf16", "fp16"]

Method = Literal["proj", "cos"]
WeightingName = Literal[
    "uniform",
    "mimic",
    "grand",
    "agra",
    "grad_match",
    "grad_match_single",
    "rho",
    "rho_attached",
    "influence",
]
Reweight = Literal["layers", "all"]
Optimiser = Literal["adamw", "sgd"]
Schedule = Literal["constant", "cosine"]
CLEAN_PER_CLASS = 10  # samples of each class that the weighting ``influence`` looks at


class Frozen(BaseModel):
    """Base of all configs: immutable, hashable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Any:
        """Build from plain values; a wrong one is a ``ConfigError`` naming field and value."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or cls.__name__
            raise ConfigError(
                f"setting {name}: {first['msg']}",
                got=first.get("input"),
                next_step="correct that setting and try again",
            ) from error


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


def fresh_weights(reference: str, seed: int) -> str | None:
    """The specification of ``reference``'s architecture with random weights of ``seed``.

    None where the architecture cannot be told from the name alone, as for ``hf-hub:``.
    """
    if reference.startswith("hf-hub:"):
        return None
    folder = reference.removeprefix("local-dir:")
    if Path(folder).is_dir():
        return f"{folder.rstrip('/')}/open_clip_config.json:random:{seed}"
    library = "timm:" if reference.startswith("timm:") else ""
    arch, colon, _ = reference.removeprefix(library).partition(":")
    return f"{library}{arch}:random:{seed}" if colon and arch else None


class SourceConfig(Frozen):
    """A pool and the part of it to be scored. ``sample`` draws that many by ``sample_seed``.

    ``task`` says whether images go with captions or with labels; None guesses from the pool.
    """

    path: str
    task: Task | None = None
    image_column: str | None = None
    caption_column: str | None = None
    label_column: str | None = None
    sample: int | None = Field(default=None, ge=1)
    sample_seed: int = 0


def default_temperature(reference: str) -> float:
    """The temperature that suits a reference model: mimic scores grow with the features' length.

    0.05 for CLIP models, whose features before the softmax are unit embeddings; 1, the authors' own
    for classifiers, for timm's models, whose features are as they come.
    """
    return 1.0 if reference.startswith("timm:") else 0.05


class ProbeConfig(Frozen):
    """Settings of Grad-Mimic on cached features (method.md section 5).

    ``learning_rate``, ``weight_decay`` are AdamW's; ``temperature`` divides the mimic scores before
    the softmax; ``side`` names the tower whose last projection is re-initialised and trained.
    """

    side: Side = "image"
    epochs: int = Field(default=5, ge=1, le=1000)
    batch_size: int = Field(default=256, ge=2, le=65_536)
    temperature: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=1e-5, ge=0, allow_inf_nan=False)
    weighting: WeightingName = "mimic"
    method: Method = "proj"
    seed: int = Field(default=0, ge=0)


class SnapshotConfig(Frozen):
    """Settings of scoring at fixed weights (method.md section 4).

    ``model`` is None to score the reference with its mimic layers re-initialised from ``seed``;
    ``mimic_layers`` is empty for the architecture's default.
    """

    model: str | None = None
    mimic_layers: tuple[str, ...] = ()
    batch_size: int = Field(default=256, ge=2, le=65_536)
    repeats: int = Field(default=1, ge=1, le=10_000)
    temperature: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    method: Method = "proj"
    seed: int = Field(default=0, ge=0)


class HeadConfig(Frozen):
    """Where the reference head of a labelled run comes from (method.md section 5).

    From ``file`` (weights of a classifier's last layer); or trained on the trusted samples alone,
    which are ``trusted`` (a boolean column, ``COLUMN=VALUE``, or a share such as ``20%``) and, with
    ``trusted_label_column``, those that have a label there; else zero-shot from ``prompts`` (for
    CLIP models) or the reference checkpoint's own. ``prompts`` also give labelled samples their
    CLIP score. Trusted samples are left out of the scores unless ``score_trusted``.
    """

    file: str | None = None
    trusted: str | None = None
    trusted_label_column: str | None = None
    score_trusted: bool = False
    prompts: tuple[str, ...] = ()
    weight_decay: float = Field(default=1e-2, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_origin(self) -> HeadConfig:
        if self.file is not None and self.uses_trusted:
            raise ValueError("give a head's file or trusted samples, not both")
        if self.score_trusted and not self.uses_trusted:
            raise ValueError("score_trusted needs trusted samples")
        for prompt in self.prompts:
            if prompt.count("{}") != 1:
                raise ValueError(f"a prompt names the class by one {{}}, which {prompt!r} does not")
        return self

    @property
    def uses_trusted(self) -> bool:
        """Whether the head is trained on trusted samples."""
        return self.trusted is not None or self.trusted_label_column is not None


class RunConfig(Frozen):
    """All that decides the scores of a run; nothing here depends on workers or on the day.

    ``reference`` is a model specification (``mimic_core.models.checkpoints``); ``preprocess``
    replaces the image preprocessing, None being the reference checkpoint's own; ``head`` is for
    labelled pools.
    """

    source: SourceConfig
    reference: str
    preprocess: str | None = None
    precision: Precision = "fp32"
    head: HeadConfig | None = None
    probe: ProbeConfig | None = None
    snapshot: SnapshotConfig | None = None
    training: TrainConfig | None = None

    @model_validator(mode="after")
    def _one_mode(self) -> RunConfig:
        if sum(part is not None for part in (self.probe, self.snapshot, self.training)) != 1:
            raise ValueError("give exactly one of probe, snapshot and training")
        return self

    @property
    def mode(self) -> Mode:
        """How the run's scores are made."""
        if self.training is not None:
            return "training"
        return "probe" if self.probe is not None else "snapshot"

    @property
    def scorer(self) -> ProbeConfig | SnapshotConfig | TrainConfig:
        """The settings of the chosen mode."""
        chosen = self.probe or self.snapshot or self.training
        assert chosen is not None  # guaranteed by the validator
        return chosen
