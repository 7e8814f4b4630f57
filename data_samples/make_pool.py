"""Make the demo pool: image-caption pairs with planted, recorded noise, as webdataset shards.

The same seed gives the same bytes (with the same versions of Pillow and of the font).
Run as ``python -m data_samples.make_pool`` or through make_demo.py.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from data_samples.captions import write_caption
from data_samples.noise import (
    CAPTION_NOISE,
    CLEAN,
    IMAGE_NOISE,
    NOISE_SHARES,
    NoiseKind,
    near_duplicate_image,
    share_no_thing,
)
from data_samples.objects import Thing, all_things
from data_samples.render import render
from data_samples.scenes import Scene, draw_scene
from mimic_core.base.errors import ConfigError

POOL_DIR = Path(__file__).parent / "pool"
POOL_SEED = 20250108
POOL_SIZE = 2000
SHARD_SIZE = 500
# The rarest kind has a share of 1 %, so smaller pools could not hold every kind.
SMALLEST_POOL = 100


@dataclass(frozen=True, slots=True)
class PlannedSample:
    """One pair before it is drawn; the random stream `seed` is its own."""

    index: int
    seed: str
    scene: Scene
    caption: str
    noise_kind: NoiseKind | None = None
    noise_detail: str | None = None

    @property
    def uid(self) -> str:
        """128-bit hex id, a function of the pool seed and the sample's number."""
        return hashlib.sha256(f"mimicscope demo {self.seed}".encode()).hexdigest()[:32]


def plan_pool(size: int, seed: int) -> list[PlannedSample]:
    """Decide every picture, caption and planted noise of a pool.

    Args:
        size: Number of pairs, at least `SMALLEST_POOL`.
        seed: Seed of every random choice.

    Raises:
        ConfigError: The pool is too small to hold every kind of noise.
    """
    if size < SMALLEST_POOL:
        raise ConfigError(
            "The demo pool is too small to hold every kind of noise",
            got=size,
            allowed=f"at least {SMALLEST_POOL} samples",
            next_step="ask for more samples",
        )
    rng = random.Random(f"pool {seed}")
    clean = [_plan_clean(index, thing, seed) for index, thing in enumerate(_cast(size, rng))]
    kinds = [kind for kind, share in NOISE_SHARES.items() for _ in range(round(share * size))]
    noisy = dict(zip(rng.sample(range(size), len(kinds)), kinds, strict=True))
    untouched = [sample for sample in clean if sample.index not in noisy]
    return [
        _spoil(sample, noisy[sample.index], clean, untouched) if sample.index in noisy else sample
        for sample in clean
    ]


def _cast(size: int, rng: random.Random) -> list[Thing]:
    """Return the main thing of each picture; every thing comes about equally often."""
    cast: list[Thing] = []
    while len(cast) < size:
        cast += rng.sample(all_things(), len(all_things()))
    return cast[:size]


def _plan_clean(index: int, thing: Thing, seed: int) -> PlannedSample:
    sample_seed = f"{seed}/{index}"
    rng = random.Random(sample_seed)
    scene = draw_scene(thing, all_things(), rng)
    return PlannedSample(index, sample_seed, scene, write_caption(scene, rng))


def _spoil(
    sample: PlannedSample,
    kind: NoiseKind,
    pool: Sequence[PlannedSample],
    untouched: Sequence[PlannedSample],
) -> PlannedSample:
    rng = random.Random(f"{sample.seed}/{kind}")
    if kind == "swapped_caption":
        other = rng.choice([one for one in pool if share_no_thing(one.scene, sample.scene)])
        detail = f"caption of {other.uid}"
        return replace(sample, caption=other.caption, noise_kind=kind, noise_detail=detail)
    if kind == "near_duplicate":
        # Taken from a clean sample, so that a copy never has a second fault.
        twin = rng.choice(untouched)
        caption = write_caption(twin.scene, rng)
        detail = f"copy of {twin.uid}"
        return replace(
            sample, scene=twin.scene, caption=caption, noise_kind=kind, noise_detail=detail
        )
    if kind in IMAGE_NOISE:
        return replace(sample, noise_kind=kind)
    spoiled = CAPTION_NOISE[kind](sample.scene, rng)
    return replace(sample, caption=spoiled.text, noise_kind=kind, noise_detail=spoiled.detail)


