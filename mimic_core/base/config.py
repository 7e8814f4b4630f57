"""The settings of a run; pydantic alone is needed to read them.

Each field has its bounds, and below it what it is. The options of the command line and the forms of
the app are made from that (``mimic_core.base.fields``), so no text or bound of a setting is written
a second time.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mimic_core.base.errors import ConfigError
from mimic_core.base.fields import Otherwise

ScoreMode = Literal["probe", "snapshot"]
Mode = Literal["probe", "snapshot", "training"]
Side = Literal["image", "text"]
BOTH_SIDES: tuple[Side, Side] = ("image", "text")
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

# Settings that several configs share.
BatchSize = Annotated[
    int,
    Field(
        ge=2,
        le=65_536,
        description="Samples in a batch. Each is scored against the others of its batch, so larger "
        "batches separate better; 256 and more is good. A pool with fewer samples is one batch.",
    ),
]
ScoreMethod = Annotated[
    Method,
    Field(
        title="Score",
        description="The projection of the gradient on the task vector, or the cosine between "
        "them.",
    ),
]
_TEMPERATURE = (
    "Divides the mimic scores before the softmax that weighs a batch. Lower trusts the best "
    "samples more; higher treats all alike. 0.05 did best on DataComp; 1 suits timm's models."
)
_USUAL = Otherwise("0.05, with timm's models 1")
Temperature = Annotated[float, _USUAL, Field(gt=0, allow_inf_nan=False, description=_TEMPERATURE)]
LearningRate = Annotated[
    float, Field(gt=0, allow_inf_nan=False, description="AdamW's learning rate.")
]
WeightDecay = Annotated[
    float, Field(ge=0, allow_inf_nan=False, description="AdamW's weight decay.")
]
Seed = Annotated[
    int,
    Field(
        ge=0,
        le=2**53 - 1,  # what JSON and a browser hold exactly
        description="Decides the sample, the batches and the fresh weights: the same seed gives "
        "the same scores.",
    ),
]
_LAYERS = "Parameters that the scores are measured on, by their exact names."


class Frozen(BaseModel):
    """Base of all configs: immutable, hashable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Build from plain values; a wrong one is a ``ConfigError`` naming field and value."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or cls.__name__
            said = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
            raise ConfigError(
                f"setting {name}: {said}",
                got=first.get("input"),
                next_step="correct that setting and try again",
            ) from error


