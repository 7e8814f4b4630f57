"""The feature set on disk: what one pass over a pool's images has measured, kept per shard.

Layout (``docs/formats.md``)::

    features/<id>/features.json                    what it is: pool, model, preprocessing, versions
    features/<id>/index/<shard>.parquet            the samples, before any image is read
    features/<id>/index/<shard>.skipped.parquet    who was left out already then, and why
    features/<id>/samples/<shard>.parquet          the readable samples, with what was measured
    features/<id>/arrays/<shard>.<name>.npy        rows in the order of the samples
    features/<id>/skipped/<shard>.parquet          who was skipped, and why
    features/<id>/head.safetensors                 projections and logit scale of the model

``samples/<shard>.parquet`` is written last: a shard is finished exactly when it is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mimic_core.base import files
from mimic_core.base.errors import RunError
from mimic_core.base.schema import MEASURED_COLUMNS, SAMPLE_COLUMNS, SKIP_COLUMNS
from mimic_core.runs import stored

FEATURES_DIR = "features"
INDEX_REMEDY = "delete that folder of features and score the pool again: all images are read anew"
SKIPS_REMEDY = "delete that file, and the one of the same name in samples, and score the pool again"


class ShardedArray:
    """Rows of several memory-mapped ``.npy`` files as one array; nothing is read until asked.

    Args:
        parts: Arrays of shapes (N_k, ...) that agree but for N_k.
    """

    def __init__(self, parts: list[np.ndarray]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def width(self) -> int:
        """Length of a row."""
        return int(self._parts[0].shape[1]) if self._parts[0].ndim > 1 else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored dtype."""
        return self._parts[0].dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows ``rows`` (B,) int64 in that order, as (B, ...) in memory."""
        if len(self._parts) == 1:
            return np.asarray(self._parts[0][rows])
        out = np.empty((len(rows), *self._parts[0].shape[1:]), self.dtype)
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        for part in np.unique(part_of):
            here = part_of == part
            out[here] = self._parts[part][rows[here] - self._starts[part]]
        return out

    def read(self) -> np.ndarray:
        """All rows, in memory."""
        return np.concatenate([np.asarray(part) for part in self._parts])


@dataclass(frozen=True)
class FeatureSet:
    """One feature set. Open an existing one with ``FeatureSet.open``."""

    path: Path
    info: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> FeatureSet:
        """Open the feature set at ``path``, finished or not.

        Raises:
            RunError: It is missing, damaged or of another schema version.
        """
        info = files.read_record(path / "features.json", "feature set")
        _require_info(path, info)
        return cls(path, info)

    @property
    def id(self) -> str:
        """Name of its folder."""
        return self.path.name

    @property
    def shards(self) -> tuple[str, ...]:
        """All shards of the pool, in order, whether finished or not."""
        return tuple(self.info["shards"])

    def has_shard(self, shard: str) -> bool:
        """Whether ``shard`` is finished."""
        return self._file("samples", shard).exists()

    @property
    def complete(self) -> bool:
        """Whether every shard is finished."""
        return all(self.has_shard(shard) for shard in self.shards)

    def index(self, shard: str) -> pl.DataFrame:
        """The samples of ``shard`` before any image was read."""
        return stored.read_table(self._file("index", shard), SAMPLE_COLUMNS, remedy=INDEX_REMEDY)

    def index_uids(self, shard: str) -> pl.Series:
        """The uids of ``index(shard)``, without reading its other columns."""
        with stored.intact(lambda: [(self._file("index", shard), INDEX_REMEDY)]):
            return self._scan_index(shard).select("uid").collect()["uid"]

    def index_labels(self) -> list[str]:
        """All labels of the pool, sorted, before any image was read."""
        parts = [self._scan_index(shard) for shard in self.shards]
        with stored.intact(
            lambda: [(self._file("index", shard), INDEX_REMEDY) for shard in self.shards]
        ):
            found = pl.concat([part.select("label") for part in parts]).unique().collect()
        return sorted(found["label"].drop_nulls().to_list())

    def index_samples(self) -> pl.DataFrame:
        """The samples of the pool, one row each, before any image was read."""
        return pl.concat([self.index(shard) for shard in self.shards], how="diagonal_relaxed")

    def index_skips(self, shard: str) -> pl.DataFrame:
        """Who of ``shard`` was skipped before any image was read."""
        path = self.path / "index" / f"{shard}.skipped.parquet"
        return stored.read_table(path, SKIP_COLUMNS, remedy=INDEX_REMEDY)

    @cached_property
    def samples(self) -> pl.DataFrame:
        """All readable samples, one row each, in shard order."""
        self._require_complete()
        remedy = stored.FEATURES_REMEDY
        files_of = [self._file("samples", shard) for shard in self.shards]
        frames = [stored.read_table(path, SAMPLE_COLUMNS, remedy=remedy) for path in files_of]
        return pl.concat(frames, how="diagonal_relaxed")

    def scan(self, *, measured: bool = False) -> pl.LazyFrame:
        """``samples`` as a lazy frame: only what a query asks for is read.

        Args:
            measured: Whether they must hold ``MEASURED_COLUMNS``, as those of a reference do.
        """
        self._require_complete()
        remedy, needed = stored.FEATURES_REMEDY, SAMPLE_COLUMNS
        if measured:
            needed = {**SAMPLE_COLUMNS, **MEASURED_COLUMNS}
        files_of = [self._file("samples", shard) for shard in self.shards]
        scans = [stored.scan_table(path, needed, remedy=remedy) for path in files_of]
        return pl.concat(scans, how="diagonal_relaxed")

    @cached_property
    def skipped(self) -> pl.DataFrame:
        """All skipped samples with their reasons."""
        self._require_complete()
        frames = [
            stored.read_table(self._file("skipped", shard), SKIP_COLUMNS, remedy=SKIPS_REMEDY)
            for shard in self.shards
        ]
        return pl.concat([pl.DataFrame(schema=SKIP_COLUMNS), *frames])

    def tables(self) -> list[tuple[Path, str]]:
        """The tables of readable samples, and the map, each with what makes it again."""
        found = [(self._file("samples", shard), stored.FEATURES_REMEDY) for shard in self.shards]
        places = self.path / "map.parquet"
        return [*found, *([(places, stored.MAP_REMEDY)] if places.exists() else [])]

    def has_array(self, name: str) -> bool:
        """Whether arrays of this name were stored."""
        return name in self.info["arrays"]

    def array(self, name: str) -> ShardedArray:
        """The stored array ``name``, memory-mapped, rows as in ``samples``."""
        self._require_complete()
        if not self.has_array(name):
            raise RunError(
                f"the feature set {self.id} has no array of that name",
                got=name,
                allowed=", ".join(sorted(self.info["arrays"])),
                next_step="choose one of the stored arrays",
            )
        files.allow_open_files(len(self.shards))
        parts = []
        for shard in self.shards:
            samples = self._file("samples", shard)
            table = stored.scan_table(samples, SAMPLE_COLUMNS, remedy=stored.FEATURES_REMEDY)
            rows = table.select(pl.len()).collect().item()
            path = self.array_file(shard, name)
            remedy = f"delete {samples} and score the pool again: its shard is read anew"
            parts.append(stored.read_array(path, rows, remedy=remedy))
        return ShardedArray([part for part in parts if len(part)] or parts[:1])

    def write_shard(
        self,
        shard: str,
        samples: pl.DataFrame,
        skipped: pl.DataFrame,
        arrays: dict[str, np.ndarray],
    ) -> None:
        """Store one finished shard; the samples table comes last and marks it as finished."""
        for name, array in arrays.items():
            if len(array) != len(samples):
                raise RunError(
                    f"array {name} of shard {shard} does not fit its samples",
                    got=f"{len(array)} rows for {len(samples)} samples",
                    next_step="report this as a defect of Mimicscope",
                )
            files.write_array(self.array_file(shard, name), array)
        files.write_parquet(self._file("skipped", shard), skipped)
        files.write_parquet(self._file("samples", shard), samples)

    def array_file(self, shard: str, name: str) -> Path:
        """Path of one stored array."""
        return self.path / "arrays" / f"{shard}.{name}.npy"

    def source_root(self) -> Path:
        """Where the pool is now: beside the feature set as recorded, else its absolute path."""
        location = self.info["location"]
        beside = (self.path / str(location["relative"])).resolve()
        if beside.exists():
            return beside
        if location["absolute"] and Path(location["absolute"]).exists():
            return Path(location["absolute"])
        raise RunError(
            "the pool's images are no longer where they were scored",
            got=location["absolute"] or str(beside),
            next_step="put the pool back there; scores and captions can still be used without it",
        )

    def _scan_index(self, shard: str) -> pl.LazyFrame:
        return stored.scan_table(self._file("index", shard), SAMPLE_COLUMNS, remedy=INDEX_REMEDY)

    def _file(self, table: str, shard: str) -> Path:
        return self.path / table / f"{shard}.parquet"

    def _require_complete(self) -> None:
        if not self.complete:
            missing = sum(not self.has_shard(shard) for shard in self.shards)
            raise RunError(
                f"the feature set {self.id} is unfinished: {missing} of {len(self.shards)} shards",
                next_step="resume the run with the same command",
            )


def _require_info(path: Path, info: dict[str, Any]) -> None:
    """Refuse ``features.json`` where it is not as it was written: names in it become paths."""
    shards, arrays, location = (info.get(name) for name in ("shards", "arrays", "location"))
    right = {
        "shards": isinstance(shards, dict) and bool(shards) and all(map(_is_name, shards)),
        "arrays": isinstance(arrays, list) and all(map(_is_name, arrays)),
        "location": "location" not in info  # of sets whose pool is not on disk
        or (
            isinstance(location, dict)
            and _is_path(location.get("relative"))
            and (location.get("absolute") is None or _is_path(location["absolute"]))
        ),
    }
    for name, fits in right.items():
        if not fits:
            raise RunError(
                f"features.json is damaged: {name} is not what was written there",
                got=str(path / "features.json"),
                next_step=INDEX_REMEDY,
            )


def _is_name(name: object) -> bool:
    """Whether it can name files below a folder, and none elsewhere."""
    return (
        _is_path(name) and not Path(str(name)).is_absolute() and ".." not in Path(str(name)).parts
    )


def _is_path(path: object) -> bool:
    return isinstance(path, str) and path != "" and "\0" not in path


def locate(source_root: Path, feature_path: Path) -> dict[str, str | None]:
    """How to find the pool again from the feature set.

    A pool inside the folder that holds the runs root travels with it, so only the relative path is
    recorded; any other pool is recorded by its absolute path too.
    """
    source_root = source_root.resolve()
    feature_path = feature_path.resolve()
    home = feature_path.parents[2]  # <home>/<runs root>/features/<id>
    travels = source_root.is_relative_to(home)
    relative = Path(*[".."] * 3, source_root.relative_to(home)) if travels else None
    return {
        "relative": relative.as_posix() if relative else ".missing",
        "absolute": None if travels else str(source_root),
    }
