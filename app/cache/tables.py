"""What the app keeps between reruns: with ``app.cache.dynamics`` the only place of ``st.cache_*``.

Keys are ids, paths, texts or frozen configs, never a frame: streamlit's hash of a polars frame has
been seen to return another frame's result. Frames and arrays are kept as resources (shared, not
copied), which is safe because nobody changes them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import streamlit as st

from app.cache.served import picture_address, picture_at, prepare
from app.choices import columns, ranking, selecting
from app.choices.box import Box, box_around
from app.choices.ranking import GalleryMode, GalleryOrder
from app.drawing import map_picture as raster
from app.drawing.colours import DARK, LIGHT, Colouring, colour_by
from app.drawing.explore import HISTOGRAM_BINS, points
from app.drawing.figures import HOVER_POINTS
from app.library import require_allowed
from mimic_core.base.config import ProbeConfig
from mimic_core.base.errors import ConfigError, RunError
from mimic_core.base.schema import IMAGE_COLUMNS, NO_IMAGE, Locator, named
from mimic_core.export.original_table import table_name
from mimic_core.export.settings import ExportConfig
from mimic_core.filters import recipe as filters
from mimic_core.filters.conditions import Condition, EnsembleVote, Leaf, UidList
from mimic_core.filters.recipe import Recipe, Selection
from mimic_core.filters.table_view import TableView
from mimic_core.filters.uid_lists import pinned
from mimic_core.filters.votes import joined
from mimic_core.filters.votes import votes as leaf_votes
from mimic_core.proofs.record import Proof, read_proof
from mimic_core.proofs.trusted import trusted_candidates
from mimic_core.runs.history import History, history_of, in_order, run_history
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import map_config
from mimic_core.stats import cutoffs, detection, dynamics, histograms
from mimic_core.stats.histograms import Histogram

# Entries of a cache whose values hold a number or more per sample: at a million samples 8 MB each,
# a table with its captions some 300 MB. Votes (a bit per sample), counts and pictures are small.
LARGE = 4


class TableKey(NamedTuple):
    """Names one table of samples: a run as it is on disk, and how it is tuned.

    ``stamp`` changes when ``run.json`` does, ``map_stamp`` when the map does; ``tuned`` is the
    JSON of the ``ProbeConfig`` that replaces the run's own.
    """

    path: str
    stamp: int
    map_stamp: int
    tuned: str | None = None


def key_of(run: Run, tuned: ProbeConfig | None = None) -> TableKey:
    """The key of the run's table as it is on disk now."""
    return TableKey(
        str(run.path),
        _stamp(run.path / "run.json"),
        _stamp(run.features.path / "map.parquet"),
        None if tuned is None else tuned.model_dump_json(),
    )


