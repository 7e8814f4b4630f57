"""A small pool with every kind of unusable sample, and one of class folders."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.core.sources_pools import write_tar

CLASSES = ("cat", "dog", "owl")
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
    members: list[tuple[str, bytes]] = []
    for number in numbers:
        fault = (broken or {}).get(number, "")
        parts = {
            "png": picture(number),
            "txt": caption_of(number).encode(),
            "json": json.dumps({"uid": uid_of(number), "number": number}).encode(),
        }
        if fault == "corrupt":
            parts["png"] = b"no image at all"
        elif fault == "cut":
            parts["png"] = parts["png"][:200]
        elif fault == "no image":
            del parts["png"]
        elif fault == "no caption":
            parts["txt"] = b"  \n"
        elif fault == "twin":
            parts["json"] = json.dumps({"uid": uid_of(0), "number": number}).encode()
        members += [(f"{number:06d}.{suffix}", data) for suffix, data in parts.items()]
    write_tar(path, members)


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


def write_class_folders(root: Path, *, per_class: int = 12) -> Path:
    """Class folders with noise pictures, one of which is broken."""
    number = 0
    for name in CLASSES:
        for _ in range(per_class):
            path = root / name / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number))
            number += 1
    (root / CLASSES[0] / "broken.png").write_bytes(b"no image")
    return root
