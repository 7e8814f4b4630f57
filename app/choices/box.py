"""The part of the map that is visible, as a rectangle of a fixed shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ASPECT = 1.45  # width of the map's chart over its height, about
MARGIN = 0.04  # of the height, on each side
LONG_SIDE = 1200  # pixels; about twice the chart's size on screen, so that edges look smooth


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in map coordinates."""

    x0: float
    x1: float
    y0: float
    y1: float

    def holds(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Which points (N,) lie inside, bool (N,)."""
        inside: np.ndarray = (x >= self.x0) & (x <= self.x1) & (y >= self.y0) & (y <= self.y1)
        return inside


def box_around(x: np.ndarray, y: np.ndarray) -> Box:
    """The box of ``ASPECT`` around the points (N,), with a margin; the points are in its middle."""
    x0, x1, y0, y1 = float(x.min()), float(x.max()), float(y.min()), float(y.max())
    height = max(y1 - y0, (x1 - x0) / ASPECT) or 1.0
    half_height = height * (0.5 + MARGIN)
    half_width = half_height * ASPECT
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    return Box(
        middle_x - half_width,
        middle_x + half_width,
        middle_y - half_height,
        middle_y + half_height,
    )
