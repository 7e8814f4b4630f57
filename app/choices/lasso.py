"""A lasso with fewer corners: what the mouse drew, to a pixel of the map.

A lasso drawn by hand has hundreds of corners of seventeen digits, too long for the address of the
page. It is simplified once, before it becomes a condition: what is drawn, counted, exported and
replayed is the same polygon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from app.choices.box import LONG_SIDE, Box

_PER_EXTENT = 4000  # places of a corner along the visible part of the map
_SCREEN = LONG_SIDE / 2  # pixels of the chart on screen, about
_FEW = 4  # corners of a box, which stays exactly as it was drawn
Corner = tuple[float, float]


def simplified(corners: Sequence[Corner], box: Box) -> list[Corner]:
    """The closed polygon with fewer corners, each within rounding of one that was drawn.

    Only samples within about a pixel of the outline can change sides.

    Args:
        corners: At least three, in order.
        box: The visible part of the map, which says how much a pixel is.
    """
    if len(corners) <= _FEW:
        return list(corners)
    extent = max(box.x1 - box.x0, box.y1 - box.y0)
    points = np.asarray(corners, np.float64)
    kept = _douglas_peucker(points, extent / _SCREEN)
    digits = math.ceil(math.log10(_PER_EXTENT / extent))
    # A lasso of a pixel or two has lost its area; it is too small to be simplified.
    chosen = points[kept] if len(kept) > 2 else points
    return [(round(float(x), digits), round(float(y), digits)) for x, y in chosen]


def _douglas_peucker(points: np.ndarray, tolerance: float) -> np.ndarray:
    """Places (K,) of the corners of the closed polygon (V, 2) that its outline needs."""
    ring = np.concatenate([points, points[:1]])
    farthest = int(np.argmax(np.linalg.norm(points - points[0], axis=1)))
    kept = {0, farthest}
    parts = [(0, farthest), (farthest, len(points))]
    while parts:
        start, end = parts.pop()
        if end - start < 2:
            continue
        away = _distances(ring[start + 1 : end], ring[start], ring[end])
        worst = int(np.argmax(away))
        if away[worst] > tolerance:
            middle = start + 1 + worst
            kept.add(middle)
            parts += [(start, middle), (middle, end)]
    return np.array(sorted(kept))


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distances (M,) of ``points`` (M, 2) from the straight line between two corners."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    found: np.ndarray = np.linalg.norm(points - (start + share[:, None] * along), axis=1)
    return found
