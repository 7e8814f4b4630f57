"""Features of a user's own, by uid: a feature set without a model and without reading an image.

A Parquet file with the columns ``uid`` and ``image_features`` (lists of one length), or
``FILE.npy`` with the uids beside it in ``FILE.uids.txt``, one a line. For captions the Parquet file
also has ``text_features``, embeddings of the captions, and a projection leads from the features to
them. Letters: M rows of the file, F width, D embedding width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimic_core.base.errors import ModelError
from mimic_core.base.progress import Progress
from mimic_core.base.schema import MEASURED_COLUMNS, SKIP_COLUMNS
from mimic_core.base.specification import OWN_FEATURES
from mimic_core.features.stored import TowerEnds, write_ends
from mimic_core.mimic.contrastive import Scaling
from mimic_core.models.checkpoints import read_state_dict
from mimic_core.models.load import LoadedModel
from mimic_core.models.names import ModelSpec
from mimic_core.models.projections import Projection
from mimic_core.runs.featureset import FeatureSet

ARRAY, TEXTS = "image_features", "text_features"
_FORMS = (
    "a .parquet with the columns uid and image_features, or a .npy of shape (rows, width) beside a "
    ".uids.txt"
)


@dataclass(frozen=True, eq=False)
class OwnFeatures:
    """Features ``values`` (M, F) float16 of the samples ``uids`` (M,), sorted by uid.

    ``texts`` (M, D) float16 are embeddings of captions, if there are any; ``ends`` the projection
    to them, where captions are scored.
    """

    path: Path
    uids: pl.Series
    values: np.ndarray
    texts: np.ndarray | None = None
    ends: TowerEnds | None = None

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that are stored."""
        return (ARRAY,) if self.ends is None else (ARRAY, "image_embedding", "text_embedding")

    def as_model(self) -> LoadedModel:
        """Themselves in the place of a model that would have computed them; it has no head."""
        content = hashlib.sha256("\n".join(self.uids.to_list()).encode())
        content.update(str(self.values.shape).encode())
        content.update(np.ascontiguousarray(self.values).view(np.uint8).data)
        if self.ends is not None and self.texts is not None:
            projection = self.ends.projections["image"]
            content.update(np.ascontiguousarray(self.texts).view(np.uint8).data)
            content.update(f"{projection.weight.shape} {self.ends.scaling}".encode())
            for part in (projection.weight, projection.bias):
                content.update(b"" if part is None else part.contiguous().numpy().tobytes())
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
        if self.ends is not None:
            write_ends(features, self.ends)
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
        kept = kept.with_columns(caption_length=pl.col("caption").str.len_chars().cast(pl.Int32))
        mine = place.drop_nulls().to_numpy()
        arrays = {ARRAY: self.values[mine]}
        if self.ends is not None and self.texts is not None:
            image, text = self._embedded(arrays[ARRAY], self.texts[mine])
            cosines = (image * text).sum(1).numpy()
            kept = kept.with_columns(pl.Series("clip_score", cosines, pl.Float32))
            arrays |= {"image_embedding": image.half().numpy()}
            arrays |= {"text_embedding": text.half().numpy()}
        features.write_shard(shard, kept, skipped, arrays)

    def _embedded(self, values: np.ndarray, texts: np.ndarray) -> tuple[Tensor, Tensor]:
        """Unit embeddings (B, D) float32 of images and captions."""
        assert self.ends is not None
        projection = self.ends.projections["image"]
        raw = torch.from_numpy(values).float() @ projection.weight
        image = raw if projection.bias is None else raw + projection.bias
        return F.normalize(image, dim=1), F.normalize(torch.from_numpy(texts).float(), dim=1)

    def projected(self, path: Path) -> OwnFeatures:
        """With the projection in the file ``path``, which captions are scored by.

        A safetensors file with ``weight`` (D, F), ``logit_scale``, the factor of the cosines, and
        perhaps ``bias`` (D).

        Raises:
            ModelError: It is none, or does not lead from these features to their ``text_features``.
        """
        if not path.is_file():
            raise _no_projection("the file does not exist", path)
        tensors = read_state_dict(path)
        if self.texts is None:
            raise _no_projection("the features have no text_features to project to", self.path)
        shape, bias = (self.texts.shape[1], self.values.shape[1]), tensors.get("bias")
        weight, scale = tensors.get("weight"), tensors.get("logit_scale")
        if weight is None or scale is None or scale.numel() != 1 or not float(scale) > 0:
            raise _no_projection("it lacks weight, or a positive logit_scale", ", ".join(tensors))
        if tuple(weight.shape) != shape or (bias is not None and tuple(bias.shape) != shape[:1]):
            raise _no_projection(f"weight should be {shape}", tuple(weight.shape))
        if not all(torch.isfinite(one).all() for one in tensors.values()):
            raise _no_projection("it holds non-finite numbers", path)
        bias = None if bias is None else bias.float()
        projection = Projection("projection.weight", weight.float().T.contiguous(), bias)
        ends = TowerEnds(Scaling("clip", float(scale)), {"image": projection})
        return replace(self, ends=ends)


