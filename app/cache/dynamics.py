"""What the Dynamics page keeps between reruns; the rules are those of ``app.cache.tables``.

Everything is in the order of the run's table: row n of the table is column n of every (S, N) array.
The rows without an image, the last of the table, have no column; N counts the others.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import streamlit as st

from app.cache import tables
from app.cache.tables import LARGE, TableKey, history
from app.drawing import heat_picture
from app.drawing.colours import DARK, LIGHT
from app.drawing.heat_picture import Painted
from app.state.dynamics import BY_VOTES, Order, Show, measured
from mimic_core.filters.ensembles.config import EnsembleConfig
from mimic_core.filters.ensembles.ensemble import Ensemble, ensemble_of
from mimic_core.runs.history import HistoryColumn
from mimic_core.stats import dynamics
from mimic_core.stats.dynamics import Bands, Measure, StepHistograms

HISTOGRAM_BINS = 60
_LOGARITHMIC = "mimic_weight"  # spans many powers of ten at low temperatures


@st.cache_resource(max_entries=LARGE, show_spinner="Letting the epochs vote…")
def ensemble(key: TableKey, config: EnsembleConfig) -> Ensemble:
    """The votes of the steps and what they decide together."""
    return ensemble_of(history(key), config)


@st.cache_resource(max_entries=LARGE, show_spinner=False)
def flips(key: TableKey, config: EnsembleConfig) -> np.ndarray:
    """How often each sample's vote changed, (N,) int64."""
    return dynamics.flips(ensemble(key, config).votes)


@st.cache_resource(max_entries=LARGE, show_spinner=False)
def _measure(key: TableKey, over: str, config: EnsembleConfig | None) -> np.ndarray:
    """One number per sample (N,); ``config`` only where votes are measured."""
    if config is None:
        how: Measure = over  # type: ignore[assignment]  # the rest of OVER_STEPS are measures
        return dynamics.summarise(history(key).mimic_score, how)
    return flips(key, config) if over == "flips" else ensemble(key, config).confidence


def sort_values(key: TableKey, order: Order, config: EnsembleConfig) -> pl.Series:
    """What the rows are sorted by (N), null where a sample has no value."""
    if order.column is not None:
        return tables.table(key)[order.column]
    assert order.over is not None  # either a column or a measure
    by_votes = config if order.over in BY_VOTES else None
    return pl.Series(order.over, _measure(key, order.over, by_votes))


def _by_uid(key: TableKey) -> np.ndarray:
    """Rows of the table with a history (N,), in the order of their uids."""
    return _scored(key, tables.by_uid(key))


def _scored(key: TableKey, rows: np.ndarray) -> np.ndarray:
    """Those of ``rows`` that have a history."""
    count = history(key).samples
    return rows if len(rows) <= count else rows[rows < count]


@st.cache_resource(max_entries=LARGE, show_spinner=False)
def _by_measure(key: TableKey, over: str, config: EnsembleConfig | None) -> np.ndarray:
    return dynamics.ascending(_measure(key, over, config), _by_uid(key))


@st.cache_resource(max_entries=LARGE, show_spinner=False)
def ordered(
    key: TableKey, order: Order, recipe_yaml: str | None, config: EnsembleConfig
) -> np.ndarray:
    """Rows of the table (M,) int64 from the top of the heat map to its bottom.

    ``recipe_yaml`` is None for all samples, where the selection makes no difference.
    """
    if order.over is None:
        assert order.column is not None  # either a column or a measure
        rows = _scored(key, tables.ascending(key, order.column))
    else:
        rows = _by_measure(key, order.over, config if order.over in BY_VOTES else None)
    if recipe_yaml is not None:
        mask = tables.selection(key, recipe_yaml).mask
        rows = rows[mask[rows] if order.scope == "kept" else ~mask[rows]]
    return rows[::-1] if order.highest_first else rows


@st.cache_resource(max_entries=LARGE, show_spinner=False)
def undecided(key: TableKey, config: EnsembleConfig) -> np.ndarray:
    """Rows of the table (N,), most undecided first, ties by uid."""
    doubt = dynamics.undecided(ensemble(key, config).votes)
    return dynamics.ascending(-doubt, _by_uid(key))


@st.cache_resource(max_entries=12, show_spinner=False)
def bands(key: TableKey, column: HistoryColumn) -> Bands:
    """The pool's quantiles at each step."""
    return dynamics.quantile_bands(history(key).values(column))


@st.cache_resource(max_entries=12, show_spinner=False)
def _edges(key: TableKey, column: HistoryColumn) -> np.ndarray:
    values = history(key).values(column)
    return dynamics.step_edges(values, HISTOGRAM_BINS, logarithmic=logarithmic(key, column))


@st.cache_resource(max_entries=24, show_spinner=False)
def histograms(
    key: TableKey, column: HistoryColumn, *, truth: str | None = None, noisy: bool = False
) -> StepHistograms:
    """Histograms of each step: of all samples, or of those whose ``truth`` is ``noisy``."""
    among = None
    if truth is not None:
        marked = tables.table(key)[truth].head(history(key).samples)
        among = (marked == noisy).fill_null(value=False).to_numpy()
    return dynamics.step_histograms(history(key).values(column), _edges(key, column), among=among)


@st.cache_resource(max_entries=24, show_spinner=False)
def logarithmic(key: TableKey, column: HistoryColumn) -> bool:
    """Whether a column is drawn on a logarithmic axis."""
    return column == _LOGARITHMIC and bool((history(key).values(column) > 0).any())


@st.cache_resource(max_entries=24, show_spinner=False)
def limits(key: TableKey, column: HistoryColumn) -> tuple[float, float]:
    """Values at the ends of the colour scale: the 1st and 99th percentile of all steps."""
    values = history(key).values(column)
    if logarithmic(key, column):
        values = values[values > 0]
    low, high = np.percentile(values, [1, 99])
    return float(low), float(high)


@st.cache_resource(max_entries=24, show_spinner=False)
def painted(
    key: TableKey,
    order: Order,
    recipe_yaml: str | None,
    config: EnsembleConfig,
    *,
    zoom: tuple[int, int],
    show: Show,
    truth: str | None,
    dark: bool,
) -> Painted:
    """The heat map of the ranks ``zoom`` as a picture, with what the mouse and the legend need."""
    rows = ordered(key, order, recipe_yaml, config)[slice(*zoom)]
    column = measured(show, config)
    decided = ensemble(key, config)
    strips = [("ensemble", decided.keep)]
    if truth is not None:
        strips.append(("noisy", tables.table(key)[truth].fill_null(value=False).to_numpy()))
    return heat_picture.paint(
        decided.votes if show == "vote" else history(key).values(column),
        rows,
        limits=(0.0, 1.0) if show == "vote" else limits(key, column),
        logarithmic=show != "vote" and logarithmic(key, column),
        votes=show == "vote",
        strips=strips,
        theme=DARK if dark else LIGHT,
    )
