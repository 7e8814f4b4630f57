"""Which samples are known to be good: named by a column of the table, or by a file of uids."""

from __future__ import annotations

import numpy as np
import polars as pl

from mimic_core.base.config import HeadConfig
from mimic_core.base.errors import ConfigError
from mimic_core.base.schema import MEASURED_COLUMNS, SAMPLE_COLUMNS
from mimic_core.sources.marks import marked_rows, trusted_samples

MAX_VALUES = 12  # a column with more values is no candidate for a mark of good samples
MAX_SHOWN = 12  # columns or classes named in an error
_NOISY_MARK = "is_noisy"  # the glossary's own column, in which true means noisy


def trusted_mask(table: pl.DataFrame, spec: str) -> np.ndarray:
    """Which rows of ``table`` ``spec`` marks as good, bool (N,).

    Args:
        spec: A boolean column, or ``column=value``, as ``marked_rows`` reads it. Missing values
            are not good.

    Raises:
        ConfigError: There is no such column or value; the message lists what can be used.
    """
    if spec.strip() == _NOISY_MARK:
        raise _refusal(f"{_NOISY_MARK} marks noisy samples, which nobody can trust", spec, table)
    return marked_rows(table, spec, option="--trusted", candidates=_candidates(table))


def trusted_candidates(table: pl.DataFrame) -> list[str]:
    """What ``--trusted`` could be: each value of the columns with few values, likely ones first."""
    own = {*SAMPLE_COLUMNS, *MEASURED_COLUMNS}
    booleans, others = [], []
    for name, dtype in table.schema.items():
        if name in own:
            continue
        if dtype == pl.Boolean:
            good = [f"{name}=false"] if name == _NOISY_MARK else [name, f"{name}=false"]
            booleans += good
        elif dtype in (pl.String, pl.Categorical, pl.Enum):
            values = table[name].drop_nulls().unique().sort()
            if 1 < len(values) <= MAX_VALUES:
                others += [f"{name}={value}" for value in values]
    return booleans + others


def _candidates(table: pl.DataFrame) -> str:
    found = trusted_candidates(table)
    shown = ", ".join(found[:MAX_SHOWN]) + (", ..." if len(found) > MAX_SHOWN else "")
    return shown or "no column of this table marks good samples: give a held-out file of uids"


def need_trust(table: pl.DataFrame) -> ConfigError:
    """The error of a proof that names no trusted samples."""
    return _refusal("a proof needs samples that are known to be good", None, table)


def _refusal(problem: str, got: str | None, table: pl.DataFrame) -> ConfigError:
    return ConfigError(
        problem,
        got=got or "neither a trusted column nor a held-out file",
        allowed=_candidates(table),
        next_step="name the good samples with --trusted COLUMN, --trusted COLUMN=VALUE, or "
        "--held-out FILE",
    )


def held_out_mask(table: pl.DataFrame, uids: pl.Series) -> np.ndarray:
    """Which rows of ``table`` are among ``uids``, bool (N,).

    Raises:
        ConfigError: One of the uids is not in the table.
    """
    missing = uids.filter(~uids.is_in(table["uid"].implode()))
    if len(missing):
        raise ConfigError(
            f"{len(missing):,} of {len(uids):,} held-out uids are not in the run",
            got=missing[0],
            allowed="uids of the run's own samples",
            next_step="take the held-out samples from the pool that was scored",
        )
    return np.asarray(table["uid"].is_in(uids.implode()).to_numpy())


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
