"""Samples by epochs as a picture drawn on the server: bounded in size whatever the pool.

A row is a sample, or the mean of as many neighbours as one pixel row has to hold; a column is an
epoch. Beside the epochs stand narrow strips for what is one value per sample: the decision of the
ensemble, and the truth where it is known. The picture is drawn at about the size of the screen,
because a browser that enlarges a small one blurs its rows and columns.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from app.drawing.colours import Theme, on_scale, scale
from mimic_core.stats import dynamics
from mimic_core.stats.dynamics import HeatMap

MOST_ROWS = 800  # pixel rows; about twice the height of the chart
MOST_STEPS = 120
GAP, STRIP = 0.14, 0.42  # widths of a gap and a strip, in columns of a heat map of five
_TALL, _WIDE = 900, 1100  # pixels of the whole picture, about
_LINES_UP_TO = 30  # columns that are parted by a line


@dataclass(frozen=True, slots=True)
class Strip:
    """One value per sample beside the epochs: its name, its place on the x axis, its bin means."""

    name: str
    left: float
    right: float
    means: np.ndarray


@dataclass(frozen=True, slots=True)
class Painted:
    """The picture and what it shows.

    Attributes:
        png: The picture.
        heat: The means behind it.
        strips: What stands beside the epochs.
        width: Right end of the picture on the x axis; column c spans c to c + 1.
        low, high: Values at the ends of the colour scale.
        scale: Its colours.
        logarithmic: Whether the colours go by powers of ten.
    """

    png: bytes
    heat: HeatMap
    strips: tuple[Strip, ...]
    width: float
    low: float
    high: float
    scale: tuple[str, ...]
    logarithmic: bool


def paint(
    values: np.ndarray,
    rows: np.ndarray,
    *,
    limits: tuple[float, float],
    logarithmic: bool,
    votes: bool,
    strips: Sequence[tuple[str, np.ndarray]],
    theme: Theme,
) -> Painted:
    """Draw the values (S, N) of the samples ``rows`` (M,), the first on top.

    Args:
        limits: Values at the ends of the colour scale; beyond them colours do not change.
        votes: Whether the values are votes, which have the colours of kept and dropped.
        strips: Names and one boolean per sample (N,).
    """
    heat = dynamics.heat_map(values, rows, most_rows=MOST_ROWS, most_steps=MOST_STEPS)
    colours = (theme.dropped, theme.kept) if votes else scale(theme)
    columns = heat.means.shape[1]
    unit = columns / 5  # strips look alike however many columns there are
    beside, right = [], float(columns)
    for name, flags in strips:
        left, right = right + GAP * unit, right + (GAP + STRIP) * unit
        beside.append(Strip(name, left, right, dynamics.bin_means(flags, rows, heat.row_edges)))
    tones = {"ensemble": (theme.dropped, theme.kept), "noisy": (theme.surface, theme.accent)}
    parts = [
        (
            0.0,
            float(columns),
            on_scale(_position(heat.means, limits, logarithmic=logarithmic), colours),
        ),
        *((one.left, one.right, on_scale(one.means[:, None], tones[one.name])) for one in beside),
    ]
    png = _png(parts, right, lines=columns <= _LINES_UP_TO)
    return Painted(png, heat, tuple(beside), right, *limits, colours, logarithmic)


def _position(means: np.ndarray, limits: tuple[float, float], *, logarithmic: bool) -> np.ndarray:
    """Where each mean lies on the colour scale, 0 to 1."""
    low, high = limits
    if logarithmic:
        means = np.log10(np.maximum(means, low))
        low, high = np.log10(low), np.log10(high)
    position: np.ndarray = np.clip((means - low) / ((high - low) or 1.0), 0, 1)
    return position


def _png(parts: list[tuple[float, float, np.ndarray]], right: float, *, lines: bool) -> bytes:
    """Blocks of pixels (R, C, 3), each from one x to another, as one picture."""
    rows = len(parts[0][2])
    tall = max(1, _TALL // max(rows, 1))
    per_unit = _WIDE / right
    picture = np.zeros((max(rows, 1) * tall, round(right * per_unit), 4), np.uint8)
    for start, end, block in parts:
        if not rows:
            break
        places = np.linspace(start * per_unit, end * per_unit, block.shape[1] + 1)
        edges: np.ndarray = places.round().astype(np.int64)
        where = np.repeat(np.arange(block.shape[1]), np.diff(edges))
        wide = np.repeat(block[:, where], tall, axis=0)
        picture[:, edges[0] : edges[-1], :3] = wide
        picture[:, edges[0] : edges[-1], 3] = 255
        if lines:
            for edge in edges[1:-1]:
                picture[:, edge - 1 : edge + 1, 3] = 0
    out = io.BytesIO()
    Image.fromarray(picture, "RGBA").save(out, format="PNG", compress_level=2)
    return out.getvalue()
