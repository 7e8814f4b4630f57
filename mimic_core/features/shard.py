"""The shard at work: what has been computed of its images and texts, until it is stored.

Each distinct image is encoded once. A forward pass takes the new images of one portion where the
samples of a shard share none, else a whole batch of them in the order of the pool. The last bit of
an image's features may depend on how many images a pass holds (measured on CPUs: below eight, and
not above, whatever the others are), so passes that are smaller because images are shared are filled
up to ``FEWEST``.

Letters: N samples of the shard, U images that it stores, R samples of a portion, D embedding width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mimic_core.base.errors import RunError
from mimic_core.base.identity import rows_of
from mimic_core.base.schema import MEASURED_COLUMNS, SKIP_COLUMNS, Skip
from mimic_core.features.encoders import Encoder
from mimic_core.features.loading import SampleLoader
from mimic_core.features.portions import PoolImages, Portion
from mimic_core.runs.featureset import FeatureSet
from mimic_core.sources.images import ImageError

FEWEST = 16


@dataclass(frozen=True)
class Target:
    """A feature set to be filled and the encoder that fills it."""

    features: FeatureSet
    encoder: Encoder


@dataclass(frozen=True, eq=False)
class _Home:
    """The images of one finished shard that later shards have too, by place (C,), ascending.

    ``image`` (C, 2): the shard that stores it and its row there, -1 where it could not be read;
    ``sizes`` (C, 2); ``carried`` (C,) rows of ``FeatureSet.carried``.
    """

    image: np.ndarray
    sizes: np.ndarray
    carried: np.ndarray


class Homes:
    """What a target has stored of images that several shards have."""

    def __init__(self, target: Target, index: FeatureSet, images: PoolImages) -> None:
        self._target, self._index, self._images = target, index, images
        self._known: dict[int, _Home] = {}

    def look_up(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Images (F, 2), sizes (F, 2) and unit vectors (F, D) of images of earlier shards.

        Args:
            places: The first samples that have them, by number over all shards (F,), ascending.
        """
        image, sizes = np.full((len(places), 2), -1, np.int64), np.zeros((len(places), 2), np.int64)
        units: list[np.ndarray] = []  # (F_k, D), or (F_k, 0) of a shard that could read no image
        shards = self._images.home(places)
        for number in np.unique(shards).tolist():
            here = shards == number
            home = self._home(number)
            rows = places[here] - self._images.starts[number]
            at = np.searchsorted(self._images.carried_by(number), rows)
            image[here], sizes[here] = home.image[at], home.sizes[at]
            if self._target.encoder.compares:
                units.append(self._units(number, home.carried[at]))
        width = max((part.shape[1] for part in units), default=0)
        if not width:  # none of them could be read, so that no sample asks for them
            return image, sizes, None
        filled = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in units]
        return image, sizes, np.concatenate(filled)

    def _home(self, number: int) -> _Home:
        if number not in self._known:
            features, shard = self._target.features, self._index.shards[number]
            samples = features.finished(shard, ("uid", "width", "height"))
            uids = self._index.index_uids(shard).gather(self._images.carried_by(number))
            at = rows_of(samples["uid"], uids)
            readable = at >= 0
            image_of = features.image_of(shard, len(samples))
            image = np.full((len(at), 2), -1, np.int64)
            stored = at[readable]
            image[readable] = (
                np.stack([np.full(len(stored), number), stored], axis=1)
                if image_of is None
                else image_of[stored]
            )
            sizes = np.zeros((len(at), 2), np.int64)
            sizes[readable] = samples.select("width", "height").to_numpy()[stored]
            self._known[number] = _Home(image, sizes, np.cumsum(readable) - 1)
        return self._known[number]

    def _units(self, number: int, rows: np.ndarray) -> np.ndarray:
        """Unit vectors (K, D) of carried images; those that could not be read get any."""
        carried = self._target.features.carried(self._index.shards[number])
        assert carried is not None  # shards without are kept apart
        if not len(carried):
            return np.zeros((len(rows), carried.shape[1]), np.float32)
        return np.asarray(carried[np.maximum(rows, 0)])


