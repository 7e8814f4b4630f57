"""The run directory: what a run is, how its scores are written, found again and read.

Layout (``docs/formats.md``)::

    <runs root>/<run id>/run.json                   config, versions, counts, checks, timings
    <runs root>/<run id>/scores/epoch-00000.parquet one row per sample and epoch (or repeat)
    <runs root>/<run id>/planted/epoch-00000.parquet a few samples with labels wrong on purpose
    <runs root>/<run id>/skipped.parquet            who was skipped, and why
    <runs root>/<run id>/held_out.parquet           who has no score: held out, or trusted
    <runs root>/<run id>/reference_head.safetensors, reference_labels.parquet    labelled probes
    <runs root>/<run id>/joins/                     columns of other files, by uid
    <runs root>/<run id>/metrics.parquet            training: how good the model was, and when
    <runs root>/<run id>/checkpoints/               training: weights after each epoch
    <runs root>/features/<id>/                      the feature sets that runs share

A run is finished when ``run.json`` says ``done``; score files are byte-identical for equal configs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from mimic_core.base import files
from mimic_core.base.errors import RunError
from mimic_core.base.remote import RemotePath
from mimic_core.base.schema import (
    PLANTED_COLUMNS,
    SCORE_COLUMNS,
    TRAINED_COLUMNS,
    Planted,
    ScoreBatch,
)
from mimic_core.runs import buckets, stored
from mimic_core.runs.featureset import FEATURES_DIR, FeatureSet
from mimic_core.runs.metrics import METRIC_COLUMNS
from mimic_core.runs.record import JoinRecord, RunRecord
from mimic_core.runs.scores import EpochScores

JOINS_DIR = "joins"
_STORED = {**SCORE_COLUMNS, **TRAINED_COLUMNS}
_MEASURED = [name for name in _STORED if name not in ("uid", "epoch")]
_NUMPY = {pl.Int32(): np.int32, pl.Float32(): np.float32, pl.Boolean(): np.bool_}


def now() -> str:
    """The present moment in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Run:
    """One run directory. Open an existing one with ``open_run``."""

    path: Path
    record: RunRecord

    @property
    def id(self) -> str:
        """Name of the run."""
        return self.record.run_id

    @property
    def done(self) -> bool:
        """Whether all its scores are there."""
        return self.record.status == "done"

    @cached_property
    def features(self) -> FeatureSet:
        """The feature set of the reference, shared with other runs."""
        name = self.record.feature_set
        if Path(name).name != name:
            raise RunError(
                "run.json names no feature set",
                got=name,
                allowed=f"the name of a folder in {FEATURES_DIR}",
                next_step=stored.RUN_REMEDY,
            )
        return FeatureSet.open(self.path.parent / FEATURES_DIR / name)

    def scores(self) -> pl.DataFrame:
        """All scores, long: one row per sample and epoch (columns of ``SCORE_COLUMNS``)."""
        return pl.concat(_read_scores(path) for path in self.epoch_files())

    def epoch_files(self) -> list[Path]:
        """The score files of a finished run, one per epoch (or repeat), in order.

        Raises:
            RunError: The run is not finished, or a file is missing, damaged or of another kind.
        """
        if not self.done:
            raise RunError(
                "the run is not finished",
                got=self.id,
                next_step="resume it with the command that started it, or from the app",
            )
        paths = self._stored_files()
        if len(paths) != self.record.epochs or not paths:
            raise RunError(
                "score files of the run are missing",
                got=f"{len(paths)} in {self.path / 'scores'}",
                allowed=f"{self.record.epochs}, one for each epoch",
                next_step=stored.RUN_REMEDY,
            )
        for path in paths:
            stored.scan_table(path, SCORE_COLUMNS, remedy=stored.RUN_REMEDY)
        return paths

    def tables(self) -> list[tuple[Path, str]]:
        """The tables that the run is read from, each with what makes it again (``stored``)."""
        own = [
            (path, stored.JOIN_REMEDY if path.parent.name == JOINS_DIR else stored.RUN_REMEDY)
            for path in sorted(self.path.glob("**/*.parquet"))
        ]
        return [*own, *self.features.tables()]

    def joined(self) -> list[tuple[JoinRecord, pl.LazyFrame]]:
        """The columns of other files: ``uid`` of all rows of the pool, and what was joined.

        Raises:
            RunError: A file is missing, damaged or of another kind.
        """
        found = []
        for one in self.record.joins:
            table = stored.scan_table(
                self.join_file(one), {"uid": pl.String()}, remedy=stored.JOIN_REMEDY
            )
            found.append((one, table))
        return found

    def join_file(self, join: JoinRecord) -> Path:
        """Where the columns of a join are.

        Raises:
            RunError: ``run.json`` names no file of the run's own.
        """
        if Path(join.file).name != join.file:
            raise RunError(
                "run.json names no file of joined columns",
                got=join.file,
                allowed=f"the name of a file in {JOINS_DIR}",
                next_step=stored.JOIN_REMEDY,
            )
        return self.path / JOINS_DIR / join.file

    @cached_property
    def epoch_scores(self) -> EpochScores:
        """The scores of a finished run, epoch by epoch: opened once, for means and history; only of
        the epochs that are used (``use_epochs``).

        Raises:
            RunError: The run is not finished.
        """
        scores = EpochScores.of_files(self.epoch_files())
        used = self.record.epochs_used
        return scores if used is None else scores.only(scores.epochs[:used])

    def using(self, epochs: int | None) -> Run:
        """The same run with its first ``epochs`` epochs alone, None for all; nothing is stored.

        Raises:
            RunError: It has not so many epochs.
        """
        if epochs is not None and not 1 <= epochs <= self.record.epochs:
            raise RunError(
                "the run has no such epochs",
                got=f"the first {epochs}",
                allowed=f"1 to {self.record.epochs}",
                next_step="choose fewer epochs, or use all",
            )
        return Run(self.path, self.record.model_copy(update={"epochs_used": epochs}))

    def use_epochs(self, epochs: int | None) -> Run:
        """The same, stored in ``run.json``: what reads the run from now on sees these epochs.

        Raises:
            RunError: The run is not finished, or has not so many epochs.
        """
        self.epoch_files()  # refuses an unfinished run
        return self.using(epochs).update()

    def stored_scores(self) -> pl.DataFrame:
        """The scores that are on disk, finished run or not."""
        return pl.concat(_read_scores(path) for path in self._stored_files())

    @cached_property
    def held_out(self) -> pl.Series:
        """Uids of the samples that were never trained on, or are trusted, and have no score."""
        path = self.path / "held_out.parquet"
        if not path.exists():
            return pl.Series("uid", [], pl.String)
        return stored.read_table(path, {"uid": pl.String()}, remedy=stored.RUN_REMEDY)["uid"]

    @property
    def reference_labels(self) -> pl.LazyFrame | None:
        """Uid, ``reference_label``, the class that the reference head gives each scored sample, and
        ``JUDGED_COLUMNS``, which older runs do not have; None for runs without labels.
        """
        path = self.path / "reference_labels.parquet"
        columns = {"uid": pl.String(), "reference_label": pl.String()}
        if not path.exists():
            return None
        return stored.scan_table(path, columns, remedy=stored.RUN_REMEDY)

    def metrics(self) -> pl.DataFrame:
        """How good the trained model was, and when (``mimic_core.runs.metrics``).

        Raises:
            RunError: The run did not train a model, or has not measured it yet.
        """
        path = self.path / "metrics.parquet"
        if not path.exists():
            raise RunError(
                "the run has no metrics of a trained model",
                got=self.id,
                allowed="training runs, from their first evaluation on",
                next_step="choose a run made by the command train",
            )
        return stored.read_table(path, METRIC_COLUMNS, remedy=stored.RUN_REMEDY)

    def has_epoch(self, epoch: int) -> bool:
        """Whether the scores of ``epoch`` are stored."""
        return self._epoch_file(epoch).exists()

    def write_epoch(self, epoch: int, uids: pl.Series, batches: Iterable[ScoreBatch]) -> None:
        """Store one epoch's scores in the order of ``uids`` (N), and the planted ones beside them.

        Raises:
            RunError: A sample of the pool was visited never or twice.
        """
        planted: list[Planted] = []
        frame = epoch_frame(epoch, uids, _noting_planted(batches, planted))
        if planted:  # first, for an epoch is there when its scores are
            files.write_parquet(self._planted_file(epoch), planted_frame(epoch, uids, planted))
        files.write_parquet(self._epoch_file(epoch), frame)

    def planted_scores(self) -> pl.DataFrame | None:
        """Columns of ``PLANTED_COLUMNS``, what the direction check compares with; None where no
        label or caption could be planted.
        """
        paths = sorted((self.path / "planted").glob("epoch-*.parquet"))
        return pl.read_parquet(paths) if paths else None

    def update(self, **changes: Any) -> Run:
        """Write ``run.json`` with ``changes`` and return the run as it is now.

        Raises:
            RunError: It lies in object storage, where it is only read.
        """
        buckets.refuse_copy(self.path)
        record = RunRecord(**{**self.record.model_dump(), **changes})
        files.write_json(self.path / "run.json", record.model_dump(mode="json"))
        return Run(self.path, record)

    def _stored_files(self) -> list[Path]:
        return sorted((self.path / "scores").glob("epoch-*.parquet"))

    def _epoch_file(self, epoch: int) -> Path:
        return self.path / "scores" / f"epoch-{epoch:05d}.parquet"

    def _planted_file(self, epoch: int) -> Path:
        return self.path / "planted" / f"epoch-{epoch:05d}.parquet"


