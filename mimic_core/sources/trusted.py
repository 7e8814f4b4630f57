"""Which samples of a labelled pool are trusted, and which labels they have.

Trusted samples train the reference head (method.md section 5), so they must not be scored by it
unless the user wants that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from mimic_core.base.draws import order
from mimic_core.base.errors import ConfigError
from mimic_core.base.schema import HeadConfig
from mimic_core.sources.labels import label_of
from mimic_core.sources.marks import marked_rows, stored_column, stored_name
from mimic_core.sources.source import Unusable

_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")


@dataclass(frozen=True, eq=False)
class Trusted:
    """Positions ``rows`` (T,) int64 in a samples table, and the ``labels`` to be trusted there.

    ``held_out`` more could have been trusted, but are to judge what is trained on these.
    """

    rows: np.ndarray
    labels: list[str]
    held_out: int = 0

    def relabelled(self, samples: pl.DataFrame) -> pl.Series:
        """The labels of ``samples`` (N,) with those to be trusted in their place."""
        return samples["label"].clone().scatter(self.rows, self.labels)


def trusted_samples(
    samples: pl.DataFrame, config: HeadConfig, held_out: np.ndarray | None = None
) -> Trusted:
    """The trusted samples that ``config`` names among ``samples`` (N rows).

    A sample whose trusted label is missing is not trusted.

    Args:
        held_out: Which samples (N,) bool may not train the reference head.

    Raises:
        ConfigError: The column is not there or says nothing, or no sample is trusted.
    """
    chosen = np.ones(len(samples), bool)
    if config.trusted is not None:
        chosen = _chosen(samples, config.trusted)
    name = config.trusted_label_column
    labels: list[str | None] = samples["label"].to_list()
    if name is not None:
        labels = labels_in(samples, name, option="--trusted-label-column")
    chosen &= np.array([label is not None for label in labels], bool)
    rows = np.flatnonzero(chosen)
    if not len(rows):
        raise ConfigError(
            "no sample of the pool is trusted",
            got=f"--trusted {config.trusted}, --trusted-label-column {name}",
            allowed="a column that is true, or has the given value, for some samples",
            next_step="look at the pool's columns, and correct --trusted",
        )
    free = rows if held_out is None else rows[~held_out[rows]]
    if not len(free):
        raise ConfigError(
            "all trusted samples are held out, which leaves none to train the reference head",
            got=f"{len(rows)} trusted samples",
            allowed="trusted samples that are not held out",
            next_step="trust more samples with --trusted, or hold out others",
        )
    return Trusted(free, [str(labels[row]) for row in free], len(rows) - len(free))


def labels_in(samples: pl.DataFrame, name: str, *, option: str) -> list[str | None]:
    """The labels (N,) that the user's column ``name`` holds; None where one is missing.

    Raises:
        ConfigError: There is no such column, or what it holds are no labels.
    """
    column = stored_column(samples, name, option=option)
    return [_label(value, name, option) for value in samples[column].to_list()]


def _label(value: object, name: str, option: str) -> str | None:
    try:
        return label_of(value, f"the column {name}")
    except Unusable as error:
        raise ConfigError(
            f"the labels of a column cannot be read: {error.detail}",
            got=value,
            allowed="text or whole numbers",
            next_step=f"choose another column with {option}",
        ) from error


def _chosen(samples: pl.DataFrame, text: str) -> np.ndarray:
    """Which rows (N,) bool ``text`` names: a share, or those that a column marks."""
    share = _SHARE.fullmatch(text)
    if share is not None and stored_name(samples, text) is None:
        return _share(samples["uid"], float(share[1]), text)
    return marked_rows(samples, text, option="--trusted")


def _share(uids: pl.Series, percent: float, text: str) -> np.ndarray:
    """A share drawn by uid, the same whatever the order of the pool."""
    if not 0 < percent < 100:
        raise ConfigError(
            "the share of trusted samples must lie between 0 and 100 %",
            got=text,
            allowed="for example 20%",
            next_step="correct --trusted",
        )
    chosen = np.zeros(len(uids), bool)
    chosen[order(uids, 0)[: max(1, round(len(uids) * percent / 100))]] = True
    return chosen
