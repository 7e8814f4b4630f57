"""Where an image is, which tells whether two samples show the same one.

Captions of one image are samples of their own that share its place. Copies of an image in several
places are not recognised here. Letters: N samples.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

from mimic_core.base.draws import uid_words

PLACE = ("image_kind", "image_path", "image_offset", "image_member")
"""The columns of a samples table that say it. The length adds nothing: one place, one length."""


def image_numbers(samples: pl.DataFrame) -> np.ndarray:
    """Which image each sample has (N,) int64: equal numbers, equal images.

    A sample without an image has a number of its own.
    """
    places = samples.select(place=pl.struct(PLACE).rank("dense"))["place"].to_numpy()
    alone = len(samples) + np.arange(len(samples))
    return np.where(samples[PLACE[0]].is_null().to_numpy(), alone, places).astype(np.int64)


def image_words(samples: pl.DataFrame) -> np.ndarray:
    """128 bits (N, 2) uint64 from each sample's image, to hash in the place of its uid.

    They depend on the place alone, not on the other samples; without an image, on the uid.
    """
    words = uid_words(samples["uid"])
    there = np.flatnonzero(samples[PLACE[0]].is_not_null().to_numpy())
    # Polars' own hash may change from version to version, and with it would the draw.
    places = samples[there].select(PLACE).iter_rows()
    digests = [hashlib.blake2b(repr(place).encode(), digest_size=16).digest() for place in places]
    words[there] = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2)
    return words
