"""What the pages are about: a run's table, the selection made on it, and its history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from app.cache import dynamics, filters, tables
from app.cache.tables import TableKey
from app.choices.columns import TRUTH
from app.drawing.dynamics import step_labels
from app.library import open_library, runs_root
from app.state import session
from app.state.dynamics import BY_VOTES, DynamicsState, Ranks
from mimic_core.base.schema import NO_IMAGE
from mimic_core.filters.ensembles.ensemble import Ensemble
from mimic_core.filters.recipe import Recipe, Selection
from mimic_core.runs.history import History
from mimic_core.runs.run import Run, RunList


@dataclass(frozen=True, slots=True)
class Shown:
    """A run as the page shows it: its table, and the selection that the recipe makes of it."""

    run: Run
    key: TableKey
    table: pl.DataFrame
    recipe: Recipe
    recipe_yaml: str
    selection: Selection
    truth: str | None
    """The boolean column that marks noisy samples: the one chosen, else one named as such."""

    @property
    def total(self) -> int:
        """Number of rows: samples, and rows without an image."""
        return len(self.table)

    @property
    def without_image(self) -> int:
        """Number of rows that have no image, which are among them."""
        return int((self.table["image_kind"] == NO_IMAGE.kind).sum())

    @property
    def selected(self) -> np.ndarray:
        """Which rows of the table are kept, bool (N,)."""
        return self.selection.mask

    @property
    def kept(self) -> int:
        """Number of selected samples."""
        return self.selection.kept

    @property
    def noisy(self) -> np.ndarray | None:
        """Which samples are known to be noisy, bool (N,); None where no column says so."""
        if self.truth is None:
            return None
        return self.table[self.truth].fill_null(value=False).to_numpy()

    @property
    def has_map(self) -> bool:
        """Whether the map has been made."""
        places = self.table.select("map_x", bare=pl.col("image_kind") == NO_IMAGE.kind)
        return self.total > 0 and not places.filter(~pl.col("bare"))["map_x"].null_count()


def shown() -> Shown | None:
    """The active run with its selection; None while there is no finished run."""
    run = active_run()
    if run is None:
        return None
    state = session.state()
    key = tables.key_of(run, state.tuned)
    text = state.recipe.to_yaml()
    known, chosen = filters.truths(key), state.filters.truth
    return Shown(
        run=run,
        key=key,
        table=tables.table(key),
        recipe=state.recipe,
        recipe_yaml=text,
        selection=tables.selection(key, text),
        truth=chosen if chosen in known else TRUTH if TRUTH in known else None,
    )


def scope_of(shown: Shown) -> str:
    """Names the table that a chart shows, so that what follows a chart follows none of another."""
    return repr(shown.key)


def library() -> RunList:
    """The runs there are now."""
    return open_library(runs_root(), opener=tables.run_at)


def active_run() -> Run | None:
    """The run that the pages show."""
    return library().find(session.state().run_id)


@dataclass(frozen=True, slots=True)
class Dynamics:
    """A run's history as the page shows it; arrays are in the order of the run's table.

    Attributes:
        shown: The run, its table and the selection.
        state: What the page remembers.
        history: Scores (S, N) of every step.
        ensemble: The votes of the steps and what they decide together.
        rows: Rows of the table (M,) int64 from the top of the heat map to its bottom.
        context: Names the order, so that ranks of another order are not taken for its own.
    """

    shown: Shown
    state: DynamicsState
    history: History
    ensemble: Ensemble
    rows: np.ndarray
    context: str

    @property
    def noisy(self) -> np.ndarray | None:
        """Which samples with a history are known to be noisy, bool (N,); None as in ``Shown``."""
        known = self.shown.noisy
        return None if known is None else known[: self.history.samples]

    @property
    def recipe_yaml(self) -> str | None:
        """The selection, where the rows depend on it."""
        return None if self.state.order.scope == "all" else self.shown.recipe_yaml

    @property
    def zoom(self) -> tuple[int, int]:
        """Ranks from, up to without, that the heat map shows."""
        return self.own(self.state.zoom) or (0, len(self.rows))

    @property
    def zoomed(self) -> bool:
        """Whether that is less than all."""
        return self.zoom != (0, len(self.rows))

    @property
    def band(self) -> tuple[int, int] | None:
        """Ranks that were dragged over; None for none, or for those of another order."""
        return self.own(self.state.rows)

    @property
    def unit(self) -> str:
        """What a step is called."""
        return step_unit(self.shown)

    @property
    def labels(self) -> list[str]:
        """Names of the steps (S,)."""
        return step_labels(self.history.epochs, np.arange(self.history.steps + 1))

    def own(self, ranks: Ranks | None) -> tuple[int, int] | None:
        """Ranks as start and stop, if they are of this order."""
        if ranks is None or ranks.context != self.context:
            return None
        return ranks.start, ranks.stop

    def ranks(self, start: int, stop: int) -> Ranks | None:
        """Those ranks of this order; None for no rank at all."""
        start, stop = max(0, start), min(stop, len(self.rows))
        return Ranks(start, stop, self.context) if stop > start else None

    @property
    def scope(self) -> np.ndarray:
        """Which samples the heat map is of, bool (N,)."""
        selected = self.shown.selected[: self.history.samples]
        return {"all": np.ones(len(selected), bool), "kept": selected, "dropped": ~selected}[
            self.state.order.scope
        ]


def step_unit(shown: Shown) -> str:
    """What a step of the run is called: the repeats of a snapshot are no epochs."""
    return "repeat" if shown.run.record.config.snapshot is not None else "epoch"


def steps_of(shown: Shown) -> int:
    """How many steps the run has, or would have as tuned."""
    tuned = session.state().tuned
    return shown.run.record.epochs if tuned is None else tuned.epochs


def dynamics_of(shown: Shown) -> Dynamics:
    """The history of what is shown, as the page's state asks for it."""
    state = session.state().dynamics
    order = state.order
    by_votes = state.ensemble.model_dump_json() if order.over in BY_VOTES else ""
    by_recipe = None if order.scope == "all" else shown.recipe_yaml
    return Dynamics(
        shown=shown,
        state=state,
        history=tables.history(shown.key),
        ensemble=dynamics.ensemble(shown.key, state.ensemble),
        rows=dynamics.ordered(shown.key, order, by_recipe, state.ensemble),
        context=repr((shown.key, order, by_votes, by_recipe)),
    )
