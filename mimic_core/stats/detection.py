"""How well scores and decisions find what is known to be noisy.

A score is judged by its order (AUROC, average precision), a decision to keep or drop by what it
drops (precision, recall, F1). A sample whose truth is not known (null) counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from mimic_core.base.errors import ScoreError, no_such_column
from mimic_core.base.schema import named
from mimic_core.stats.numbers import Values, as_numbers, known_truth, require_truth, share

NoisySide = Literal["low", "high"]

# Which end of each score a noisy sample is expected at.
NOISY_SIDES: dict[str, NoisySide] = {
    "mimic_score": "low",
    "mimic_weight": "low",
    "clip_score": "low",
    "loss": "high",
}
ANY_NOISE = "any"


@dataclass(frozen=True, slots=True)
class Detection:
    """How well dropping finds the noisy samples, among those whose truth is known.

    Attributes:
        noisy, clean: Samples known to be noisy, and known not to be.
        noisy_dropped, clean_dropped: How many of them are dropped.
    """

    noisy: int
    clean: int
    noisy_dropped: int
    clean_dropped: int

    @property
    def noisy_kept(self) -> int:
        """Noisy samples that are left in."""
        return self.noisy - self.noisy_dropped

    @property
    def precision(self) -> float | None:
        """Share of the dropped that is noisy; None where nothing is dropped."""
        return share(self.noisy_dropped, self.noisy_dropped + self.clean_dropped)

    @property
    def recall(self) -> float | None:
        """Share of the noisy that is dropped; None where nothing is noisy."""
        return share(self.noisy_dropped, self.noisy)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None where nothing is dropped or noisy."""
        return share(2 * self.noisy_dropped, self.noisy + self.noisy_dropped + self.clean_dropped)


def detection(kept: np.ndarray, truth: pl.Series) -> Detection:
    """Judge who is kept (N,) bool by ``truth`` (N,), true where a sample is known to be noisy."""
    noisy, clean = known_truth(truth)
    return Detection(
        noisy=int(noisy.sum()),
        clean=int(clean.sum()),
        noisy_dropped=int((noisy & ~kept).sum()),
        clean_dropped=int((clean & ~kept).sum()),
    )


def kept_by_kind(kept: np.ndarray, truth: pl.Series, kind: pl.Series) -> pl.DataFrame:
    """Rows ``noise_kind``, ``noisy``, ``kept``, ``dropped`` (Int64), ``recall``, by kind.

    Args:
        kept: Who is kept (N,) bool.
        truth: True where a sample is known to be noisy (N,).
        kind: Names the noise (N,); noisy samples without a name are left out.
    """
    noisy, _ = known_truth(truth)
    counted = (
        pl.DataFrame({"noise_kind": kind.cast(pl.String), "kept": kept})
        .filter(pl.Series(noisy))
        .drop_nulls()
        .group_by("noise_kind")
        .agg(pl.len().cast(pl.Int64).alias("noisy"), pl.col("kept").sum().cast(pl.Int64))
        .sort("noise_kind")
    )
    dropped = (pl.col("noisy") - pl.col("kept")).alias("dropped")
    return counted.with_columns(dropped, (dropped / pl.col("noisy")).alias("recall"))


def auroc(scores: Values, positive: Values) -> float | None:
    """Probability that a positive scores higher than a negative, ties counting one half.

    Computed from mid-ranks (the Mann-Whitney statistic). Rows with a null are left out.

    Args:
        scores: (N,) numbers.
        positive: (N,) booleans.

    Returns:
        None when one class is empty.
    """
    scored = _labelled(scores, positive)
    positives = int(scored["positive"].sum())
    negatives = len(scored) - positives
    if not positives or not negatives:
        return None
    ranks = scored.select(pl.col("score").rank("average").filter(pl.col("positive")).sum()).item()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(scores: Values, positive: Values) -> float | None:
    """Area under the precision-recall steps; equal scores are one step. None without positives."""
    scored = _labelled(scores, positive)
    positives = int(scored["positive"].sum())
    if not positives:
        return None
    steps = (
        scored.group_by("score")
        .agg(pl.col("positive").sum().alias("hits"), pl.len().alias("rows"))
        .sort("score", descending=True)
    )
    hits = steps["hits"].to_numpy().astype(np.float64)
    precision = np.cumsum(hits) / np.cumsum(steps["rows"].to_numpy().astype(np.float64))
    return float((hits * precision).sum() / positives)


def detection_table(
    table: pl.DataFrame,
    *,
    truth: str = "is_noisy",
    kind: str | None = None,
    scores: Mapping[str, NoisySide] = NOISY_SIDES,
) -> pl.DataFrame:
    """How well each score tells noisy samples from clean ones, for all noise and for each kind.

    Args:
        table: One row per sample.
        truth: Boolean column: whether the sample is known to be noisy. Null rows are left out.
        kind: Column that names the noise of noisy samples; the clean ones are always those whose
            ``truth`` is false.
        scores: Columns to judge and the end at which noisy samples are expected.

    Returns:
        One row per kind and score: ``noise_kind`` (``ANY_NOISE`` first), ``noisy``, ``clean``
        (rows), ``score``, ``auroc``, ``average_precision`` (1 is perfect, of noisy among clean).
    """
    known = _known(table, truth, kind, list(scores))
    clean = known.filter(~pl.col("noisy"))
    groups = [(ANY_NOISE, known.filter("noisy"))]
    if kind is not None:
        kinds = sorted(known.filter("noisy")["kind"].drop_nulls().unique())
        groups += [
            (name, known.filter(pl.col("noisy") & (pl.col("kind") == name))) for name in kinds
        ]
    rows: list[dict[str, Any]] = []
    for name, noisy in groups:
        both = pl.concat([clean, noisy])
        for score, side in scores.items():
            values = both[score].cast(pl.Float64) * (-1 if side == "low" else 1)
            rows.append(
                {
                    "noise_kind": name,
                    "noisy": len(noisy),
                    "clean": len(clean),
                    "score": score,
                    "auroc": auroc(values, both["noisy"]),
                    "average_precision": average_precision(values, both["noisy"]),
                }
            )
    return pl.DataFrame(
        rows, schema_overrides={"auroc": pl.Float64, "average_precision": pl.Float64}
    )


def _known(table: pl.DataFrame, truth: str, kind: str | None, scores: list[str]) -> pl.DataFrame:
    """The rows whose truth is known, with columns ``noisy``, ``kind`` and the scores."""
    for name in [truth, *([kind] if kind else []), *scores]:
        if name not in table.columns:
            raise no_such_column(name, table.columns)
    require_truth(truth, table.schema[truth])
    kinds = named(kind).cast(pl.String) if kind else pl.lit(None, pl.String)
    columns = (named(truth).alias("noisy"), kinds.alias("kind"), *map(named, scores))
    return table.select(columns).filter(pl.col("noisy").is_not_null())


def _labelled(scores: Values, positive: Values) -> pl.DataFrame:
    """Columns ``score`` and ``positive`` without the rows in which either is null."""
    labels = positive if isinstance(positive, pl.Series) else pl.Series(positive)
    if labels.dtype != pl.Boolean:
        raise ScoreError(
            "the labels do not say true or false",
            got=str(labels.dtype),
            allowed="booleans",
            next_step="give True for a positive and False for a negative",
        )
    return pl.DataFrame({"score": as_numbers(scores), "positive": labels}).drop_nulls()