class TrainConfig(Frozen):
    """Settings of Grad-Mimic training (method.md section 2; ``docs/training.md``).

    ``mimic_layers`` is empty for the default: a classifier's head, else the last image MLP.
    ``temperature`` None is 0.05 for CLIP models and 1 for timm's, the authors' own choices.
    ``accumulate`` batches, each with its own loss and weights, make one update. ``held_out`` goes
    by hash of (seed, place); ``held_out_column`` and ``clean_column`` mark samples
    (``mimic_core.sources.marks``).
    """

    model: str = Field(title="Model to train")
    """What training starts from: any model that can be a reference, of the same architecture as the
    reference."""
    mimic_layers: Annotated[
        tuple[str, ...], Otherwise("the head of a classifier, else the last image MLP")
    ] = Field(default=(), description=_LAYERS)
    weighting: WeightingName = "mimic"
    """What weighs the samples."""
    reweight: Reweight = Field(default="layers", title="Weights count for")
    """Re-weight the gradient of the mimic layers only, or of all parameters. The rest takes the
    mean gradient. The authors' default is the mimic layers only."""
    method: ScoreMethod = "proj"
    temperature: Annotated[float | None, _USUAL] = Field(
        default=None, gt=0, allow_inf_nan=False, description=_TEMPERATURE
    )
    epochs: int = Field(default=5, ge=1, le=10_000)
    """Visits of each sample."""
    batch_size: BatchSize = Field(
        default=32,
        description="Samples in a batch, over all processes. Pairs are compared within their "
        "batch, and weights sum to 1 over it.",
    )
    accumulate: int = Field(default=1, ge=1, le=10_000, title="Batches per update")
    """Batches that make one update; their gradients are averaged."""
    optimiser: Optimiser = "adamw"
    """How gradients become updates."""
    learning_rate: LearningRate = Field(
        default=1e-4,
        description="The learning rate at its peak. Given weights want less than fresh ones.",
    )
    weight_decay: WeightDecay = Field(
        default=1e-5,
        description="Weight decay of matrices; vectors and scalars do not decay.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of sgd."""
    schedule: Schedule = "constant"
    """Of the learning rate, after the warm-up."""
    warmup_steps: int = Field(default=0, ge=0, title="Warm-up updates")
    """Updates of warm-up: the learning rate rises linearly over these."""
    clip_norm: Annotated[float | None, Otherwise("no limit")] = Field(
        default=None, gt=0, allow_inf_nan=False, title="Gradient norm at most"
    )
    """Limit of the gradient's norm; longer gradients are scaled down to it."""
    held_out: float = Field(default=0.0, ge=0, lt=1, title="Held-out share")
    """Share of the images never trained on, and measured after every epoch. Drawn by image and
    seed: all captions of an image are on one side."""
    held_out_column: str | None = Field(default=None, title="Held-out column")
    """Samples never trained on, beside the share: COLUMN or COLUMN=VALUE."""
    held_out_label_column: Annotated[str | None, Otherwise("the pool's label")] = Field(
        default=None, title="Held-out labels"
    )
    """Column with the labels that judge held-out images, where the pool's are noisy."""
    clean_column: str | None = Field(default=None, title="Clean samples")
    """A few samples known to be clean, for influence: COLUMN or COLUMN=VALUE."""
    clean_per_class: int = Field(default=CLEAN_PER_CLASS, ge=1, title="Clean samples of each class")
    """Clean samples of each class that influence looks at."""
    evaluate_every: Annotated[int | None, Otherwise("every epoch")] = Field(default=None, ge=1)
    """Updates after which the held-out samples are measured too."""
    flip: bool = Field(default=False, title="Mirror half of the images")
    """Mirror half of the images: which ones changes from epoch to epoch, by the seed. The only
    augmentation."""
    compile: bool = Field(default=False, title="Use torch.compile")
    """Use torch.compile, which takes minutes at the start; time an epoch with and without."""
    seed: Seed = Field(
        default=0,
        description="Decides the sample, the held-out share and the batches. Compare runs of equal "
        "seeds.",
    )

    @model_validator(mode="after")
    def _judged_if_held_out(self) -> TrainConfig:
        if self.held_out_label_column is not None and not self.holds_out:
            raise ValueError("held_out_label_column needs held_out or held_out_column")
        return self

    @property
    def holds_out(self) -> bool:
        """Whether any samples are held out."""
        return self.held_out > 0 or self.held_out_column is not None


class SourceConfig(Frozen):
    """A pool and the part of it to be scored; ``task`` None guesses from the pool.

    Several pools may be given as ``paths`` instead of ``path`` and ``also``; in whatever order, it
    is the same configuration.
    """

    path: str
    """The pool: a folder of webdataset shards or images, class folders, a zip, a parquet file or
    folder, or a table of image paths with captions or labels. Nothing is copied: images are read
    where they are."""
    also: tuple[str, ...] = Field(default=(), title="More pools")
    """More pools that are scored together with it, as one. They go with the same, captions or
    labels; the column pool tells them apart. Their order changes nothing."""
    task: Annotated[Task | None, Otherwise("what the pool has")] = Field(
        default=None, title="Images go with"
    )
    """Captions make image–text pairs; labels are the classes of a classifier."""
    image_column: str | None = None
    """For tables: the column with the images or their paths."""
    caption_column: str | None = None
    """For tables and metadata: the column with the captions."""
    label_column: str | None = None
    """For tables of images: the column with the class labels."""
    uid_column: Annotated[str | None, Otherwise("uid, where it has 32 hexadecimal digits")] = Field(
        default=None, title="UID column"
    )
    """The column with the uids that the pool is known by elsewhere."""
    image_root: Annotated[str | None, Otherwise("the table's folder")] = None
    """For tables: the folder that the paths of the images are in now; absolute paths of another
    machine are looked for below it."""
    no_follow_links: bool = False
    """Leave out what links outside the pool's folder lead to."""
    link_roots: tuple[str, ...] = ()
    """Folders that links may lead into; none given, any folder."""
    sample: Annotated[int | None, Otherwise("all samples")] = Field(
        default=None, ge=1, title="Sample size"
    )
    """Use only this many samples, drawn at random by the seed."""
    sample_seed: int = Field(default=0, ge=1 - 2**53, le=2**53 - 1)
    """Draws the sample."""

    @model_validator(mode="before")
    @classmethod
    def _in_one_order(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not (values.get("paths") or values.get("also")):
            return values
        values = dict(values)
        given = values.pop("paths", None)
        if given is not None and ("path" in values or "also" in values):
            raise ValueError("give either paths, or path and also")
        paths = list(given) if given is not None else [values.get("path"), *values["also"]]
        if not all(isinstance(one, str) for one in paths):
            raise ValueError("a path is text")
        if twice := sorted({one for one in paths if paths.count(one) > 1}):
            raise ValueError(f"the pool {twice[0]!r} is given twice: leave one of them out")
        first, *more = sorted(paths)
        return {**values, "path": first, "also": tuple(more)}

    @property
    def paths(self) -> tuple[str, ...]:
        """All its pools, in one order."""
        return (self.path, *self.also)

    def each(self) -> tuple[SourceConfig, ...]:
        """The settings of each of its pools by itself."""
        return tuple(self.model_copy(update={"path": one, "also": ()}) for one in self.paths)


class ProbeConfig(Frozen):
    """Settings of Grad-Mimic on cached features (method.md section 5)."""

    side: Side = Field(default="image", title="Projection side")
    """The tower whose last projection starts fresh and learns. The text side is an alternative
    view."""
    epochs: int = Field(default=5, ge=1, le=1000)
    """Passes over the cached features. The score is the mean over them."""
    batch_size: BatchSize = 256
    temperature: Temperature = 0.05
    learning_rate: LearningRate = 1e-3
    weight_decay: WeightDecay = 1e-5
    weighting: WeightingName = "mimic"
    """Weights of the update: mimic weights are Grad-Mimic; uniform is ordinary training, for
    comparison."""
    method: ScoreMethod = "proj"
    seed: Seed = 0


class SnapshotConfig(Frozen):
    """Settings of scoring at fixed weights (method.md section 4).

    ``model`` is None to score the reference with its mimic layers re-initialised from ``seed``;
    ``mimic_layers`` is empty for the architecture's default.
    """

    model: Annotated[
        str | None, Otherwise("the reference with its mimic layers started afresh")
    ] = Field(default=None, title="Model to score")
    """The model to score: same forms as the reference, and the same architecture."""
    mimic_layers: Annotated[
        tuple[str, ...], Otherwise("the last MLP projection of the image tower")
    ] = Field(default=(), description=_LAYERS)
    batch_size: BatchSize = 256
    repeats: int = Field(default=1, ge=1, le=10_000)
    """Draw the batches this often; more than one gives each score a standard error."""
    temperature: Temperature = 0.05
    method: ScoreMethod = "proj"
    seed: Seed = 0


class HeadConfig(Frozen):
    """Where the reference head of a labelled run comes from (method.md section 5).

    From ``file``; or trained on the ``trusted`` samples alone and, with ``trusted_label_column``,
    on those that have a label there; else zero-shot from ``prompts`` (for CLIP models) or the
    reference checkpoint's own. ``prompts`` also give labelled samples their CLIP score.
    """

    file: str | None = None
    """File with a trained head for the features, on this machine: weights of a classifier's last
    layer, such as another run's reference_head.safetensors."""
    trusted: str | None = Field(default=None, title="Trusted samples")
    """Samples to train the reference head on: COLUMN (true or false), COLUMN=VALUE, or a share
    drawn at random such as 20%. The run leaves them out."""
    trusted_label_column: Annotated[str | None, Otherwise("the labels that are scored")] = Field(
        default=None, title="Column with their labels"
    )
    """Column with the right labels of the trusted samples; alone, it trusts the samples that have
    one."""
    score_trusted: bool = Field(default=False, title="Use the trusted samples too")
    """Do not leave the trusted samples out. Without, they shape the reference head alone: they are
    neither scored nor trained on."""
    prompts: Annotated[tuple[str, ...], Otherwise("a photo of a {}")] = ()
    """For CLIP models: words for a class, with {} for its name; all are averaged."""
    weight_decay: Annotated[float | None, Otherwise("chosen by cross-validation")] = Field(
        default=None, ge=0, allow_inf_nan=False
    )
    """Of a head that is trained on trusted samples."""

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

    ``reference`` is a model specification (``mimic_core.models.names``); ``head`` is for
    labelled pools.
    """

    source: SourceConfig
    reference: str = Field(title="Reference model")
    """The better model that samples are measured against. In probe mode it is also the model, with
    its last projection started afresh."""
    preprocess: Annotated[str | None, Otherwise("the checkpoint's own")] = Field(
        default=None, title="Image preprocessing"
    )
    """Preprocessing of the images. A checkpoint that does not say how its images were prepared
    needs this."""
    precision: Precision = "fp32"
    """Of the forward pass. bf16 is faster on accelerators; scores differ by some 3 %."""
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

    def require_epochs(self, used: int | None) -> None:
        """Refuse to use the first ``used`` epochs (or repeats) of a run that has fewer.

        Raises:
            ConfigError: There are fewer.
        """
        scorer = self.scorer
        most = scorer.repeats if isinstance(scorer, SnapshotConfig) else scorer.epochs
        if used is not None and not 1 <= used <= most:
            raise ConfigError(
                "the run has no such epochs",
                got=f"the first {used}",
                allowed=f"1 to {most}",
                next_step="give fewer --epochs-used, or leave it out to use all",
            )
