"""Distributions of each epoch and the trajectory of one sample, as plotly figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.drawing.colours import Theme
from app.drawing.figures import finish
from app.text import spoken
from mimic_core.stats.dynamics import Bands

MOST_RIDGES = 8
TRAJECTORY_HEIGHT = 400
_RIDGE = 45  # pixels of one epoch's distribution
_OVERLAP = 1.2  # height of the tallest ridge over the distance of two
_OUTER, _INNER = 0.14, 0.26  # opacity of the bands from 5 to 95 and from 25 to 75 per cent


@dataclass(frozen=True, slots=True)
class Ridge:
    """One group of samples: its name, densities (S, K) of each step, and its colour."""

    name: str
    densities: np.ndarray
    colour: str


@dataclass(frozen=True, slots=True)
class Track:
    """One column of a sample over the steps: values (S,) and the pool's bands behind them.

    ``cutoffs`` (S,) and ``keep`` (S,) bool only for the column that votes.
    """

    column: str
    values: np.ndarray
    bands: Bands
    logarithmic: bool
    cutoffs: np.ndarray | None = None
    keep: np.ndarray | None = None


def shown_steps(steps: int, most: int = MOST_RIDGES) -> list[int]:
    """At most ``most`` of the steps, evenly spread, the first and the last among them."""
    if steps <= most:
        return list(range(steps))
    return [round(step) for step in np.linspace(0, steps - 1, most)]


def ridges_figure(
    edges: np.ndarray,
    ridges: Sequence[Ridge],
    *,
    steps: Sequence[int],
    labels: Sequence[str],
    column: str,
    logarithmic: bool,
    cutoffs: np.ndarray | None,
    neutral: float | None,
    theme: Theme,
) -> go.Figure:
    """A distribution per epoch, one above the other, the first on top.

    Args:
        edges: (K + 1,) of the bins.
        ridges: Groups that are drawn over each other.
        steps: Which of the S steps are drawn.
        labels: (S,) their names.
        cutoffs: (S,) where each step's votes are cut; None where another column votes.
        neutral: The mimic weight 1/B; None for other columns.
    """
    figure = go.Figure()
    middle = np.sqrt(edges[:-1] * edges[1:]) if logarithmic else (edges[:-1] + edges[1:]) / 2
    x = np.concatenate([edges[:1], middle, edges[-1:]])
    peak = max(float(one.densities[list(steps)].max()) for one in ridges) or 1.0
    for place, step in enumerate(steps):
        floor = float(len(steps) - 1 - place)
        for one in ridges:
            height = np.concatenate([[0], one.densities[step], [0]]) / peak * _OVERLAP
            _add_ridge(figure, x, height, floor, one, named=place == 0)
        if cutoffs is not None:
            _tick(figure, float(cutoffs[step]), floor, edges, theme)
    if neutral is not None and edges[0] <= neutral <= edges[-1]:
        figure.add_vline(x=neutral, line={"color": theme.faint, "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=np.log10(neutral) if logarithmic else neutral,  # unlike lines, in the axis's own unit
            y=1,
            yref="paper",
            text="1/B",
            showarrow=False,
            xanchor="left",
            yanchor="top",
            font={"color": theme.faint, "size": 12},
        )
    figure.update_xaxes(
        title=spoken(column),
        type="log" if logarithmic else "linear",
        range=list(np.log10(edges[[0, -1]]) if logarithmic else edges[[0, -1]]),
        exponentformat="power",
        dtick=_decades(edges) if logarithmic else None,
        fixedrange=True,
    )
    figure.update_yaxes(
        tickvals=list(range(len(steps))),
        ticktext=[labels[step] for step in reversed(steps)],
        range=[-0.08, len(steps) - 1 + _OVERLAP + 0.08],
        fixedrange=True,
    )
    return finish(figure, theme, height=80 + _RIDGE * max(len(steps), 3))


def _decades(edges: np.ndarray) -> int:
    return max(1, int(np.ceil(np.log10(edges[-1] / edges[0]) / 6)))


def _add_ridge(
    figure: go.Figure, x: np.ndarray, height: np.ndarray, floor: float, ridge: Ridge, *, named: bool
) -> None:
    figure.add_scatter(
        x=x[[0, -1]],
        y=[floor, floor],
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        x=x,
        y=floor + height,
        mode="lines",
        line={"color": ridge.colour, "width": 1.5},
        fill="tonexty",
        fillcolor=translucent(ridge.colour, 0.3),
        name=ridge.name,
        legendgroup=ridge.name,
        showlegend=named,
        hoverinfo="skip",
    )


def _tick(figure: go.Figure, cutoff: float, floor: float, edges: np.ndarray, theme: Theme) -> None:
    """A cutoff as an upright line in its ridge; one outside the axis is at its end, as a dot."""
    inside = edges[0] <= cutoff <= edges[-1]
    x = min(max(cutoff, float(edges[0])), float(edges[-1]))
    figure.add_scatter(
        x=[x, x],
        y=[floor, floor + 0.8],
        mode="lines+markers",
        line={"color": theme.ink, "width": 2, "dash": "solid" if inside else "dot"},
        marker={"size": [0, 6], "color": theme.ink},
        hovertemplate=f"cutoff {cutoff:.4g}<extra></extra>",
        showlegend=False,
    )


def trajectory_figure(
    tracks: Sequence[Track], *, labels: Sequence[str], unit: str, neutral: float, theme: Theme
) -> go.Figure:
    """One sample's columns over the steps, one above the other, the pool behind each.

    Args:
        labels: (S,) names of the steps.
        neutral: The mimic weight 1/B.
    """
    figure = make_subplots(rows=len(tracks), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    for row, track in enumerate(tracks, 1):
        _add_bands(figure, labels, track, row, theme)
        if track.cutoffs is not None:
            figure.add_scatter(
                x=labels,
                y=track.cutoffs,
                mode="lines",
                line={"color": theme.ink, "width": 1, "dash": "dash"},
                name="cutoff",
                hovertemplate="cutoff %{y:.4g}<extra></extra>",
                row=row,
                col=1,
            )
        if track.column == "mimic_weight":
            dotted = {"color": theme.faint, "width": 1, "dash": "dot"}
            figure.add_hline(y=neutral, line=dotted, row=row, col=1)
            figure.add_annotation(
                x=1,
                xref="x domain",
                y=np.log10(neutral) if track.logarithmic else neutral,  # in the axis's own unit
                text="1/B",
                showarrow=False,
                xanchor="right",
                yanchor="bottom",
                font={"color": theme.faint, "size": 12},
                row=row,
                col=1,
            )
        _add_values(figure, labels, track, row, theme)
        figure.update_yaxes(
            title=spoken(track.column).removeprefix("mimic "),
            type="log" if track.logarithmic else "linear",
            exponentformat="power",
            nticks=4,
            fixedrange=True,
            row=row,
            col=1,
        )
    figure.update_xaxes(type="category", fixedrange=True, nticks=12, tickangle=0)
    figure.update_xaxes(title=unit, row=len(tracks), col=1)
    return finish(figure, theme, height=TRAJECTORY_HEIGHT)


def _add_bands(
    figure: go.Figure, labels: Sequence[str], track: Track, row: int, theme: Theme
) -> None:
    """The pool's 5 to 95 and 25 to 75 per cent as areas, its median as a line."""
    at = dict(zip(track.bands.levels, track.bands.values, strict=True))
    for low, high, opacity in ((5.0, 95.0, _OUTER), (25.0, 75.0, _INNER)):
        for level, fill in ((low, None), (high, "tonexty")):
            figure.add_scatter(
                x=labels,
                y=at[level],
                mode="lines",
                line={"width": 0},
                fill=fill,
                fillcolor=translucent(theme.faint, opacity),
                name=f"pool {low:.0f}–{high:.0f} %",
                legendgroup=f"{low}",
                showlegend=row == 1 and fill is not None,
                hoverinfo="skip",
                row=row,
                col=1,
            )
    figure.add_scatter(
        x=labels,
        y=at[50.0],
        mode="lines",
        line={"color": theme.faint, "width": 1},
        showlegend=False,
        hovertemplate="pool median %{y:.4g}<extra></extra>",
        row=row,
        col=1,
    )


def _add_values(
    figure: go.Figure, labels: Sequence[str], track: Track, row: int, theme: Theme
) -> None:
    keep = track.keep
    marker: dict[str, object] = {"size": 7, "color": theme.kept}
    if keep is not None:
        marker = {
            "size": 10,
            "symbol": ["circle" if vote else "x" for vote in keep],
            "color": [theme.kept if vote else theme.accent for vote in keep],
        }
    votes = [""] * len(labels) if keep is None else [", keep" if v else ", drop" for v in keep]
    figure.add_scatter(
        x=labels,
        y=track.values,
        mode="lines+markers",
        line={"color": theme.kept, "width": 2},
        marker=marker,
        text=votes,
        hovertemplate="%{y:.4g}%{text}<extra></extra>",
        name="this sample",
        legendrank=1,  # before the bands that lie behind it
        showlegend=row == 1,
        row=row,
        col=1,
    )


def translucent(colour: str, opacity: float) -> str:
    """A hex colour with an opacity."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
