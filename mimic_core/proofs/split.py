"""Who is held out, who may train, and that neither knows the other.

The split depends on a hash of the uids alone: it is the same for every recipe, seed and machine,
and a sample that is added to the pool moves no other.

Letters: N samples, H held-out samples, C samples that may train, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from mimic_core.base.draws import order_words, uid_words
from mimic_core.base.errors import ConfigError
from mimic_core.base.identity import PLACE, uids_digest
from mimic_core.base.schema import named
from mimic_core.proofs.record import HeldOut, Leakage
from mimic_core.proofs.settings import MAX_HELD_OUT, ProveConfig
from mimic_core.runs.featureset import FeatureSet, ShardedArray

MIN_HELD_OUT = 20  # fewer cannot show anything
_SPLIT_KEY = 0x70726F7665  # keeps this draw apart from those of samples and batches
BLOCK_CELLS = 4_194_304  # cosines computed at a time, 16 MB

Check = Callable[[], None]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of the pool by what they are for.

    Attributes:
        held_out: Rows (H,) int64 that judge, in the order of their hash.
        trainable: Rows (C,) int64 that may train, ascending.
        groups: (H,) int64, equal for held-out samples that are duplicates of each other.
        record: The same in figures.
    """

    held_out: np.ndarray
    trainable: np.ndarray
    groups: np.ndarray
    record: HeldOut


def split_pool(
    features: FeatureSet,
    trusted: np.ndarray,
    config: ProveConfig,
    *,
    usable: np.ndarray,
    scored: np.ndarray,
    whole: bool,
    source: str,
    check: Check,
) -> Split:
    """Hold out a part of the trusted samples, and keep its duplicates from training.

    Args:
        trusted: Which rows are known to be good and can be judged, bool (N,).
        usable: Which rows can train at all, bool (N,).
        scored: Which rows have a score in the run, bool (N,). The others (held out of the run, or
            trusted by it) may judge, and never train: no recipe could keep them.
        whole: Whether all of ``trusted`` is held out (it came from a file) instead of a share.
        source: Where ``trusted`` comes from, in words.

    Raises:
        ConfigError: Too few samples judge, or a file lists too many.
    """
    samples = features.samples
    ranked = order_words(uid_words(samples["uid"]), _SPLIT_KEY)
    may_train = usable & scored
    good = ranked[trusted[ranked]]
    others = ranked[(~trusted & may_train)[ranked]]
    share = 1.0 if whole else config.held_out_share
    count = min(round(share * len(good)), len(good))
    if not whole:
        count = min(count, config.held_out_limit)
    held_out = good[:count]
    _require(len(held_out), len(good), share)
    # Others are set aside at the rate at which good samples are lost to training, so that what
    # trains is as noisy as the pool. Samples without a score would not have trained anyway.
    lost, could_train = may_train[held_out].sum(), may_train[good].sum()
    aside = 0 if whole or not could_train else round(lost / could_train * len(others))
    free = good[count:]
    rest = np.sort(np.concatenate([free[may_train[free]], others[aside:]]))
    leaks, leakage, groups = _duplicates(features, held_out, rest, config, check)
    trainable = rest[~leaks]
    uids = samples["uid"].gather(held_out).sort()
    record = HeldOut(
        source=source,
        trusted=int(trusted.sum()),
        held_out=len(held_out),
        groups=len(np.unique(groups)),
        set_aside=aside,
        unscored=int((~scored).sum()),
        trainable=len(trainable),
        uids_sha256=uids_digest(uids),
        leakage=leakage,
    )
    return Split(held_out, trainable, groups, record)


def _require(held_out: int, good: int, share: float) -> None:
    if held_out < MIN_HELD_OUT:
        raise ConfigError(
            "too few samples are held out to show anything",
            got=f"{held_out} of {good} trusted samples (share {share:g})",
            allowed=f"at least {MIN_HELD_OUT}",
            next_step="trust more samples, or hold out a larger share of them",
        )
    if held_out > MAX_HELD_OUT:
        raise ConfigError(
            "too many samples are held out",
            got=f"{held_out:,} usable samples of the held-out file",
            allowed=f"{MIN_HELD_OUT} to {MAX_HELD_OUT:,}",
            next_step="list fewer uids, drawn at random: 2,000 judge well",
        )


