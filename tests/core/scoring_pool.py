"""A small pool with every kind of unusable sample, and feature sets that need no images."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image
from torch import nn

from mimic_core.base import files
from mimic_core.base.schema import MEASURED_COLUMNS, SAMPLE_COLUMNS, SCHEMA_VERSION, SKIP_COLUMNS
from mimic_core.features.stored import store_head
from mimic_core.runs.featureset import FeatureSet

WORDS = ("red", "blue", "dog", "cat", "boat", "tree", "house", "road", "snow", "sea")


def uid_of(number: int) -> str:
    """The uid of sample ``number``."""
    return hashlib.sha256(f"sample {number}".encode()).hexdigest()[:32]


def picture(number: int, *, size: tuple[int, int] = (20, 24)) -> bytes:
    """A PNG of noise, different for every number."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def caption_of(number: int) -> str:
    """A caption of three words that differs from number to number."""
    rng = np.random.default_rng(number + 10_000)
    return " ".join(rng.choice(WORDS, 3)) + f" {number}"


def write_shard(path: Path, numbers: list[int], *, broken: dict[int, str] | None = None) -> None:
    """One tar; ``broken`` says how a sample is spoiled: corrupt, cut, no image or caption, twin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            fault = (broken or {}).get(number, "")
            members = {
                "png": picture(number),
                "txt": caption_of(number).encode(),
                "json": json.dumps({"uid": uid_of(number), "number": number}).encode(),
            }
            if fault == "corrupt":
                members["png"] = b"no image at all"
            elif fault == "cut":
                members["png"] = members["png"][:200]
            elif fault == "no image":
                del members["png"]
            elif fault == "no caption":
                members["txt"] = b"  \n"
            elif fault == "twin":
                members["json"] = json.dumps({"uid": uid_of(0), "number": number}).encode()
            for suffix, data in members.items():
                member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


BROKEN = {
    71: "corrupt",
    72: "cut",
    73: "no image",
    74: "no caption",
    75: "twin",
    80: "corrupt",
    81: "corrupt",
}
REASONS = {
    71: "corrupt_image",
    72: "corrupt_image",
    73: "missing_image",
    74: "empty_caption",
    75: "duplicate_uid",
    80: "corrupt_image",
    81: "corrupt_image",
}


def write_pool(root: Path) -> Path:
    """Three shards: 70 samples (two encoding batches), 8 with five broken, and only broken ones."""
    write_shard(root / "00000.tar", list(range(70)))
    write_shard(root / "00001.tar", list(range(70, 78)), broken=BROKEN)
    write_shard(root / "00002.tar", [80, 81], broken=BROKEN)
    return root


READABLE = [n for n in range(78) if n not in BROKEN]


class Towers(nn.Module):
    """The parts of a CLIP model that phase 2 needs, with random projections."""

    def __init__(self, width: int, embedding: int, *, siglip: bool, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) * shape[0] ** -0.5)

        self.visual = nn.Module()
        self.visual.proj = draw(width, embedding)
        # a linear text projection with a bias, as SigLIP's
        self.text_projection = nn.Linear(width + 3, embedding)
        self.text_projection.weight = nn.Parameter(
            draw(width + 3, embedding).detach().T.contiguous()
        )
        self.text_projection.bias = draw(embedding)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.logit_bias = nn.Parameter(torch.tensor(-3.0)) if siglip else None
        self.requires_grad_(False)


def feature_set(
    path: Path,
    *,
    samples: int = 50,
    width: int = 12,
    embedding: int = 8,
    siglip: bool = False,
    seed: int = 0,
    shards: int = 2,
    shuffle: int | None = None,
) -> FeatureSet:
    """A finished feature set with random arrays; ``shuffle`` changes the order of its samples."""
    towers = Towers(width, embedding, siglip=siglip, seed=seed)
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(samples, width)).astype(np.float16)
    text = rng.normal(size=(samples, width + 3)).astype(np.float16)

    def unit(raw: np.ndarray) -> np.ndarray:
        return raw / np.linalg.norm(raw, axis=1, keepdims=True)

    weight = towers.text_projection.weight.detach().numpy().T
    bias = towers.text_projection.bias.detach().numpy()
    arrays = {
        "image_features": image,
        "text_features": text,
        "image_embedding": unit(image.astype(np.float32) @ towers.visual.proj.detach().numpy()),
        "text_embedding": unit(text.astype(np.float32) @ weight + bias),
    }
    order = np.arange(samples)
    if shuffle is not None:
        order = np.random.default_rng(shuffle).permutation(samples)
    names = [f"{n:05d}" for n in range(shards)]
    parts = np.array_split(order, shards)
    info: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "shards": {name: len(part) for name, part in zip(names, parts, strict=True)},
        "arrays": sorted(arrays),
    }
    files.write_json(path / "features.json", info)
    features = FeatureSet.open(path)
    store_head(features, towers, ("image", "text"))
    for name, part in zip(names, parts, strict=True):
        features.write_shard(
            name,
            _table(name, part),
            pl.DataFrame(schema=SKIP_COLUMNS),
            {key: array[part].astype(np.float16) for key, array in arrays.items()},
        )
    return FeatureSet.open(path)


def _table(shard: str, numbers: np.ndarray) -> pl.DataFrame:
    columns: dict[str, Any] = {
        name: [None] * len(numbers) for name in {**SAMPLE_COLUMNS, **MEASURED_COLUMNS}
    }
    columns |= {
        "uid": [uid_of(int(n)) for n in numbers],
        "key": [str(n) for n in numbers],
        "shard": [shard] * len(numbers),
        "caption": [caption_of(int(n)) for n in numbers],
    }
    return pl.DataFrame(columns, schema={**SAMPLE_COLUMNS, **MEASURED_COLUMNS})
