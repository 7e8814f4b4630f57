"""A sample's scores over the epochs as one row: their means, and the standard error of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from mimic_core.runs.scores import EpochScores

SUMMARY_COLUMNS = ("mimic_score", "mimic_score_se", "mimic_weight", "loss")
CORRECT_SHARE = "correct_share"  # of the epochs in which the model predicted the sample's label
_MADE_OF = {"mimic_score_se": "mimic_score", CORRECT_SHARE: "correct"}
_IN_CACHE = 1 << 16  # numbers that stay in the processor's cache while they are worked on


def score_summary(
    scores: EpochScores | pl.DataFrame,
    names: Sequence[str] = SUMMARY_COLUMNS,
    *,
    uids: pl.Series | None = None,
) -> pl.DataFrame:
    """Scores over the epochs (or repeats) as one row per uid.

    Only the columns asked for are read, some rows of all epochs at a time.

    Args:
        scores: Of a run (``Run.epoch_scores``), or a long table of them.
        names: Some of ``SUMMARY_COLUMNS``, and ``CORRECT_SHARE`` where the scores hold it.
        uids: The samples, each once, in the order in which they are wanted, if that is theirs.

    Returns:
        uid and ``names``: ``mimic_score`` (mean), ``mimic_score_se`` (its standard error, null for
        one epoch), ``mimic_weight`` and ``loss`` (means), float32, computed in float64: a mean is
        exact to float32 unless values of a sample cancel out to less than a ten-millionth.

    Raises:
        RunError: A score that was asked for is NaN or infinite, or a visit is missing.
    """
    scores = EpochScores.of(scores)
    unknown = "mimic_score_se" if len(scores.steps) == 1 else None
    read = {name: _MADE_OF.get(name, name) for name in names if name != unknown}
    found = {name: np.empty(scores.samples, np.float32) for name in read}
    for rows, block in scores.blocks(list(dict.fromkeys(read.values()))):
        for name, column in read.items():
            _summarise(block[column], name, out=found[name][rows])
    null = pl.repeat(None, scores.samples, dtype=pl.Float32, eager=True)
    columns = [pl.Series(found[name]) if name in found else null for name in names]
    named = [column.alias(name) for name, column in zip(names, columns, strict=True)]
    return pl.DataFrame([scores.uids(uids).alias("uid"), *named])


def _summarise(values: np.ndarray, name: str, *, out: np.ndarray) -> None:
    """Mean (or standard error of the mean) of values (S, B) over the steps, into ``out`` (B,)."""
    steps, size = values.shape
    each = max(1, _IN_CACHE // steps)
    for start in range(0, size, each):
        part = values[:, start : start + each].astype(np.float64)
        if name == "mimic_score_se":
            out[start : start + each] = part.std(axis=0, ddof=1) / np.sqrt(steps)
        else:
            out[start : start + each] = part.mean(axis=0)