def _noting_planted(batches: Iterable[ScoreBatch], planted: list[Planted]) -> Iterator[ScoreBatch]:
    """``batches``, what is planted in them being added to ``planted``."""
    for batch in batches:
        if batch.planted is not None:
            planted.append(batch.planted)
        yield batch


def planted_frame(epoch: int, uids: pl.Series, planted: Sequence[Planted]) -> pl.DataFrame:
    """One epoch's planted scores as a frame of ``PLANTED_COLUMNS``, in the order of ``uids``."""
    rows = np.concatenate([batch.rows for batch in planted])
    order = np.argsort(rows)
    partners = np.concatenate([batch.partners for batch in planted])[order]
    return pl.DataFrame(
        {
            "uid": uids.gather(rows[order]),
            "epoch": np.full(len(rows), epoch, np.int32),
            "partner": uids.gather(partners),
            "planted_score": np.concatenate([batch.scores for batch in planted])[order],
        },
        schema=PLANTED_COLUMNS,
    )


def _read_scores(path: Path) -> pl.DataFrame:
    return stored.read_table(path, SCORE_COLUMNS, remedy=stored.RUN_REMEDY)


def epoch_frame(epoch: int, uids: pl.Series, batches: Iterable[ScoreBatch]) -> pl.DataFrame:
    """One epoch's batches as a frame of ``SCORE_COLUMNS``, rows in the order of ``uids`` (N).

    What the batches hold of ``TRAINED_COLUMNS`` follows.
    """
    visits = np.zeros(len(uids), np.int64)
    columns: dict[str, np.ndarray] = {}
    for batch in batches:
        np.add.at(visits, batch.rows, 1)
        for name in _MEASURED:
            values = batch.step if name == "step" else getattr(batch, name)
            if values is not None:
                column = columns.setdefault(name, np.empty(len(uids), _NUMPY[_STORED[name]]))
                column[batch.rows] = values
    wrong = np.flatnonzero(visits != 1)
    if len(wrong):
        raise RunError(
            f"epoch {epoch} visited {len(wrong)} samples not exactly once",
            got=f"uid {uids[int(wrong[0])]}: {visits[wrong[0]]} visits",
            next_step="report this as a defect of Mimicscope",
        )
    epochs = np.full(len(uids), epoch, np.int32)
    frame = {"uid": uids, "epoch": epochs, **columns}
    return pl.DataFrame(frame, schema={name: _STORED[name] for name in frame})


