"""The user's own columns: one dtype and one name per column over the whole pool.

Samples bring their metadata one by one, and shards are indexed one by one, so a column may look
like numbers in one and like text in another. The dtype that holds all values wins: null, then
boolean, integer, float, and text for any other mixture (numbers as in JSON).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from mimic_core.base.errors import SourceError
from mimic_core.base.schema import RESERVED_COLUMNS, is_pattern

MAX_COLUMNS = 1024
CHUNK_ROWS = 65_536  # rows of a table that are held as Python objects at a time
OWN = "own."  # in front of user columns wherever they stand beside our own
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_INT64 = range(-(2**63), 2**63)
_NUMBERS = (pl.Int64(), pl.Float64())


def column_dtype(values: Iterable[Any]) -> pl.DataType:
    """The dtype that holds all ``values`` (bool, int, float, str or None)."""
    dtype: pl.DataType = pl.Null()
    for value_type in {_value_dtype(value) for value in values}:
        dtype = common_dtype(dtype, value_type)
    return dtype


def _value_dtype(value: Any) -> pl.DataType:
    if value is None:
        return pl.Null()
    if isinstance(value, bool):
        return pl.Boolean()
    if isinstance(value, int):
        return pl.Int64() if value in _INT64 else pl.String()
    return pl.Float64() if isinstance(value, float) else pl.String()


def common_dtype(one: pl.DataType, other: pl.DataType) -> pl.DataType:
    """The smallest dtype that holds the values of both."""
    if one == other or other == pl.Null():
        return one
    if one == pl.Null():
        return other
    return pl.Float64() if one in _NUMBERS and other in _NUMBERS else pl.String()


def column(name: str, values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    """``values`` as one column; non-finite floats become null."""
    return pl.Series(name, [_cell(value, dtype) for value in values], dtype)


def _cell(value: Any, dtype: pl.DataType) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or dtype != pl.String() or isinstance(value, str):
        return value
    return json.dumps(_finite(value))


def _finite(value: Any) -> Any:
    """A nested value whose non-finite numbers are null, as in ``column``: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cast_column(series: pl.Series, dtype: pl.DataType) -> pl.Series:
    """A shard's column in the pool's dtype; numbers become text as in JSON."""
    if series.dtype == dtype:
        return series
    if dtype == pl.String() and series.dtype != pl.Null():
        return column(series.name, series.to_list(), dtype)
    return series.cast(dtype)


def stored_names(
    names: Sequence[str], *, beside: Iterable[str] = (), prefix: str = "source_"
) -> dict[str, str]:
    """The stored name of each column of a pool, or of a joined file, in their order.

    A name that Mimicscope uses itself, in whatever case, gets ``prefix`` in front, as often as it
    takes to be free: many programs that read exports do not tell ``Uid`` from ``uid``. So does one
    that polars reads as a pattern, and one of the columns that it will stand ``beside``. A name
    that is empty or has control characters is written without them.
    """
    if len(names) > MAX_COLUMNS:
        raise SourceError(
            "there are too many different fields",
            got=len(names),
            allowed=f"at most {MAX_COLUMNS}",
            next_step="store fields whose names differ from sample to sample under one common name",
        )
    plain = {name: _CONTROL.sub("", name) or "unnamed" for name in names}
    others = {name.casefold() for name in beside}

    def taken(name: str) -> bool:
        return is_reserved(name) or is_pattern(name) or name.casefold() in others

    free = {name for name, new in plain.items() if name == new and not taken(name)}
    stored = {}
    for name, new in plain.items():
        while taken(new) or (new != name and new in free):
            new = f"{prefix}{new}"  # noqa: PLW2901 - until it is free
        free.add(new)
        stored[name] = new
    return stored


def is_reserved(name: str) -> bool:
    """Whether Mimicscope has a column of that name, in whatever case."""
    return name.casefold() in RESERVED_COLUMNS