def _duplicates(
    features: FeatureSet,
    held_out: np.ndarray,
    rest: np.ndarray,
    config: ProveConfig,
    check: Check,
) -> tuple[np.ndarray, Leakage, np.ndarray]:
    """Which of ``rest`` (R,) are duplicates of held-out samples, the figures, and the groups."""
    embedding = features.array(
        "image_embedding" if features.has_array("image_embedding") else "image_features"
    )
    by_image, touched = near(embedding, held_out, rest, config.duplicate_cosine, check)
    by_file, touched_by_file = _same(features.samples.select(PLACE), held_out, rest)
    captions = _telling_captions(features.samples, config.caption_limit)
    by_caption, touched_by_caption = _same(captions, held_out, rest)
    leaks = by_image | by_file | by_caption
    touched = touched | touched_by_file | touched_by_caption
    leakage = Leakage(
        same_image=int(by_image.sum()),
        same_file=int(by_file.sum()),
        same_caption=int(by_caption.sum()),
        removed=int(leaks.sum()),
        held_out_touched=int(touched.sum()),
    )
    return leaks, leakage, _groups(embedding, features.samples, held_out, config, check)


def near(
    embedding: ShardedArray, held_out: np.ndarray, rest: np.ndarray, cosine: float, check: Check
) -> tuple[np.ndarray, np.ndarray]:
    """Which of ``rest`` (R,) have a held-out sample within ``cosine``, and which of those (H,)."""
    anchors = _unit(embedding.take(held_out))
    close, touched = np.zeros(len(rest), bool), np.zeros(len(held_out), bool)
    for block in _blocks(len(rest), len(held_out)):
        check()
        found = _unit(embedding.take(rest[block])) @ anchors.T >= cosine
        close[block] = found.any(1)
        touched |= found.any(0)
    return close, touched


def _blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices of ``rows`` that meet ``width`` others in ``BLOCK_CELLS`` cells at most."""
    size = max(1, BLOCK_CELLS // max(width, 1))
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _unit(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float32)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


def _telling_captions(samples: pl.DataFrame, limit: int) -> pl.DataFrame:
    """Captions (N,) without what nobody sees: case, and white space doubled or at the ends.

    Null where more than ``limit`` samples share it.
    """
    text = pl.col("caption").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    shared = pl.len().over("text")
    return samples.select(text=text).select(pl.when(shared <= limit).then("text").alias("text"))


def _same(
    keys: pl.DataFrame, held_out: np.ndarray, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same for rows whose ``keys`` are all equal; missing keys equal nothing."""
    sides = [keys[rows].with_row_index("row") for rows in (rest, held_out)]
    known = [side.filter(named(keys.columns[0]).is_not_null()) for side in sides]
    found = []
    for one, other, size in ((known[0], known[1], len(rest)), (known[1], known[0], len(held_out))):
        both = one.join(other, on=keys.columns, how="semi", nulls_equal=True)
        mask = np.zeros(size, bool)
        mask[both["row"].to_numpy()] = True
        found.append(mask)
    return found[0], found[1]


def _groups(
    embedding: ShardedArray,
    samples: pl.DataFrame,
    held_out: np.ndarray,
    config: ProveConfig,
    check: Check,
) -> np.ndarray:
    """A number (H,) for each held-out sample, shared by duplicates and by their duplicates."""
    group = np.arange(len(held_out))
    anchors = _unit(embedding.take(held_out))
    for block in _blocks(len(held_out), len(held_out)):
        check()
        first, second = np.nonzero(anchors[block] @ anchors.T >= config.duplicate_cosine)
        group = _joined(group, first + block.start, second)
    captions = _telling_captions(samples, config.caption_limit)
    for keys in (samples.select(PLACE), captions):
        first, second = _neighbours(keys[held_out])
        group = _joined(group, first, second)
    return group


def _neighbours(keys: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows (H,) whose ``keys`` are all equal, enough to connect them; missing keys equal
    nothing.
    """
    known = keys.select(pl.first().is_not_null()).to_series().to_numpy()
    value = keys.select(pl.struct(pl.all()).rank("dense").alias("value"))["value"].to_numpy()
    order = np.argsort(value, kind="stable")
    order = order[known[order]]
    level = value[order][1:] == value[order][:-1]
    return order[1:][level], order[:-1][level]


def _joined(group: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Groups (H,) after ``first`` and ``second``, pairs of rows, have been put together."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = group[first], group[second]
    edges = coo_matrix((np.ones(len(first), bool), ends), shape=[len(group)] * 2)
    labels = connected_components(edges, directed=False)[1]
    return np.asarray(labels[group], np.int64)
