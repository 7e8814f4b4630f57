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
import polars.selectors as cs

from mimic_core.base import files
from mimic_core.base.errors import RunError, no_such_column
from mimic_core.base.identity import all_unique, same_order
from mimic_core.base.schema import (
    JUDGED_COLUMNS,
    MEASURED_COLUMNS,
    SAMPLE_COLUMNS,
    is_pattern,
    named,
)
from mimic_core.runs import imageless, stored
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.means import CORRECT_SHARE, SUMMARY_COLUMNS, score_summary
from mimic_core.runs.record import JoinRecord
from mimic_core.runs.run import Run
from mimic_core.runs.scores import EpochScores

MAP_FILE = "map.parquet"
MAP_CONFIG_FILE = "map.json"  # mimic_core.runs.layout writes both
MAP_COLUMNS = ("map_x", "map_y")

LABEL_COLUMNS = (CORRECT_SHARE, "reference_label", *JUDGED_COLUMNS)  # of runs on labels

Joined = Sequence[tuple[JoinRecord, pl.LazyFrame]]


@dataclass(frozen=True, slots=True)
class _Part:
    """Columns of the table that are joined by uid to those of the samples."""

    columns: tuple[str, ...]
    read: Callable[[Sequence[str], pl.Series], pl.DataFrame]  # columns, samples -> uid, columns
    what: str


def sample_table(
    features: FeatureSet,
    scores: EpochScores | pl.DataFrame,
    *,
    held_out: pl.Series | None = None,
    reference_labels: pl.LazyFrame | None = None,
    joined: Joined = (),
) -> pl.DataFrame:
    """One row per sample, in the order of the feature set; then the rows without an image.

    Columns: ``SAMPLE_COLUMNS``, ``MEASURED_COLUMNS``, ``SUMMARY_COLUMNS``, ``MAP_COLUMNS`` (null
    while there is no map), of labelled runs ``LABEL_COLUMNS``, then the user's own and those that
    are joined.

    Args:
        scores: Of a run, or a long table of them.
        held_out: uids to leave out.
        reference_labels: uid, ``reference_label`` and, but for older runs, ``JUDGED_COLUMNS``.
        joined: Columns of other files (``Run.joined``).

    Raises:
        RunError: A uid is there twice or on one side only, a user column has a reserved name, a
            visit is missing, or a number is NaN or infinite.
    """
    scores = EpochScores.of(scores)
    return _scan(features, scores, None, held_out, reference_labels, joined).collect()


def run_table(run: Run, scores: pl.DataFrame | None = None) -> pl.DataFrame:
    """``sample_table`` of a finished run; what was held out of training has no row.

    Args:
        scores: In the place of the run's own, for the same samples (live tuning).
    """
    with stored.intact(run.tables):
        own = run.epoch_scores if scores is None else scores
        return sample_table(
            run.features,
            own,
            held_out=run.held_out,
            reference_labels=run.reference_labels,
            joined=run.joined(),
        )


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
    with stored.intact(run.tables):
        return _scan(
            run.features,
            run.epoch_scores,
            columns,
            run.held_out,
            run.reference_labels,
            run.joined(),
        )


def map_config(features: FeatureSet) -> dict[str, Any] | None:
    """The settings of the feature set's map as plain values; None while there is no map."""
    path = features.path / MAP_CONFIG_FILE
    return files.read_json(path, remedy=stored.MAP_REMEDY) if path.exists() else None


