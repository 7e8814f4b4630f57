"""What the Explore and Export pages are about: a run's table and the selection made on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from app.cache import filters, tables
from app.cache.tables import TableKey
from app.choices.columns import TRUTH
from app.components.shared.shell import active_run
from app.state import session
from mimic_core.filters.recipe import Recipe, Selection
from mimic_core.runs.run import Run


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
        """Number of samples."""
        return len(self.table)

    @property
    def selected(self) -> np.ndarray:
        """Which rows of the table are kept, bool (N,)."""
        return self.selection.mask

    @property
    def kept(self) -> int:
        """Number of selected samples."""
        return self.selection.kept

    @property
    def has_map(self) -> bool:
        """Whether the map has been made."""
        return self.total > 0 and self.table["map_x"].null_count() == 0


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
