"""What the app remembers for one browser tab. The only module that touches ``st.session_state``.

All of it is one frozen ``AppState``; widgets are shown from it and write back to it, so that a
page switch, which drops the state of widgets it does not show, loses nothing. The run and the
selection are also in the address (``?run=``, ``&select=``), because a refresh drops the session;
so the browser's back button undoes a selection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import streamlit as st

from app.choices.box import Box
from app.choices.ranking import GalleryMode, GalleryOrder
from app.state import address
from app.state.dynamics import DynamicsState
from app.state.filters import FiltersState
from app.state.prove import ProveForm
from mimic_core.base.config import ProbeConfig
from mimic_core.base.errors import FilterError
from mimic_core.filters.recipe import Recipe
from mimic_core.stats.cutoffs import Keep

HISTORY_LENGTH = 50
_STATE = "mimicscope"
_RUN, _SELECT, _CHARTS = "run", "select", "charts"  # parameters of the address


@dataclass(frozen=True, slots=True)
class AppState:
    """The state of one tab.

    Attributes:
        run_id: The run that the pages show.
        recipe: The selection of all views.
        past: Recipes that undo goes back to, oldest first.
        column: Number column of the histogram and the gallery.
        colour: Column that colours the map.
        gallery: What the gallery shows, on its page ``page``.
        first: Which end comes first in it, where that can be chosen.
        keep: The side that the next cutoff keeps.
        lasso: What the next lasso does with the samples inside.
        near: Value of the cutoff while it is in the hand, which the gallery around it follows.
        zoom: Visible part of the map; None is all of it.
        plain: Whether plotly draws the charts, which then follow a cutoff only when it is released.
        opened: uid of the sample shown whole.
        tuned: Probe settings in place of the run's own, until they are reset or saved.
        asked: Probe settings as the controls say, until they are applied.
        watched: The job that the tab waits for.
        upload: Id of the pool last uploaded, and where it was stored.
        loaded: Id of the recipe file last applied.
        dynamics: What the Dynamics page remembers of itself.
        filters: What the Filters page remembers of itself.
        proving: What the Prove page compares, and with which settings.
    """

    run_id: str | None = None
    recipe: Recipe = Recipe()
    past: tuple[Recipe, ...] = ()
    column: str = "mimic_score"
    colour: str = "mimic_score"
    gallery: GalleryMode = "lowest"
    first: GalleryOrder = "highest"
    page: int = 1
    keep: Keep = "high"
    lasso: Literal["keep", "drop"] = "keep"
    near: float | None = None
    zoom: Box | None = None
    plain: bool = False
    opened: str | None = None
    tuned: ProbeConfig | None = None
    asked: ProbeConfig | None = None
    watched: str | None = None
    upload: tuple[str, str] | None = None
    loaded: str | None = None
    dynamics: DynamicsState = field(default_factory=DynamicsState)
    filters: FiltersState = field(default_factory=FiltersState)
    proving: ProveForm = ProveForm()


def state() -> AppState:
    """The state as it is now; a new tab starts with the run that its address names."""
    if _STATE not in st.session_state:
        plain = st.query_params.get(_CHARTS) == "plain"
        st.session_state[_STATE] = AppState(run_id=st.query_params.get(_RUN), plain=plain)
    current: AppState = st.session_state[_STATE]
    return current


def change(**changes: Any) -> None:
    """Replace parts of the state."""
    st.session_state[_STATE] = replace(state(), **changes)


def change_filters(**changes: Any) -> None:
    """Replace parts of the Filters page's state."""
    change(filters=replace(state().filters, **changes))


def change_dynamics(**changes: Any) -> None:
    """Replace parts of the Dynamics page's state."""
    change(dynamics=replace(state().dynamics, **changes))


def choose_run(run_id: str | None) -> None:
    """Look at another run: what belonged to the last one is forgotten."""
    if run_id != state().run_id:
        kept = ProveForm(compared=state().proving.compared)  # recipes may fit other runs too
        st.session_state[_STATE] = AppState(
            run_id=run_id, upload=state().upload, proving=kept, plain=state().plain
        )


def go_on_with(run_id: str) -> None:
    """Look at a run of the same pool with the same selection, such as the tuned one once saved."""
    change(run_id=run_id, tuned=None, asked=None, opened=None, watched=None, page=1)


def follow_address() -> None:
    """Take run and selection from the address: in a new tab, and where the browser's back and
    forward buttons lead.

    Raises:
        FilterError: The selection in the address is damaged; it is taken out of the address.
    """
    context = st.runtime.scriptrunner.get_script_run_ctx()
    went_back = context is not None and context.is_history_navigation
    # An address without a run is one that a page switch has emptied.
    if _STATE in st.session_state and not (went_back and _RUN in st.query_params):
        return
    choose_run(st.query_params.get(_RUN))
    try:
        set_recipe(address.unpack(st.query_params.get(_SELECT, "")))
    except FilterError:
        st.query_params.pop(_SELECT)  # so that the error is shown once
        raise


def keep_in_address() -> bool:
    """Write run and selection into the address, from which a page switch has taken them.

    Returns:
        Whether the whole selection is there: one too long for an address lives in the tab alone.
    """
    current = state()
    selected = address.pack(current.recipe) if current.run_id else ""
    for name, value in ((_RUN, current.run_id or ""), (_SELECT, selected)):
        if not value:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != value:
            st.query_params[name] = value
    return bool(selected) or not current.recipe.conditions


def set_recipe(recipe: Recipe) -> None:
    """Select by another recipe; the present one can be had back with ``undo``."""
    current = state()
    if recipe != current.recipe:
        past = (*current.past, current.recipe)[-HISTORY_LENGTH:]
        change(recipe=recipe, past=past, page=1, near=None)


def undo() -> None:
    """Go back to the recipe before the last change."""
    current = state()
    if current.past:
        change(recipe=current.past[-1], past=current.past[:-1], page=1, near=None)


def tune(asked: ProbeConfig, own: ProbeConfig) -> None:
    """Score with other probe settings; the run's ``own`` ones end the tuned state."""
    change(tuned=None if asked == own else asked, asked=None, page=1)


def untune() -> None:
    """Go back to the scores of the run."""
    change(tuned=None, asked=None, page=1)


def set_proving(**changes: Any) -> None:
    """Replace parts of what the Prove page compares."""
    change(proving=replace(state().proving, **changes))


def bind(key: str, value: Any) -> str:
    """Make the widget of that key show ``value``, whatever it showed before; returns the key."""
    st.session_state[key] = value
    return key


def value(key: str) -> Any:
    """What the widget of that key holds now."""
    return st.session_state.get(key)


def binder(key: str, field: str, **also: Any) -> Callable[[], None]:
    """A callback that stores the value of widget ``key`` in ``field`` of the state."""

    def store() -> None:
        change(**{field: value(key), **also})

    return store
