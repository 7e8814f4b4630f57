"""How far two columns, or two selections, agree: ranks, overlap, the four quadrants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from mimic_core.stats.numbers import Values, as_numbers, share

Quadrant = Literal["both", "only_a", "only_b", "neither"]


def rank_agreement(a: Values, b: Values) -> float | None:
    """Spearman's rank correlation of two columns (N,), rows with a null left out.

    Returns:
        None when it is undefined: fewer than two rows, or a constant column.
    """
    pairs = pl.DataFrame({"a": as_numbers(a), "b": as_numbers(b)}).drop_nulls()
    ranks = pairs.select(pl.all().rank("average"))
    if len(pairs) < 2 or any(ranks[name].n_unique() < 2 for name in "ab"):
        return None
    return float(np.corrcoef(ranks["a"].to_numpy(), ranks["b"].to_numpy())[0, 1])


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two filters A and B: how many samples both keep, one of them, or neither.

    Attributes:
        rank_correlation: Spearman's correlation of the scores that were given for the two, else of
            the two decisions; None where one side is constant.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    rank_correlation: float | None

    @property
    def jaccard(self) -> float | None:
        """Kept by both over kept by either; None where neither keeps anything."""
        return share(self.both, self.both + self.only_a + self.only_b)


def agreement(
    a: np.ndarray, b: np.ndarray, *, scores: tuple[Values, Values] | None = None
) -> Agreement:
    """Count the quadrants of two filters over the same samples.

    Args:
        a: Whom the one keeps, (N,) bool.
        b: Whom the other keeps, (N,) bool, in the same order.
        scores: Confidence or score behind each decision, (N,) each, for the rank correlation.
    """
    both, in_a, in_b = (int(side.sum()) for side in (a & b, a, b))
    neither = len(a) - in_a - in_b + both
    if scores is None:
        ranks = _of_decisions(both, in_a - both, in_b - both, neither)
    else:
        ranks = rank_agreement(*scores)
    return Agreement(both, in_a - both, in_b - both, neither, ranks)


def quadrants(a: np.ndarray, b: np.ndarray) -> dict[Quadrant, np.ndarray]:
    """Which samples (N,) bool lie in each quadrant of two filters; every sample lies in one."""
    return {"both": a & b, "only_a": a & ~b, "only_b": ~a & b, "neither": ~a & ~b}


def _of_decisions(both: int, only_a: int, only_b: int, neither: int) -> float | None:
    """Spearman's correlation of two columns of zeros and ones, from their counts."""
    a, b = both + only_a, both + only_b
    spread = math.sqrt(a * (only_b + neither)) * math.sqrt(b * (only_a + neither))
    return (both * neither - only_a * only_b) / spread if spread else None
