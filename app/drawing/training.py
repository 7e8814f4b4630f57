"""Learning curves of training runs as plotly figures.

A run is told by colour, line and mark at once, so that no reader needs to tell colours apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from app.drawing.colours import Theme
from app.drawing.figures import finish, hover_text
from app.drawing.learning import MEASURES, Curve, is_share

CURVE_HEIGHT = 290
# Okabe and Ito's colours, those that stand out on white first; their black is the theme's ink.
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6BB1", "#E69F00", "#56B4E9")
MAX_CURVES = len(_LINES) + 1
_DASHES = ("solid", "dash", "dot", "dashdot")
_MARKS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "cross", "star")


def learning_curves(curves: Sequence[Curve], column: str, theme: Theme) -> go.Figure:
    """One measure against the epochs done, a line for each run that has it.

    Args:
        curves: At most ``MAX_CURVES``; a run keeps its look whatever the measure.
        column: One of ``MEASURES``.
    """
    figure = go.Figure()
    shares = is_share(column)
    colours = (*_LINES, theme.ink)
    value = "%{y:.2%}" if shares else "%{y:.4g}"
    for position, one in enumerate(curves):
        points = one.measure(column)
        if points.is_empty():
            continue
        figure.add_scatter(
            x=points["epoch"].to_numpy(),
            y=points[column].to_numpy(),
            name=hover_text(one.name),
            mode="lines+markers",
            cliponaxis=False,
            line={"color": colours[position], "width": 2, "dash": _DASHES[position % 4]},
            marker={"size": 7, "symbol": _MARKS[position]},
            hovertemplate=f"epoch %{{x:.3g}}<br>{MEASURES[column]} {value}",
        )
    longest = max((float(one.points["epoch"].max() or 0) for one in curves), default=0.0)  # type: ignore[arg-type]
    margin = 0.03 * max(longest, 1.0)  # so that the marks at both ends are whole
    figure.update_xaxes(title="epochs", range=[-margin, longest + margin], fixedrange=True)
    figure.update_yaxes(fixedrange=True, tickformat=".2~%" if shares else None)
    if shares:
        figure.update_yaxes(rangemode="tozero")
    figure.update_layout(showlegend=True)
    return finish(figure, theme, height=CURVE_HEIGHT)


def in_words(curves: Sequence[Curve], column: str) -> str:
    """The figure for those who cannot see it."""
    parts = []
    for one in curves:
        values = one.measure(column)[column]
        if len(values):
            parts.append(f"{one.name}: from {values[0]:.4g} to {values[-1]:.4g}")
    return f"{MEASURES[column]} by epoch. " + "; ".join(parts)
