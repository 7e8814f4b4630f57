"""Percentiles and largest values within groups of rows: the cuts of ``by``.

A group is what shares a value of a text, boolean or integer column. Rows whose value or whose group
is missing are in no group (code -1), and no cut counts them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mimic_core.stats.cutoffs import rank_below, rank_up_to


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """N numbers in G groups.

    Attributes:
        values: (N,) float32 or float64; what stands in rows of no group is arbitrary.
        codes: (N,) int64 group of each row, -1 for none.
        ordered: The values that are in a group, by group and then ascending.
        starts: (G + 1,) where each group starts in ``ordered``.
    """

    values: np.ndarray
    codes: np.ndarray
    ordered: np.ndarray
    starts: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Number of values in each group (G,)."""
        return np.diff(self.starts)

    def edge(self, rank: np.ndarray) -> np.ndarray:
        """For every row (N,) the value at ``rank`` (G,) of its group; arbitrary for no group."""
        places = np.minimum(self.starts[:-1] + rank, max(len(self.ordered) - 1, 0))
        if not len(self.ordered):
            return np.zeros_like(self.values)
        return np.asarray(self.ordered[places][self.codes])


def grouped(numbers: pl.Series, by: pl.Series) -> Grouped:
    """Sort ``numbers`` (N,) within the groups of ``by`` (N,)."""
    distinct = by.drop_nulls().unique(maintain_order=True).alias("by").to_frame()
    named = distinct.with_row_index("code")
    joined = by.alias("by").to_frame().join(named, on="by", how="left", maintain_order="left")
    codes = joined["code"].cast(pl.Int64).set(numbers.is_null(), None).fill_null(-1).to_numpy()
    values = numbers.fill_null(0).to_numpy()
    inside = np.flatnonzero(codes >= 0)
    ascending = inside[np.argsort(values[inside])]
    small = np.min_scalar_type(len(distinct))  # numpy sorts 16-bit codes by counting
    by_group = np.argsort(codes[ascending].astype(small), kind="stable")
    counts = np.bincount(codes[inside], minlength=len(distinct))
    return Grouped(
        values=values,
        codes=codes,
        ordered=values[ascending[by_group]],
        starts=np.concatenate([[0], np.cumsum(counts)]),
    )


def between_percentiles(groups: Grouped, lower: float, upper: float) -> np.ndarray:
    """Which rows (N,) lie between two percentiles of their group; ties with an end stay in."""
    sizes = groups.counts.tolist()
    first = np.array([rank_below(lower, size) for size in sizes], np.int64)
    end = np.array([rank_up_to(upper, size) for size in sizes], np.int64)
    some = np.append((first < sizes) & (end > 0), False)  # the last is for rows of no group
    high_enough = groups.values >= groups.edge(first)
    return np.asarray(some[groups.codes] & high_enough & (groups.values <= groups.edge(end - 1)))


def best_of_each(groups: Grouped, k: int, *, largest: bool, uids: pl.Series) -> np.ndarray:
    """Which rows (N,) are the k largest (or smallest) of their group; ties by uid."""
    sizes = groups.counts
    kept = np.minimum(k, sizes)
    edge = groups.edge(sizes - kept if largest else kept - 1)
    inside = groups.codes >= 0
    better = groups.values > edge if largest else groups.values < edge
    chosen = inside & better
    ties = np.flatnonzero(inside & (groups.values == edge))
    free = kept - np.bincount(groups.codes[chosen], minlength=len(sizes))
    tied = pl.DataFrame({"row": ties, "code": groups.codes[ties], "uid": uids.gather(ties)})
    tied = tied.sort("code", "uid")
    place = tied.select(pl.int_range(pl.len()).over("code")).to_series().to_numpy()
    wins = place < free[tied["code"].to_numpy()]
    chosen[tied["row"].to_numpy()[wins]] = True
    return np.asarray(chosen)
