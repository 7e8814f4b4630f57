"""Figures about columns: histograms, counts, agreement, detection. Frames and arrays only.

Nulls are left out and counted where that matters; NaN and infinities are refused, as everywhere
behind the table's door. Linked cutoffs are in ``mimic_core.cutoffs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from mimic_core.errors import FilterError, ScoreError

Values = pl.Series | np.ndarray
NoisySide = Literal["low", "high"]

# Which end of each score a noisy sample is expected at.
NOISY_SIDES: dict[str, NoisySide] = {
    "mimic_score": "low",
    "mimic_weight": "low",
    "clip_score": "low",
    "loss": "high",
}
ANY_NOISE = "any"


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts (K,) int64 of values between ``edges`` (K + 1,) float64, the last edge inclusive.

    Attributes:
        missing: Number of nulls, which are in no bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    missing: int


def histogram(values: Values, bins: int = 50) -> Histogram:
    """Equal-width histogram of a numeric or boolean column.

    Integers and booleans get bins that each cover the same number of integers, with edges halfway
    between two; a constant float column gets one bin; an empty one a single empty bin.

    Args:
        values: (N,), nulls allowed.
        bins: Largest number of bins.
    """
    if bins < 1:
        raise FilterError(
            "a histogram needs at least one bin", got=bins, next_step="ask for more bins"
        )
    series = _series(values)
    present = series.drop_nulls()
    missing = len(series) - len(present)
    if present.is_empty():
        return Histogram(np.array([0.0, 1.0]), np.zeros(1, np.int64), missing)
    whole = series.dtype.is_integer() or series.dtype == pl.Boolean
    numbers = present.cast(pl.Float64).to_numpy()
    low, high = float(numbers.min()), float(numbers.max())
    edges = _integer_edges(low, high, bins) if whole else _float_edges(low, high, bins)
    return Histogram(edges, np.histogram(numbers, edges)[0].astype(np.int64), missing)


def _integer_edges(low: float, high: float, bins: int) -> np.ndarray:
    each = max(1, int(np.ceil((high - low + 1) / bins)))
    count = int(np.ceil((high - low + 1) / each))
    return low - 0.5 + each * np.arange(count + 1, dtype=np.float64)


def _float_edges(low: float, high: float, bins: int) -> np.ndarray:
    if low == high:
        half = max(abs(low) * 0.01, 0.5)
        return np.array([low - half, high + half])
    # Halves, so that the range of two numbers near the largest float does not overflow; unique,
    # because two neighbouring floats have no room for `bins` edges.
    edges = np.linspace(low / 2, high / 2, bins + 1) * 2
    edges[0], edges[-1] = low, high
    return np.unique(np.clip(edges, low, high))


def category_counts(values: pl.Series) -> pl.DataFrame:
    """Rows ``value``, ``count`` (uint32), largest first, ties by value; null counts as a value."""
    counted = values.alias("value").to_frame().group_by("value").agg(pl.len().alias("count"))
    return counted.sort("count", "value", descending=[True, False], nulls_last=True)


def rank_agreement(a: Values, b: Values) -> float | None:
    """Spearman's rank correlation of two columns (N,), rows with a null left out.

    Returns:
        None when it is undefined: fewer than two rows, or a constant column.
    """
    pairs = pl.DataFrame({"a": _series(a), "b": _series(b)}).drop_nulls()
    ranks = pairs.select(pl.all().rank("average"))
    if len(pairs) < 2 or any(ranks[name].n_unique() < 2 for name in "ab"):
        return None
    return float(np.corrcoef(ranks["a"].to_numpy(), ranks["b"].to_numpy())[0, 1])


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
            raise FilterError(
                "the table has no such column",
                got=name,
                allowed=", ".join(table.columns),
                next_step="choose a column of the table",
            )
    if table.schema[truth] != pl.Boolean:
        raise FilterError(
            f"column {truth} does not say true or false",
            got=str(table.schema[truth]),
            allowed="a boolean column",
            next_step="choose the column that marks noisy samples",
        )
    named = pl.col(kind).cast(pl.String) if kind else pl.lit(None, pl.String)
    return table.select(pl.col(truth).alias("noisy"), named.alias("kind"), *scores).filter(
        pl.col("noisy").is_not_null()
    )


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
    return pl.DataFrame({"score": _series(scores), "positive": labels}).drop_nulls()


def _series(values: Values) -> pl.Series:
    """``values`` as a numeric or boolean series without NaN and infinities."""
    series = values if isinstance(values, pl.Series) else pl.Series(values)
    if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        raise ScoreError(
            "this needs numbers",
            got=str(series.dtype),
            allowed="a numeric or boolean column",
            next_step="choose a numeric column",
        )
    if series.dtype.is_float():
        wrong = (~series.is_finite()).arg_true()
        if len(wrong):
            raise ScoreError(
                f"row {wrong[0]} holds a number that is not finite",
                got=series[int(wrong[0])],
                allowed="finite numbers; null where a value is missing",
                next_step="correct that value (missing = null)",
            )
    return series
