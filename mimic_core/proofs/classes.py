"""The classes of a labelled pool, and the labels that judge in place of its own.

Letters: N samples.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from mimic_core.base.errors import ConfigError
from mimic_core.base.schema import HeadConfig
from mimic_core.sources.trusted import trusted_samples

MAX_SHOWN = 12  # classes named in an error


def class_numbers(names: pl.Series, known: pl.Series) -> np.ndarray:
    """Class numbers (N,) int64 of names, -1 where there is none."""
    numbers = names.replace_strict(known, range(len(known)), default=None)
    return np.asarray(numbers.fill_null(-1).to_numpy().astype(np.int64))


def trusted_labels(samples: pl.DataFrame, column: str, known: pl.Series) -> pl.Series:
    """The labels (N,) of that column, null where there is none.

    Args:
        known: The classes of the pool.

    Raises:
        ConfigError: There is no such column, or one of its labels is no class of the pool.
    """
    found = trusted_samples(samples, HeadConfig(trusted_label_column=column))
    strange = sorted(set(found.labels) - set(known))
    if strange:
        raise ConfigError(
            "a trusted label is no class of the pool, so that nothing could learn it",
            got=strange[0],
            allowed=", ".join(known.head(MAX_SHOWN)) + (", ..." if len(known) > MAX_SHOWN else ""),
            next_step="correct --trusted-label-column, or the labels in it",
        )
    names: list[str | None] = [None] * len(samples)
    for row, label in zip(found.rows, found.labels, strict=True):
        names[row] = label
    return pl.Series("label", names, pl.String)