def _stamp(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


@st.cache_resource(max_entries=512, show_spinner=False)
def _run(path: str, stamp: int) -> Run:  # noqa: ARG001 - part of the key
    return open_run(Path(path))


def run_at(path: Path) -> Run:
    """The run at ``path``, read again only when its ``run.json`` has changed."""
    return _run(str(path), _stamp(path / "run.json"))


def run(key: TableKey) -> Run:
    """The run of that key, opened once."""
    return _run(key.path, key.stamp)


@st.cache_resource(max_entries=LARGE, show_spinner="Reading the run…")
def table(key: TableKey) -> pl.DataFrame:
    """One row per sample: where it is, what was measured, its scores, its place on the map."""
    from mimic_core.runs import table as tables

    opened = run(key)
    if key.tuned is None:
        return tables.run_table(opened)
    return tables.run_table(opened, tuned_scores(key))


@st.cache_resource(max_entries=2, show_spinner="Scoring with the new settings…")
def tuned_scores(key: TableKey) -> pl.DataFrame:
    """Long scores of the run's features under ``key.tuned``."""
    from mimic_core.scoring import tuning  # imports torch

    assert key.tuned is not None  # callers ask only for tuned tables
    return tuning.tune_run(run(key), ProbeConfig.model_validate_json(key.tuned))


@st.cache_data(max_entries=64, show_spinner=False)
def mimic_layers(key: TableKey) -> tuple[str, ...]:
    """The mimic layers of the scores in the table, which are not the run's own while tuned."""
    if key.tuned is None:
        return run(key).record.mimic_layers
    from mimic_core.scoring import tuning  # imports torch

    return tuning.tuned_layers(run(key), ProbeConfig.model_validate_json(key.tuned))


@st.cache_resource(show_spinner=False)
def prepare_tuning() -> threading.Thread:
    """Import torch beside the page, once, so that the first change of a setting need not wait."""
    thread = threading.Thread(
        target=import_module, args=["mimic_core.scoring.tuning"], name="import torch"
    )
    thread.start()
    return thread


@st.cache_data(max_entries=64, show_spinner=False)
def tuning_seconds(path: str, tuned: str) -> float:
    """About how long tuning the run at ``path`` takes, in seconds."""
    from mimic_core.scoring import tuning  # imports torch

    config = ProbeConfig.model_validate_json(tuned)
    return float(tuning.estimate_seconds(open_run(Path(path)), config))


def picture_of(run: Run, row: Mapping[str, Any], *, side: int) -> tuple[str | None, str]:
    """The address of the image of a row of the run's table, or None and the reason."""
    if row["image_kind"] == NO_IMAGE.kind:
        return None, "the row has no image"
    try:
        root = require_allowed(run.features.source_root())
    except RunError:
        return None, "the pool is no longer where it was scored"
    except ConfigError:
        return None, "the pool is outside of the folders that the app may use"
    locator = Locator(*(row[name] for name in IMAGE_COLUMNS))
    return picture_address(root, locator, side=side), ""


def prepare_pictures(run: Run, frame: pl.DataFrame, rows: np.ndarray, *, side: int) -> None:
    """Make the pictures of ``rows`` (M,) beside the page, for the next click."""
    wanted = frame[rows, list(IMAGE_COLUMNS)].iter_rows(named=True)
    prepare(uri for row in wanted if (uri := picture_of(run, row, side=side)[0]) is not None)


def shown_picture(run: Run, row: Mapping[str, Any], *, side: int) -> tuple[str | None, str]:
    """As ``picture_of``, the picture made now: one that cannot be read has no address either."""
    uri, reason = picture_of(run, row, side=side)
    if uri is None:
        return None, reason
    found = picture_at(uri)
    return (None, found.reason) if found.data is None else (uri, "")


@st.cache_resource(max_entries=LARGE, show_spinner="Reading the history…")
def history(key: TableKey) -> History:
    """The run's history, or the tuned one, its samples in the order of the table.

    The rows without an image, which come last there, have none.
    """
    uids = table(key).filter(pl.col("image_kind") != NO_IMAGE.kind)["uid"]
    if key.tuned is None:
        found = run_history(run(key), uids=uids)
    else:
        batch_size = ProbeConfig.model_validate_json(key.tuned).batch_size
        # A pool smaller than a batch is one batch (``mimic_core.base.draws.fitting_batch_size``).
        found = history_of(tuned_scores(key), min(batch_size, len(uids)), uids=uids)
    return in_order(found, uids)


@st.cache_resource(max_entries=LARGE, show_spinner=False)
def view(key: TableKey, *, voted: bool) -> TableView:
    """The table as conditions look at it, with the history of its run where that is needed."""
    return TableView(table(key), history(key) if voted else None, remember=12)


@st.cache_resource(max_entries=96, show_spinner=False)
def _leaf_votes(key: TableKey, said: str, _leaf: Leaf) -> pl.Series:  # noqa: ARG001 - the key
    return leaf_votes(_leaf, view(key, voted=isinstance(_leaf, EnsembleVote)))


def votes(key: TableKey, condition: Condition) -> pl.Series:
    """The votes (N,) of a condition. Each leaf is counted once: changing one leaves the others."""

    def counted(leaf: Leaf) -> pl.Series:
        leaf = local(leaf)
        return _leaf_votes(key, leaf.model_dump_json(), leaf)

    return joined(condition, counted)


def local(leaf: Leaf) -> Leaf:
    """The leaf with the digest of the list of uids that it names.

    Raises:
        ConfigError: That list is outside of the folders that the app may read.
    """
    if isinstance(leaf, UidList):
        require_allowed(Path(leaf.file))
    return pinned(leaf)


def selection(key: TableKey, recipe_yaml: str) -> Selection:
    """What a recipe keeps of a table."""
    if "uid_list" in recipe_yaml:  # its file may be another one by now
        recipe_yaml = Recipe.from_yaml(recipe_yaml).with_leaves(local).to_yaml()
    return _selection(key, recipe_yaml)


@st.cache_resource(max_entries=12, show_spinner=False)
def _selection(key: TableKey, recipe_yaml: str) -> Selection:
    recipe = Recipe.from_yaml(recipe_yaml)
    found = [votes(key, named.condition) for named in recipe.conditions]
    return filters.selection_of(recipe, table(key)["uid"], found)


@st.cache_resource(max_entries=12, show_spinner=False)
def numbers(key: TableKey) -> list[str]:
    """Columns that can take the score's place."""
    return columns.number_columns(table(key))


@st.cache_resource(max_entries=12, show_spinner=False)
def categories(key: TableKey) -> list[str]:
    """Columns with few values."""
    return columns.category_columns(table(key))


@st.cache_data(max_entries=48, show_spinner=False)
def category_values(key: TableKey, column: str) -> list[Any]:
    """The values of a category column, in order."""
    values = table(key)[column]
    plain_values = values.cast(pl.String) if values.dtype == pl.Categorical else values
    return plain_values.drop_nulls().unique().sort().to_list()


@st.cache_resource(max_entries=12, show_spinner=False)
def trusted(key: TableKey) -> list[str]:
    """What could mark the good samples, as the command line takes it."""
    return trusted_candidates(table(key))


@st.cache_data(max_entries=12, show_spinner="Looking at the pool…")
def table_suffix(key: TableKey, table: str | None) -> str:
    """The suffix of the table that gets a keep column; empty where it is several."""
    name = table_name(run(key), ExportConfig(format="keep_column", table=table))
    return "" if name is None else Path(name).suffix


@st.cache_resource(max_entries=64, show_spinner=False)
def _proof(path: str, stamp: int) -> Proof:  # noqa: ARG001 - part of the key
    return read_proof(Path(path))


def proof_at(path: Path) -> Proof:
    """The proof at ``path``, read again only when its file has changed."""
    return _proof(str(path), _stamp(path))


@st.cache_data(max_entries=24, show_spinner=False)
def auroc(key: TableKey, truth: str) -> float | None:
    """How well a low mimic score tells the samples of which ``truth`` is true."""
    frame = table(key)
    return detection.auroc(-frame["mimic_score"], frame[truth])


@st.cache_resource(max_entries=LARGE, show_spinner=False)
def sorted_values(key: TableKey, column: str) -> np.ndarray:
    """The values of a column in ascending order, nulls left out."""
    return cutoffs.sorted_values(table(key)[column])


@st.cache_resource(max_entries=24, show_spinner=False)
def histogram(key: TableKey, column: str) -> Histogram:
    """Counts of a column."""
    return histograms.histogram(table(key)[column], HISTOGRAM_BINS)


@st.cache_resource(max_entries=LARGE, show_spinner=False)
def by_uid(key: TableKey) -> np.ndarray:
    """Rows of the table (N,) int64 in the order of their uids, which breaks ties."""
    return table(key)["uid"].arg_sort().to_numpy().astype(np.int64)


@st.cache_resource(max_entries=LARGE, show_spinner=False)
def ascending(key: TableKey, column: str) -> np.ndarray:
    """Rows of the table that have a value of ``column``, lowest first."""
    return dynamics.ascending(table(key)[column], by_uid(key))


@st.cache_resource(max_entries=LARGE, show_spinner=False)
def ranked(
    key: TableKey,
    recipe_yaml: str,
    *,
    column: str,
    mode: GalleryMode,
    first: GalleryOrder,
    cutoff: float | None,
) -> np.ndarray:
    """Rows of the table in the gallery's order."""
    return ranking.ranked_rows(
        ascending(key, column),
        table(key)[column].cast(pl.Float64).fill_null(np.nan).to_numpy(),
        mode=mode,
        first=first,
        wanted=_wanted(key, recipe_yaml, mode),
        cutoff=cutoff,
    )


def _wanted(key: TableKey, recipe_yaml: str, mode: GalleryMode) -> np.ndarray | None:
    """Which samples (N,) the gallery's mode is about; None where it is about all."""
    if mode == "lasso":
        inside = selecting.inside_regions(Recipe.from_yaml(recipe_yaml))
        return None if inside is None else votes(key, inside).fill_null(value=False).to_numpy()
    if mode not in ranking.ORDERED_MODES:
        return None
    kept = selection(key, recipe_yaml).mask
    return kept if mode == "kept" else ~kept


@st.cache_resource(max_entries=LARGE, show_spinner=False)
def colouring(key: TableKey, column: str, *, dark: bool) -> Colouring:
    """One colour per row."""
    return colour_by(table(key)[column], DARK if dark else LIGHT)


@st.cache_data(max_entries=12, show_spinner=False)
def map_images(key: TableKey) -> int | None:
    """How many images the map lays out, where several samples share one."""
    found = (map_config(run(key).features) or {}).get("images")
    return found if isinstance(found, int) else None


@st.cache_data(max_entries=12, show_spinner=False)
def whole_map(key: TableKey) -> Box:
    """The box around the whole map, on which rows without an image have no place."""
    frame = table(key).select("map_x", "map_y").drop_nulls()
    return box_around(frame["map_x"].to_numpy(), frame["map_y"].to_numpy())


@st.cache_data(max_entries=48, show_spinner=False)
def map_picture(
    key: TableKey, recipe_yaml: str, *, column: str, zoom: Box | None, dark: bool
) -> tuple[bytes, Box]:
    """The map as a PNG, and the part of the map it shows."""
    frame = table(key)
    x, y = frame["map_x"].to_numpy(), frame["map_y"].to_numpy()
    box = zoom or whole_map(key)
    png = raster.draw(
        x,
        y,
        rgb=colouring(key, column, dark=dark).rgb,
        selected=selection(key, recipe_yaml).mask,
        box=box,
        theme=DARK if dark else LIGHT,
    )
    return png, box


@st.cache_resource(max_entries=24, show_spinner=False)
def hover_sample(key: TableKey, column: str, box: Box) -> pl.DataFrame:
    """At most ``HOVER_POINTS`` points inside ``box``, evenly spread over the table.

    Samples of one image share a point (``app.drawing.explore.points``).
    """
    names = list(dict.fromkeys(["map_x", "map_y", "mimic_score", "caption", "label", column]))
    frame = table(key).select(map(named, names))
    here = np.flatnonzero(box.holds(frame["map_x"].to_numpy(), frame["map_y"].to_numpy()))
    step = max(1, -(-len(here) // HOVER_POINTS))
    return points(frame, here[::step])
