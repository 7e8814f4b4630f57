"""From rows of an index to batches of tensors, in worker processes (phase 1, method.md section 4).

Letters: B samples, U distinct images (captions may share one), L tokens.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mimic_core.base.errors import MimicError
from mimic_core.base.schema import Locator, Skip
from mimic_core.models.building import Tokenizer
from mimic_core.sources.images import ImageError, decode_image
from mimic_core.sources.path import Presence
from mimic_core.sources.reading import PoolReader

# Below this many samples, starting worker processes costs more than they save.
MIN_SAMPLES_FOR_WORKERS = 4096
MAX_ASPECT = 100


@dataclass
class LoadedBatch:
    """Decoded, preprocessed and tokenised samples, each image of one place once."""

    rows: np.ndarray
    """Rows of the table that could be read (B,) int64."""
    images: Tensor
    """(U, 3, H, W)"""
    image_of: Tensor
    """Which image each sample has (B,) int64."""
    tokens: Tensor
    """(B, L) int64; L is 0 in pools of labels"""
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


class Loaded(Protocol):
    """What worker processes hand over: tensors beside other things."""

    def pin_memory(self) -> Self:
        """Called by the DataLoader; pinned tensors are copied to the device asynchronously."""

    def to(self, device: torch.device) -> Self:
        """The same with its tensors on ``device``."""

    def tensors(self) -> list[Tensor]:
        """All its tensors."""


AnyLoaded = TypeVar("AnyLoaded", bound=Loaded)


class SampleLoader:
    """Reads, decodes, preprocesses and tokenises indexed samples; picklable.

    Args:
        root: Folder to which the locators are relative; it must be there.
        preprocess: RGB image to tensor (3, H, W).
        tokenizer: Captions to tokens (B, L); None for labelled images.
        places: The folders of the pools that lie below ``root``, where there are several.
    """

    def __init__(
        self,
        root: Path,
        preprocess: Callable[[Any], Tensor],
        tokenizer: Tokenizer | None,
        *,
        places: Sequence[Path] = (),
    ) -> None:
        self._reader = PoolReader(root, tuple(map(Presence.of, places or (root,))))
        self._preprocess = preprocess
        self._tokenizer = tokenizer

    def load(self, rows: pl.DataFrame) -> LoadedBatch:
        """The readable ones of ``rows``, an index table or a part of one.

        Raises:
            SourceError: The pool is away.
        """
        images: list[Tensor] = []
        skips: list[Skip] = []
        known: dict[Locator, int | ImageError] = {}
        image_of = np.full(len(rows), -1, np.int64)
        for number, row in enumerate(rows.iter_rows(named=True)):
            locator = locator_of(row)
            if locator not in known:
                try:
                    image, _ = self.prepare(self.read(locator))
                    known[locator] = len(images)
                    images.append(image)
                except ImageError as error:
                    known[locator] = error
            found = known[locator]
            if isinstance(found, ImageError):
                skips.append(found.skip(row["key"], row["shard"]))
            else:
                image_of[number] = found
        readable = np.flatnonzero(image_of >= 0)
        return LoadedBatch(
            rows=readable,
            images=stacked(images),
            image_of=torch.from_numpy(image_of[readable]),
            tokens=self.tokens(rows["caption"].gather(readable)),
            labels=rows["label"].gather(readable).to_list(),
            skips=skips,
        )

    def read(self, locator: Locator) -> bytes:
        """The bytes of one image; raises as ``PoolReader.read``."""
        return self._reader.read(locator)

    def prepare(self, data: bytes) -> tuple[Tensor, tuple[int, int]]:
        """An image as the model wants it (3, H, W), and its own size; raises ``ImageError``."""
        image = decode_image(data)
        _require_moderate_shape(*image.size)
        return self._preprocess(image), image.size

    def tokens(self, captions: pl.Series) -> Tensor:
        """Tokens (B, L) of captions; L is 0 where there are none to be read."""
        if self._tokenizer is None or captions.is_empty():
            return torch.empty((len(captions), 0), dtype=torch.long)
        return self._tokenizer(captions.fill_null("").to_list())

    def lengths(self, captions: pl.Series) -> tuple[list[int | None], list[int | None]]:
        """Of each caption (B) its tokens before truncation and its characters."""
        if self._tokenizer is None:
            nothing: list[int | None] = [None] * len(captions)
            return nothing, nothing
        texts = captions.fill_null("").to_list()
        return [count_tokens(self._tokenizer, text) for text in texts], [*map(len, texts)]


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Images (3, H, W) as (U, 3, H, W); no image is an empty tensor."""
    return torch.stack([*images]) if images else torch.empty(0)


def _require_moderate_shape(width: int, height: int) -> None:
    """Refuse hair-thin images: resizing their short side would make gigabytes of the long one."""
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            "oversized_image", f"{width} x {height} pixels, the limit is {MAX_ASPECT} to 1"
        )


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


def default_workers(samples: int, *, sharing: int = 1) -> int:
    """Worker processes for a pool of this size: none for a small one, else one per core.

    Args:
        sharing: How many processes of this machine load at the same time and share its cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 0 if samples < MIN_SAMPLES_FOR_WORKERS else max(1, min((cores or 1) // sharing, 32))


def load_batches(
    dataset: Dataset[AnyLoaded], *, workers: int, device: torch.device
) -> Iterator[AnyLoaded]:
    """The dataset's batches in order, on ``device``; copies overlap with computation on CUDA.

    Raises:
        MimicError: Loading one has raised it, in whichever process.
    """
    loader = DataLoader(
        _Handing(dataset),
        batch_size=None,
        num_workers=workers,
        # Fresh interpreters: forked children of a process that uses polars or CUDA can hang.
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=_quiet_worker if workers else None,
    )
    if device.type != "cuda":
        yield from (batch.to(device) for batch in _raising(loader))
        return
    yield from _prefetched(_raising(loader), device)


class _Handing(Dataset[AnyLoaded | MimicError]):
    """A dataset that hands over an error in the place of a batch: of what is raised in a worker
    process torch makes a bare ``RuntimeError``.
    """

    def __init__(self, dataset: Dataset[AnyLoaded]) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]  # all of ours have one

    def __getitem__(self, number: int) -> AnyLoaded | MimicError:
        try:
            return self._dataset[number]
        except MimicError as error:
            return error


def _raising(batches: Iterable[AnyLoaded | MimicError]) -> Iterator[AnyLoaded]:
    for batch in batches:
        if isinstance(batch, MimicError):
            raise batch
        yield batch


def _prefetched(batches: Iterable[AnyLoaded], device: torch.device) -> Iterator[AnyLoaded]:
    """One batch ahead on a second CUDA stream."""
    copies: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: AnyLoaded | None = None
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
