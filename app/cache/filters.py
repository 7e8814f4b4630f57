"""What the Filters page keeps between reruns; the rules are those of ``app.cache.tables``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import streamlit as st

from app.cache import tables
from app.cache.tables import LARGE, TableKey
from app.choices import columns, comparing
from mimic_core.base.config import ProbeConfig
from mimic_core.filters import library
from mimic_core.filters.conditions import Condition, EnsembleVote
from mimic_core.filters.ensembles.config import EnsembleConfig
from mimic_core.filters.library import RecipeLibrary
from mimic_core.stats import agreement as agreements
from mimic_core.stats import detection as detections
from mimic_core.stats import retention
from mimic_core.stats.agreement import Agreement, Quadrant
from mimic_core.stats.cutoffs import Keep
from mimic_core.stats.detection import NOISY_SIDES, Detection
from mimic_core.stats.retention import RetentionCurve


@st.cache_resource(max_entries=8, show_spinner=False)
def _recipes(root: str, stamps: tuple[tuple[str, int, int], ...]) -> RecipeLibrary:  # noqa: ARG001 - part of the key
    return library.list_recipes(Path(root))


def recipes(root: Path) -> RecipeLibrary:
    """The saved recipes under a runs root, read again only when one of the files has changed."""
    files = sorted((root / library.FOLDER).glob(f"*{library.SUFFIX}"))
    states = [(path.name, path.stat()) for path in files if path.is_file()]
    stamps = tuple((name, found.st_mtime_ns, found.st_size) for name, found in states)
    return _recipes(str(root), stamps)


@st.cache_resource(max_entries=12, show_spinner=False)
def groups(key: TableKey) -> list[str]:
    """Columns whose values can have shares of their own."""
    return columns.group_columns(tables.table(key))


@st.cache_resource(max_entries=12, show_spinner=False)
def truths(key: TableKey) -> list[str]:
    """Columns that can mark noisy samples."""
    return columns.truth_columns(tables.table(key))


@st.cache_resource(max_entries=12, show_spinner=False)
def texts(key: TableKey) -> list[str]:
    """Columns that a text can be looked for in."""
    return columns.text_columns(tables.table(key))


@st.cache_resource(max_entries=48, show_spinner=False)
def values(key: TableKey, column: str) -> list[Any]:
    """The values of a category column, sorted."""
    found = tables.table(key)[column]
    plain = found.cast(pl.String) if found.dtype == pl.Categorical else found
    return plain.drop_nulls().unique().sort().to_list()


def steps(key: TableKey) -> int:
    """How many steps the history has."""
    if key.tuned is None:
        return tables.run(key).record.epochs
    return ProbeConfig.model_validate_json(key.tuned).epochs


def kept_alone(key: TableKey, condition: Condition) -> int:
    """How many samples a condition keeps by itself."""
    return int(tables.votes(key, condition).sum() or 0)


def mask(key: TableKey, recipe_yaml: str) -> np.ndarray:
    """Which samples (N,) bool a recipe keeps."""
    return tables.selection(key, recipe_yaml).mask


@st.cache_data(max_entries=64, show_spinner=False)
def detection(key: TableKey, recipe_yaml: str, truth: str) -> Detection:
    """How well a recipe drops the samples of which ``truth`` is true."""
    return detections.detection(mask(key, recipe_yaml), tables.table(key)[truth])


@st.cache_resource(max_entries=64, show_spinner=False)
def by_kind(key: TableKey, recipe_yaml: str, truth: str, kind: str) -> pl.DataFrame:
    """What a recipe keeps of each kind of noise."""
    frame = tables.table(key)
    return detections.kept_by_kind(mask(key, recipe_yaml), frame[truth], frame[kind])


@st.cache_resource(max_entries=24, show_spinner=False)
def curve(key: TableKey, column: str, truth: str | None) -> RetentionCurve:
    """What every cutoff of a column retains."""
    frame = tables.table(key)
    keep: Keep = "low" if NOISY_SIDES.get(column) == "high" else "high"
    known = None if truth is None else frame[truth]
    return retention.retention_curve(frame[column], known, keep=keep)


@st.cache_resource(max_entries=12, show_spinner=False)
def confidence_curve(key: TableKey, config: EnsembleConfig, truth: str | None) -> RetentionCurve:
    """What every least confidence of an ensemble retains."""
    found, places = tables.view(key, voted=True).ensemble(config)
    scored = pl.Series(places >= 0)  # a row without an image has no vote
    confidence = pl.select(pl.when(scored).then(pl.Series(found.confidence[places]))).to_series()
    known = None if truth is None else tables.table(key)[truth]
    return retention.retention_curve(confidence, known)


@st.cache_data(max_entries=48, show_spinner=False)
def _least_confidence(key: TableKey, said: str, _vote: EnsembleVote) -> float | None:  # noqa: ARG001 - the key
    found, places = tables.view(key, voted=True).ensemble(_vote.config)
    kept = tables.votes(key, _vote).fill_null(value=False).to_numpy()
    return float(found.confidence[places][kept].min()) if kept.any() else None


def least_confidence(key: TableKey, vote: EnsembleVote) -> float | None:
    """The least confidence that an ensemble keeps; None where it keeps nothing."""
    return _least_confidence(key, vote.model_dump_json(), vote)


@st.cache_data(max_entries=64, show_spinner=False)
def agreement(key: TableKey, a_yaml: str, b_yaml: str) -> Agreement:
    """How two recipes cut the table into quadrants."""
    return agreements.agreement(mask(key, a_yaml), mask(key, b_yaml))


def _quadrant(key: TableKey, a_yaml: str, b_yaml: str, quadrant: Quadrant) -> np.ndarray:
    """Which samples (N,) bool lie in a quadrant of two recipes."""
    return agreements.quadrants(mask(key, a_yaml), mask(key, b_yaml))[quadrant]


@st.cache_resource(max_entries=LARGE, show_spinner=False)
def quadrant_rows(
    key: TableKey, a_yaml: str, b_yaml: str, quadrant: Quadrant, *, rank: str, highest: bool
) -> np.ndarray:
    """Rows of the table that lie in a quadrant, ranked by a column; no value, no rank."""
    here = _quadrant(key, a_yaml, b_yaml, quadrant)
    return comparing.ranked(tables.ascending(key, rank), here, highest=highest)


@st.cache_data(max_entries=64, show_spinner=False)
def says_quadrant(
    key: TableKey, a_yaml: str, b_yaml: str, quadrant: Quadrant, recipe_yaml: str
) -> bool:
    """Whether a recipe keeps just the samples of a quadrant."""
    here = _quadrant(key, a_yaml, b_yaml, quadrant)
    return bool((here == mask(key, recipe_yaml)).all())


def quadrant_uids(key: TableKey, a_yaml: str, b_yaml: str, quadrant: Quadrant) -> list[str]:
    """The samples of a quadrant, by uid."""
    here = _quadrant(key, a_yaml, b_yaml, quadrant)
    found: list[str] = tables.table(key)["uid"].filter(pl.Series(here)).to_list()
    return found
