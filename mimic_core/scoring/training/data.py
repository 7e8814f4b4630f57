"""What training reads: the batches of every epoch, drawn by hash, loaded in worker processes.

Which samples meet in which batch is decided by pool, seed, epoch and batch size alone
(``mimic_core.base.draws``); each process of a group loads its own part of every batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch.utils.data import Dataset, Subset

from mimic_core.base.draws import Draw, draw_batches, hash_words, uid_words
from mimic_core.base.errors import RunError
from mimic_core.features.loading import LoadedBatch, SampleLoader, load_batches
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.training.distributed import Group

# Keys of the hashes: comparison batches are drawn apart from the trained ones; so are mirrorings.
_OTHER, _FLIP = 1 << 40, 0xF11B


class SampleReader:
    """Loads samples of a finished feature set by their positions; picklable."""

    def __init__(self, features: Path, loader: SampleLoader) -> None:
        self._features = features
        self._loader = loader

    def load(self, rows: np.ndarray) -> LoadedBatch:
        """The samples at ``rows``, in that order.

        Raises:
            RunError: One that could be read before cannot be read now.
        """
        batch = self._loader.load(_samples(self._features)[rows])
        if batch.skips:
            first = batch.skips[0]
            raise RunError(
                "an image of the pool can no longer be read",
                got=f"{first.key} in shard {first.shard}: {first.detail}",
                allowed="the samples that were readable when the features were made",
                next_step="put the pool back as it was, or delete its feature set and start again",
            )
        return replace(batch, rows=rows)


@lru_cache(maxsize=2)
def _samples(features: Path) -> pl.DataFrame:
    return FeatureSet.open(features).samples


@dataclass(frozen=True)
class Plan:
    """Which samples are visited when.

    Args:
        words: Parsed uids (N, 2) of the trained samples.
        rows: Their positions (N,) in the feature set.
    """

    words: np.ndarray
    rows: np.ndarray
    batch_size: int
    seed: int
    epochs: int

    @cached_property
    def steps(self) -> int:
        """Batches of one epoch."""
        return -(-len(self.rows) // self.batch_size)

    def draws(self, epoch: int, *, comparison: bool = False) -> list[Draw]:
        """The batches of ``epoch``, or as many others to compare them with."""
        seed = self.seed + (_OTHER if comparison else 0)
        return list(draw_batches(self.words, batch_size=self.batch_size, seed=seed, epoch=epoch))


class TrainingSet(Dataset[LoadedBatch]):
    """This process's part of every batch of the run, by number of its step.

    With ``comparison`` every second one is the comparison batch of the one before.
    """

    def __init__(
        self, plan: Plan, rows: SampleReader, group: Group, *, comparison: bool, flip: bool
    ) -> None:
        self._plan = plan
        self._rows = rows
        self._part = group.part(plan.batch_size)
        self._comparison = comparison
        self._flip = flip
        self._known: dict[tuple[int, bool], list[Draw]] = {}

    @property
    def batches_per_step(self) -> int:
        """1, or 2 with comparison batches."""
        return 2 if self._comparison else 1

    def __len__(self) -> int:
        return self._plan.epochs * self._plan.steps * self.batches_per_step

    def __getitem__(self, number: int) -> LoadedBatch:
        step, other = divmod(number, self.batches_per_step)
        epoch, step = divmod(step, self._plan.steps)
        chosen = self._draws(epoch, comparison=bool(other))[step].rows[self._part]
        batch = self._rows.load(self._plan.rows[chosen])
        return mirrored(batch, self._mirror(chosen, epoch)) if self._flip else batch

    def _draws(self, epoch: int, *, comparison: bool) -> list[Draw]:
        key = (epoch, comparison)
        if key not in self._known:
            self._known = {k: draws for k, draws in self._known.items() if k[0] == epoch}
            self._known[key] = self._plan.draws(epoch, comparison=comparison)
        return self._known[key]

    def _mirror(self, chosen: np.ndarray, epoch: int) -> np.ndarray:
        words = self._plan.words[chosen]
        return (hash_words(words, self._plan.seed, epoch, _FLIP) & np.uint64(1)).astype(bool)


def mirrored(batch: LoadedBatch, which: np.ndarray) -> LoadedBatch:
    """``batch`` with the images of the samples ``which`` (B,) bool mirrored left to right."""
    images = batch.images[batch.image_of]
    flips = torch.from_numpy(which).view(-1, 1, 1, 1)
    images = torch.where(flips, images.flip(-1), images)
    return replace(batch, images=images, image_of=torch.arange(len(images)))


class Slices(Dataset[LoadedBatch]):
    """``wanted`` positions, ``size`` at a time, in order; with other ``labels``, one for each."""

    def __init__(
        self,
        rows: SampleReader,
        wanted: np.ndarray,
        size: int,
        labels: list[str] | None = None,
    ) -> None:
        self._rows = rows
        self._wanted = wanted
        self._size = size
        self._labels = labels

    def __len__(self) -> int:
        return math.ceil(len(self._wanted) / self._size)

    def __getitem__(self, number: int) -> LoadedBatch:
        start = number * self._size
        batch = self._rows.load(self._wanted[start : start + self._size])
        if self._labels is None:
            return batch
        return replace(batch, labels=[*self._labels[start : start + self._size]])


def batches_from(
    dataset: TrainingSet, epoch: int, steps: int, *, workers: int, device: torch.device
) -> Iterator[LoadedBatch]:
    """The batches from ``epoch`` on, ``steps`` steps to an epoch, to the end of the run."""
    start = epoch * steps * dataset.batches_per_step
    return load_batches(Subset(dataset, range(start, len(dataset))), workers=workers, device=device)


def words_of(features: FeatureSet, rows: np.ndarray) -> np.ndarray:
    """Parsed uids (N, 2) of the samples at ``rows``."""
    return uid_words(features.samples["uid"].gather(rows))
