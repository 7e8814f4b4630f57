"""The figures of a proof: differences with their intervals, and the level of every arm.

Names stand above their intervals, so that they fit on a telephone too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from app.drawing.colours import Theme
from app.drawing.figures import finish, hover_text
from mimic_core.proofs.record import ALL_SAMPLES, Comparison, Interval, Outcome, Proof, is_share

ROW_HEIGHT = 46  # pixels for a name and its interval


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: a name, an interval and its colour."""

    name: str
    interval: Interval
    colour: str
    hover: str


def differences(proof: Proof, theme: Theme) -> go.Figure:
    """Difference in held-out loss of every comparison, in per cent; left of zero is better."""
    rows = [
        Bar(
            f"{one.first} against {_against(one, proof)}",
            _percent(one.relative),
            _tone(one.outcome, theme),
            one.text,
        )
        for one in proof.comparisons
    ]
    figure = _intervals(rows, theme, unit=" %", also=(0.0, 100 * proof.config.margin))
    figure.add_vline(x=0, line={"color": theme.faint, "width": 1})
    margin = 100 * proof.config.margin
    figure.add_vrect(
        x0=0, x1=margin, fillcolor=theme.faint, opacity=0.15, line_width=0, layer="below"
    )
    figure.update_xaxes(title="difference in held-out loss, % (lower is better)")
    return figure


def levels(proof: Proof, metric: str, theme: Theme) -> go.Figure:
    """One metric of every arm, on the same held-out samples."""
    share = is_share(metric)
    rows = []
    for arm in proof.arms:
        interval = _percent(arm.metrics[metric]) if share else arm.metrics[metric]
        colour = theme.kept if arm.kind == "recipe" else theme.faint
        text = f"{arm.name}: trained on {arm.trained:,} samples"
        rows.append(Bar(arm.name, interval, colour, text))
    figure = _intervals(rows, theme, unit=" %" if share else "")
    better = "higher" if share else "lower"
    unit = ", %" if share else ""
    figure.update_xaxes(title=f"{metric}{unit} ({better} is better)")
    return figure


def _against(comparison: Comparison, proof: Proof) -> str:
    if comparison.second == ALL_SAMPLES:
        return ALL_SAMPLES
    kind = proof.arm(comparison.second).kind
    return "random, same size" if kind == "random" else comparison.second


def _tone(outcome: Outcome, theme: Theme) -> str:
    return {
        "better": theme.kept,
        "not_worse": theme.kept,
        "worse": theme.accent,
        "open": theme.faint,
    }[outcome]


def _percent(interval: Interval) -> Interval:
    return Interval(**{name: 100 * value for name, value in interval})


def _intervals(
    rows: Sequence[Bar], theme: Theme, *, unit: str, also: Sequence[float] = ()
) -> go.Figure:
    """Rows from top to bottom; the axis shows all of them, and the values ``also``."""
    figure = go.Figure()
    for place, row in enumerate(rows):
        interval = row.interval
        figure.add_scatter(
            x=[interval.low, interval.high],
            y=[place, place],
            mode="lines",
            line={"color": row.colour, "width": 5},
            hoverinfo="skip",
            showlegend=False,
        )
        span = f"{interval.value:.3g}{unit} ({interval.low:.3g} to {interval.high:.3g})"
        figure.add_scatter(
            x=[interval.value],
            y=[place],
            mode="markers",
            marker={
                "color": row.colour,
                "size": 13,
                "line": {"color": theme.surface, "width": 2},
            },
            hovertemplate=f"{hover_text(row.name)}<br>{span}<extra></extra>",
            showlegend=False,
        )
        figure.add_annotation(
            x=0,
            xref="paper",
            y=place - 0.42,
            text=f"{hover_text(row.name)}  <b>{interval.value:.3g}{unit}</b>",
            showarrow=False,
            xanchor="left",
            font={"size": 12.5, "color": theme.ink},
        )
    figure.update_yaxes(
        range=[len(rows) - 0.5, -0.8], visible=False, fixedrange=True, showgrid=False
    )
    low = min([row.interval.low for row in rows] + list(also))
    high = max([row.interval.high for row in rows] + list(also))
    pad = 0.05 * (high - low) or 0.5
    figure.update_xaxes(fixedrange=True, range=[low - pad, high + pad])
    finish(figure, theme, height=ROW_HEIGHT * len(rows) + 60)
    return figure.update_layout(margin={"t": 4})
