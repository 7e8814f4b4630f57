"""What the whole Dynamics page follows: the column shown, how the epochs vote, who that keeps."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import session
from app.dynamics_shown import Dynamics
from app.dynamics_state import SHOWS, Show
from app.text import count, plain, share, spoken
from mimic_core.ensembles.config import (
    Aggregation,
    AtLeast,
    Binarisation,
    EnsembleConfig,
    GaussianMixture,
    KMeans,
    LabelModel,
    Majority,
    MeanRank,
    Threshold,
    TopPercent,
    Unanimous,
)
from mimic_core.filters import EnsembleVote
from mimic_core.history import HISTORY_COLUMNS

ENSEMBLE_NAME = "ensemble"
_SHOWN: dict[Show, str] = {
    "mimic_score": "Score",
    "mimic_weight": "Weight",
    "loss": "Loss",
    "vote": "Votes",
}
_BINARISE = {
    "threshold": "weight of at least 1/B",
    "kmeans": "k-means, two clusters",
    "gmm": "two normal components",
    "top_percent": "the best per cent",
}
_AGGREGATE = {
    "majority": "majority",
    "at_least": "at least some votes",
    "unanimous": "unanimous",
    "mean_rank": "mean rank",
    "label_model": "label model",
}


def votes_bar(steps: int) -> None:
    """What is shown, and the menu of how the ``steps`` vote."""
    state = session.state().dynamics
    st.segmented_control(
        "Show",
        SHOWS,
        format_func=lambda show: _SHOWN[show],
        required=True,
        key=session.bind("dyn_show", state.show),
        on_change=lambda: session.change_dynamics(show=session.value("dyn_show")),
        label_visibility="collapsed",
    )
    label = state.ensemble.describe()
    with st.popover(plain(label[:1].upper() + label[1:]), icon=":material/how_to_vote:"):
        _binarisation(state.ensemble)
        _aggregation(state.ensemble, steps)


def _set(config: EnsembleConfig, **parts: Any) -> None:
    session.change_dynamics(ensemble=config.model_copy(update=parts), flips=None, page=1)


def _binarisation(config: EnsembleConfig) -> None:
    now = config.binarise

    def choose() -> None:
        column = "mimic_score" if isinstance(now, Threshold) else now.column
        shared = {"column": column, "scope": now.scope}
        made: dict[str, Binarisation] = {
            "threshold": Threshold(),
            "kmeans": KMeans.parse(shared),
            "gmm": GaussianMixture.parse(shared),
            "top_percent": TopPercent.parse({**shared, "percent": 30.0}),
        }
        _set(config, binarise=made[session.value("dyn_binarise")])

    st.selectbox(
        "Each epoch keeps",
        list(_BINARISE),
        format_func=lambda kind: _BINARISE[kind],
        key=session.bind("dyn_binarise", now.kind),
        on_change=choose,
    )
    if not isinstance(now, Threshold):
        _cutoff(config, now)


def _cutoff(config: EnsembleConfig, now: KMeans | GaussianMixture | TopPercent) -> None:
    """Which column is cut, and from the values of which epochs the cutoff comes."""

    def update(key: str, field: str) -> None:
        value = session.value(key)
        if value is not None:
            _set(config, binarise=type(now).parse({**now.model_dump(), field: value}))

    st.segmented_control(
        "Of the column",
        HISTORY_COLUMNS,
        format_func=spoken,
        required=True,
        key=session.bind("dyn_column", now.column),
        on_change=update,
        args=("dyn_column", "column"),
    )
    if isinstance(now, TopPercent):
        st.number_input(
            "Per cent",
            min_value=0.0,
            max_value=100.0,
            step=1.0,
            key=session.bind("dyn_percent", now.percent),
            on_change=update,
            args=("dyn_percent", "percent"),
        )
    st.segmented_control(
        "With a cutoff",
        ["epoch", "all"],
        format_func=lambda scope: {"epoch": "for each epoch", "all": "over all epochs"}[scope],
        required=True,
        key=session.bind("dyn_cutoff_scope", now.scope),
        on_change=update,
        args=("dyn_cutoff_scope", "scope"),
    )


def _aggregation(config: EnsembleConfig, steps: int) -> None:
    now = config.aggregate

    def choose() -> None:
        made: dict[str, Aggregation] = {
            "majority": Majority(),
            "at_least": AtLeast(votes=max(1, steps - 1)),
            "unanimous": Unanimous(),
            "mean_rank": MeanRank(),
            "label_model": LabelModel(),
        }
        _set(config, aggregate=made[session.value("dyn_aggregate")])

    def set_votes() -> None:
        votes = session.value("dyn_votes")
        if votes is not None:
            _set(config, aggregate=AtLeast(votes=votes))

    st.selectbox(
        "And the ensemble by",
        list(_AGGREGATE),
        format_func=lambda kind: _AGGREGATE[kind],
        key=session.bind("dyn_aggregate", now.kind),
        on_change=choose,
    )
    if isinstance(now, AtLeast):
        st.number_input(
            f"Votes of {steps}",
            min_value=1,
            max_value=max(steps, now.votes),
            step=1,
            key=session.bind("dyn_votes", now.votes),
            on_change=set_votes,
        )


def decision(view: Dynamics) -> None:
    """How many the ensemble keeps, and the button that makes that the selection."""
    kept, total = view.ensemble.kept, view.shown.total
    text = f"keeps **{count(kept)} of {count(total)}** ({share(kept, total)})"
    if view.truth is not None:
        noisy = view.shown.table[view.truth].fill_null(value=False).to_numpy()
        left = int((noisy & view.ensemble.keep).sum())
        text += f", among them {count(left)} of {count(int(noisy.sum()))} known noisy"
    st.markdown(text, width="content")
    config = view.state.ensemble
    condition = EnsembleVote(binarise=config.binarise, aggregate=config.aggregate)
    recipe = view.shown.recipe
    st.button(
        "Make it the selection",
        key="dyn_keep_ensemble",
        icon=":material/filter_alt:",
        type="tertiary",
        help="Adds the ensemble filter to the selection of all pages.",
        disabled=any(named.condition == condition for named in recipe.conditions),
        on_click=lambda: session.set_recipe(recipe.with_condition(ENSEMBLE_NAME, condition)),
    )
