"""What the whole Dynamics page follows: the column shown, how the epochs vote, who that keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from app.components.shared.choosers import segments
from app.components.shared.ensemble_form import ensemble_controls
from app.shown import Dynamics
from app.state import session
from app.state.dynamics import DynamicsState, Show
from app.text import count, plain, share
from mimic_core.base.errors import MimicError
from mimic_core.filters.conditions import EnsembleVote
from mimic_core.filters.ensembles.config import TopPercent
from mimic_core.stats.retention import quality_estimate

ENSEMBLE_NAME = "ensemble"
_SHOWN: dict[Show, str] = {
    "mimic_score": "Score",
    "mimic_weight": "Weight",
    "loss": "Loss",
    "vote": "Votes",
}


def votes_bar(steps: int) -> None:
    """What is shown, and the menu of how the ``steps`` vote."""
    state = session.state().dynamics
    segments(
        "Show",
        _SHOWN,
        key="dyn_show",
        value=state.show,
        change=lambda: session.change_dynamics(show=session.value("dyn_show")),
    )
    label = state.ensemble.describe()
    with st.popover(plain(label[:1].upper() + label[1:]), icon=":material/how_to_vote:"):
        ensemble_controls(state.voting, _put, steps=steps, confidence=False)
        _unfinished(state)


def _put(**fields: Any) -> None:
    """Change the menu; the page follows as soon as what the menu says is an ensemble."""
    form = replace(session.state().dynamics.voting, **fields)
    session.change_dynamics(voting=form)
    try:
        config = form.ensemble_config()
    except MimicError:
        return  # ``_unfinished`` says so below the controls
    session.change_dynamics(ensemble=config, flips=None, page=1)


def _unfinished(state: DynamicsState) -> None:
    """Say what the menu still lacks, and that the page shows the votes of before."""
    try:
        state.voting.ensemble_config()
    except MimicError as error:
        now = plain(state.ensemble.describe())
        st.caption(f":material/info: Until then {now}: {plain(error.next_step)}.")


def _interval(view: Dynamics) -> str:
    """The interval of the kept share, an estimate of the pool's quality; empty where the share is
    the binarisation's own setting.
    """
    if isinstance(view.state.ensemble.binarise, TopPercent):
        return ""
    found = quality_estimate(view.ensemble.kept, view.history.samples)
    return f", 95 % interval {100 * found.low:.1f} to {100 * found.high:.1f} %"


def decision(view: Dynamics) -> None:
    """How many the ensemble keeps, and the button that makes that the selection."""
    kept, total = view.ensemble.kept, view.history.samples
    text = f"keeps **{count(kept)} of {count(total)}** ({share(kept, total)}{_interval(view)})"
    noisy = view.noisy
    if noisy is not None:
        left = int((noisy & view.ensemble.keep).sum())
        text += f", among them {count(left)} of {count(int(noisy.sum()))} known noisy"
    st.markdown(text, width="content")
    config = view.state.ensemble
    condition = EnsembleVote(binarise=config.binarise, aggregate=config.aggregate)
    recipe = view.shown.recipe
    st.button(
        "Add to the selection",
        key="dyn_keep_ensemble",
        icon=":material/filter_alt:",
        type="tertiary",
        help="Keeps of the selection of all pages only what this ensemble keeps too.",
        disabled=any(named.condition == condition for named in recipe.conditions),
        on_click=lambda: session.set_recipe(recipe.with_condition(ENSEMBLE_NAME, condition)),
    )
