"""Tables to plotly figures. Nothing here knows of streamlit, and no figure grows with the pool."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import polars as pl

from app.choices.box import Box
from app.drawing.colours import Colouring, Theme
from app.text import number, spoken

HISTOGRAM_BINS = 80
HISTOGRAM_HEIGHT, MAP_HEIGHT = 300, 380  # pixels; the inputs below the histogram make up for it
HOVER_POINTS = 4000  # invisible marks that answer the mouse; the picture shows everyone
CAPTION_SHOWN = 90  # characters of a caption in a hover box


@dataclass(frozen=True, slots=True)
class Span:
    """An interval of a column, both ends included; None is open."""

    low: float | None
    high: float | None


def histogram(
    edges: np.ndarray,
    total: np.ndarray,
    kept: np.ndarray,
    *,
    column: str,
    span: Span | None,
    theme: Theme,
) -> go.Figure:
    """Counts of ``column`` in equal bins: kept below, dropped on top, the cutoff as a line.

    Args:
        edges: Bin edges (M + 1,).
        total, kept: Samples, and selected samples, in each bin (M,) int.
        column: Name under the axis.
        span: The cutoff; None when the column has none.
    """
    middle = (edges[:-1] + edges[1:]) / 2
    width = np.diff(edges)
    bins = np.stack([edges[:-1], edges[1:], total], axis=1)
    hover = "%{customdata[0]:.4g} to %{customdata[1]:.4g}<br>%{y:,} NAME of %{customdata[2]:,}"
    sums = f"{int(kept.sum()):,}", f"{int((total - kept).sum()):,}"
    figure = go.Figure()
    for name, counts, colour, whole in [
        ("kept", kept, theme.kept, sums[0]),
        ("dropped", total - kept, theme.dropped, sums[1]),
    ]:
        figure.add_bar(
            x=middle,
            y=counts,
            width=width,
            name=f"{name} {whole}",
            marker={"color": colour, "line": {"width": 0}},
            customdata=bins,
            hovertemplate=hover.replace("NAME", name) + "<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0, dragmode="select", selectdirection="h")
    figure.update_xaxes(
        title=spoken(column), range=[float(edges[0]), float(edges[-1])], showgrid=False
    )
    figure.update_yaxes(rangemode="tozero", fixedrange=True)
    figure.update_layout(legend={"traceorder": "normal"})
    if span is not None:
        _mark_cutoff(figure, span, edges, theme)
    return finish(figure, theme, height=HISTOGRAM_HEIGHT)


def _mark_cutoff(figure: go.Figure, span: Span, edges: np.ndarray, theme: Theme) -> None:
    ends = (float(edges[0]), float(edges[-1]))
    dropped = [(ends[0], span.low), (span.high, ends[1])]
    for left, right in dropped:
        if left is not None and right is not None and right > left:
            figure.add_vrect(
                x0=left, x1=right, fillcolor=theme.faint, opacity=0.12, line_width=0, layer="below"
            )
    for value, side in ((span.low, "right"), (span.high, "left")):
        if value is not None and ends[0] <= value <= ends[1]:
            figure.add_vline(
                x=value,
                line={"color": theme.accent, "width": 2},
                annotation={
                    "text": f"{value:.4g}",
                    "font": {"color": theme.accent},
                    "bgcolor": theme.surface,
                },
                annotation_position=f"top {side}",
            )


def map_figure(
    png: bytes,
    *,
    box: Box,
    sample: pl.DataFrame,
    colouring: Colouring,
    outlines: Sequence[Sequence[tuple[float, float]]],
    theme: Theme,
) -> go.Figure:
    """The map: a picture of all points, a few invisible marks for the mouse, regions as outlines.

    Args:
        png: The picture of ``box``.
        sample: At most ``HOVER_POINTS`` rows with map_x, map_y, mimic_score, caption.
        colouring: What the colours mean.
        outlines: Corners of the chosen regions, drawn on top.
    """
    figure = go.Figure()
    figure.add_layout_image(
        source="data:image/png;base64," + base64.b64encode(png).decode(),
        xref="x",
        yref="y",
        x=box.x0,
        y=box.y1,
        sizex=box.x1 - box.x0,
        sizey=box.y1 - box.y0,
        sizing="stretch",
        layer="below",
    )
    _add_hover(figure, sample, colouring)
    _add_legend(figure, colouring)
    for corners in outlines:
        path = "M" + "L".join(f"{x},{y}" for x, y in corners) + "Z"
        figure.add_shape(
            type="path",
            path=path,
            line={"color": theme.accent, "width": 2},
            fillcolor="rgba(0,0,0,0)",
        )
    figure.update_layout(dragmode="lasso")
    figure.update_xaxes(visible=False, range=[box.x0, box.x1], constrain="domain")
    figure.update_yaxes(visible=False, range=[box.y0, box.y1], scaleanchor="x", constrain="domain")
    return finish(figure, theme, height=MAP_HEIGHT)


def _add_hover(figure: go.Figure, sample: pl.DataFrame, colouring: Colouring) -> None:
    values = (
        sample[colouring.column].cast(pl.String) if len(sample) else pl.Series([], dtype=pl.String)
    )
    figure.add_scattergl(
        x=sample["map_x"].to_numpy(),
        y=sample["map_y"].to_numpy(),
        mode="markers",
        marker={"size": 8, "opacity": 0},
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        customdata=np.stack(
            [
                np.array([number(score) for score in sample["mimic_score"]], dtype=object),
                np.array([hover_text(value or "missing") for value in values], dtype=object),
                np.array([hover_text(text) for text in _texts(sample)], dtype=object),
            ],
            axis=1,
        )
        if len(sample)
        else None,
        hovertemplate="%{customdata[2]}<br>mimic score %{customdata[0]}<br>"
        f"{spoken(colouring.column)} %{{customdata[1]}}<extra></extra>",
        showlegend=False,
    )


def _texts(sample: pl.DataFrame) -> pl.Series:
    """Captions, or labels in their place."""
    labels = sample["label"] if "label" in sample.columns else pl.Series([None] * len(sample))
    return sample["caption"].fill_null(labels.cast(pl.String))


def hover_text(caption: str) -> str:
    """A caption made safe and short for a hover box, where plotly reads ``<`` as markup."""
    short = caption if len(caption) <= CAPTION_SHOWN else caption[: CAPTION_SHOWN - 1] + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _add_legend(figure: go.Figure, colouring: Colouring) -> None:
    if colouring.continuous:
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={
                "color": [colouring.low],
                "cmin": colouring.low,
                "cmax": colouring.high,
                "colorscale": list(colouring.scale),
                "showscale": True,
                "colorbar": {
                    "orientation": "h",
                    "thickness": 8,
                    "len": 0.7,
                    "y": 0,
                    "yanchor": "top",
                    "outlinewidth": 0,
                },
            },
            showlegend=False,
            hoverinfo="skip",
        )
        return
    for name, colour, count in colouring.legend:
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=f"{hover_text(name)} ({count:,})",
            marker={"color": colour, "size": 10},
            hoverinfo="skip",
        )


def segment_figure(segment: tuple[tuple[float, float], ...], theme: Theme) -> go.Figure:
    """Mean loss (in nats) on the way from the model (0) to the reference model (1)."""
    figure = go.Figure()
    figure.add_scatter(
        x=[position for position, _ in segment],
        y=[loss for _, loss in segment],
        mode="lines+markers",
        line={"color": theme.kept, "width": 2},
        marker={"size": 6},
        hovertemplate="position %{x:.2f}<br>mean loss %{y:.4g}<extra></extra>",
    )
    figure.update_xaxes(title="model → reference model", tickvals=[0, 0.5, 1])
    figure.update_yaxes(title="mean loss", rangemode="normal")
    return finish(figure, theme, height=230)


def finish(figure: go.Figure, theme: Theme, *, height: int) -> go.Figure:
    """What all figures share: no wasted margins, the theme's tones, a quiet legend."""
    figure.update_layout(
        height=height,
        margin={"l": 0, "r": 0, "t": 28, "b": 0, "pad": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": theme.ink, "size": 13},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.0,
            "xanchor": "left",
            "yanchor": "bottom",
            "itemclick": False,
            "itemdoubleclick": False,
        },
        newselection={"line": {"color": theme.accent, "width": 2, "dash": "solid"}},
        modebar={"bgcolor": "rgba(0,0,0,0)"},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(gridcolor=theme.grid, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=theme.grid, zeroline=False, automargin=True)
    return figure
