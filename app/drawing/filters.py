"""The retention curve of the Filters page, as a plotly figure without streamlit."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from app.drawing.colours import OKABE_ITO, Theme
from app.drawing.figures import finish, hover_text, mark_cutoff
from app.text import spoken
from mimic_core.stats.retention import RetentionCurve

CURVE_HEIGHT = 250


def retention_figure(
    curve: RetentionCurve,
    *,
    column: str,
    marks: list[float],
    kept: float,
    theme: Theme,
) -> go.Figure:
    """Share retained by every cutoff, and how well the rest is noise, where that is known.

    Args:
        curve: The curve.
        column: Name under the axis.
        marks: Cutoffs that the recipe has on this column.
        kept: Share that the whole recipe keeps.
    """
    figure = go.Figure()
    lines: list[tuple[str, np.ndarray, str, str]] = [
        ("retained", curve.retained, theme.kept, "solid")
    ]
    if curve.precision is not None and curve.recall is not None:
        lines += [
            ("precision of the drop", curve.precision, OKABE_ITO[1], "dash"),
            ("recall of the drop", curve.recall, OKABE_ITO[2], "dot"),
        ]
    for name, values, colour, dash in lines:
        figure.add_scatter(
            x=curve.cutoffs,
            y=[None if np.isnan(value) else float(value) for value in values],
            name=name,
            mode="lines",
            line={"color": colour, "width": 2.5 if dash == "solid" else 2, "dash": dash},
            hovertemplate=f"{name} %{{y:.1%}}<extra></extra>",
        )
    figure.add_hline(
        y=kept,
        line={"color": theme.faint, "width": 1, "dash": "dot"},
        annotation={
            "text": f"this recipe {100 * kept:.1f} %",
            "font": {"color": theme.faint, "size": 12},
        },
        annotation_position="top right",
    )
    for mark in marks:
        mark_cutoff(figure, mark, theme, at="bottom right")
    side = "from" if curve.keep == "high" else "up to"
    figure.update_xaxes(title=f"kept {side} this {hover_text(spoken(column))}", showgrid=False)
    figure.update_yaxes(range=[0, 1.04], tickformat=".0%", fixedrange=True)
    figure.update_layout(hovermode="x unified")
    return finish(figure, theme, height=CURVE_HEIGHT)
