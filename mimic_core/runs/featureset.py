"""The feature set on disk: what one pass over a pool's images has measured, kept per shard.

Layout (``docs/formats.md``)::

    features/<id>/features.json                    what it is: pool, model, preprocessing, versions
    features/<id>/index/<shard>.parquet            the samples, before any image is read
    features/<id>/index/<shard>.skipped.parquet    who was left out already then, and why
    features/<id>/samples/<shard>.parquet          the readable samples, with what was measured
    features/<id>/arrays/<shard>.<name>.npy        a row for each sample or image, in their order
    features/<id>/arrays/<shard>.image_of.npy      which image each sample has, where some share one
    features/<id>/arrays/<shard>.carried.npy       what later shards need of this one's images
    features/<id>/skipped/<shard>.parquet          who was skipped, and why
    features/<id>/without_image/<shard>.parquet    rows that have no image, with their captions'
    features/<id>/without_image/<shard>.npy        measures, and their text embeddings
    features/<id>/head.safetensors                 projections and logit scale of the model

``samples/<shard>.parquet`` is written last: a shard is finished exactly when it is there.

Arrays named ``image_...`` have a row for each distinct image, stored by the shard whose sample is
the pool's first to have it; ``image_of`` leads from samples to those rows. Where every sample of a
shard has an image of its own there is no such file, and the rows are those of the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mimic_core.base import files
from mimic_core.base.errors import RunError
from mimic_core.base.identity import image_numbers
from mimic_core.base.remote import RemotePath, as_place
from mimic_core.base.schema import IMAGE_COLUMNS, MEASURED_COLUMNS, SAMPLE_COLUMNS, SKIP_COLUMNS
from mimic_core.runs import stored

FEATURES_DIR = "features"
INDEX_REMEDY = "delete that folder of features and score the pool again: all images are read anew"
SKIPS_REMEDY = "delete that file, and the one of the same name in samples, and score the pool again"

IMAGE_OF, CARRIED = "image_of", "carried"


def of_images(name: str) -> bool:
    """Whether the array of that name has a row for each image, not for each sample."""
    return name.startswith("image_")


def own_images(image_of: np.ndarray, number: int) -> int:
    """How many images shard ``number`` itself stores, by the images (N, 2) of its samples."""
    own = image_of[image_of[:, 0] == number, 1]
    return int(own.max(initial=-1)) + 1


class ShardedArray:
    """Rows of several memory-mapped ``.npy`` files as one array; nothing is read until asked.

    Args:
        parts: Arrays of shapes (N_k, ...) that agree but for N_k.
        rows: Which row of ``parts`` each row of this array is (N,); None where they are the same.
    """

    def __init__(self, parts: list[np.ndarray], rows: np.ndarray | None = None) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.rows = rows

    def __len__(self) -> int:
        return int(self._starts[-1]) if self.rows is None else len(self.rows)

    @property
    def width(self) -> int:
        """Length of a row."""
        return int(self._parts[0].shape[1]) if self._parts[0].ndim > 1 else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored dtype."""
        return self._parts[0].dtype

    @property
    def stored(self) -> ShardedArray:
        """The rows as they are stored, each once."""
        return ShardedArray(self._parts)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows ``rows`` (B,) int64 in that order, as (B, ...) in memory."""
        if self.rows is not None:
            rows = self.rows[rows]
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
        whole = np.concatenate([np.asarray(part) for part in self._parts])
        return whole if self.rows is None else whole[self.rows]


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

    def index_places(self, shard: str) -> pl.DataFrame:
        """Where the images of ``index(shard)`` are, without reading its other columns."""
        with stored.intact(lambda: [(self._file("index", shard), INDEX_REMEDY)]):
            return self._scan_index(shard).select(*IMAGE_COLUMNS).collect()

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
        return pl.concat(map(self.finished, self.shards), how="diagonal_relaxed")

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
    def image_rows(self) -> np.ndarray | None:
        """Which stored image each of ``samples`` has (N,) int64, numbered over all shards.

        None where every sample has a row of its own, as in sets of earlier versions.
        """
        self._require_complete()
        heights = [self._height(shard) for shard in self.shards]
        found = [
            self.image_of(shard, height) for shard, height in zip(self.shards, heights, strict=True)
        ]
        if all(part is None for part in found):
            return None
        pairs = [
            np.stack([np.full(height, number), np.arange(height)], axis=1) if part is None else part
            for number, (part, height) in enumerate(zip(found, heights, strict=True))
        ]
        counts = np.array([own_images(part, number) for number, part in enumerate(pairs)])
        whole = np.concatenate(pairs)
        starts = np.cumsum([0, *counts])[:-1]
        if len(whole) and (whole[:, 1] >= counts[whole[:, 0]]).any():
            number = int(np.flatnonzero(whole[:, 1] >= counts[whole[:, 0]])[0])
            shard = self.shards[int(np.searchsorted(np.cumsum(heights), number, side="right"))]
            raise self._wrong_image_of(shard, "it names an image that no shard holds")
        return np.asarray(starts[whole[:, 0]] + whole[:, 1], np.int64)

    @cached_property
    def first_with_image(self) -> np.ndarray:
        """The first of ``samples`` that has the image of each (N,) int64: of its place or bytes."""
        places = image_numbers(self.samples)
        if self.image_rows is None:
            return places
        _, first, number = np.unique(
            self.image_rows[places], return_index=True, return_inverse=True
        )
        return np.asarray(first[number], np.int64)

    def image_of(self, shard: str, height: int) -> np.ndarray | None:
        """Shard (by number) and row of each sample's image (N, 2) int64; None: each has its own.

        Args:
            height: How many samples the shard has.

        Raises:
            RunError: The file is damaged.
        """
        path = self.array_file(shard, IMAGE_OF)
        if not path.exists():
            return None
        found = stored.read_array(path, height, remedy=self._remedy(shard), kind="i")
        fits = found.ndim == 2 and found.shape[1] == 2
        if not fits or (found < 0).any() or (found[:, 0] >= len(self.shards)).any():
            raise self._wrong_image_of(shard, f"shape {found.shape}, {found.dtype}")
        return np.asarray(found, np.int64)

    def carried(self, shard: str) -> np.ndarray | None:
        """Unit vectors (C, D) float32 of the shard's images that later shards have too."""
        path = self.array_file(shard, CARRIED)
        return np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None

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
        for number, shard in enumerate(self.shards):
            rows = self._height(shard)
            image_of = self.image_of(shard, rows) if of_images(name) else None
            if image_of is not None:
                rows = own_images(image_of, number)
            path = self.array_file(shard, name)
            parts.append(stored.read_array(path, rows, remedy=self._remedy(shard)))
        kept = [part for part in parts if len(part)] or parts[:1]
        return ShardedArray(kept, self.image_rows if of_images(name) else None)

    def write_shard(
        self,
        shard: str,
        samples: pl.DataFrame,
        skipped: pl.DataFrame,
        arrays: dict[str, np.ndarray],
        *,
        image_of: np.ndarray | None = None,
        carried: np.ndarray | None = None,
    ) -> None:
        """Store one finished shard; the samples table comes last and marks it as finished.

        Args:
            image_of: Shard (by number) and row of each sample's image (N, 2); None where the arrays
                of images have the rows of the samples.
            carried: Unit vectors of images that later shards have too.
        """
        for name, array in arrays.items():
            rows = len(samples)
            if image_of is not None and of_images(name):
                rows = own_images(image_of, self.shards.index(shard))
            if len(array) != rows:
                raise RunError(
                    f"array {name} of shard {shard} does not fit its samples",
                    got=f"{len(array)} rows for {rows} samples or images",
                    next_step="report this as a defect of Mimicscope",
                )
            files.write_array(self.array_file(shard, name), array)
        for name, extra in ((IMAGE_OF, image_of), (CARRIED, carried)):
            if extra is None:
                self.array_file(shard, name).unlink(missing_ok=True)  # of an earlier attempt
            else:
                files.write_array(self.array_file(shard, name), extra)
        files.write_parquet(self._file("skipped", shard), skipped)
        files.write_parquet(self._file("samples", shard), samples)

    def forget_shard(self, shard: str) -> None:
        """Make a finished shard unfinished, so that it is read anew."""
        self._file("samples", shard).unlink(missing_ok=True)

    def array_file(self, shard: str, name: str) -> Path:
        """Path of one stored array."""
        return self.path / "arrays" / f"{shard}.{name}.npy"

    def source_root(self) -> Path:
        """Where the pool is now: beside the feature set as recorded, else its absolute path."""
        location = self.info["location"]
        beside = (self.path / str(location["relative"])).resolve()
        if beside.exists():
            return beside
        if location["absolute"]:
            place = as_place(location["absolute"])
            if isinstance(place, RemotePath) or place.exists():
                return place
        raise RunError(
            "the pool's images are no longer where they were scored",
            got=location["absolute"] or str(beside),
            next_step="put the pool back there; scores and captions can still be used without it",
        )

    def _scan_index(self, shard: str) -> pl.LazyFrame:
        return stored.scan_table(self._file("index", shard), SAMPLE_COLUMNS, remedy=INDEX_REMEDY)

    def finished(self, shard: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The readable samples of one finished shard; some ``columns`` of them, or all."""
        path = self._file("samples", shard)
        table = stored.scan_table(path, SAMPLE_COLUMNS, remedy=stored.FEATURES_REMEDY)
        with stored.intact(lambda: [(path, stored.FEATURES_REMEDY)]):
            return table.collect() if columns is None else table.select(columns).collect()

    def _height(self, shard: str) -> int:
        """How many samples a finished shard has."""
        path = self._file("samples", shard)
        table = stored.scan_table(path, SAMPLE_COLUMNS, remedy=stored.FEATURES_REMEDY)
        return int(table.select(pl.len()).collect().item())

    def _remedy(self, shard: str) -> str:
        samples = self._file("samples", shard)
        return f"delete {samples} and score the pool again: its shard is read anew"

    def _wrong_image_of(self, shard: str, problem: str) -> RunError:
        path = self.array_file(shard, IMAGE_OF)
        return RunError(
            f"the stored array {path.name} does not fit its samples",
            got=f"{path}: {problem}",
            allowed="shard and row of each sample's image",
            next_step=self._remedy(shard),
        )

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
