"""The map as a picture drawn on the server, so that what is sent never grows with the pool.

A million points as browser marks take 18 MB and 20 s; as a picture, one megabyte and less than a
second, a seventh of what Pillow takes to draw as many discs (``bench/handwritten.py``), which would
hide each other besides. Points outside the selection stay visible in grey.
"""

from __future__ import annotations

import io

import numpy as np
import plotly.colors as pc
from PIL import Image

from app.choices.box import LONG_SIDE, Box
from app.drawing.colours import Theme

_RADII = ((1_000, 8), (3_000, 7), (10_000, 5), (40_000, 3), (200_000, 2), (float("inf"), 1))
_GREY_STRENGTH = 0.45
_COLOUR_STRENGTH = 0.85


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
