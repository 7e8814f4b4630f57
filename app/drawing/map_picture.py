"""The map as a picture drawn on the server, so that what is sent never grows with the pool.

A million points as browser marks take 18 MB and 20 s; as a picture, one megabyte and one redraw of
some 100 ms (``docs/`` has the figures). Points outside the selection stay visible in grey.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import plotly.colors as pc
from PIL import Image

from app.drawing.colours import Theme

ASPECT = 1.45  # width of the map's chart over its height, about
MARGIN = 0.04  # of the height, on each side
LONG_SIDE = 1200  # pixels; about twice the chart's size on screen, so that edges look smooth
_RADII = ((1_000, 8), (3_000, 7), (10_000, 5), (40_000, 3), (200_000, 2), (float("inf"), 1))
_GREY_STRENGTH = 0.45
_COLOUR_STRENGTH = 0.85


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


def draw(
    x: np.ndarray, y: np.ndarray, *, rgb: np.ndarray, selected: np.ndarray, box: Box, theme: Theme
) -> bytes:
    """The points inside ``box`` as a PNG with a transparent background.

    Args:
        x, y: Map coordinates (N,).
        rgb: Colour of each point (N, 3) uint8.
        selected: Which points keep their colour, bool (N,); the others are drawn grey, beneath.
        box: Part of the map to draw; one pixel is equally long in x and y.
        theme: Decides the grey.
    """
    per_unit = LONG_SIDE / max(box.x1 - box.x0, box.y1 - box.y0)
    size = (
        max(1, round((box.y1 - box.y0) * per_unit)),
        max(1, round((box.x1 - box.x0) * per_unit)),
    )
    here = box.holds(x, y)
    columns = ((x[here] - box.x0) * per_unit).astype(np.int64)
    rows = ((box.y1 - y[here]) * per_unit).astype(np.int64)  # row 0 of a picture is its top
    stamp = _disc(_radius(int(here.sum())))
    on = selected[here]
    grey = np.broadcast_to(np.array(pc.hex_to_rgb(theme.dropped), np.uint8), (int((~on).sum()), 3))
    below = _layer(
        rows[~on], columns[~on], rgb=grey, size=size, stamp=stamp, strength=_GREY_STRENGTH
    )
    above = _layer(
        rows[on], columns[on], rgb=rgb[here][on], size=size, stamp=stamp, strength=_COLOUR_STRENGTH
    )
    picture = Image.alpha_composite(Image.fromarray(below, "RGBA"), Image.fromarray(above, "RGBA"))
    out = io.BytesIO()
    picture.save(out, format="PNG", compress_level=2)
    return out.getvalue()


def _radius(points: int) -> int:
    """Radius of a point in pixels: smaller the more there are, which also bounds the work."""
    return next(radius for most, radius in _RADII if points <= most)


def _disc(radius: int) -> np.ndarray:
    """Offsets (K, 2) of the pixels of a disc."""
    steps = np.arange(-radius, radius + 1)
    dy, dx = np.meshgrid(steps, steps, indexing="ij")
    inside = dy**2 + dx**2 <= radius**2 + 0.5
    return np.stack([dy[inside], dx[inside]], axis=1)


def _layer(
    rows: np.ndarray,
    columns: np.ndarray,
    *,
    rgb: np.ndarray,
    size: tuple[int, int],
    stamp: np.ndarray,
    strength: float,
) -> np.ndarray:
    """Stamp a disc at each point (M,): mean colour per pixel, opacity by how many overlap."""
    height, width = size
    r = (rows[:, None] + stamp[:, 0]).ravel()
    c = (columns[:, None] + stamp[:, 1]).ravel()
    inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
    flat = r[inside] * width + c[inside]
    count = np.bincount(flat, minlength=height * width)
    hit = count > 0
    picture = np.zeros((height * width, 4), np.uint8)
    for channel in range(3):
        tone = np.repeat(rgb[:, channel], len(stamp))[inside]
        total = np.bincount(flat, weights=tone, minlength=height * width)
        picture[hit, channel] = (total[hit] / count[hit]).round()
    opacity = 1 - (1 - strength) ** np.arange(int(count.max(initial=0)) + 1)
    picture[hit, 3] = (255 * opacity).round()[count[hit]]
    return picture.reshape(height, width, 4)
