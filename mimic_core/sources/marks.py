"""Which samples a column marks: ``COLUMN`` or ``COLUMN=VALUE``, read alike wherever a user says it.

A user's own name for a column means the user's column. The pool's ``label`` or ``loss`` is kept as
``source_label`` or ``source_loss`` where Mimicscope has a column of that name itself, and it is the
kept one that is asked for.

Letters: N samples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from mimic_core.base.config import HeadConfig
from mimic_core.base.draws import order
from mimic_core.base.errors import ConfigError
from mimic_core.base.schema import RESERVED_COLUMNS
from mimic_core.sources.source import Unusable
from mimic_core.sources.tables.columns import is_reserved
from mimic_core.sources.texts import label_of

_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")

_MAX_SHOWN = 12
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TEXTS = (pl.String, pl.Categorical, pl.Enum, pl.Null)
_KEPT = "source_"


def stored_name(table: pl.DataFrame, name: str) -> str | None:
    """The column of ``table`` that a user means by ``name``; None where there is none."""
    if is_reserved(name) and f"{_KEPT}{name}" in table.columns:
        return f"{_KEPT}{name}"
    return name if name in table.columns else None


def stored_column(
    table: pl.DataFrame, name: str, *, option: str, candidates: str | None = None
) -> str:
    """The same where there must be one.

    Args:
        option: Where the name has been given, for the error.
        candidates: What would be accepted instead, for the error; None lists the user's columns.

    Raises:
        ConfigError: There is no such column.
    """
    found = stored_name(table, name)
    if found is None:
        raise ConfigError(
            "there is no such column",
            got=name,
            allowed=candidates or _own_columns(table),
            next_step=f"correct {option}",
        )
    return found


def marked_rows(
    table: pl.DataFrame, text: str, *, option: str, candidates: str | None = None
) -> np.ndarray:
    """Which rows (N,) bool ``text`` marks; missing values are not marked.

    Args:
        text: A column of true and false, or ``COLUMN=VALUE``: text is compared as it is, numbers
            as numbers, and true and false may also be said as yes, no, 1, 0.
        option: Where it has been given, for errors.
        candidates: What would be accepted instead, for errors; None lists the user's columns.

    Raises:
        ConfigError: The column is not there, cannot have that value, or has it nowhere.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if stored_name(table, text) is not None:  # the name of a column may hold an equals sign
        name, equals = text, ""
    column = table[stored_column(table, name, option=option, candidates=candidates)]
    if not equals:
        return _true_rows(column, name, option, candidates)
    wanted = _parsed(column, value)
    if wanted is None:
        raise ConfigError(
            f"column {name} cannot hold that value",
            got=value,
            allowed=candidates or f"a value of {name}, such as {_shown(column)}",
            next_step=f"correct {option}",
        )
    texts = column.cast(pl.String) if column.dtype == pl.Null else column
    found = (texts == wanted).fill_null(value=False)
    if not found.any():
        raise ConfigError(
            f"no sample has that value in column {name}",
            got=value,
            allowed=_shown(column),
            next_step=f"correct {option}",
        )
    return np.asarray(found.to_numpy(), bool)


def _true_rows(column: pl.Series, name: str, option: str, candidates: str | None) -> np.ndarray:
    if column.dtype != pl.Boolean:
        raise ConfigError(
            f"column {name} does not say true or false",
            got=str(column.dtype),
            allowed=candidates
            or f"a column of true and false, or COLUMN=VALUE; values of {name}: {_shown(column)}",
            next_step=f"say which of its values is meant with {option} {name}=VALUE",
        )
    return np.asarray(column.fill_null(value=False).to_numpy(), bool)


def _parsed(column: pl.Series, text: str) -> bool | int | float | str | None:
    """``text`` as a value of the column's type; None if it cannot be one."""
    if column.dtype == pl.Boolean:
        return _BOOLEANS.get(text.lower())
    if column.dtype.is_numeric():
        try:
            return int(text) if column.dtype.is_integer() else float(text)
        except ValueError:
            return None
    return text if column.dtype in _TEXTS else None


def _shown(column: pl.Series) -> str:
    values = column.drop_nulls().unique().sort()
    shown = ", ".join(map(_as_said, values[:_MAX_SHOWN]))
    return (shown + (", ..." if len(values) > _MAX_SHOWN else "")) or "nothing: it is empty"


def _as_said(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _own_columns(table: pl.DataFrame) -> str:
    """The user's columns by the names that the user knows."""
    own = []
    for name in table.columns:
        raw = name.removeprefix(_KEPT)
        if name not in RESERVED_COLUMNS:
            own.append(raw if raw in RESERVED_COLUMNS else name)
    return ", ".join(own) or "no column, as the pool has none of its own"


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
