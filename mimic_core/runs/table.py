"""A run as one table: one validated row per sample, joined by uid.

This is the door between what is stored and everything that shows, filters or exports: behind it a
missing value is null and no number is NaN or infinite (polars would keep NaN in ``x > 0.5``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from mimic_core.base import files
from mimic_core.base.errors import RunError, no_such_column
from mimic_core.base.identity import all_unique, same_order
from mimic_core.base.schema import MEASURED_COLUMNS, SAMPLE_COLUMNS
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.means import (
    CORRECT_SHARE,
    SUMMARY_COLUMNS,
    correct_share,
    has_correct,
    require_finite,
    run_correct_share,
    run_summary,
    score_summary,
)
from mimic_core.runs.run import REFERENCE_LABELS_FILE, Run

MAP_FILE = "map.parquet"
MAP_CONFIG_FILE = "map.json"  # mimic_core.runs.layout writes both
MAP_COLUMNS = ("map_x", "map_y")

LABEL_SOURCES = {CORRECT_SHARE: "the scores", "reference_label": "the reference's labels"}
LABEL_COLUMNS = tuple(LABEL_SOURCES)  # of runs on labels

Read = Callable[[Sequence[str], pl.Series], pl.DataFrame]  # of columns and samples: uid, columns


@dataclass(frozen=True, slots=True)
class _Part:
    """Columns of the table that are joined by uid to those of the samples."""

    columns: tuple[str, ...]
    read: Read
    what: str


def sample_table(
    features: FeatureSet,
    scores: pl.DataFrame,
    *,
    held_out: pl.Series | None = None,
    reference_labels: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """One row per sample, in the order of the feature set.

    Columns: ``SAMPLE_COLUMNS``, ``MEASURED_COLUMNS``, ``SUMMARY_COLUMNS``, ``MAP_COLUMNS`` (null
    while there is no map), of labelled runs ``LABEL_COLUMNS``, then the user's own.

    Args:
        held_out: uids to leave out.
        reference_labels: uid and ``reference_label``.

    Raises:
        RunError: A uid is there twice or on one side only, a user column has a reserved name, or
            a number is NaN or infinite.
    """
    summary = score_summary(scores)
    parts = [_Part(SUMMARY_COLUMNS, partial(_columns, summary), "the scores")]
    for name, frame in zip(LABEL_COLUMNS, (correct_share(scores), reference_labels), strict=True):
        if frame is not None:
            parts.append(_Part((name,), partial(_columns, frame), LABEL_SOURCES[name]))
    return _scan(features, parts, None, held_out).collect()


def run_table(run: Run, scores: pl.DataFrame | None = None) -> pl.DataFrame:
    """``sample_table`` of a finished run; what was held out of training has no row.

    Args:
        scores: In the place of the run's own, for the same samples (live tuning).
    """
    if scores is None:
        return scan_run(run).collect()
    labels = run.reference_labels
    return sample_table(run.features, scores, held_out=run.held_out, reference_labels=labels)


def scan_run(run: Run, columns: Iterable[str] | None = None) -> pl.LazyFrame:
    """The rows of ``run_table`` as a lazy frame, of which a query reads only what it asks for.

    What must be joined by uid is looked at here and now: the uids, and those score and map columns
    that were asked for. The columns of the samples, the bulk of a table, stay on disk.

    Args:
        run: A finished run.
        columns: Columns of the frame, in this order; None for all.

    Raises:
        FilterError: There is no such column.
        RunError: As ``sample_table``.
    """
    run.epoch_files()  # refuses an unfinished run
    summary = lambda names, uids: run_summary(run, names, uids=uids)  # noqa: E731 - read later
    parts = [_Part(SUMMARY_COLUMNS, summary, "the scores")]
    labelled = {
        CORRECT_SHARE: (run_correct_share, has_correct(run)),
        "reference_label": (_reference_labels, (run.path / REFERENCE_LABELS_FILE).exists()),
    }
    for name, (made, there) in labelled.items():
        if there:
            parts.append(_Part((name,), partial(_columns_of, run, made), LABEL_SOURCES[name]))
    return _scan(run.features, parts, columns, run.held_out)


def map_config(features: FeatureSet) -> dict[str, Any] | None:
    """The settings of the feature set's map as plain values; None while there is no map."""
    path = features.path / MAP_CONFIG_FILE
    return dict(files.read_json(path)) if path.exists() else None


def _reference_labels(run: Run) -> pl.DataFrame:
    assert run.reference_labels is not None  # asked only where the file is
    return run.reference_labels


