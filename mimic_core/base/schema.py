"""The words everything is stored in: column names and dtypes, configs, array dataclasses.

Letters: N samples, B batch, D embedding width, F feature width. Stored tables and arrays follow
``docs/formats.md``; change ``SCHEMA_VERSION`` when a stored meaning changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl
import polars.selectors as cs

SCHEMA_VERSION = 2
ROW_GROUP_ROWS = 65_536  # polars' streaming reader holds whole row groups in memory

LocatorKind = Literal["range", "packed", "zip", "parquet", "lance", "none"]

# Columns that say where the bytes of an image are: the fields of a ``Locator``, in order.
IMAGE_COLUMNS: dict[str, pl.DataType] = {
    "image_kind": pl.String(),
    "image_path": pl.String(),
    "image_offset": pl.Int64(),
    "image_length": pl.Int64(),
    "image_member": pl.String(),
}
# Columns that say where a sample comes from: one row per readable sample.
SAMPLE_COLUMNS: dict[str, pl.DataType] = {
    "uid": pl.String(),
    "key": pl.String(),
    "shard": pl.String(),
    "caption": pl.String(),
    "label": pl.String(),
    **IMAGE_COLUMNS,
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
# Scores of a few samples with a label or caption that is wrong on purpose; ``partner`` is whose.
PLANTED_COLUMNS: dict[str, pl.DataType] = {
    "uid": pl.String(),
    "epoch": pl.Int32(),
    "partner": pl.String(),
    "planted_score": pl.Float32(),
}
# What the reference head of a labelled run makes of a label; null where it was trained on it.
JUDGED_COLUMNS: dict[str, pl.DataType] = {
    "reference_loss": pl.Float32(),
    "reference_agrees": pl.Boolean(),
    "label_issue": pl.Boolean(),
}
_DERIVED = ("mimic_score_se", "map_x", "map_y", "correct_share", "reference_label")
RESERVED_COLUMNS = frozenset(
    [
        *SAMPLE_COLUMNS,
        *MEASURED_COLUMNS,
        *SCORE_COLUMNS,
        *TRAINED_COLUMNS,
        *JUDGED_COLUMNS,
        *_DERIVED,
    ]
)


def is_pattern(name: str) -> bool:
    """Whether polars reads a column's name as a pattern, even in the methods of a series."""
    return name == "*" or (name.startswith("^") and name.endswith("$"))


def named(name: str) -> pl.Expr:
    """The column of exactly that name, for queries on columns that users have named.

    Polars reads a name such as ``*`` or ``^.*$`` as a pattern wherever it expects an expression.
    """
    return cs.by_name(name).as_expr()


@dataclass(frozen=True, slots=True)
class Locator:
    """Where the bytes of one image are, relative to the source's root.

    ``range``: ``length`` bytes at ``offset`` of file ``path`` (tar member or whole file; a length
    of -1 means the whole file, whose size was not looked up). ``packed``: the same of what the
    compressed tar ``path`` unpacks to. ``zip``: entry ``member`` of archive
    ``path``. ``parquet``, ``lance``: row ``offset`` of column ``member`` in file or table ``path``.
    ``none``: there is no image (``NO_IMAGE``).
    """

    kind: LocatorKind
    path: str
    offset: int = 0
    length: int = -1
    member: str = ""


# Of rows whose image is gone, or was never there: their metadata and captions are kept, but nothing
# is scored. They stand behind the samples of a run's table, with null where an image is needed.
NO_IMAGE = Locator("none", "")
WITHOUT_IMAGE = "without_image"  # in the names of their files


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
    "failed_download": "img2dataset could not download the image",
    "unread_format": "the image is of a format that is not read",
    "corrupt_image": "the bytes cannot be decoded as an image",
    "oversized_image": "the image passes a limit: pixels, bytes, scans or seconds",
    "duplicate_uid": "another sample of the pool has the same uid",
    "bad_metadata": "the sample's metadata cannot be parsed",
    "no_features": "the file of features has no row of the sample's uid",
    "unreadable_shard": "the rest of the shard cannot be read",
}


@dataclass(frozen=True, slots=True)
class Planted:
    """Scores of samples of one batch with another sample's label or caption, given on purpose.

    ``rows``, ``partners`` (K,) int64 are positions as in ``ScoreBatch``: who is scored, and with
    whose label or caption; ``scores`` (K,).
    """

    rows: np.ndarray
    partners: np.ndarray
    scores: np.ndarray


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
    planted: Planted | None = field(default=None, kw_only=True)
    """what the direction check compares with (``mimic_core.stats.direction``)"""
