"""Over the whole pool: the distribution of each epoch, and how often votes changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from app.cache import dynamics as cache_dynamics
from app.components.shared.shell import theme
from app.drawing import dynamics as figures_dynamics
from app.drawing import history
from app.drawing.history import Ridge
from app.shown import Dynamics
from app.state import session
from app.state.dynamics import measured
from app.text import count, plain, share, spoken
from mimic_core.stats import dynamics, histograms
from mimic_core.stats.dynamics import StepHistograms

_FLIPS_KEY = "dyn_flips"
_FLIPS_BINS = 24


def distributions(view: Dynamics) -> None:
    """A distribution per epoch, of known clean and known noisy samples where truth is there."""
    key, tones = view.shown.key, theme()
    column = measured(view.state.show, view.state.ensemble)
    log = cache_dynamics.logarithmic(key, column)
    groups: list[tuple[str, str | None, bool, str]] = [("all samples", None, False, tones.kept)]
    if view.shown.truth is not None:
        groups = [
            ("clean", view.shown.truth, False, tones.kept),
            ("known noisy", view.shown.truth, True, tones.accent),
        ]
    found = [
        (name, colour, cache_dynamics.histograms(key, column, truth=truth, noisy=noisy))
        for name, truth, noisy, colour in groups
    ]
    votes = column == view.state.ensemble.binarise.column
    steps = history.shown_steps(view.history.steps)
    figure = history.ridges_figure(
        found[0][2].edges,
        [
            Ridge(
                f"{name} {count(int(one.totals[0]))}",
                dynamics.densities(one, logarithmic=log),
                colour,
            )
            for name, colour, one in found
            if one.totals[0]
        ],
        steps=steps,
        labels=view.labels,
        column=column,
        logarithmic=log,
        cutoffs=view.ensemble.cutoffs if votes else None,
        neutral=1 / view.history.batch_size if column == "mimic_weight" else None,
        theme=tones,
    )
    some = "" if len(steps) == view.history.steps else f", {len(steps)} of {view.history.steps}"
    st.markdown(
        f"**{plain(spoken(column).capitalize())} of each {view.unit}**{some}",
        help=_distribution_help(view, [one for _, _, one in found], votes=votes, log=log),
    )
    st.plotly_chart(
        figure,
        key="dyn_ridges",
        config={"displayModeBar": False},
        alt=f"Densities of the {spoken(column)} of each {view.unit}",
    )


def _distribution_help(
    view: Dynamics, groups: list[StepHistograms], *, votes: bool, log: bool
) -> str:
    text = f"Densities, the first {view.unit} on top."
    if log:
        text += " Powers of ten."
    if votes:
        text += f" The upright line in each is the cutoff of its votes: {_rule(view)}."
    else:
        cut = spoken(view.state.ensemble.binarise.column)
        text += f" The votes are cut in another column, {cut}."
    outside = sum(int((one.below + one.above).sum()) for one in groups)
    if outside:
        total = view.history.steps * view.history.samples
        text += f" {count(outside)} of {count(total)} values lie beyond the ends of the axis."
    return plain(text)


def _rule(view: Dynamics) -> str:
    return view.state.ensemble.binarise.describe()


def flips(view: Dynamics) -> None:
    """Bars of how many samples changed their vote how often; a click shows them."""
    changes = cache_dynamics.flips(view.shown.key, view.state.ensemble)
    counted = histograms.histogram(changes, _FLIPS_BINS)
    noisy = None
    if view.noisy is not None:
        noisy = np.histogram(changes[view.noisy], counted.edges)[0]
    spans = figures_dynamics.flip_spans(counted.edges)
    moved = int((changes > 0).sum())
    st.markdown(
        f"**Votes changed** by {count(moved)} of {count(view.history.samples)} samples "
        f"({share(moved, view.history.samples)})",
        help=plain(
            f"How often the vote of a sample changed from one {view.unit} to the next. "
            "Click a bar to see its samples."
        ),
    )
    st.plotly_chart(
        figures_dynamics.flips_figure(
            counted.edges, counted.counts, noisy, chosen=view.state.flips, theme=theme()
        ),
        key=_FLIPS_KEY,
        on_select=lambda: _clicked(spans),
        selection_mode="points",
        config={"displayModeBar": False, "doubleClick": False},
        alt="Bars: "
        + ", ".join(f"{low} flips {n}" for (low, _), n in zip(spans, counted.counts, strict=True)),
    )


def _clicked(spans: list[tuple[int, int]]) -> None:
    bar = clicked_bar(session.value(_FLIPS_KEY), len(spans))
    if bar is not None:
        session.change_dynamics(flips=spans[bar], gallery="flips", page=1, sample=None)


def clicked_bar(event: Any, bars: int) -> int | None:
    """The bar that was clicked; None where the event holds none."""
    points = event["selection"].get("points") if event else None
    place = points[-1]["point_index"] if points else None
    return place if place is not None and place < bars else None
