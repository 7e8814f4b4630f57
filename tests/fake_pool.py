"""The pool behind ``tests.fakes``: what is drawn at random, its samples and its images."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from mimic_core.base.schema import MEASURED_COLUMNS, SAMPLE_COLUMNS
from tests.core.sources_pools import triple, write_tar

SCRIPT_CAPTION = "<script>alert(1)</script>"
TRICKY_CAPTION = 'she said "hi"\nthen 🐈‍⬛, مرحبا, שלום, = 1 + 1, a\\b, <b>&amp;'
MISSING_SHARE = 0.1  # of the user column ``aesthetic``
TOPICS = ("cat", "dog", "boat", "tree", "bread", "clock")
EMBEDDING_WIDTH = 16


@dataclass(frozen=True)
class Draw:
    """Everything random of one fake pool; arrays are (N,) unless said."""

    topic: np.ndarray  # int64
    noise: np.ndarray  # bool
    kind: np.ndarray  # object: "clean", "swapped_caption", "junk_caption"
    embedding: np.ndarray  # (N, D) image embedding, normalised
    text: np.ndarray  # (N, D) text embedding, normalised
    size: np.ndarray  # (N, 2) width and height, int64
    utility: np.ndarray  # what a sample's scores of all epochs share
    rng: np.random.Generator


def draw_pool(n: int, seed: int) -> Draw:
    rng = np.random.default_rng(seed)
    topic = rng.integers(len(TOPICS), size=n)
    noise = rng.random(n) < 0.25
    kinds = np.where(rng.random(n) < 0.6, "swapped_caption", "junk_caption")
    centres = rng.normal(size=(len(TOPICS), EMBEDDING_WIDTH))
    image = centres[topic] + 0.4 * rng.normal(size=(n, EMBEDDING_WIDTH))
    said = np.where(noise, rng.integers(len(TOPICS), size=n), topic)
    text = centres[said] + 0.4 * rng.normal(size=(n, EMBEDDING_WIDTH))
    return Draw(
        topic=topic,
        noise=noise,
        kind=np.where(noise, kinds, "clean").astype(object),
        embedding=image / np.linalg.norm(image, axis=1, keepdims=True),
        text=text / np.linalg.norm(text, axis=1, keepdims=True),
        size=rng.integers(16, 33, size=(n, 2)),
        utility=np.where(noise, -0.02, 0.06) + 0.04 * rng.normal(size=n),
        rng=rng,
    )


def samples_table(draw: Draw, seed: int, *, truth: bool) -> pl.DataFrame:
    """The samples table without image positions, half of the rows in each shard."""
    n = len(draw.topic)
    captions = [
        f"TM{i}" if kind == "junk_caption" else f"a photo of a {TOPICS[topic]}, number {i}"
        for i, (kind, topic) in enumerate(zip(draw.kind, draw.topic, strict=True))
    ]
    captions[:2] = [SCRIPT_CAPTION, TRICKY_CAPTION]
    shards = np.where(np.arange(n) < (n + 1) // 2, "00000", "00001")
    similarity = np.where(draw.noise, 0.17, 0.29) + 0.05 * draw.rng.normal(size=n)
    aesthetic = np.round(draw.rng.normal(5, 1, n), 3)
    present = draw.rng.random(n) >= MISSING_SHARE
    columns: dict[str, Any] = {
        "uid": [hashlib.sha256(f"{seed}/{i}".encode()).hexdigest()[:32] for i in range(n)],
        "key": [f"{i:09d}" for i in range(n)],
        "shard": shards,
        "caption": captions,
        "label": [None] * n,
        "image_kind": ["range"] * n,
        "image_path": [f"{shard}.tar" for shard in shards],
        "image_offset": [0] * n,
        "image_length": [-1] * n,
        "image_member": [""] * n,
        "width": draw.size[:, 0],
        "height": draw.size[:, 1],
        "caption_tokens": [len(text.split()) + 2 for text in captions],
        "caption_length": [len(text) for text in captions],
        "clip_score": similarity.astype(np.float32),
    }
    dtypes = {**SAMPLE_COLUMNS, **MEASURED_COLUMNS}
    frame = pl.DataFrame(columns, schema_overrides=dtypes)
    frame = frame.with_columns(
        pl.Series("topic", [TOPICS[topic] for topic in draw.topic]),
        pl.Series("aesthetic", aesthetic).scatter(np.flatnonzero(~present), None),
    )
    if truth:
        frame = frame.with_columns(
            pl.Series("is_noisy", draw.noise), pl.Series("noise_kind", list(draw.kind))
        )
    return frame


def write_images(
    pool: Path, samples: pl.DataFrame, size: np.ndarray, most: int | None = None
) -> pl.DataFrame:
    """Write the webdataset shards; the samples come back with where each image lies.

    Of a large pool only the first ``most`` images of a shard are written, which the others share.
    """
    pool.mkdir(parents=True, exist_ok=True)
    places: dict[str, tuple[int, int]] = {}
    for (shard,), rows in samples.group_by("shard", maintain_order=True):
        path = pool / f"{shard}.tar"
        members: list[tuple[str, bytes]] = []
        for row in rows.head(most or len(rows)).iter_rows(named=True):
            meta = {"uid": row["uid"], "topic": row["topic"]}
            members += triple(row["key"], row["caption"], meta, image=_png(row))
        write_tar(path, members)
        with tarfile.open(path) as archive:
            for member in archive.getmembers():
                if member.name.endswith(".png"):
                    places[member.name.removesuffix(".png")] = (member.offset_data, member.size)
        there = rows["key"].head(most or len(rows)).to_list()
        for number, key in enumerate(rows["key"]):
            places.setdefault(key, places[there[number % len(there)]])
    found = [places[key] for key in samples["key"]]
    return samples.with_columns(
        pl.Series("image_offset", [offset for offset, _ in found], pl.Int64),
        pl.Series("image_length", [length for _, length in found], pl.Int64),
    )


def _png(row: dict[str, Any]) -> bytes:
    """A one-coloured picture of the row's size; the colour tells the topic."""
    hue = TOPICS.index(row["topic"]) * 255 // len(TOPICS)
    picture = Image.new("HSV", (row["width"], row["height"]), (hue, 160, 220)).convert("RGB")
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
