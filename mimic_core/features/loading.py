"""From a shard's index to batches of tensors, in worker processes (phase 1, method.md section 4).

A batch is a fixed slice of one shard's index, so what is in it depends on neither the number of
workers nor an interruption. Letters: B samples, U distinct images (captions may share one), L
tokens.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mimic_core.base.schema import Locator, Skip
from mimic_core.models.building import Tokenizer
from mimic_core.sources.images import ImageError, decode_image
from mimic_core.sources.reading import read_image

# Below this many samples, starting worker processes costs more than they save.
MIN_SAMPLES_FOR_WORKERS = 4096
MAX_ASPECT = 100


@dataclass
class LoadedBatch:
    """Decoded, preprocessed and tokenised samples of one slice of a shard's index."""

    shard: str
    last_of_shard: bool
    size: int
    """Rows of the slice, readable or not."""
    rows: np.ndarray
    """Rows of the shard's index that could be read (B,) int64."""
    images: Tensor
    """(U, 3, H, W)"""
    image_of: Tensor
    """Which image each sample has (B,) int64."""
    tokens: Tensor
    """(B, L) int64; L is 0 in pools of labels"""
    measured: dict[str, list[int | None]] = field(default_factory=dict)
    """width, height, caption_tokens, caption_length: one value per readable sample."""
    labels: list[str | None] = field(default_factory=list)
    """One per readable sample; None in pools of captions."""
    skips: list[Skip] = field(default_factory=list)

    def pin_memory(self) -> LoadedBatch:
        """Called by the DataLoader; pinned tensors are copied to the device asynchronously."""
        return self._map(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> LoadedBatch:
        """The same batch with its tensors on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def tensors(self) -> list[Tensor]:
        """All tensors of the batch."""
        return [self.images, self.image_of, self.tokens]

    def _map(self, change: Callable[[Tensor], Tensor]) -> LoadedBatch:
        return replace(
            self,
            images=change(self.images),
            image_of=change(self.image_of),
            tokens=change(self.tokens),
        )


@dataclass(frozen=True)
class BatchPlan:
    """Which rows of which shard make one batch."""

    shard: str
    start: int
    stop: int
    last_of_shard: bool


class SampleLoader:
    """Reads, decodes, preprocesses and tokenises indexed samples; picklable.

    Args:
        root: Folder to which the locators are relative.
        preprocess: RGB image to tensor (3, H, W).
        tokenizer: Captions to tokens (B, L); None for labelled images.
    """

    def __init__(
        self, root: Path, preprocess: Callable[[Any], Tensor], tokenizer: Tokenizer | None
    ) -> None:
        self._root = root
        self._preprocess = preprocess
        self._tokenizer = tokenizer

    def load(self, rows: pl.DataFrame) -> LoadedBatch:
        """The readable ones of ``rows``, an index table or a part of one."""
        images, sizes, image_of, skips = self._load_images(rows)
        readable = np.flatnonzero(image_of >= 0)
        tokens, counts, lengths = self._read_captions(rows["caption"].gather(readable).to_list())
        return LoadedBatch(
            shard="",
            last_of_shard=False,
            size=len(rows),
            rows=readable,
            images=torch.stack(images) if images else torch.empty(0),
            image_of=torch.from_numpy(image_of[readable]),
            tokens=tokens,
            labels=rows["label"].gather(readable).to_list(),
            measured={
                "width": [sizes[i][0] for i in image_of[readable]],
                "height": [sizes[i][1] for i in image_of[readable]],
                "caption_tokens": counts,
                "caption_length": lengths,
            },
            skips=skips,
        )

    def _read_captions(
        self, captions: list[str | None]
    ) -> tuple[Tensor, list[int | None], list[int | None]]:
        """Tokens (B, L), their counts before truncation, and lengths in characters."""
        if self._tokenizer is None or not captions:
            nothing: list[int | None] = [None] * len(captions)
            return torch.empty((len(captions), 0), dtype=torch.long), nothing, nothing
        texts = [text or "" for text in captions]
        counts = [count_tokens(self._tokenizer, text) for text in texts]
        return self._tokenizer(texts), [*counts], [len(text) for text in texts]

    def _load_images(
        self, rows: pl.DataFrame
    ) -> tuple[list[Tensor], list[tuple[int, int]], np.ndarray, list[Skip]]:
        """Each distinct image once; ``image_of`` is -1 where a sample's image cannot be read."""
        images: list[Tensor] = []
        sizes: list[tuple[int, int]] = []
        skips: list[Skip] = []
        known: dict[Locator, int | ImageError] = {}
        image_of = np.full(len(rows), -1, np.int64)
        for number, row in enumerate(rows.iter_rows(named=True)):
            locator = locator_of(row)
            if locator not in known:
                try:
                    image = decode_image(read_image(self._root, locator))
                    _require_moderate_shape(*image.size)
                    known[locator] = len(images)
                    images.append(self._preprocess(image))
                    sizes.append(image.size)
                except ImageError as error:
                    known[locator] = error
            found = known[locator]
            if isinstance(found, ImageError):
                skips.append(Skip(row["key"], row["shard"], found.reason, found.detail))
            else:
                image_of[number] = found
        return images, sizes, image_of, skips


class BatchDataset(Dataset[LoadedBatch]):
    """Planned batches of a feature set's index; small whatever the size of the pool."""

    def __init__(
        self, plans: Sequence[BatchPlan], index_folder: Path, loader: SampleLoader
    ) -> None:
        self._plans = plans
        self._index_folder = index_folder
        self._loader = loader

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, number: int) -> LoadedBatch:
        plan = self._plans[number]
        index = _read_index(self._index_folder / f"{plan.shard}.parquet")
        batch = self._loader.load(index.slice(plan.start, plan.stop - plan.start))
        return replace(
            batch,
            shard=plan.shard,
            last_of_shard=plan.last_of_shard,
            rows=batch.rows + plan.start,
        )


