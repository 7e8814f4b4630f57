"""Who is trained on, who is held out, and who counts as clean.

All by the image's place, by uid or by a column of the pool, so that neither order nor workers
decide. Letters: N samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from mimic_core.base.config import HeadConfig, TrainConfig
from mimic_core.base.draws import draw_clean, hash_words
from mimic_core.base.errors import ConfigError
from mimic_core.base.identity import image_words
from mimic_core.runs.featureset import FeatureSet
from mimic_core.sources.marks import labels_in, marked_rows, trusted_samples

# Key of the hash, beside the seed: who is held out must not go together with who is drawn first.
_HELD_OUT = 0x4E1D


@dataclass(frozen=True)
class Split:
    """Positions (int64) in a table of samples, each in order.

    ``clean`` is empty unless clean samples were asked for. What is neither trained on nor held out
    is kept out for another reason, such as having trained the reference head.
    ``held_out_labels`` judge the held-out samples; None where their own labels do.
    """

    trained: np.ndarray
    held_out: np.ndarray
    clean: np.ndarray
    held_out_labels: list[str] | None = None


def split_samples(
    samples: pl.DataFrame,
    config: TrainConfig,
    *,
    classes: pl.Series | None = None,
    eligible: np.ndarray | None = None,
) -> Split:
    """Divide ``samples`` (N rows) as ``config`` asks.

    Args:
        eligible: Positions of the samples that may be trained on; None means all.
        classes: Each sample's class (N,), from each of which clean samples are drawn; None makes
            them all one class.

    Raises:
        ConfigError: A column or value is not there, or fewer than two samples are left to train on.
    """
    held = held_out_rows(samples, config)
    may = np.ones(len(samples), bool)
    if eligible is not None:
        may[:] = False
        may[eligible] = True
    trained = np.flatnonzero(may & ~held)
    if len(trained) < 2:
        raise ConfigError(
            "too few samples are left to train on",
            got=f"{len(trained)} of {len(samples)}",
            allowed="at least 2",
            next_step="hold out fewer samples",
        )
    clean = np.empty(0, np.int64)
    if config.clean_column is not None:
        chosen = marked_rows(samples, config.clean_column, option="--clean-column") & ~held
        each = config.clean_per_class
        rows = np.flatnonzero(chosen)
        clean = draw_clean(samples["uid"], rows, seed=config.seed, each=each, classes=classes)
    return Split(trained, np.flatnonzero(held), clean)


def held_out_rows(samples: pl.DataFrame, config: TrainConfig) -> np.ndarray:
    """Which of ``samples`` (N,) bool are held out; errors as for ``split_samples``."""
    held = np.zeros(len(samples), bool)
    if config.held_out:
        # By image, not by sample: a caption whose image is trained on shows nothing when held out.
        share = hash_words(image_words(samples), config.seed, _HELD_OUT) / 2.0**64
        held |= share < config.held_out
    if config.held_out_column is not None:
        held |= marked_rows(samples, config.held_out_column, option="--held-out-column")
    return held


def require_division(features: FeatureSet, config: TrainConfig, head: HeadConfig | None) -> None:
    """Check on the index, before any image is read, that the pool can be divided as asked.

    What fails there fails on the readable samples as well, which are some of the indexed ones.

    Raises:
        ConfigError: A column or value is not there, or too few samples are left for a part.
    """
    if not (config.holds_out or config.clean_column is not None):
        return
    samples = features.index_samples()
    split = split_samples(samples, config)
    if config.held_out_label_column is not None:
        judged_by_column(split, samples, config.held_out_label_column, lambda _: None)
    if head is not None and head.uses_trusted:
        trusted_samples(samples, head, held_out_rows(samples, config))


def judged_by_column(
    split: Split, samples: pl.DataFrame, column: str, note: Callable[[str], None]
) -> Split:
    """``split`` with the labels in ``column`` for its held-out samples.

    Those without a label there are neither judged nor trained on.

    Raises:
        ConfigError: The column is not there, or holds no label of a held-out sample.
    """
    option = "--held-out-label-column"
    labels = labels_in(samples, column, option=option)
    judged = {row: label for row in split.held_out.tolist() if (label := labels[row]) is not None}
    if not judged:
        raise ConfigError(
            "no held-out sample has a label to be judged by",
            got=f"{option} {column}, {len(split.held_out)} held-out samples",
            allowed="a column with labels of held-out samples",
            next_step=f"correct {option}, or hold out samples that have a label there",
        )
    without = len(split.held_out) - len(judged)
    if without:
        note(
            f"{without:,} of {len(split.held_out):,} held-out samples have no label in {column}: "
            "they are not judged, and not trained on either"
        )
    rows = np.array(list(judged), np.int64)
    return replace(split, held_out=rows, held_out_labels=list(judged.values()))