def read_own_features(path: Path) -> OwnFeatures:
    """Read and check a file of features.

    Raises:
        ModelError: It is none, a uid is missing or there twice, rows differ in length, or a number
            is missing, not finite, or too large for float16.
    """
    if not path.is_file():
        raise _unusable("it does not exist", path)
    try:
        uids, found = _read_npy(path) if path.suffix == ".npy" else _read_parquet(path)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise _unusable(f"it cannot be read ({str(error).splitlines()[0]})", path) from error
    if uids.has_nulls() or uids.n_unique() < len(uids):
        twice = uids.filter(uids.is_duplicated() | uids.is_null())
        raise _unusable("a uid is missing or there twice", twice[0])
    order = uids.arg_sort().to_numpy()
    kept = {name: _halved(values, uids, order) for name, values in found.items()}
    return OwnFeatures(path, uids.gather(order), kept[ARRAY], kept.get(TEXTS))


def _halved(values: np.ndarray, uids: pl.Series, order: np.ndarray) -> np.ndarray:
    """``values`` as float16, rows in ``order``, after a look at every number."""
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
        raise _unusable("it holds no rows of numbers", f"{values.dtype} {values.shape}")
    if len(uids) != len(values):
        raise _unusable("it has not one uid for each row", f"{len(uids)} uids, {len(values)} rows")
    with np.errstate(over="ignore"):  # told below, with the uid
        halved = values[order].astype(np.float16)
    wrong = np.flatnonzero(~np.isfinite(halved).all(1))
    if len(wrong):
        uid = uids[int(order[wrong[0]])]
        raise _unusable("a number is missing, not finite, or beyond 65,504", f"uid {uid}")
    return np.asarray(halved)


def _read_parquet(path: Path) -> tuple[pl.Series, Mapping[str, np.ndarray]]:
    there = pl.read_parquet_schema(path)
    names = [ARRAY, *([TEXTS] if TEXTS in there else [])]
    table = pl.read_parquet(path, columns=["uid", *names])
    return table["uid"].cast(pl.String), {name: _lists(table[name]) for name in names}


def _lists(column: pl.Series) -> np.ndarray:
    """The lists of a column as rows, float32."""
    if isinstance(column.dtype, pl.List):
        lengths = column.list.len().unique()
        if len(lengths) != 1 or column.has_nulls():
            raise _unusable("its rows differ in length", ", ".join(map(str, lengths.to_list()[:5])))
        column = column.list.to_array(int(lengths[0]))
    if column.has_nulls() or not isinstance(column.dtype, pl.Array):
        raise _unusable(f"its column {column.name} holds no lists of numbers", str(column.dtype))
    width = column.dtype.shape[-1]
    flat = column.explode().cast(pl.Float32)  # a missing number is NaN then, and refused
    return np.asarray(flat.to_numpy().reshape(-1, width))


def _read_npy(path: Path) -> tuple[pl.Series, Mapping[str, np.ndarray]]:
    beside = path.with_suffix(".uids.txt")
    if not beside.is_file():
        raise _unusable("the uids of its rows are not beside it", str(beside))
    uids = pl.Series("uid", beside.read_text(encoding="utf-8").split(), pl.String)
    return uids, {ARRAY: np.load(path, allow_pickle=False)}


def _no_projection(problem: str, got: object) -> ModelError:
    return ModelError(
        f"captions cannot be scored by these features: {problem}",
        got=str(got),
        allowed="Parquet with uid, image_features and text_features, and --reference-head with a "
        "safetensors file of weight (text width, image width) and logit_scale",
        next_step="write both files for the same embeddings",
    )


def _unusable(problem: str, got: object) -> ModelError:
    return ModelError(
        f"the file of features cannot be used: {problem}",
        got=str(got),
        allowed=_FORMS,
        next_step="write the features again, one row for each uid",
    )