def _require_moderate_shape(width: int, height: int) -> None:
    """Refuse hair-thin images: resizing their short side would make gigabytes of the long one."""
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            "oversized_image", f"{width} x {height} pixels, the limit is {MAX_ASPECT} to 1"
        )


@lru_cache(maxsize=2)
def _read_index(file: Path) -> pl.DataFrame:
    return pl.read_parquet(file)


def locator_of(row: dict[str, Any]) -> Locator:
    """The image locator in a row of a samples table."""
    return Locator(
        kind=row["image_kind"],
        path=row["image_path"],
        offset=row["image_offset"],
        length=row["image_length"],
        member=row["image_member"],
    )


def count_tokens(tokenizer: Tokenizer, caption: str) -> int | None:
    """Tokens of ``caption`` with start and end, before any truncation; None where a user's own
    tokenizer cannot tell.
    """
    encode = getattr(tokenizer, "encode", None)
    if encode is not None:
        return len(encode(caption)) + 2
    wrapped = getattr(tokenizer, "tokenizer", None)
    return None if wrapped is None else len(wrapped(caption)["input_ids"])


def plan_batches(shard: str, count: int, batch_size: int) -> list[BatchPlan]:
    """Slices of ``batch_size`` over a shard of ``count`` samples; one empty if there are none."""
    starts = range(0, max(count, 1), batch_size)
    return [
        BatchPlan(shard, start, min(start + batch_size, count), start + batch_size >= count)
        for start in starts
    ]


def default_workers(samples: int, *, sharing: int = 1) -> int:
    """Worker processes for a pool of this size: none for a small one, else one per core.

    Args:
        sharing: How many processes of this machine load at the same time and share its cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 0 if samples < MIN_SAMPLES_FOR_WORKERS else max(1, min((cores or 1) // sharing, 32))


def load_batches(
    dataset: Dataset[LoadedBatch], *, workers: int, device: torch.device
) -> Iterator[LoadedBatch]:
    """The dataset's batches in order, on ``device``; copies overlap with computation on CUDA."""
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        # Fresh interpreters: forked children of a process that uses polars or CUDA can hang.
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=_quiet_worker if workers else None,
    )
    if device.type != "cuda":
        yield from (batch.to(device) for batch in loader)
        return
    yield from _prefetched(loader, device)


def _prefetched(
    batches: Iterator[LoadedBatch] | Any, device: torch.device
) -> Iterator[LoadedBatch]:
    """One batch ahead on a second CUDA stream."""
    copies: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: LoadedBatch | None = None
    for batch in batches:
        with torch.cuda.stream(copies):
            coming = batch.to(device)
        if ahead is not None:
            yield ahead
        torch.cuda.current_stream(device).wait_stream(copies)
        for tensor in coming.tensors():
            tensor.record_stream(torch.cuda.current_stream(device))
        ahead = coming
    if ahead is not None:
        yield ahead


def _quiet_worker(_: int) -> None:
    """Leave Ctrl-C to the main process, and one thread to each worker."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
