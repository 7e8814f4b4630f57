"""Clean pairs for training the reference, drawn with another seed than the pool.

They are drawn straight at the reference's input size: a scene looks alike at every resolution,
and a small canvas costs a quarter of the time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import Pool

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_samples.captions import write_caption
from data_samples.objects import all_things
from data_samples.render import render
from data_samples.scenes import draw_scene

CAPTIONS_PER_IMAGE = 3
CHUNK = 250


@dataclass(frozen=True, slots=True)
class TrainingPairs:
    """Pictures with their captions, ordered so that row i shows thing i modulo T.

    Attributes:
        images: Pixels, (N, H, W, 3) uint8.
        captions: N tuples of CAPTIONS_PER_IMAGE captions, all true of the picture.
        things: Number of the main thing, (N,) int64.
    """

    images: NDArray[np.uint8]
    captions: list[tuple[str, ...]]
    things: NDArray[np.int64]


def draw_pairs(rounds: int, *, side: int, seed: int, workers: int = 2) -> TrainingPairs:
    """Draw `rounds` pictures of every thing.

    Args:
        rounds: Pictures per thing.
        side: Height and width of the pixels handed out.
        seed: Seed of every random choice; must not be the pool's.
        workers: Processes that draw; the result does not depend on their number.
    """
    total = rounds * len(all_things())
    draw = partial(_draw_pair, side=side, seed=seed)
    with Pool(workers) as pool:
        drawn = pool.map(draw, range(total), chunksize=CHUNK)
    return TrainingPairs(
        images=np.stack([pixels for pixels, _ in drawn]),
        captions=[captions for _, captions in drawn],
        things=np.arange(total, dtype=np.int64) % len(all_things()),
    )


def _draw_pair(index: int, *, side: int, seed: int) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    rng = random.Random(f"reference {seed}/{index}")
    things = all_things()
    scene = draw_scene(things[index % len(things)], things, rng)
    captions = tuple(write_caption(scene, rng) for _ in range(CAPTIONS_PER_IMAGE))
    # About the input size, squashed the rest of the way, as the reference's preprocessing does.
    factor = side / rng.uniform(98, 128)
    small = replace(scene, width=round(scene.width * factor), height=round(scene.height * factor))
    image = render(small).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image), captions