class _Work:
    """The arrays of one target for the shard at work."""

    def __init__(self, target: Target, homes: Homes, foreign: np.ndarray) -> None:
        self._encoder, self.features = target.encoder, target.features
        self._arrays: dict[str, list[Tensor]] = defaultdict(list)
        self._units: list[Tensor] = []  # of images
        self._answers: list[Tensor] = []  # to compare images with, for each portion
        self.image, self.sizes, self._foreign = homes.look_up(foreign)

    def add_images(self, images: Tensor, count: int) -> None:
        """Encode images; the first ``count`` are kept."""
        arrays, unit = self._encoder.encode_images(images)
        self._keep(arrays, count)
        if unit is not None and self._encoder.compares:
            self._units.append(unit[:count])

    def add_texts(self, tokens: Tensor, labels: Sequence[str | None]) -> None:
        arrays, answers = self._encoder.encode_texts(tokens, labels)
        self._keep(arrays, len(tokens))
        if answers is not None:
            self._answers.append(answers)

    def _keep(self, arrays: Mapping[str, Tensor], count: int) -> None:
        for name, value in arrays.items():
            self._arrays[name].append(value[:count])

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays, off the device."""
        return {name: _joined(self._arrays.get(name, [])) for name in self._encoder.arrays}

    def clip_scores(self, images: Sequence[np.ndarray]) -> np.ndarray | None:
        """CLIP scores (N,) of samples with these images, portion by portion.

        An image is a row of the shard's own, or behind them one of earlier shards.
        """
        if not self._encoder.compares or not self._answers:
            return None
        parts = [*self._units]
        if self._foreign is not None:
            device = self._answers[0].device
            parts.append(torch.from_numpy(self._foreign).to(device))
        units = torch.cat(parts)
        found = []
        for rows, answers in zip(filter(len, images), self._answers, strict=True):
            own = units[torch.from_numpy(rows).to(units.device)]
            found.append((own * answers).sum(1))
        return _joined(found)

    def carried(self, rows: np.ndarray) -> np.ndarray | None:
        """Unit vectors (C, D) of the shard's images ``rows`` for later shards."""
        if not self._encoder.compares:
            return None
        if not self._units:
            return np.empty((0, 0), np.float32)
        units = torch.cat(self._units)
        return units[torch.from_numpy(rows).to(units.device)].cpu().numpy()


def _joined(parts: list[Tensor]) -> np.ndarray:
    return torch.cat(parts).cpu().numpy() if parts else np.empty((0, 0), np.float32)


