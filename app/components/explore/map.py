"""The map: a picture from the server, a lasso that becomes a condition, zoom to the selection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from app.cache import tables
from app.cache.served import png_address
from app.choices import selecting
from app.choices.box import Box, box_around
from app.choices.lasso import simplified
from app.choices.selecting import Corner
from app.components.explore.charts import cutoff_context, live_map
from app.components.shared.choosers import column_box, drags, segments, zoom_buttons
from app.components.shared.controls import command_code
from app.components.shared.errors import empty_state
from app.components.shared.jobs import watch, watched_job, watching
from app.components.shared.panels import panel
from app.components.shared.shell import theme
from app.drawing import explore
from app.library import BUNDLED_ROOT, tidy_path
from app.shown import Shown
from app.state import session
from mimic_core.cli.commands import written
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.store import JOBS_FILE, JobStore
from mimic_core.jobs.worker import start_job

_KEY = "map"


@panel
def map_panel(shown: Shown) -> None:
    """Colour, lasso and zoom, or how to make the map where there is none."""
    if not shown.has_map:
        _no_map(shown)
        return
    _controls(shown)
    state = session.state()
    colour = state.colour if state.colour in shown.table.columns else "mimic_score"
    if not state.plain:
        _live(shown, colour)
    else:
        _plain(shown, colour)
    if images := tables.map_images(shown.key):
        st.caption(
            f"{images:,} images: a point stands for all samples of its image, in their mean "
            "colour; a lasso takes them all."
        )


def _plain(shown: Shown, colour: str) -> None:
    state, tones = session.state(), theme()
    png, box = tables.map_picture(
        shown.key, shown.recipe_yaml, column=colour, zoom=state.zoom, dark=tones.dark
    )
    figure = explore.map_figure(
        png_address(png),
        box=box,
        sample=tables.hover_sample(shown.key, colour, box),
        colouring=tables.colouring(shown.key, colour, dark=tones.dark),
        outlines=selecting.regions(shown.recipe),
        theme=tones,
    )
    st.plotly_chart(
        figure,
        key=_KEY,
        on_select=_lassoed(box),
        selection_mode=("lasso", "box"),
        config={
            "displaylogo": False,
            "scrollZoom": False,
            "doubleClick": False,
            "modeBarButtons": [["lasso2d", "select2d"]],
        },
        alt=f"Map of {shown.total} samples coloured by {colour}",
    )


def _live(shown: Shown, colour: str) -> None:
    state, tones = session.state(), theme()
    whole = tables.whole_map(shown.key)
    box = state.zoom or whole
    live_map(
        shown,
        box,
        cut=cutoff_context(shown),
        colouring=tables.colouring(shown.key, colour, dark=tones.dark),
        outlines=selecting.regions(shown.recipe),
        theme=tones,
        on_region=lambda drawn: _choose(drawn, box),
        on_view=lambda seen: session.change(zoom=seen),
        on_category=lambda value: session.set_recipe(
            selecting.toggle_category(session.state().recipe, colour, value=value)
        ),
    )


def _choose(drawn: list[Corner], box: Box) -> None:
    """Make the region that was drawn on that part of the map a condition."""
    current = session.state()
    change = selecting.keep_region if current.lasso == "keep" else selecting.drop_region
    session.set_recipe(change(current.recipe, simplified(drawn, box)))


def _controls(shown: Shown) -> None:
    state = session.state()
    with st.container(horizontal=True, vertical_alignment="center"):
        options = [*tables.numbers(shown.key), *tables.categories(shown.key)]
        column_box(
            "Colour by",
            options,
            key="colour",
            value=state.colour if state.colour in options else options[0],
            change=session.binder("colour", "colour"),
            hint="Colour of the points",
        )
        segments(
            "Lasso",
            {"keep": "Lasso keeps", "drop": "Lasso drops"},
            key="lasso",
            value=state.lasso,
            change=session.binder("lasso", "lasso"),
        )
        st.space("stretch")
        zoom_buttons(
            "",
            lambda out=False: session.change(zoom=None if out else _box_of_selection(shown)),
            zoomed=state.zoom is not None,
            possible=shown.kept > 0,
            words=("selection", "the whole map"),
        )


def _box_of_selection(shown: Shown) -> Box:
    x, y = shown.table["map_x"].to_numpy(), shown.table["map_y"].to_numpy()
    return box_around(x[shown.selected], y[shown.selected])


def _lassoed(box: Box) -> Callable[[], None]:
    """Turn the newest lasso or box, drawn on that part of the map, into a condition."""

    def store() -> None:
        drawn = corners(session.value(_KEY))
        if drawn:
            _choose(drawn, box)

    return store


def corners(event: Any) -> list[Corner]:
    """Corners of the lasso or box of a chart's event; none where nothing was drawn."""
    if lassos := drags(event, "lasso"):
        drawn = list(zip(lassos[-1]["x"], lassos[-1]["y"], strict=True))
        return drawn if len(drawn) > 2 else []  # a click is no region
    if boxes := drags(event, "box"):
        (x0, x1), (y0, y1) = boxes[-1]["x"], boxes[-1]["y"]
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    return []


def _no_map(shown: Shown) -> None:
    run = shown.run
    empty_state(
        "No map yet",
        "The map is a 2-D picture of the pool. It is made once and shared by all runs of the pool.",
        icon=":material/scatter_plot:",
    )
    root = run.path.parent
    store = JobStore(root / JOBS_FILE)
    if root.resolve() != BUNDLED_ROOT:
        watched_job(store)
        if watching(store) is None and st.button(
            "Make the map", key="make_map", type="primary", icon=":material/play_arrow:"
        ):
            options = JobOptions(map_of=str(run.path.resolve()))
            watch(start_job(store, run.record.config, options))
            st.rerun()
    st.caption("Or on the command line:")
    command_code(written(["layout", run.id, "--out", tidy_path(root)]))
