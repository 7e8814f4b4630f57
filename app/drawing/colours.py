"""Colours of every chart: safe for colour-blind readers, legible on both themes.

Categories take Okabe and Ito's palette (Color Universal Design, 2008); numbers take Viridis, cut at
the end that would vanish on the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.colors as pc
import polars as pl

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6BB1", "#F0E442")
OTHER = "#8A939C"
MAX_CATEGORIES = len(OKABE_ITO)
_LUT_SIZE = 256


@dataclass(frozen=True, slots=True)
class Theme:
    """The tones of one theme."""

    dark: bool
    kept: str
    dropped: str
    accent: str
    ink: str
    faint: str
    grid: str
    surface: str


_TONES = {  # on a light and on a dark background
    "kept": ("#0B6E99", "#4FB3DB"),
    "dropped": ("#C3CBD3", "#4A5663"),
    "accent": ("#D55E00", "#FF8C42"),
    "ink": ("#17212B", "#E6EBF0"),
    "faint": ("#5C6874", "#9AA7B4"),
    "grid": ("#E6EAEE", "#26303A"),
    "surface": ("#FFFFFF", "#11161C"),
}
LIGHT, DARK = (
    Theme(dark=bool(side), **{name: tones[side] for name, tones in _TONES.items()})
    for side in (0, 1)
)


@dataclass(frozen=True, slots=True)
class Colouring:
    """A column turned into one colour per row.

    ``rgb`` (N, 3) uint8. A number column has ``low`` and ``high``, the values at the ends of
    ``scale``; a category column has ``legend``, (name, colour, count) by falling count.
    """

    column: str
    rgb: np.ndarray
    low: float | None = None
    high: float | None = None
    scale: tuple[str, ...] = ()
    legend: tuple[tuple[str, str, int], ...] = ()

    @property
    def continuous(self) -> bool:
        """Whether the column is a number column."""
        return bool(self.scale)


def scale(theme: Theme) -> tuple[str, ...]:
    """Eleven steps of Viridis, without the end that is lost on the theme's background."""
    ends = (0.14, 1.0) if theme.dark else (0.0, 0.9)
    return tuple(pc.sample_colorscale("Viridis", list(np.linspace(*ends, 11))))


def on_scale(position: np.ndarray, colours: Sequence[str]) -> np.ndarray:
    """Positions (...) from 0 to 1 on a scale of colours as pixels (..., 3) uint8."""
    anchors = np.array(
        [pc.unlabel_rgb(c) if c.startswith("rgb") else pc.hex_to_rgb(c) for c in colours]
    )
    grid, at = np.linspace(0, 1, _LUT_SIZE), np.linspace(0, 1, len(anchors))
    table = np.stack([np.interp(grid, at, anchors[:, channel]) for channel in range(3)], axis=1)
    places = (position * (_LUT_SIZE - 1)).round().astype(np.int64)
    return np.asarray(table.round().astype(np.uint8)[places])


def colour_by(column: pl.Series, theme: Theme) -> Colouring:
    """Colour every row by ``column`` (N): numbers on a scale, all else by category.

    The scale spans the 1st to the 99th percentile, so that a few extremes do not grey out the
    rest; missing values are grey.
    """
    if column.dtype.is_numeric():
        return _by_number(column, theme)
    return _by_category(column)


def _by_number(column: pl.Series, theme: Theme) -> Colouring:
    steps = scale(theme)
    values = column.to_numpy().astype(np.float64)
    known = np.isfinite(values)
    low, high = (0.0, 1.0) if not known.any() else np.percentile(values[known], [1, 99])
    span = (high - low) or 1.0
    position = np.where(known, np.clip((values - low) / span, 0, 1), 0)
    rgb = on_scale(position, steps)
    rgb[~known] = pc.hex_to_rgb(OTHER)
    return Colouring(column.name, rgb, float(low), float(high), steps)


def _by_category(column: pl.Series) -> Colouring:
    names = column.cast(pl.String).alias("name")  # its own may be "count", or a pattern
    counts = names.drop_nulls().value_counts().sort(["count", "name"], descending=[True, False])
    top = counts["name"].head(MAX_CATEGORIES).to_list()
    rgb = np.full((len(names), 3), pc.hex_to_rgb(OTHER), np.uint8)
    legend = []
    for name, colour, count in zip(top, OKABE_ITO, counts["count"].to_list(), strict=False):
        rgb[(names == name).fill_null(value=False).to_numpy()] = pc.hex_to_rgb(colour)
        legend.append((name, colour, count))
    rest = len(names) - sum(count for _, _, count in legend)
    if rest:
        legend.append(("other or missing", OTHER, rest))
    return Colouring(column.name, rgb, legend=tuple(legend))
