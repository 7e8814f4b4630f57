"""What the figures of all pages share: tones and margins, hover boxes, pictures behind the marks.

Nothing in this folder knows of streamlit, and no figure grows with the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.drawing.colours import Theme

HOVER_POINTS = 4000  # invisible marks that answer the mouse; a picture shows everyone
CAPTION_SHOWN = 90  # characters of a caption in a hover box


_ENTITIES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "%": "&#37;", "$": "&#36;", "\n": " "}
)


def hover_text(caption: str) -> str:
    """Foreign text made safe and short for a figure.

    Plotly reads ``<`` as markup, ``%{`` as a value of the data and ``$`` as LaTeX.
    """
    return shortened(caption).translate(_ENTITIES)


def shortened(caption: str) -> str:
    """A caption that fits into a hover box."""
    return caption if len(caption) <= CAPTION_SHOWN else caption[: CAPTION_SHOWN - 1] + "…"


def put_behind(
    figure: go.Figure, source: str, *, x: tuple[float, float], y: tuple[float, float]
) -> None:
    """Lay the picture at an address behind the marks, from left to right and bottom to top."""
    figure.add_layout_image(
        source=source,
        xref="x",
        yref="y",
        x=x[0],
        y=y[1],
        sizex=x[1] - x[0],
        sizey=abs(y[1] - y[0]),
        sizing="stretch",
        layer="below",
    )


def answer_mouse(
    figure: go.Figure, x: np.ndarray, y: np.ndarray, texts: np.ndarray | None, template: str
) -> None:
    """Invisible marks whose hover boxes say ``texts`` (K, n) by ``template``."""
    figure.add_scattergl(
        x=x,
        y=y,
        mode="markers",
        marker={"size": 8, "opacity": 0},
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        customdata=texts,
        hovertemplate=template + "<extra></extra>",
        showlegend=False,
    )


def add_scale(
    figure: go.Figure,
    ends: tuple[float | None, float | None],
    colours: Sequence[str],
    **place: Any,
) -> None:
    """A horizontal colour scale between two values; ``place`` are settings of plotly's bar."""
    bar = {"orientation": "h", "thickness": 8, "len": 0.7, "outlinewidth": 0, **place}
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={
            "color": [ends[0]],
            "cmin": ends[0],
            "cmax": ends[1],
            "colorscale": list(colours),
            "showscale": True,
            "colorbar": bar,
        },
        showlegend=False,
        hoverinfo="skip",
    )


def mark_cutoff(figure: go.Figure, value: float, theme: Theme, *, at: str) -> None:
    """An upright line at a cutoff, its value beside it: ``at`` such as ``top right``."""
    figure.add_vline(
        x=value,
        line={"color": theme.accent, "width": 2},
        annotation={
            "text": f"{value:.4g}",
            "font": {"color": theme.accent},
            "bgcolor": theme.surface,
        },
        annotation_position=at,
    )


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
