"""The figures of Explore: histogram and cutoff, the map, the way to the reference model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import polars as pl

from app.choices.box import Box
from app.drawing.colours import Colouring, Theme
from app.drawing.figures import (
    add_scale,
    answer_mouse,
    finish,
    hover_text,
    mark_cutoff,
    put_behind,
)
from app.text import number, spoken
from mimic_core.base.schema import named

HISTOGRAM_BINS = 80
SEVERAL = "several values"  # of samples that share a point of the map
HISTOGRAM_HEIGHT, MAP_HEIGHT = 300, 380  # pixels; the inputs below the histogram make up for it


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
        title=hover_text(spoken(column)), range=[float(edges[0]), float(edges[-1])], showgrid=False
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
            mark_cutoff(figure, value, theme, at=f"top {side}")


def map_figure(
    picture: str,
    *,
    box: Box,
    sample: pl.DataFrame,
    colouring: Colouring,
    outlines: Sequence[Sequence[tuple[float, float]]],
    theme: Theme,
) -> go.Figure:
    """The map: a picture of all points, a few invisible marks for the mouse, regions as outlines.

    Args:
        picture: Address of the picture of ``box``.
        sample: At most ``HOVER_POINTS`` rows with map_x, map_y, mimic_score, caption.
        colouring: What the colours mean.
        outlines: Corners of the chosen regions, drawn on top.
    """
    figure = go.Figure()
    put_behind(figure, picture, x=(box.x0, box.x1), y=(box.y0, box.y1))
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
    values = sample[colouring.column].cast(pl.String) if len(sample) else pl.Series()
    said = [
        [number(score) for score in sample["mimic_score"]],
        [hover_text(value or "missing") for value in values],
        [hover_text(text) for text in hover_captions(sample)],
    ]
    answer_mouse(
        figure,
        sample["map_x"].to_numpy(),
        sample["map_y"].to_numpy(),
        np.array(said, dtype=object).T if len(sample) else None,
        "%{customdata[2]}<br>mimic score %{customdata[0]}<br>"
        f"{hover_text(spoken(colouring.column))} %{{customdata[1]}}",
    )


def points(frame: pl.DataFrame, rows: np.ndarray) -> pl.DataFrame:
    """The points of the map at ``rows`` (K,), one row each, in their order.

    Where several samples share a point its caption (or label) is the first one's and says so;
    numbers are means, and other values are named where all agree.

    Args:
        frame: map_x, map_y, mimic_score, caption, label and perhaps another column.
    """
    place = ["map_x", "map_y"]
    at = frame[rows].select(place).unique(maintain_order=True)
    here = frame.join(at, on=place, how="semi", maintain_order="left")
    if len(here) == len(at):
        return frame[rows]
    said = pl.format("{} samples, values are their means: ", pl.len())
    shown = []
    for name in frame.columns:
        one = named(name)
        if name in ("caption", "label"):
            shared = pl.concat_str(said, one.first().cast(pl.String))
            shown.append(pl.when(pl.len() > 1).then(shared).otherwise(one.first().cast(pl.String)))
        elif name not in place and frame.schema[name].is_numeric():
            shown.append(one.mean())
        elif name not in place:
            text = one.cast(pl.String)
            shown.append(
                pl.when(text.n_unique() == 1).then(text.first()).otherwise(pl.lit(SEVERAL))
            )
    found = here.group_by(place, maintain_order=True).agg(
        one.alias(name)
        for one, name in zip(shown, [n for n in frame.columns if n not in place], strict=True)
    )
    return found.select(map(named, frame.columns))


def hover_captions(sample: pl.DataFrame) -> pl.Series:
    """Captions, or labels in their place."""
    labels = sample["label"] if "label" in sample.columns else pl.Series([None] * len(sample))
    return sample["caption"].fill_null(labels.cast(pl.String))


def _add_legend(figure: go.Figure, colouring: Colouring) -> None:
    if colouring.continuous:
        add_scale(figure, (colouring.low, colouring.high), colouring.scale, y=0, yanchor="top")
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
