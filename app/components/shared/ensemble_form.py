"""The controls of an ensemble filter: how every epoch votes, how the votes are put together."""

from __future__ import annotations

import streamlit as st

from app.choices.leafform import LeafForm, votes_by
from app.components.shared.controls import Put, bound
from app.state import session
from app.text import count, spoken

_BINARISATIONS = {
    "kmeans": "k-means",
    "gmm": "two normal components",
    "threshold": "fixed cutoff",
    "top_percent": "top percent",
}
_AGGREGATIONS = {
    "majority": "majority",
    "at_least": "at least so many votes",
    "unanimous": "unanimous",
    "mean_rank": "mean rank",
    "label_model": "label model",
}
_SCOPES = {"epoch": "each epoch by itself", "all": "all epochs together"}


def ensemble_controls(form: LeafForm, put: Put, *, steps: int, confidence: bool = True) -> None:
    """The votes of the epochs, and what is made of them; ``confidence`` may be asked for too."""
    how, score = st.columns(2)
    how.selectbox(
        "Each epoch votes by",
        list(_BINARISATIONS),
        format_func=lambda name: _BINARISATIONS[name],
        help="k-means: the better of two clusters. Two normal components: the likelier one. "
        "Fixed cutoff: 1/B of the mimic weight, or any value. Top percent: the best share.",
        key=session.bind("leaf_binarise", form.binarise),
        on_change=lambda: put(**votes_by(form, session.value("leaf_binarise"))),
    )
    score.selectbox(
        "On",
        ["mimic_score", "mimic_weight", "loss"],
        format_func=spoken,
        **bound("score", form.score, put),
    )
    _vote_settings(form, put)
    _together(form, put, steps)
    if confidence:
        _confidence(form, put)


def _vote_settings(form: LeafForm, put: Put) -> None:
    left, right = st.columns(2)
    if form.binarise == "threshold":
        left.number_input(
            "Cutoff",
            value=None,
            step=0.01,
            format="%.5g",
            placeholder="1/B" if form.score == "mimic_weight" else "none yet",
            **bound("value", form.value, put, optional=True),
        )
        if form.score == "mimic_weight":
            right.number_input(
                "Or times 1/B",
                min_value=0.0,
                step=0.1,
                format="%.4g",
                disabled=form.value is not None,
                help="1/B, one over the batch size, is the neutral mimic weight.",
                **bound("factor", form.factor, put),
            )
        return
    left.selectbox(
        "Cutoff from",
        list(_SCOPES),
        format_func=lambda name: _SCOPES[name],
        **bound("scope", form.scope, put),
    )
    if form.binarise == "top_percent":
        right.number_input(
            "Percent",
            min_value=0.0,
            max_value=100.0,
            step=1.0,
            format="%.4g",
            **bound("top_percent", form.top_percent, put),
        )


def _together(form: LeafForm, put: Put, steps: int) -> None:
    together, *votes = st.columns([3, 2] if form.aggregate == "at_least" else 1)
    together.selectbox(
        "Votes are put together by",
        list(_AGGREGATIONS),
        format_func=lambda name: _AGGREGATIONS[name],
        help="Label model: weighs the epochs by how reliable their votes show them to be; "
        "it needs at least three.",
        **bound("aggregate", form.aggregate, put),
    )
    for place in votes:
        place.number_input(
            f"Votes of {count(steps)}", min_value=1, step=1, **bound("votes", form.votes, put)
        )


def _confidence(form: LeafForm, put: Put) -> None:
    st.number_input(
        "Confidence from",
        min_value=0.0,
        max_value=1.0,
        value=None,
        step=0.05,
        format="%.3g",
        placeholder="any",
        help="Asked for on top of the vote; it never keeps what the vote drops.",
        **bound("min_confidence", form.min_confidence, put, optional=True),
    )