def _scan(
    features: FeatureSet,
    scores: EpochScores,
    columns: Iterable[str] | None,
    held_out: pl.Series | None,
    labels: pl.LazyFrame | None,
    others: Joined,
) -> pl.LazyFrame:
    """The columns of the samples, and by uid those of scores, map, labels and other files."""
    samples = _scored(features.scan(measured=True), held_out)
    there = samples.collect_schema().names()

    def places(names: Sequence[str], uids: pl.Series) -> pl.DataFrame:
        return _scored(_places(features, uids, names).lazy(), held_out).collect()

    shares = (CORRECT_SHARE,) if scores.has("correct") else ()
    means = partial(_means, scores)
    joined = [_Part((*SUMMARY_COLUMNS, *shares), means, "the scores")]
    joined.append(_Part(MAP_COLUMNS, places, "the map"))
    if labels is not None:
        opinions = tuple(name for name in labels.collect_schema().names() if name != "uid")
        joined.append(_Part(opinions, partial(_labels, labels), "the reference's labels"))
    bare = imageless.scan(features)
    for join, rows in others:
        read = partial(_labels, _scored(_with_image(rows, bare), held_out))
        joined.append(_Part(tuple(join.columns), read, f"the columns joined from {join.source}"))
    made = {name for part in joined for name in part.columns}
    _refuse_taken(there, made)
    labelled = [name for name in LABEL_COLUMNS if name in made]
    first = [*SAMPLE_COLUMNS, *MEASURED_COLUMNS, *SUMMARY_COLUMNS, *MAP_COLUMNS, *labelled]
    own = [name for name in there if name not in first]
    names = [*first, *own, *(name for join, _ in others for name in join.columns)]
    wanted = list(dict.fromkeys(names if columns is None else columns))
    for name in wanted:
        if name not in names:
            raise no_such_column(name, names)
    stored = [name for name in wanted if name in there and name != "uid"]
    uids = samples.select("uid").collect(engine="streaming")["uid"]
    _refuse_twice(uids, "the samples")
    samples = samples.select("uid", *map(named, stored))
    require_finite(samples)
    frames = [samples.drop("uid")] if stored else []
    for part in joined:
        some = [name for name in part.columns if name in wanted]
        if some:
            frames.append(_in_order(part.read(some, uids), uids, part.what).drop("uid").lazy())
    table = pl.concat([uids.to_frame().lazy(), *frames], how="horizontal")
    if bare is not None:
        bare = bare.select("uid", *map(named, stored))
        for join, rows in others:
            more = [named(name) for name in join.columns if name in wanted]
            bare = bare.join(rows.select("uid", *more), on="uid", how="left", maintain_order="left")
        require_finite(bare)
        table = pl.concat([table, bare], how="diagonal_relaxed")
    return table.select(map(named, wanted))


def _means(scores: EpochScores, names: Sequence[str], uids: pl.Series) -> pl.DataFrame:
    return score_summary(scores, names, uids=uids)


def _labels(labels: pl.LazyFrame, names: Sequence[str], _: pl.Series) -> pl.DataFrame:
    read = labels.select("uid", *map(named, names)).collect()
    require_finite(read)
    return read


def _with_image(rows: pl.LazyFrame, bare: pl.LazyFrame | None) -> pl.LazyFrame:
    """Joined columns of the samples alone, without those of rows that have no image."""
    return rows if bare is None else rows.join(bare.select("uid"), on="uid", how="anti")


def _scored(rows: pl.LazyFrame, held_out: pl.Series | None) -> pl.LazyFrame:
    """Rows of samples that have a score: all but those held out of training."""
    if held_out is None or held_out.is_empty():
        return rows
    return rows.filter(~pl.col("uid").is_in(held_out.implode()))


def _refuse_taken(there: Iterable[str], made: Iterable[str]) -> None:
    taken = sorted(set(there) & set(made))
    taken += [name for name in there if is_pattern(name)]
    if taken:
        raise RunError(
            "the pool has a column whose name Mimicscope itself uses, or polars reads as a pattern",
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


def require_finite(rows: pl.LazyFrame | pl.DataFrame) -> None:
    """Refuse rows in which a float column holds NaN or an infinity; null is fine.

    Raises:
        RunError: Names the column and the first uid.
    """
    rows = rows.lazy()
    floats = [name for name, dtype in rows.collect_schema().items() if dtype.is_float()]
    if not floats:
        return
    wrong = rows.select(cs.by_name(floats).is_finite().not_().sum()).collect(engine="streaming")
    for name in floats:
        if count := wrong[name][0]:  # null stays null, which is not true
            bad = rows.select("uid", named(name)).filter(~named(name).is_finite()).head(1).collect()
            raise RunError(
                f"column {name} holds a number that is not finite in {count} rows, "
                f"first for uid {bad['uid'][0]}",
                got=bad[name][0],
                allowed="finite numbers; null where a value is missing",
                next_step="correct that column at its source (missing = null) and score again",
            )


def _places(features: FeatureSet, uids: pl.Series, names: Sequence[str]) -> pl.DataFrame:
    """Uids and map coordinates, which are null while there is no map."""
    path = features.path / MAP_FILE
    if path.exists():
        columns = {"uid": pl.String(), **dict.fromkeys(MAP_COLUMNS, pl.Float32())}
        places = stored.read_table(path, columns, remedy=stored.MAP_REMEDY)
        require_finite(places)
        return places.select("uid", *names)
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
