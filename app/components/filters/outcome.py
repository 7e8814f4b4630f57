"""What the recipe comes to: counts, how clean it is where that is known, the retention curve."""

from __future__ import annotations

from html import escape

import polars as pl
import streamlit as st

from app.cache import filters, tables
from app.choices import editing, selecting
from app.choices.selecting import is_range
from app.components.shared.choosers import column_box
from app.components.shared.conditions import kept_metrics
from app.components.shared.shell import theme
from app.drawing import filters as figures_filters
from app.shown import Shown
from app.state import session
from app.state.filters import CONFIDENCE
from app.text import count, plain, spoken
from mimic_core.filters.conditions import EnsembleVote
from mimic_core.filters.ensembles.config import EnsembleConfig
from mimic_core.stats.retention import RetentionCurve

_KIND = "noise_kind"
KINDS_SHOWN = 12


def outcome(shown: Shown) -> None:
    """Counts, then truth metrics and kinds of noise."""
    truth = shown.truth
    with st.container(horizontal=True, gap="medium", key="outcome"):
        kept_metrics(shown)
        if truth is not None:
            _truth(shown, truth)
    if truth is not None:
        _kinds(shown, truth)
    elif filters.truths(shown.key):
        with st.container(horizontal=True, vertical_alignment="center", key="truth_bar"):
            st.caption("No column is known to say which samples are noisy.")
            with st.popover("Truth", icon=":material/fact_check:", type="tertiary"):
                _choose("truth", "Noisy where", filters.truths(shown.key), None)
    else:
        st.caption("No column of this run says which samples are noisy.")


def _truth(shown: Shown, truth: str) -> None:
    found = filters.detection(shown.key, shown.recipe_yaml, truth)
    st.metric(
        "Noisy kept",
        f"{count(found.noisy_kept)} of {count(found.noisy)}",
        help=f"Samples whose {plain(spoken(truth))} is true.",
        width="content",
    )
    for label, value, text in [
        ("Precision", found.precision, "Share of the dropped samples that is noisy."),
        ("Recall", found.recall, "Share of the noisy samples that is dropped."),
        ("F1", found.f1, "Harmonic mean of precision and recall of dropping noisy samples."),
    ]:
        st.metric(label, "–" if value is None else f"{value:.3f}", help=text, width="content")


def _kinds(shown: Shown, truth: str) -> None:
    """Noisy samples by kind; which columns say so can be chosen."""
    kinds = [name for name in tables.categories(shown.key) if name not in (truth, "shard")]
    state = session.state().filters
    first = _KIND if _KIND in kinds else next(iter(kinds), None)
    kind = state.kind if state.kind in kinds else first
    with st.container(horizontal=True, vertical_alignment="center", key="truth_bar"):
        st.caption(
            f"Noisy samples kept, by {plain(spoken(kind))}" if kind else "No column names the noise"
        )
        with st.popover("Truth", icon=":material/fact_check:", type="tertiary"):
            _choose("truth", "Noisy where", filters.truths(shown.key), truth)
            if kind is not None:
                _choose("kind", "Kinds named by", kinds, kind)
    if kind is not None:
        _bars(filters.by_kind(shown.key, shown.recipe_yaml, truth, kind))


def _bars(table: pl.DataFrame) -> None:
    """A bar for each kind of noise, of the share that is kept."""
    rows = table.select("noise_kind", "noisy", "kept").rows()
    cells = "".join(
        f"<div><span>{escape(spoken(name))}</span><span>{count(kept)} of {count(noisy)}</span>"
        f'<i class="share"><i class="kept" style="width:{100 * kept / noisy:.1f}%"></i></i></div>'
        for name, noisy, kept in rows[:KINDS_SHOWN]
    )
    st.html(f'<div class="kinds">{cells}</div>')
    if len(rows) > KINDS_SHOWN:
        st.caption(f"and {count(len(rows) - KINDS_SHOWN)} more kinds")


def _choose(field: str, label: str, options: list[str], value: str | None) -> None:
    key = f"filters_{field}"
    st.selectbox(
        label,
        options,
        index=None,
        placeholder="choose a column",
        format_func=spoken,
        key=session.bind(key, value),
        on_change=lambda: session.change_filters(**{field: session.value(key)}),
    )


def curve_panel(shown: Shown) -> None:
    """The retention curve of a column, or of an ensemble's confidence."""
    options = [*tables.numbers(shown.key), CONFIDENCE]
    column = session.state().filters.curve
    column = column if column in options else options[0]
    with st.container(horizontal=True, vertical_alignment="center", key="curve_bar"):
        st.subheader("Retention curve", anchor=False, width="content")
        st.space("stretch")
        column_box(
            "Curve over",
            options,
            key="filters_curve",
            value=column,
            change=lambda: session.change_filters(curve=session.value("filters_curve")),
            width=210,
        )
    truth = shown.truth
    if column == CONFIDENCE:
        config, marks = _ensemble(shown)
        curve = filters.confidence_curve(shown.key, config, truth)
        st.caption(plain(config.describe()))
    else:
        curve, marks = filters.curve(shown.key, column, truth), _marks(shown, column)
    _draw(shown, curve, column, marks)


def _draw(shown: Shown, curve: RetentionCurve, column: str, marks: list[float]) -> None:
    if not len(curve.cutoffs):
        st.caption(f"No sample has a {plain(spoken(column))}.")
        return
    st.plotly_chart(
        figures_filters.retention_figure(
            curve,
            column=column,
            marks=marks,
            kept=shown.selection.retention_rate,
            theme=theme(),
        ),
        key="retention",
        config={"displayModeBar": False, "scrollZoom": False},
        alt=f"Share of the samples retained by every cutoff on {spoken(column)}",
    )


def _marks(shown: Shown, column: str) -> list[float]:
    """Where the recipe cuts the column, in any of its conditions."""
    values = tables.sorted_values(shown.key, column)
    found = set()
    for named in shown.recipe.conditions:
        for line in editing.lines(named.condition):
            leaf = line.leaf
            if is_range(leaf) and leaf.column == column:
                band = selecting.band(leaf, values)
                found |= {end.score for end in (band.low, band.high) if end is not None}
    return sorted(found)


def _ensemble(shown: Shown) -> tuple[EnsembleConfig, list[float]]:
    """The first ensemble of the recipe and the least confidence it keeps; else the usual one."""
    asked = [one for named in shown.recipe.conditions for one in named.condition.ensembles()]
    vote = asked[0] if asked else EnsembleVote()
    least = filters.least_confidence(shown.key, vote)
    return vote.config, [] if not asked or least is None else [least]
