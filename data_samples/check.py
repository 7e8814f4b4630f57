"""How well the reference's CLIP score separates the clean samples from each kind of noise.

Uses open_clip alone, not mimic_core, so that it can serve as an independent yardstick.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image

from data_samples.noise import CLEAN, MISMATCHED_OR_JUNK
from mimic_core.base.errors import SourceError

BATCH_SIZE = 250


@dataclass(frozen=True, slots=True)
class PoolSample:
    """One pair as read back from a shard."""

    key: str
    image: bytes
    caption: str
    meta: dict[str, str | int | bool | None]


def read_pool(pool: Path) -> Iterator[PoolSample]:
    """Yield the samples of all shards in order, three tar members each."""
    for path in sorted(pool.glob("*.tar")):
        with tarfile.open(path) as tar:
            while (image := tar.next()) is not None:
                data, caption, meta = (
                    _content(tar, one) for one in (image, tar.next(), tar.next())
                )
                key = image.name.split(".")[0]
                yield PoolSample(key, data, caption.decode(), json.loads(meta))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> bytes:
    file = None if member is None else tar.extractfile(member)
    if file is None:
        raise SourceError(
            "A shard of the demo pool is incomplete",
            got=str(tar.name),
            next_step="write the pool again with python data_samples/make_demo.py --only pool",
        )
    return file.read()


def clip_scores(samples: Sequence[PoolSample], reference: Path) -> NDArray[np.float32]:
    """Return the cosine (N,) of image and caption embeddings under the reference."""
    name = f"local-dir:{reference}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    model.eval()
    scores = []
    with torch.inference_mode():
        for start in range(0, len(samples), BATCH_SIZE):
            batch = samples[start : start + BATCH_SIZE]
            pixels = torch.stack(
                [preprocess(Image.open(io.BytesIO(sample.image))) for sample in batch]
            )
            image = model.encode_image(pixels, normalize=True)
            text = model.encode_text(tokenizer([one.caption for one in batch]), normalize=True)
            scores.append((image * text).sum(dim=1))
    return torch.cat(scores).numpy()


def auroc(kept: NDArray[np.floating], dropped: NDArray[np.floating]) -> float:
    """Return the probability that a kept sample scores above a dropped one, ties half."""
    above = (kept[:, None] > dropped[None, :]).mean()
    equal = (kept[:, None] == dropped[None, :]).mean()
    return float(above + equal / 2)


def auroc_by_kind(kinds: Sequence[str], scores: NDArray[np.floating]) -> dict[str, float]:
    """Return clean-against-noise AUROCs, for all mismatched and junk captions, then by kind."""
    kind_of = np.array(kinds)
    clean = scores[kind_of == CLEAN]
    mismatched = np.isin(kind_of, MISMATCHED_OR_JUNK)
    result = {"mismatched or junk": auroc(clean, scores[mismatched])}
    for kind in sorted(set(kinds) - {CLEAN}):
        result[kind] = auroc(clean, scores[kind_of == kind])
    return result


def check_reference(pool: Path, reference: Path, *, limit: int | None = None) -> dict[str, float]:
    """Score the pool, or its first `limit` samples, and return the AUROCs by kind of noise."""
    samples = list(islice(read_pool(pool), limit))
    kinds = [str(sample.meta["noise_kind"]) for sample in samples]
    return auroc_by_kind(kinds, clip_scores(samples, reference))
