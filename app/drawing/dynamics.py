"""The heat map of samples by epochs and the bars of flips, as plotly figures without streamlit.

No figure grows with the pool: the heat map is a picture, and what answers the mouse is a bounded
number of invisible marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go

from app.drawing.colours import Theme
from app.drawing.figures import HOVER_POINTS, add_scale, answer_mouse, finish, put_behind
from app.drawing.heat_picture import Painted
from app.text import count

HEAT_HEIGHT, FLIPS_HEIGHT = 450, 190
HOVER_ROWS = 200
_TICKS = 12  # labels of epochs


@dataclass(frozen=True, slots=True)
class Hover:
    """Which bins of the heat map answer the mouse, and what they say: (H,) rows, (H,) texts."""

    bins: np.ndarray
    texts: tuple[str, ...]


def hover_bins(painted: Painted) -> np.ndarray:
    """Bins (H,) of the heat map that answer the mouse, evenly spread; boundedly many."""
    bins, columns = painted.heat.means.shape
    most = max(1, min(HOVER_ROWS, HOVER_POINTS // max(columns, 1)))
    step = max(1, -(-bins // most))
    return np.arange(step // 2, bins, step)


def step_labels(epochs: Sequence[int], edges: np.ndarray) -> list[str]:
    """Names of the columns: the number of an epoch from 1, or from and to where several share one.

    Args:
        epochs: (S,) numbers as stored, from 0.
        edges: (C + 1,) which steps each column holds.
    """
    labels = []
    for start, end in pairwise(edges):
        first, last = epochs[start] + 1, epochs[end - 1] + 1
        labels.append(str(first) if first == last else f"{first}–{last}")
    return labels


def heat_figure(
    painted: Painted,
    *,
    first: int,
    picture: str,
    labels: Sequence[str],
    hover: Hover,
    name: str,
    unit: str,
    band: tuple[int, int] | None,
    marked: int | None,
    theme: Theme,
) -> go.Figure:
    """Samples by epochs: the picture, marks for the mouse, the dragged rows as a frame.

    Args:
        picture: Address of the painted picture.
        first: Rank (from 0) of the top row.
        labels: Names of the columns.
        name: What the colours show.
        unit: What a column is: an epoch or a repeat.
        band: Ranks from, up to without, that were dragged over.
        marked: Rank of the sample whose trajectory is shown.
    """
    edges = painted.heat.row_edges
    top, bottom = first + 0.5, first + int(edges[-1]) + 0.5  # rank r (from 1) spans r +- 0.5
    figure = go.Figure()
    put_behind(figure, picture, x=(0, painted.width), y=(bottom, top))
    _add_hover(figure, painted, first=first, labels=labels, hover=hover, name=name, unit=unit)
    _add_scale(figure, painted)
    for ranks, line in ((band, 2), (None if marked is None else (marked, marked + 1), 1)):
        if ranks is not None:
            figure.add_shape(
                type="rect",
                x0=0,
                x1=painted.width,
                y0=max(top, ranks[0] + 0.5),
                y1=min(bottom, ranks[1] + 0.5),
                line={"color": theme.accent, "width": line},
            )
    _axes(figure, painted, labels, unit=unit, ends=(top, bottom))
    figure.update_layout(
        dragmode="select", selectdirection="v", hovermode="closest", hoverdistance=-1
    )
    return finish(figure, theme, height=HEAT_HEIGHT)


def _axes(
    figure: go.Figure,
    painted: Painted,
    labels: Sequence[str],
    *,
    unit: str,
    ends: tuple[float, float],
) -> None:
    every = -(-len(labels) // _TICKS)
    shown = range(0, len(labels), every)
    figure.update_xaxes(
        range=[0, painted.width],
        tickvals=[
            *(column + 0.5 for column in shown),
            *((strip.left + strip.right) / 2 for strip in painted.strips),
        ],
        ticktext=[
            *(labels[column] for column in shown),
            # Each a line lower than the one before: on a phone they would run into each other.
            *("\u00a0<br>" * line + strip.name for line, strip in enumerate(painted.strips)),
        ],
        title=unit,
        showgrid=False,
        fixedrange=True,
        tickangle=0,
    )
    figure.update_yaxes(
        range=[ends[1], ends[0]],
        tickformat=",d",
        nticks=6,
        showgrid=False,
        fixedrange=True,
        title="rank",
    )


def _add_hover(
    figure: go.Figure,
    painted: Painted,
    *,
    first: int,
    labels: Sequence[str],
    hover: Hover,
    name: str,
    unit: str,
) -> None:
    edges, means = painted.heat.row_edges, painted.heat.means
    columns = means.shape[1]
    middle = first + (edges[hover.bins] + edges[hover.bins + 1] + 1) / 2
    ranks = [_ranks(first + int(edges[b]), first + int(edges[b + 1])) for b in hover.bins]
    texts = [
        (labels[c], ranks[h], f"{means[b, c]:.4g}", hover.texts[h])
        for h, b in enumerate(hover.bins)
        for c in range(columns)
    ]
    answer_mouse(
        figure,
        np.tile(np.arange(columns) + 0.5, len(hover.bins)),
        np.repeat(middle, columns),
        np.array(texts, dtype=object) if texts else None,
        "%{customdata[3]}<br>"
        f"{unit} %{{customdata[0]}}, %{{customdata[1]}}<br>{name} %{{customdata[2]}}",
    )


def _ranks(start: int, stop: int) -> str:
    if stop - start == 1:
        return f"rank {count(start + 1)}"
    return f"mean of ranks {count(start + 1)}–{count(stop)}"


def _add_scale(figure: go.Figure, painted: Painted) -> None:
    """The colour scale under the heat map; powers of ten where the colours go by them."""
    low, high = painted.low, painted.high
    ticks: dict[str, object] = {}
    if painted.logarithmic:
        low, high = float(np.log10(low)), float(np.log10(high))
        at = np.unique(np.linspace(np.ceil(low), np.floor(high), 4).round())
        ticks = {"tickvals": at.tolist(), "ticktext": [f"10<sup>{one:.0f}</sup>" for one in at]}
    place = {"x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"}
    inside = {"ticklabelposition": "outside top"}
    add_scale(figure, (low, high), painted.scale, **place, **inside, **ticks)


def flips_figure(
    edges: np.ndarray,
    total: np.ndarray,
    noisy: np.ndarray | None,
    *,
    chosen: tuple[int, int] | None,
    theme: Theme,
) -> go.Figure:
    """How many samples changed their vote how often; each bar answers a click over full height.

    Args:
        edges: (K + 1,) edges between whole numbers of flips.
        total, noisy: (K,) samples, and known noisy ones among them; None where no truth is known.
        chosen: Least and largest number of flips of the bar that the gallery shows.
    """
    spans = flip_spans(edges)
    labels = [str(low) if low == high else f"{low}–{high}" for low, high in spans]
    figure = go.Figure()
    clean = total if noisy is None else total - noisy
    bars = [("samples" if noisy is None else "others", clean, np.zeros_like(clean), theme.kept)]
    if noisy is not None:
        bars.append(("known noisy", noisy, clean, theme.accent))
    for name, heights, base, colour in bars:
        figure.add_bar(
            x=labels,
            y=heights,
            base=base,
            name=f"{name} {count(int(heights.sum()))}",
            marker={"color": colour, "line": {"width": 0}},
            hoverinfo="skip",
        )
    most = float(total.max(initial=1)) * 1.15
    figure.add_bar(
        x=labels,
        y=np.full(len(labels), most),
        marker={"color": theme.faint, "opacity": 0.0},
        selected={"marker": {"opacity": 0.0}},
        unselected={"marker": {"opacity": 0.0}},
        customdata=np.stack([total, np.zeros_like(total) if noisy is None else noisy], axis=1),
        hovertemplate="%{x} flips: %{customdata[0]:,} samples"
        + ("" if noisy is None else ", %{customdata[1]:,} known noisy")
        + "<extra></extra>",
        showlegend=False,
    )
    for label, whole, span in zip(labels, total, spans, strict=True):
        figure.add_annotation(
            x=label,
            y=float(whole),
            text=f"<b>{count(int(whole))}</b>" if span == chosen else count(int(whole)),
            showarrow=False,
            yshift=9,
            font={"color": theme.accent if span == chosen else theme.ink, "size": 12},
        )
    figure.update_layout(barmode="overlay", bargap=0.25, clickmode="event+select", dragmode=False)
    figure.update_xaxes(type="category", title="flips", fixedrange=True)
    figure.update_yaxes(range=[0, most], fixedrange=True, nticks=4)
    return finish(figure, theme, height=FLIPS_HEIGHT)


def flip_spans(edges: np.ndarray) -> list[tuple[int, int]]:
    """Least and largest whole number in each bin (K + 1,) edges halfway between two numbers."""
    return [(int(np.ceil(low)), int(np.floor(high))) for low, high in pairwise(edges)]
