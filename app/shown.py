"""What the Explore and Export pages are about: a run's table and the selection made on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from app import cache, session
from app.cache import TableKey
from app.components.shell import active_run
from mimic_core.filters import Recipe, Selection
from mimic_core.runs import Run

MAX_CHOICES = 40  # a text column with more values is not offered as a category
_NOT_NUMBERS = {"image_offset", "image_length", "map_x", "map_y"}
_NOT_CATEGORIES = {"uid", "key", "caption", "image_kind", "image_path", "image_member"}
_FIRST = ("mimic_score", "clip_score", "loss", "mimic_weight", "mimic_score_se")


@dataclass(frozen=True, slots=True)
class Shown:
    """A run as the page shows it: its table, and the selection that the recipe makes of it."""

    run: Run
    key: TableKey
    table: pl.DataFrame
    recipe: Recipe
    recipe_yaml: str
    selection: Selection

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
    key = cache.key_of(run, state.tuned)
    text = state.recipe.to_yaml()
    return Shown(
        run=run,
        key=key,
        table=cache.table(key),
        recipe=state.recipe,
        recipe_yaml=text,
        selection=cache.selection(key, text),
    )


def number_columns(table: pl.DataFrame) -> list[str]:
    """Columns that can take the score's place: numbers, scores first."""
    numbers = [
        name
        for name, dtype in table.schema.items()
        if dtype.is_numeric() and name not in _NOT_NUMBERS
    ]
    return sorted(numbers, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))


def category_columns(table: pl.DataFrame) -> list[str]:
    """Columns with few values: booleans and short lists of texts; the user's own come first."""
    found = [
        name
        for name, dtype in table.schema.items()
        if name not in _NOT_CATEGORIES
        and (
            dtype == pl.Boolean
            or (dtype in (pl.String, pl.Categorical) and table[name].n_unique() <= MAX_CHOICES)
        )
    ]
    return sorted(found, key=lambda name: name == "shard")
