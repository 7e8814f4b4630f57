"""Features of a user's own, by uid: a feature set without a model and without reading an image.

A Parquet file with the columns ``uid`` and ``image_features`` (lists of one length), or
``FILE.npy`` with the uids beside it in ``FILE.uids.txt``, one a line. Letters: M rows of the file,
F width.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from torch import nn

from mimic_core.base.errors import ModelError
from mimic_core.base.progress import Progress
from mimic_core.base.schema import MEASURED_COLUMNS, SKIP_COLUMNS
from mimic_core.base.specification import OWN_FEATURES
from mimic_core.models.load import LoadedModel
from mimic_core.models.names import ModelSpec
from mimic_core.runs.featureset import FeatureSet

ARRAY = "image_features"
_FORMS = (
    "a .parquet with the columns uid and image_features, or a .npy of shape (rows, width) beside a "
    ".uids.txt"
)


@dataclass(frozen=True, eq=False)
class OwnFeatures:
    """Features ``values`` (M, F) float16 of the samples ``uids`` (M,), sorted by uid."""

    path: Path
    uids: pl.Series
    values: np.ndarray

    def as_model(self) -> LoadedModel:
        """Themselves in the place of a model that would have computed them; it has no head."""
        content = hashlib.sha256("\n".join(self.uids.to_list()).encode())
        content.update(str(self.values.shape).encode())
        content.update(np.ascontiguousarray(self.values).view(np.uint8).data)
        return LoadedModel(
            module=nn.Identity(),
            spec=ModelSpec(f"{OWN_FEATURES}{self.path}", "own", str(self.path), "file"),
            preprocessing={},
            preprocessing_origin="none, as no image is read",
            tokenizer=None,
            identity=f"features {content.hexdigest()[:16]}",
        )

    def matched(self, features: FeatureSet) -> str:
        """How the file and the pool meet, in a sentence.

        Raises:
            ModelError: They have fewer than two uids in common.
        """
        pool = pl.concat([features.index_uids(shard) for shard in features.shards])
        common = int(pool.is_in(self.uids.implode()).sum())
        if common < 2:
            raise ModelError(
                "the features are not of the samples of this pool",
                got=f"{common} common uids; file: {self.uids[0]}, ...; pool: {pool[0]}, ...",
                allowed="a row of features for each uid, as the pool or a run's table has it",
                next_step="write the pool's uids into the file, or name its own with --uid-column",
            )
        return (
            f"features of your own: {common:,} of the pool's {len(pool):,} samples have them, the "
            f"others are skipped; {len(self.uids) - common:,} rows of the file are of no sample"
        )

    def fill(self, features: FeatureSet, progress: Progress) -> None:
        """Finish the shards of ``features``: who has a row is a sample, who has none is skipped."""
        progress.phase("features", sum(features.info["shards"].values()))
        rows = pl.DataFrame({"uid": self.uids, "row": np.arange(len(self.uids))})
        for shard in features.shards:
            progress.check()
            samples = features.index(shard)
            if not features.has_shard(shard):
                self._store(features, shard, samples, rows)
            progress.advance(len(samples))

    def _store(
        self, features: FeatureSet, shard: str, samples: pl.DataFrame, rows: pl.DataFrame
    ) -> None:
        uids = samples.select("uid")
        place = uids.join(rows, on="uid", how="left", maintain_order="left")["row"]
        without = samples.filter(place.is_null())
        skips = pl.DataFrame(
            {
                "key": without["key"],
                "shard": without["shard"],
                "reason": ["no_features"] * len(without),
                "detail": [f"uid {uid}" for uid in without["uid"]],
            },
            schema=SKIP_COLUMNS,
        )
        kept = samples.filter(place.is_not_null()).with_columns(
            pl.lit(None, dtype).alias(name) for name, dtype in MEASURED_COLUMNS.items()
        )
        skipped = pl.concat([features.index_skips(shard), skips])
        values = self.values[place.drop_nulls().to_numpy()]
        features.write_shard(shard, kept, skipped, {ARRAY: values})


def read_own_features(path: Path) -> OwnFeatures:
    """Read and check a file of features.

    Raises:
        ModelError: It is none, a uid is missing or there twice, rows differ in length, or a number
            is missing, not finite, or too large for float16.
    """
    if not path.is_file():
        raise _unusable("it does not exist", path)
    try:
        uids, values = _read_npy(path) if path.suffix == ".npy" else _read_parquet(path)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise _unusable(f"it cannot be read ({str(error).splitlines()[0]})", path) from error
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
        raise _unusable("it holds no rows of numbers", f"{values.dtype} {values.shape}")
    if len(uids) != len(values):
        raise _unusable("it has not one uid for each row", f"{len(uids)} uids, {len(values)} rows")
    if uids.has_nulls() or uids.n_unique() < len(uids):
        twice = uids.filter(uids.is_duplicated() | uids.is_null())
        raise _unusable("a uid is missing or there twice", twice[0])
    order = uids.arg_sort().to_numpy()
    with np.errstate(over="ignore"):  # told below, with the uid
        halved = values[order].astype(np.float16)
    wrong = np.flatnonzero(~np.isfinite(halved).all(1))
    if len(wrong):
        raise _unusable(
            "a number is missing, not finite, or beyond 65,504", f"uid {uids[int(order[wrong[0]])]}"
        )
    return OwnFeatures(path, uids.gather(order), halved)


def _read_parquet(path: Path) -> tuple[pl.Series, np.ndarray]:
    table = pl.read_parquet(path, columns=["uid", ARRAY])
    column = table[ARRAY]
    if isinstance(column.dtype, pl.List):
        lengths = column.list.len().unique()
        if len(lengths) != 1 or column.has_nulls():
            raise _unusable("its rows differ in length", ", ".join(map(str, lengths.to_list()[:5])))
        column = column.list.to_array(int(lengths[0]))
    if column.has_nulls() or not isinstance(column.dtype, pl.Array):
        raise _unusable("its column image_features holds no lists of numbers", str(column.dtype))
    width = column.dtype.shape[-1]
    flat = column.explode().cast(pl.Float32)  # a missing number is NaN then, and refused
    return table["uid"].cast(pl.String), flat.to_numpy().reshape(-1, width)


def _read_npy(path: Path) -> tuple[pl.Series, np.ndarray]:
    beside = path.with_suffix(".uids.txt")
    if not beside.is_file():
        raise _unusable("the uids of its rows are not beside it", str(beside))
    uids = pl.Series("uid", beside.read_text(encoding="utf-8").split(), pl.String)
    return uids, np.load(path, allow_pickle=False)


def _unusable(problem: str, got: object) -> ModelError:
    return ModelError(
        f"the file of features cannot be used: {problem}",
        got=str(got),
        allowed=_FORMS,
        next_step="write the features again, one row for each uid",
    )