def _columns_of(
    run: Run, made: Callable[[Run], pl.DataFrame], names: Sequence[str], uids: pl.Series
) -> pl.DataFrame:
    return _columns(made(run), names, uids)


def _columns(frame: pl.DataFrame, names: Sequence[str], _: pl.Series) -> pl.DataFrame:
    return frame.select("uid", *names)


def _scan(
    features: FeatureSet,
    parts: Sequence[_Part],
    columns: Iterable[str] | None,
    held_out: pl.Series | None,
) -> pl.LazyFrame:
    """The columns of the table, those of the parts and the map joined by uid to the samples'."""
    samples = _scored(features.scan(), held_out)
    there = samples.collect_schema().names()
    _refuse_taken(there)

    def places(names: Sequence[str], uids: pl.Series) -> pl.DataFrame:
        return _scored(_places(features, uids, names).lazy(), held_out).collect()

    joined = [parts[0], _Part(MAP_COLUMNS, places, "the map"), *parts[1:]]
    first = [
        *SAMPLE_COLUMNS,
        *MEASURED_COLUMNS,
        *(name for part in joined for name in part.columns),
    ]
    names = [*first, *(name for name in there if name not in first)]
    wanted = list(dict.fromkeys(names if columns is None else columns))
    for name in wanted:
        if name not in names:
            raise no_such_column(name, names)
    stored = [name for name in wanted if name in there and name != "uid"]
    uids = samples.select("uid").collect(engine="streaming")["uid"]
    _refuse_twice(uids, "the samples")
    samples = samples.select("uid", *stored)
    _require_finite_scan(samples)
    frames = [samples.drop("uid")] if stored else []
    for part in joined:
        some = [name for name in part.columns if name in wanted]
        if some:
            frames.append(_in_order(part.read(some, uids), uids, part.what).drop("uid").lazy())
    return pl.concat([uids.to_frame().lazy(), *frames], how="horizontal").select(wanted)


def _scored(rows: pl.LazyFrame, held_out: pl.Series | None) -> pl.LazyFrame:
    """Rows of samples that have a score: all but those held out of training."""
    if held_out is None or held_out.is_empty():
        return rows
    return rows.filter(~pl.col("uid").is_in(held_out.implode()))


def _refuse_taken(there: Iterable[str]) -> None:
    taken = [name for name in (*SUMMARY_COLUMNS, *MAP_COLUMNS, *LABEL_COLUMNS) if name in there]
    if taken:
        raise RunError(
            "the pool has a column whose name Mimicscope itself uses",
            got=taken[0],
            next_step="rename that column in the pool and score it again",
        )


def _refuse_twice(uids: pl.Series, what: str) -> None:
    if not all_unique(uids):
        raise RunError(
            f"{what} hold a uid twice",
            got=uids.filter(uids.is_duplicated())[0],
            next_step="score the pool into a new folder",
        )


def _require_finite_scan(samples: pl.LazyFrame) -> None:
    """``require_finite`` for a lazy frame: its float columns are streamed through once."""
    floats = [name for name, dtype in samples.collect_schema().items() if dtype.is_float()]
    if not floats:
        return
    wrong = samples.select(pl.col(floats).is_finite().not_().any()).collect(engine="streaming")
    for name in floats:
        if wrong[name][0]:
            require_finite(samples.select("uid", name).collect())


def _places(features: FeatureSet, uids: pl.Series, names: Sequence[str]) -> pl.DataFrame:
    """Uids and map coordinates, which are null while there is no map."""
    path = features.path / MAP_FILE
    if path.exists():
        places = pl.read_parquet(path, columns=["uid", *names])
        require_finite(places)
        return places
    null = [pl.lit(None, pl.Float32).alias(name) for name in names]
    return uids.to_frame().select("uid", *null)


def _in_order(frame: pl.DataFrame, uids: pl.Series, what: str) -> pl.DataFrame:
    """``frame`` with its rows in the order of ``uids``; both must hold the same, each once."""
    if same_order(uids, frame["uid"]):
        return frame  # so its uids are as unique
    _refuse_twice(frame["uid"], what)
    left = uids.to_frame()
    joined = left.join(frame, on="uid", how="inner", maintain_order="left")
    for one, other, side in ((left, frame, what), (frame, left, "the samples")):
        if len(joined) < len(one):
            lost = one.join(other, on="uid", how="anti", maintain_order="left")["uid"]
            raise RunError(
                f"{len(lost)} uids are missing from {side}",
                got=lost[0],
                next_step="delete that part of the run (scores, or map.parquet) and make it again",
            )
    return joined
