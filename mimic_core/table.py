"""A run as one table: one validated row per sample, joined by uid.

This is the door between what is stored and everything that shows, filters or exports: behind it a
missing value is null and no number is NaN or infinite (polars would keep NaN in ``x > 0.5``).
"""

from __future__ import annotations

from typing import Any

import polars as pl
import polars.selectors as cs

from mimic_core import files
from mimic_core.errors import RunError
from mimic_core.featureset import FeatureSet
from mimic_core.runs import Run
from mimic_core.schema import MEASURED_COLUMNS, SAMPLE_COLUMNS

MAP_FILE = "map.parquet"
MAP_CONFIG_FILE = "map.json"  # mimic_core.layout writes both
SUMMARY_COLUMNS = ("mimic_score", "mimic_score_se", "mimic_weight", "loss")
MAP_COLUMNS = ("map_x", "map_y")


def score_summary(scores: pl.DataFrame) -> pl.DataFrame:
    """Scores over the epochs (or repeats) as one row per uid, in the order of first appearance.

    Args:
        scores: Columns of ``SCORE_COLUMNS``, one row per uid and epoch.

    Returns:
        uid, ``mimic_score`` (mean), ``mimic_score_se`` (its standard error, null for one epoch),
        ``mimic_weight`` and ``loss`` (means); float32, computed in float64.

    Raises:
        RunError: A score is NaN or infinite.
    """
    require_finite(scores)
    score = pl.col("mimic_score").cast(pl.Float64)
    return scores.group_by("uid", maintain_order=True).agg(
        score.mean().cast(pl.Float32),
        (score.std() / score.len().sqrt()).cast(pl.Float32).alias("mimic_score_se"),
        pl.col("mimic_weight").cast(pl.Float64).mean().cast(pl.Float32),
        pl.col("loss").cast(pl.Float64).mean().cast(pl.Float32),
    )


def sample_table(features: FeatureSet, scores: pl.DataFrame) -> pl.DataFrame:
    """One row per sample, in the order of the feature set.

    Columns: ``SAMPLE_COLUMNS``, ``MEASURED_COLUMNS``, ``SUMMARY_COLUMNS``, ``MAP_COLUMNS`` (null
    while there is no map), then the user's own.

    Raises:
        RunError: A uid is there twice or on one side only, a user column has a reserved name, or
            a number is NaN or infinite.
    """
    samples = features.samples
    taken = [name for name in (*SUMMARY_COLUMNS, *MAP_COLUMNS) if name in samples.columns]
    if taken:
        raise RunError(
            "the pool has a column whose name Mimicscope itself uses",
            got=taken[0],
            next_step="rename that column in the pool and score it again",
        )
    require_finite(samples)
    table = _join(samples, score_summary(scores), "the scores")
    table = _join(table, _places(features), "the map")
    first = [*SAMPLE_COLUMNS, *MEASURED_COLUMNS, *SUMMARY_COLUMNS, *MAP_COLUMNS]
    return table.select(*first, pl.exclude(first))


def run_table(run: Run) -> pl.DataFrame:
    """``sample_table`` of a finished run."""
    return sample_table(run.features, run.scores())


def map_config(features: FeatureSet) -> dict[str, Any] | None:
    """The settings of the feature set's map as plain values; None while there is no map."""
    path = features.path / MAP_CONFIG_FILE
    return dict(files.read_json(path)) if path.exists() else None


def require_finite(table: pl.DataFrame) -> None:
    """Refuse a table in which a float column holds NaN or an infinity; null is fine.

    Raises:
        RunError: Names the column and the first uid.
    """
    floats = table.select(cs.float())
    for name in floats.columns:
        wrong = (~floats[name].is_finite()).arg_true()  # null stays null, which is not true
        if len(wrong):
            row = int(wrong[0])
            raise RunError(
                f"column {name} holds a number that is not finite in {len(wrong)} rows, "
                f"first for uid {table['uid'][row]}",
                got=floats[name][row],
                allowed="finite numbers; null where a value is missing",
                next_step="correct that column at its source (missing = null) and score again",
            )


def _places(features: FeatureSet) -> pl.DataFrame:
    """Uids and map coordinates, which are null while there is no map."""
    path = features.path / MAP_FILE
    if path.exists():
        places = pl.read_parquet(path).select("uid", *MAP_COLUMNS)
        require_finite(places)
        return places
    null = [pl.lit(None, pl.Float32).alias(name) for name in MAP_COLUMNS]
    return features.samples.select("uid", *null)


def _join(left: pl.DataFrame, right: pl.DataFrame, what: str) -> pl.DataFrame:
    """Join by uid, in the order of ``left``; both sides must hold the same uids, each once."""
    for frame, name in ((left, "the samples"), (right, what)):
        if frame["uid"].n_unique() < len(frame):
            raise RunError(
                f"{name} hold a uid twice",
                got=frame.filter(frame["uid"].is_duplicated())["uid"][0],
                next_step="score the pool into a new folder",
            )
    joined = left.join(right, on="uid", how="inner", maintain_order="left")
    for one, other, side in ((left, right, what), (right, left, "the samples")):
        if len(joined) < len(one):
            lost = one.join(other, on="uid", how="anti", maintain_order="left")["uid"]
            raise RunError(
                f"{len(lost)} uids are missing from {side}",
                got=lost[0],
                next_step="delete that part of the run (scores, or map.parquet) and make it again",
            )
    return joined
