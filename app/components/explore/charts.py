"""The live charts: what the browser redraws at every move of the hand, and tells when it rests.

They are drawn by our own scripts on a canvas. Where scripts of components do not run, the charts
of plotly take their place (``AppState.plain``): the same cutoffs, after each release.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import streamlit as st

from app.cache import live, tables
from app.choices import selecting
from app.choices.box import Box
from app.choices.selecting import Band, Corner
from app.drawing.colours import Colouring, Theme
from app.drawing.explore import HISTOGRAM_HEIGHT, MAP_HEIGHT
from app.shown import Shown, scope_of
from app.state import session
from app.text import spoken

_HERE = Path(__file__).parent
_FALLBACK = (
    '<div class="fallback">This chart needs scripts of components, which did not start here: '
    '<a href="?charts=plain">use plain charts</a>.</div>'
)


def _component(name: str) -> Any:
    scripts = [(_HERE / file).read_text(encoding="utf-8") for file in ("charts.js", f"{name}.js")]
    return st.components.v2.component(
        f"mimicscope_{name}",
        html=f'<div class="chart {name}" role="group">{_FALLBACK}</div>',
        css=(_HERE / "charts.css").read_text(encoding="utf-8"),
        js="\n".join(scripts),
    )


_histogram = _component("histogram")
_map = _component("map")


def _tones(theme: Theme) -> dict[str, Any]:
    return asdict(theme)


def _ends(band: Band) -> list[float | None]:
    return [None if end is None else end.score for end in (band.low, band.high)]


def live_histogram(
    shown: Shown,
    column: str,
    band: Band,
    *,
    others: str,
    theme: Theme,
    on_span: Callable[[float | None, float | None], None],
) -> None:
    """The histogram of ``column`` with its cutoff ``band``.

    Args:
        others: The recipe without that cutoff, as YAML.
        on_span: Called with both ends, None for an open one, when the hand has let go.
    """
    exact: dict[str, int] = {"kept": shown.kept}
    if shown.noisy is not None:
        exact["noisy_kept"] = int((shown.noisy & shown.selected).sum())

    def told() -> None:
        span = session.value("live_histogram").span
        if span is not None:
            on_span(*span)

    _histogram(
        data={
            "packed": live.histogram_address(shown.key, column, others, shown.truth),
            "scope": scope_of(shown),
            "column": column,
            "title": spoken(column),
            "span": _ends(band),
            "exact": exact,
            "height": HISTOGRAM_HEIGHT,
            "tones": _tones(theme),
        },
        key="live_histogram",
        on_span_change=told,
    )


def live_map(
    shown: Shown,
    box: Box,
    *,
    cut: tuple[str, Band, str],
    colouring: Colouring,
    outlines: Sequence[Sequence[Corner]],
    theme: Theme,
    on_region: Callable[[list[Corner]], None],
    on_view: Callable[[Box], None],
    on_category: Callable[[Any], None],
) -> None:
    """The map inside ``box``.

    Args:
        cut: The column whose cutoff it follows, that cutoff, and the recipe without it.
        colouring: What its colours mean.
        outlines: Corners of the chosen regions.
        on_region: Called with the corners of a lasso or box.
        on_view: Called with the part that was zoomed or moved to.
        on_category: Called with a value of the colours' column that was clicked in the legend.
    """
    column, band, others = cut
    values = _values_by_name(shown, colouring)

    def region() -> None:
        drawn = session.value("live_map").region
        if drawn is not None:
            on_region([(float(x), float(y)) for x, y in drawn])

    def view() -> None:
        seen = session.value("live_map").view
        if seen is not None:
            on_view(Box(*map(float, seen)))

    def category() -> None:
        name = session.value("live_map").category
        if name in values:
            on_category(values[name])

    _map(
        data={
            "packed": live.map_address(
                shown.key,
                cut=column,
                others=others,
                colour=colouring.column,
                box=box,
                dark=theme.dark,
            ),
            "hover": live.hover_address(shown.key, colouring, box),
            "scope": scope_of(shown),
            "column": column,
            "span": _ends(band),
            "height": MAP_HEIGHT,
            "outlines": [[list(corner) for corner in corners] for corners in outlines],
            "legend": {
                "scale": list(colouring.scale),
                "low": colouring.low,
                "high": colouring.high,
                "title": spoken(colouring.column),
                "entries": [
                    [name, colour, count, name if name in values else None]
                    for name, colour, count in colouring.legend
                ],
            },
            "tones": _tones(theme),
        },
        key="live_map",
        on_region_change=region,
        on_view_change=view,
        on_category_change=category,
    )


def _values_by_name(shown: Shown, colouring: Colouring) -> dict[str, Any]:
    """The values of the colours' column by their names in the legend; none for numbers."""
    if colouring.continuous or colouring.column not in tables.categories(shown.key):
        return {}
    values = tables.category_values(shown.key, colouring.column)
    return dict(zip(pl.Series(values).cast(pl.String), values, strict=True))


def cutoff_context(shown: Shown) -> tuple[str, Band, str]:
    """The column shown, its cutoff, and the recipe without it, as YAML."""
    column = session.state().column
    values = tables.sorted_values(shown.key, column)
    band = selecting.band(selecting.cutoff_of(shown.recipe, column), values)
    return column, band, selecting.without_cutoff(shown.recipe, column).to_yaml()
