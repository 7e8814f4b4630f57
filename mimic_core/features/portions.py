"""What of a pool is loaded together, so that each distinct image is loaded once.

A portion is a fixed slice of one shard's index: the captions or labels of its samples, and those of
their images that no earlier sample of the pool has. What is in it depends on neither the number of
workers nor an interruption.

Images are told apart by their place, over the whole pool; where places differ, by a digest of their
bytes, within a shard: the bytes are in memory then, and the digest costs little beside decoding
them (``bench/ingest_reading.py``). Over several shards bytes are not compared, as all would have to
be read before the first is decoded.

Letters: R samples of a portion, V images with bytes of their own, L tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mimic_core.base.identity import image_numbers
from mimic_core.features.loading import SampleLoader, locator_of, stacked
from mimic_core.runs.featureset import FeatureSet
from mimic_core.sources.images import ImageError


@dataclass(frozen=True, eq=False)
class PoolImages:
    """Which image each indexed sample of a pool has, by place.

    Samples are numbered over all shards: shard k has those from ``starts[k]`` up to
    ``starts[k + 1]``. ``first`` (N,) int64 is the first sample of the pool with the same image.
    """

    first: np.ndarray
    starts: np.ndarray

    def shard(self, number: int) -> np.ndarray:
        """``first`` of the samples of shard ``number``."""
        return self.first[self.starts[number] : self.starts[number + 1]]

    def own(self, number: int) -> np.ndarray:
        """Which samples of shard ``number`` are the first with their image, bool (N_k,)."""
        start, stop = self.starts[number], self.starts[number + 1]
        return np.asarray(self.first[start:stop] == np.arange(start, stop))

    def home(self, samples: np.ndarray) -> np.ndarray:
        """The shard of each of ``samples``; empty shards are passed over."""
        return np.asarray(np.searchsorted(self.starts, samples, side="right") - 1)

    @cached_property
    def carried(self) -> np.ndarray:
        """Samples, ascending, whose image a sample of a later shard has too."""
        shards = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        return np.unique(self.first[self.home(self.first) != shards])

    def carried_by(self, number: int) -> np.ndarray:
        """Those of shard ``number``, as rows of its index (C,)."""
        start, stop = np.searchsorted(self.carried, self.starts[number : number + 2])
        return np.asarray(self.carried[start:stop] - self.starts[number])

    def shares(self, number: int) -> bool:
        """Whether a sample of shard ``number`` has an image that another sample has too."""
        return not self.own(number).all() or len(self.carried_by(number)) > 0


def pool_images(index: FeatureSet, *, apart: Collection[str] = ()) -> PoolImages:
    """The images of an index; in the shards ``apart`` each sample counts as having its own."""
    places = [index.index_places(shard) for shard in index.shards]
    starts = np.cumsum([0, *map(len, places)])
    known = [
        part.with_columns(pl.lit(None, pl.String).alias("image_kind")) if shard in apart else part
        for shard, part in zip(index.shards, places, strict=True)
    ]
    return PoolImages(image_numbers(pl.concat(known)), starts)


@dataclass(frozen=True)
class PortionPlan:
    """Rows ``start`` up to ``stop`` of a shard's index; ``images`` are those with a new image.

    None where each row has one of its own.
    """

    shard: str
    start: int
    stop: int
    last_of_shard: bool
    images: np.ndarray | None = None


def plan_portions(
    shard: str, count: int, size: int, own: np.ndarray | None = None
) -> list[PortionPlan]:
    """Slices of ``size`` over a shard of ``count`` samples; one empty if there are none.

    Args:
        own: Which samples have an image that no earlier one has, bool (``count``,); None for all.
    """
    plans = []
    for start in range(0, max(count, 1), size):
        stop = min(start + size, count)
        images = None if own is None else start + np.flatnonzero(own[start:stop])
        plans.append(PortionPlan(shard, start, stop, start + size >= count, images))
    return plans


@dataclass
class Portion:
    """A portion as it is loaded: texts of all its samples, and its new images."""

    plan: PortionPlan
    tokens: Tensor
    """(R, L) int64; L is 0 in pools of labels"""
    labels: list[str | None]
    """(R); None in pools of captions"""
    caption_tokens: list[int | None]
    """(R), before truncation"""
    caption_length: list[int | None]
    """(R), in characters"""
    images: Tensor
    """(V, 3, H, W), no two of equal bytes"""
    sizes: list[tuple[int, int]]
    """(V), width and height as stored"""
    digests: list[bytes]
    """(V), of the bytes"""
    found: dict[int, int | ImageError]
    """for each row of the index with a new image, which of ``images`` it is, or why it is none"""

    @property
    def size(self) -> int:
        """Samples, readable or not."""
        return self.plan.stop - self.plan.start

    def pin_memory(self) -> Self:
        """See ``loading.Loaded``."""
        return replace(self, images=self.images.pin_memory(), tokens=self.tokens.pin_memory())

    def to(self, device: torch.device) -> Self:
        """See ``loading.Loaded``."""
        images, tokens = (one.to(device, non_blocking=True) for one in self.tensors())
        return replace(self, images=images, tokens=tokens)

    def tensors(self) -> list[Tensor]:
        """See ``loading.Loaded``."""
        return [self.images, self.tokens]


class PortionDataset(Dataset[Portion]):
    """Planned portions of a feature set's index; its files are read where they are needed."""

    def __init__(self, plans: list[PortionPlan], index_folder: Path, loader: SampleLoader) -> None:
        self._plans = plans
        self._index_folder = index_folder
        self._loader = loader

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, number: int) -> Portion:
        plan = self._plans[number]
        index = _read_index(self._index_folder / f"{plan.shard}.parquet")
        rows = index.slice(plan.start, plan.stop - plan.start)
        counts, lengths = self._loader.lengths(rows["caption"])
        new = np.arange(plan.start, plan.stop) if plan.images is None else plan.images
        images, sizes, digests, found = self._images(index, new)
        return Portion(
            plan=plan,
            tokens=self._loader.tokens(rows["caption"]),
            labels=rows["label"].to_list(),
            caption_tokens=counts,
            caption_length=lengths,
            images=stacked(images),
            sizes=sizes,
            digests=digests,
            found=found,
        )

    def _images(
        self, index: pl.DataFrame, new: np.ndarray
    ) -> tuple[list[Tensor], list[tuple[int, int]], list[bytes], dict[int, int | ImageError]]:
        """The images of the rows ``new``: those of equal bytes are decoded once."""
        images: list[Tensor] = []
        sizes: list[tuple[int, int]] = []
        known: dict[bytes, int | ImageError] = {}
        found: dict[int, int | ImageError] = {}
        for number, row in zip(new.tolist(), index[new].iter_rows(named=True), strict=True):
            try:
                data = self._loader.read(locator_of(row))
            except ImageError as error:
                found[number] = error
                continue
            digest = hashlib.sha256(data).digest()
            if digest not in known:
                try:
                    image, size = self._loader.prepare(data)
                    known[digest] = len(images)
                    images.append(image)
                    sizes.append(size)
                except ImageError as error:
                    known[digest] = error
            found[number] = known[digest]
        digests = [digest for digest, one in known.items() if not isinstance(one, ImageError)]
        return images, sizes, digests, found


@lru_cache(maxsize=2)
def _read_index(file: Path) -> pl.DataFrame:
    return pl.read_parquet(file)
