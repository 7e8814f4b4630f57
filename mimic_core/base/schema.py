"""The words everything is stored in: column names and dtypes, configs, array dataclasses.

Letters: N samples, B batch, D embedding width, F feature width. Stored tables and arrays follow
``docs/formats.md``; change ``SCHEMA_VERSION`` when a stored meaning changes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from mimic_core.base.frozen import Frozen
from mimic_core.base.training_config import Method, TrainConfig, WeightingName

SCHEMA_VERSION = 2
ROW_GROUP_ROWS = 65_536  # polars' streaming reader holds whole row groups in memory

ScoreMode = Literal["probe", "snapshot"]
Mode = Literal["probe", "snapshot", "training"]
Side = Literal["image", "text"]
Task = Literal["pairs", "labels"]
LossName = Literal["clip", "siglip"]
Precision = Literal["fp32", "bf16", "fp16"]
LocatorKind = Literal["range", "zip", "parquet"]

# Columns that say where a sample comes from: one row per readable sample.
SAMPLE_COLUMNS: dict[str, pl.DataType] = {
    "uid": pl.String(),
    "key": pl.String(),
    "shard": pl.String(),
    "caption": pl.String(),
    "label": pl.String(),
    "image_kind": pl.String(),
    "image_path": pl.String(),
    "image_offset": pl.Int64(),
    "image_length": pl.Int64(),
    "image_member": pl.String(),
}
# Columns measured while the images are read.
MEASURED_COLUMNS: dict[str, pl.DataType] = {
    "width": pl.Int32(),
    "height": pl.Int32(),
    "caption_tokens": pl.Int32(),
    "caption_length": pl.Int32(),
    "clip_score": pl.Float32(),
}
SKIP_COLUMNS: dict[str, pl.DataType] = {
    "key": pl.String(),
    "shard": pl.String(),
    "reason": pl.String(),
    "detail": pl.String(),
}
SCORE_COLUMNS: dict[str, pl.DataType] = {
    "uid": pl.String(),
    "epoch": pl.Int32(),
    "step": pl.Int32(),
    "loss": pl.Float32(),
    "mimic_score": pl.Float32(),
    "mimic_weight": pl.Float32(),
}
# What runs store as well: training runs the weight of the update, and labelled runs whether the
# present model was right.
TRAINED_COLUMNS: dict[str, pl.DataType] = {
    "train_weight": pl.Float32(),
    "correct": pl.Boolean(),
}
_DERIVED = ("mimic_score_se", "map_x", "map_y", "correct_share", "reference_label")
RESERVED_COLUMNS = frozenset(
    [*SAMPLE_COLUMNS, *MEASURED_COLUMNS, *SCORE_COLUMNS, *TRAINED_COLUMNS, *_DERIVED]
)


@dataclass(frozen=True, slots=True)
class Locator:
    """Where the bytes of one image are, relative to the source's root.

    ``range``: ``length`` bytes at ``offset`` of file ``path`` (tar member or whole file; a length
    of -1 means the whole file, whose size was not looked up). ``zip``: entry ``member`` of archive
    ``path``. ``parquet``: row ``offset`` of column ``member`` in file ``path``.
    """

    kind: LocatorKind
    path: str
    offset: int = 0
    length: int = -1
    member: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its caption or its label, as indexed: the image is read later, by locator.

    Exactly one of ``caption`` and ``label`` is there, the same for all samples of a pool.
    """

    uid: str
    key: str
    shard: str
    caption: str | None
    image: Locator
    meta: dict[str, Any] = field(default_factory=dict)
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """A sample that cannot be scored, and why. ``reason`` is one of ``SKIP_REASONS``."""

    key: str
    shard: str
    reason: str
    detail: str


SKIP_REASONS = {
    "empty_caption": "the caption is missing or holds only white space",
    "empty_label": "the label is missing or holds only white space",
    "missing_image": "the image is named but not there",
    "corrupt_image": "the bytes cannot be decoded as an image",
    "oversized_image": "the image has more pixels than the decoder accepts",
    "duplicate_uid": "another sample of the pool has the same uid",
    "bad_metadata": "the sample's metadata cannot be parsed",
    "unreadable_shard": "the rest of the shard cannot be read",
}


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


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """Scores of one batch at one step; arrays are (B,), float32 unless said; None: not stored.

    ``rows`` (int64) are positions in the feature set's sample order; the writer turns them into
    uids, so that no join is ever by position outside the run that drew the batch.
    """

    epoch: int
    step: int
    rows: np.ndarray
    loss: np.ndarray
    mimic_score: np.ndarray
    mimic_weight: np.ndarray
    train_weight: np.ndarray | None = None
    correct: np.ndarray | None = None
    """bool; where there are labels"""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any, *, length: int = 12) -> str:
    """First ``length`` hex digits of the SHA-256 of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def slug(text: str, *, limit: int = 32) -> str:
    """``text`` as a short lower-case name that is safe in any file system."""
    kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in Path(text).stem.lower())
    return "-".join(part for part in kept.split("-") if part)[:limit] or "pool"