def draw_image(sample: PlannedSample) -> Image.Image:
    """Render the sample's picture, spoiled where its noise kind says so."""
    image = render(sample.scene)
    rng = random.Random(f"{sample.seed}/image")
    if sample.noise_kind == "near_duplicate":
        return near_duplicate_image(image, rng)
    if sample.noise_kind is not None and sample.noise_kind in IMAGE_NOISE:
        return IMAGE_NOISE[sample.noise_kind](image, rng)
    return image


def encode_image(sample: PlannedSample, image: Image.Image) -> tuple[str, bytes]:
    """Encode the picture, mostly as JPEG, one in twenty as palette PNG.

    Returns:
        The file extension without a dot, and the bytes.
    """
    rng = random.Random(f"{sample.seed}/file")
    data = io.BytesIO()
    if sample.noise_kind is None and rng.random() < 0.05:
        image.quantize(64).save(data, "PNG", optimize=True)
        return "png", data.getvalue()
    # Copies of copies are squeezed harder, like re-uploads.
    quality = rng.randrange(60, 76) if sample.noise_kind == "near_duplicate" else 82
    image.save(data, "JPEG", quality=quality, optimize=True)
    return "jpg", data.getvalue()


def describe(sample: PlannedSample, image: Image.Image) -> dict[str, str | int | bool | None]:
    """Return the sample's metadata; every sample has every field, null where it does not apply."""
    scene = sample.scene
    main = scene.things[0]
    slug = main.name.replace(" ", "-").replace("'", "")
    return {
        "uid": sample.uid,
        "is_noisy": sample.noise_kind is not None,
        "noise_kind": sample.noise_kind or CLEAN,
        "noise_detail": sample.noise_detail,
        "object": main.name,
        "category": main.category,
        "second_object": scene.things[1].name if len(scene.things) > 1 else None,
        "count": scene.count,
        "background": scene.background.colour,
        "pattern": scene.background.pattern,
        "size": scene.size,
        "position": scene.position,
        "width": image.width,
        "height": image.height,
        "source": f"https://emoji.example/{slug}-{sample.index:05d}",
    }


def write_pool(out: Path, *, size: int = POOL_SIZE, seed: int = POOL_SEED) -> list[Path]:
    """Write the pool as shards ``00000.tar``, ``00001.tar``, ... and return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("*.tar"):
        stale.unlink()
    samples = plan_pool(size, seed)
    paths = []
    for shard, start in enumerate(range(0, size, SHARD_SIZE)):
        path = out / f"{shard:05d}.tar"
        _write_shard(path, shard, samples[start : start + SHARD_SIZE])
        paths.append(path)
    return paths


def _write_shard(path: Path, shard: int, samples: Sequence[PlannedSample]) -> None:
    # ustar headers have no room for surprises such as a user's name or a fractional time.
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, sample in enumerate(samples):
            key = f"{shard:05d}{number:04d}"
            image = draw_image(sample)
            extension, data = encode_image(sample, image)
            meta = json.dumps(describe(sample, image), separators=(",", ":"), ensure_ascii=False)
            _add(tar, f"{key}.{extension}", data)
            _add(tar, f"{key}.txt", sample.caption.encode())
            _add(tar, f"{key}.json", meta.encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(data))


def main() -> None:
    """Command line: write the pool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=POOL_DIR)
    parser.add_argument("--size", type=int, default=POOL_SIZE)
    parser.add_argument("--seed", type=int, default=POOL_SEED)
    options = parser.parse_args()
    for path in write_pool(options.out, size=options.size, seed=options.seed):
        print(f"{path} {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
