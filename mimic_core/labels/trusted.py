"""Which samples of a labelled pool are trusted, and which labels they have.

Trusted samples train the reference head (method.md section 5), so they must not be scored by it
unless the user wants that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from mimic_core.errors import ConfigError
from mimic_core.sampling import order
from mimic_core.schema import RESERVED_COLUMNS, HeadConfig
from mimic_core.sources.base import Unusable
from mimic_core.sources.labels import label_of

_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")


@dataclass(frozen=True, eq=False)
class Trusted:
    """Positions ``rows`` (T,) int64 in a samples table, and the ``labels`` to be trusted there."""

    rows: np.ndarray
    labels: list[str]


def trusted_samples(samples: pl.DataFrame, config: HeadConfig) -> Trusted:
    """The trusted samples that ``config`` names among ``samples``.

    A sample whose trusted label is missing is not trusted.

    Raises:
        ConfigError: The column is not there or says nothing, or no sample is trusted.
    """
    chosen = np.ones(len(samples), bool)
    if config.trusted is not None:
        chosen = _chosen(samples, config.trusted)
    name = config.trusted_label_column
    column = "label" if name is None else stored_column(samples, name, "--trusted-label-column")
    labels = [_label(value, column) for value in samples[column].to_list()]
    chosen &= np.array([label is not None for label in labels], bool)
    rows = np.flatnonzero(chosen)
    if not len(rows):
        raise ConfigError(
            "no sample of the pool is trusted",
            got=f"--trusted {config.trusted}, --trusted-label-column {name}",
            allowed="a column that is true, or has the given value, for some samples",
            next_step="look at the pool's columns, and correct --trusted",
        )
    return Trusted(rows, [str(labels[row]) for row in rows])


def stored_column(samples: pl.DataFrame, name: str, option: str) -> str:
    """The stored name of the pool's column ``name``, which may be kept as ``source_<name>``."""
    kept = f"source_{name}"
    if name in RESERVED_COLUMNS and kept in samples.columns:
        return kept
    if name in samples.columns:
        return name
    raise ConfigError(
        "the pool has no such column",
        got=name,
        allowed=", ".join(column for column in samples.columns if column not in RESERVED_COLUMNS)
        or "no column besides the label",
        next_step=f"correct {option}",
    )


def _label(value: object, column: str) -> str | None:
    try:
        return label_of(value, f"the column {column}")
    except Unusable as error:
        raise ConfigError(
            f"the trusted labels cannot be read: {error.detail}",
            got=value,
            next_step="choose a column of text or whole numbers with --trusted-label-column",
        ) from error


def _chosen(samples: pl.DataFrame, text: str) -> np.ndarray:
    """Which rows (N,) ``text`` names."""
    share = _SHARE.fullmatch(text)
    if share is not None and text not in samples.columns:
        return _share(samples["uid"], float(share[1]), text)
    name, equals, value = text.partition("=")
    if text in samples.columns or not equals:
        column = samples[stored_column(samples, text, "--trusted")]
        if column.dtype != pl.Boolean:
            raise ConfigError(
                f"the column {text} is not boolean but {column.dtype}",
                got=text,
                allowed="a column of true and false, COLUMN=VALUE, or a share such as 20%",
                next_step=f"say which value is trusted: --trusted {text}=VALUE",
            )
        return column.fill_null(False).to_numpy()
    column = samples[stored_column(samples, name, "--trusted")].cast(pl.String)
    found = (column == value).fill_null(False).to_numpy()
    if not found.any():
        seen = column.drop_nulls().unique().sort().head(10).to_list()
        raise ConfigError(
            f"no sample has the value {value} in the column {name}",
            got=text,
            allowed=f"values of {name}, for example: {', '.join(seen)}",
            next_step="correct --trusted",
        )
    return found


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
