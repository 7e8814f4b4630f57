"""Columns as checked numbers and truths: what all figures about columns begin with.

Nulls stay, to be left out or counted; NaN and infinities are refused, as everywhere behind the
table's door.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from mimic_core.base.errors import FilterError, ScoreError

Values = pl.Series | np.ndarray


def as_numbers(values: Values) -> pl.Series:
    """``values`` as a numeric or boolean series without NaN and infinities."""
    series = values if isinstance(values, pl.Series) else pl.Series(values)
    if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        raise ScoreError(
            "this needs numbers",
            got=str(series.dtype),
            allowed="a numeric or boolean column",
            next_step="choose a numeric column",
        )
    if series.dtype.is_float():
        wrong = (~series.is_finite()).arg_true()
        if len(wrong):
            raise ScoreError(
                f"row {wrong[0]} holds a number that is not finite",
                got=series[int(wrong[0])],
                allowed="finite numbers; null where a value is missing",
                next_step="correct that value (missing = null)",
            )
    return series


def known_truth(truth: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Who is known to be noisy (N,) bool, and who is known not to be; null is neither.

    Raises:
        FilterError: The column is not boolean.
    """
    require_truth(truth.name, truth.dtype)
    return truth.fill_null(False).to_numpy(), (~truth).fill_null(False).to_numpy()


def require_truth(name: str, dtype: pl.DataType) -> None:
    """Refuse a column that does not say true or false as the mark of noisy samples."""
    if dtype != pl.Boolean:
        raise FilterError(
            f"column {name} does not say true or false",
            got=str(dtype),
            allowed="a boolean column",
            next_step="choose the column that marks noisy samples",
        )


def share(part: int, whole: int) -> float | None:
    """``part / whole``; None of nothing."""
    return part / whole if whole else None
