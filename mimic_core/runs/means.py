"""A sample's scores over the epochs as one row: their means, and the standard error of one.

The general way is a grouping by uid. Where every epoch lists the same uids in the same order, which
is verified, the epochs are columns of equal length and one pass over each is enough. Both give the
same bits: sums are compensated (Kahan) and squares accumulated (Welford) as polars does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow.parquet as pq

from mimic_core.base.errors import RunError
from mimic_core.base.identity import all_unique, file_holds, files_agree
from mimic_core.runs.history import epoch_blocks
from mimic_core.runs.run import Run

SUMMARY_COLUMNS = ("mimic_score", "mimic_score_se", "mimic_weight", "loss")
CORRECT_SHARE = "correct_share"
_BLOCK = 1 << 15  # rows that stay in the processor's cache
_AT_ONCE = 8  # steps in memory at a time, so that sums need not come from memory for each


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
    blocks = epoch_blocks(scores)
    if blocks is None:
        return _grouped(scores)
    columns = {
        name: [block[name].to_numpy() for block in blocks]
        for name in ("mimic_score", "mimic_weight", "loss")
    }
    summed = [_columns_of(name, columns[name]) for name in columns]
    return pl.DataFrame([blocks[0]["uid"], *(column for each in summed for column in each)]).select(
        "uid", *SUMMARY_COLUMNS
    )


def run_summary(
    run: Run, names: Sequence[str] = SUMMARY_COLUMNS, *, uids: pl.Series | None = None
) -> pl.DataFrame:
    """``score_summary`` of a finished run, but only uid and the columns ``names`` of it.

    One stored column of a few epochs is in memory at a time.

    Args:
        run: The run.
        names: Some of ``SUMMARY_COLUMNS``.
        uids: The samples of the run, each once, as its table lists them. Where the files list them
            in that order, which is verified, the files' own uids are never held in memory.

    Raises:
        RunError: The run is not finished, or a score that was asked for is NaN or infinite.
    """
    paths = run.epoch_files()
    if uids is None:
        own = pl.read_parquet(paths[0], columns=["uid"])["uid"]
        if not all_unique(own):
            return score_summary(run.scores()).select("uid", *names)
        uids = own
    with ThreadPoolExecutor(1) as beside:  # comparing files and adding numbers both take a while
        agree = beside.submit(_list_all, paths, uids)
        try:
            found = _stacked(paths, names, uids)
        except RunError:
            if agree.result():
                raise
            found = None  # that message may name another sample than it is about
        if found is not None and agree.result():
            return pl.DataFrame([uids, *(found[name] for name in names)])
    return score_summary(run.scores()).select("uid", *names)


def _list_all(paths: list[Path], uids: pl.Series) -> bool:
    """Whether every file lists these uids in this order."""
    return file_holds(paths[0], uids) and all(files_agree(paths[0], path) for path in paths[1:])


def correct_share(scores: pl.DataFrame) -> pl.DataFrame | None:
    """Uid and ``correct_share``, the share (float32) of the epochs in which the model predicted the
    sample's label; None for scores of pairs, which have no labels.
    """
    if "correct" not in scores.columns:
        return None
    right = pl.col("correct").mean().cast(pl.Float32).alias(CORRECT_SHARE)
    return scores.group_by("uid", maintain_order=True).agg(right)


def has_correct(run: Run) -> bool:
    """Whether a finished run says which predictions were right, as runs on labels do."""
    return "correct" in pq.read_schema(run.epoch_files()[0]).names


def run_correct_share(run: Run) -> pl.DataFrame:
    """``correct_share`` of a finished run that ``has_correct``."""
    files = run.epoch_files()
    found = correct_share(pl.concat(pl.read_parquet(p, columns=["uid", "correct"]) for p in files))
    assert found is not None
    return found


def _stacked(
    paths: list[Path], names: Sequence[str], uids: pl.Series
) -> dict[str, pl.Series] | None:
    """The summary columns of files of equal length, row by row; None where lengths differ."""
    found: dict[str, pl.Series] = {}
    if any(pq.read_metadata(path).num_rows != len(uids) for path in paths):
        return None
    for name in ("mimic_score", "mimic_weight", "loss"):
        if name in names or (name == "mimic_score" and "mimic_score_se" in names):
            read = (_finite(pl.read_parquet(path, columns=[name]), uids) for path in paths)
            found |= {column.name: column for column in _columns_of(name, read)}
    return found


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


def _finite(column: pl.DataFrame, uids: pl.Series) -> np.ndarray:
    """The one column of a frame whose rows are ``uids``, if all its numbers are finite."""
    values = column.to_series()
    if not values.is_finite().all():
        require_finite(column.with_columns(uids))
    return values.to_numpy()


def _grouped(scores: pl.DataFrame) -> pl.DataFrame:
    score = pl.col("mimic_score").cast(pl.Float64)
    return scores.group_by("uid", maintain_order=True).agg(
        score.mean().cast(pl.Float32),
        (score.std() / score.len().sqrt()).cast(pl.Float32).alias("mimic_score_se"),
        pl.col("mimic_weight").cast(pl.Float64).mean().cast(pl.Float32),
        pl.col("loss").cast(pl.Float64).mean().cast(pl.Float32),
    )


def _columns_of(name: str, steps: Iterable[np.ndarray]) -> list[pl.Series]:
    """Mean of a score over its steps, each (N,); of the mimic score the standard error as well."""
    if name != "mimic_score":
        return [pl.Series(name, _mean(steps))]
    mean, error = _mean_and_error(steps)
    none = pl.repeat(None, len(mean), dtype=pl.Float32, eager=True)  # of a single epoch
    errors = none if error is None else pl.Series(error)
    return [pl.Series(name, mean), errors.alias(f"{name}_se")]


def _mean(steps: Iterable[np.ndarray]) -> np.ndarray:
    """Mean over the steps, (N,) float32, by a compensated sum."""
    total = lost = np.zeros(0)
    count, left = 0, iter(steps)
    while several := list(islice(left, _AT_ONCE)):
        if not count:
            total, lost = np.zeros(len(several[0])), np.zeros(len(several[0]))
        count += len(several)
        for part in _parts(len(total)):
            here, off = total[part], lost[part]
            for step in several:
                exact = step[part].astype(np.float64)
                exact -= off
                summed = here + exact
                np.subtract(summed, here, out=off)
                off -= exact
                here[:] = summed
    total /= count
    return total.astype(np.float32)


def _mean_and_error(steps: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean and standard error over the steps, (N,) float32; no error for a single step."""
    spread = _Spread()
    mean = _mean(spread.watched(steps))
    return mean, spread.error()


class _Spread:
    """Welford's running mean and sum of squares of the steps that pass by."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = np.zeros(0)

    def watched(self, steps: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """``steps``, looked at one by one."""
        for step in steps:
            if not self._count:
                self._mean, self._squares = np.zeros(len(step)), np.zeros(len(step))
            self._count += 1
            for part in _parts(len(step)):
                values = step[part].astype(np.float64)
                off = values - self._mean[part]
                self._mean[part] += off / self._count
                values -= self._mean[part]
                values *= off
                self._squares[part] += values
            yield step

    def error(self) -> np.ndarray | None:
        """Standard error of the mean (N,) float32; None for a single step."""
        if self._count < 2:
            return None
        deviation = np.sqrt(self._squares / (self._count - 1))
        return np.asarray(deviation / np.sqrt(self._count), np.float32)


def _parts(size: int) -> Iterator[slice]:
    """Stretches of rows small enough to stay in the processor's cache."""
    return (slice(start, start + _BLOCK) for start in range(0, size, _BLOCK))