class ShardAtWork:
    """One shard for the targets that lack it.

    Args:
        number: Of the shard.
        homes: For each of ``targets``, what it has stored of earlier shards' images.
        size: Images of a forward pass.
    """

    def __init__(
        self,
        number: int,
        index: FeatureSet,
        images: PoolImages,
        targets: Sequence[tuple[Target, Homes]],
        *,
        loader: SampleLoader,
        size: int,
    ) -> None:
        self._number, self._size, self._loader = number, size, loader
        self._shard = index.shards[number]
        self._task = index.info.get("task")
        self._table, self._index_skips = index.index(self._shard), index.index_skips(self._shard)
        self._first = images.shard(number)  # (N,) of the index
        self._start = int(images.starts[number])
        self._carried = images.carried_by(number)
        self._shared = images.shares(number)
        self._foreign = np.unique(self._first[self._first < self._start])
        self._works = [_Work(target, homes, self._foreign) for target, homes in targets]
        self._known: dict[bytes, int] = {}  # images by their bytes
        self._found: dict[int, int | ImageError] = {}  # images by row of the index
        self._sizes: list[tuple[int, int]] = []
        self._waiting: list[Tensor] = []  # images to be encoded
        self._rows: list[np.ndarray] = []  # readable ones, portion by portion
        self._counts: dict[str, list[int | None]] = defaultdict(list)
        self._skips: list[Skip] = []

    def add(self, portion: Portion) -> int:
        """Encode a portion; returns how many of its samples are skipped."""
        self._remember(portion)
        rows, skips = self._readable(portion)
        self._rows.append(rows)
        self._skips += skips
        at = rows - portion.plan.start
        for name in ("caption_tokens", "caption_length"):
            values = getattr(portion, name)
            self._counts[name] += [values[place] for place in at]
        if not self._shared:
            self._encode(fewest=min(FEWEST, len(rows)))
        while self._shared and sum(map(len, self._waiting)) >= self._size:
            self._encode(most=self._size)
        if self._shared and portion.plan.last_of_shard:
            self._encode(fewest=FEWEST)
        if len(rows):
            tokens = portion.tokens[torch.from_numpy(at).to(portion.tokens.device)]
            for work in self._works:
                work.add_texts(tokens, [portion.labels[place] for place in at])
        return len(skips)

    def store(self) -> None:
        """Write the shard of every target."""
        images = [self._images_of(rows) for rows in self._rows]
        where, own = np.concatenate(images), len(self._sizes)
        for work in self._works:
            places = np.concatenate(
                [np.stack([np.full(own, self._number), np.arange(own)], axis=1), work.image]
            )[where]
            plain = own == len(where) and np.array_equal(where, np.arange(own))
            samples = self._samples(where, work.sizes, work.clip_scores(images))
            carried = [one for row in self._carried if (one := self._own(row)) is not None]
            work.features.write_shard(
                self._shard,
                samples,
                pl.concat([self._index_skips, pl.DataFrame(self._skips, schema=SKIP_COLUMNS)]),
                work.arrays(),
                image_of=None if plain else places,
                carried=work.carried(np.array(carried, np.int64)) if len(self._carried) else None,
            )

    def _remember(self, portion: Portion) -> None:
        """Take over the new images of a portion that no earlier one has had."""
        fresh = [n for n, digest in enumerate(portion.digests) if digest not in self._known]
        for number in fresh:
            self._known[portion.digests[number]] = len(self._sizes)
            self._sizes.append(portion.sizes[number])
        if fresh:
            images = portion.images
            self._waiting.append(images if len(fresh) == len(images) else images[fresh])
        for row, one in portion.found.items():
            known = one if isinstance(one, ImageError) else self._known[portion.digests[one]]
            self._found[row] = known

    def _encode(self, *, fewest: int = 0, most: int | None = None) -> None:
        """Encode up to ``most`` waiting images in one pass of at least ``fewest``."""
        if not self._waiting:
            return
        whole = torch.cat(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        images, rest = (whole, whole[:0]) if most is None else (whole[:most], whole[most:])
        self._waiting = [rest] if len(rest) else []
        count = len(images)
        if count < fewest:
            images = torch.cat([images, images[:1].expand(fewest - count, *images.shape[1:])])
        for work in self._works:
            work.add_images(images, count)

    def _readable(self, portion: Portion) -> tuple[np.ndarray, list[Skip]]:
        """Rows (R,) of the index that have an image, and why the others have none."""
        rows, skips = [], []
        for row in range(portion.plan.start, portion.plan.stop):
            place = int(self._first[row])
            if place >= self._start:
                found = self._found[place - self._start]
                skip = found.skip(*self._name(row)) if isinstance(found, ImageError) else None
            else:
                skip = self._skip_of_foreign(row, place)
            if skip is None:
                rows.append(row)
            else:
                skips.append(skip)
        return np.array(rows, np.int64), skips

    def _skip_of_foreign(self, row: int, place: int) -> Skip | None:
        """Why a sample is skipped whose image an earlier shard could not read; None if it could."""
        if self._works[0].image[np.searchsorted(self._foreign, place), 0] >= 0:
            return None
        again = self._loader.load(self._table[[row]])
        if again.skips:
            return again.skips[0]
        raise RunError(
            "an image that could not be read before can be read now",
            got=f"{self._name(row)[0]} in shard {self._shard}",
            allowed="a pool that stays as it is until it has been read once",
            next_step="delete its feature set and score the pool again",
        )

    def _name(self, row: int) -> tuple[str, str]:
        return self._table["key"][row], self._table["shard"][row]

    def _images_of(self, rows: np.ndarray) -> np.ndarray:
        """The images of readable rows: the shard's own, or behind them those of earlier shards."""
        places = self._first[rows]
        behind = len(self._sizes) + np.searchsorted(self._foreign, places)
        return np.array(
            [
                later if place < self._start else self._found[place - self._start]
                for place, later in zip(places.tolist(), behind.tolist(), strict=True)
            ],
            np.int64,
        )

    def _own(self, row: int) -> int | None:
        found = self._found[row]
        return None if isinstance(found, ImageError) else found

    def _samples(
        self, where: np.ndarray, foreign: np.ndarray, clip_scores: np.ndarray | None
    ) -> pl.DataFrame:
        """The rows of the readable samples with what was measured."""
        sizes = np.concatenate([np.array(self._sizes, np.int64).reshape(-1, 2), foreign])[where]
        values = {"width": sizes[:, 0], "height": sizes[:, 1], **self._counts}
        samples = self._table[np.concatenate(self._rows)].with_columns(
            pl.Series(name, values.get(name, [])).cast(dtype)
            for name, dtype in MEASURED_COLUMNS.items()
            if name != "clip_score"
        )
        if clip_scores is not None or samples.is_empty():
            scores = np.empty(0, np.float32) if clip_scores is None else clip_scores
            return samples.with_columns(pl.Series("clip_score", scores, dtype=pl.Float32))
        if self._task == "labels":  # an image model gives no CLIP score
            return samples.with_columns(clip_score=pl.lit(None, pl.Float32))
        return samples