def start_run(root: Path, record: RunRecord) -> Run:
    """Create the run's directory, or open what an earlier try with the same config left."""
    path = root / record.run_id
    if (path / "run.json").exists():
        return open_run(path)
    run = Run(path, record)
    return run.update()


def open_run(path: Path) -> Run:
    """Open the run at ``path``, finished or not; of one in object storage a copy of its tables.

    Raises:
        RunError: There is no run, it is damaged or of another schema version.
        RemoteError: Object storage does not answer.
    """
    if isinstance(path, RemotePath):
        path = buckets.copy_run(path)
    values = files.read_record(path / "run.json", "run")
    try:
        return Run(path, RunRecord(**values))
    except ValidationError as error:
        raise RunError(
            f"run.json is damaged: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}",
            got=str(path),
            next_step="delete that folder and score the pool again",
        ) from error


@dataclass(frozen=True, slots=True)
class RunList:
    """Runs that open, newest first, and folders that look like runs but do not, by path."""

    runs: tuple[Run, ...]
    damaged: tuple[tuple[Path, RunError], ...]

    def find(self, run_id: str | None) -> Run | None:
        """The first run of that id."""
        return next((run for run in self.runs if run.id == run_id), None)


def list_runs(root: Path, *, opener: Callable[[Path], Run] = open_run) -> RunList:
    """All runs under ``root``, opened by ``opener``; of those in object storage the records."""
    if isinstance(root, RemotePath):
        root = buckets.copy_records(root)
    runs, damaged = [], []
    for file in sorted(root.glob("*/run.json")):
        try:
            runs.append(opener(file.parent))
        except RunError as error:
            damaged.append((file.parent, error))
    runs.sort(key=lambda run: (run.record.created_at, run.id), reverse=True)
    return RunList(tuple(runs), tuple(damaged))
