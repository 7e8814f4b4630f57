"""Which samples the gallery shows, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

GalleryMode = Literal["lowest", "highest", "cutoff", "kept", "dropped", "lasso"]
ORDERED_MODES = frozenset[GalleryMode](("kept", "dropped", "lasso"))
GalleryOrder = Literal["highest", "lowest"]  # first, in the modes of ORDERED_MODES
PAGE_SIZE = 60


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a ranking: ``rows`` (K,) int64 of the table, ranks ``first`` to ``last``."""

    rows: np.ndarray
    number: int
    pages: int
    first: int
    last: int
    total: int


def ranked_rows(
    order: np.ndarray,
    values: np.ndarray,
    *,
    mode: GalleryMode,
    first: GalleryOrder,
    wanted: np.ndarray | None,
    cutoff: float | None,
) -> np.ndarray:
    """Rows (M,) int64 in the order in which ``mode`` shows them.

    Args:
        order: Rows by rising value (``ascending``).
        values: The column (N,) float64; NaN where it is missing.
        mode: ``lowest`` and ``highest`` first, of all samples; ``cutoff``: nearest to it first;
            the others show the ``wanted`` samples in the order of ``first``.
        first: Which end of a mode of ``ORDERED_MODES`` comes first.
        wanted: Which samples such a mode shows, bool (N,).
        cutoff: Value that ``cutoff`` looks around; without one, the median.
    """
    if mode == "cutoff":
        centre = float(np.median(values[order])) if cutoff is None and len(order) else cutoff or 0.0
        return order[np.argsort(np.abs(values[order] - centre), kind="stable")]
    descending = mode == "highest"
    if mode in ORDERED_MODES:
        assert wanted is not None  # of the other modes alone it may be left out
        order, descending = order[wanted[order]], first == "highest"
    return order[::-1] if descending else order


def page_of(rows: np.ndarray, number: int, *, size: int = PAGE_SIZE) -> Page:
    """Page ``number`` (from 1) of ``rows``; a number out of range is taken to the nearest page."""
    total = len(rows)
    pages = max(1, -(-total // size))
    number = min(max(1, number), pages)
    start = (number - 1) * size
    shown = rows[start : start + size]
    return Page(shown, number, pages, start + 1 if total else 0, start + len(shown), total)
