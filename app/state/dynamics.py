"""What the Dynamics page remembers of itself: one frozen part of the app's state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from app.choices.leafform import LeafForm, ensemble_form
from app.choices.selecting_rows import Scope
from app.text import spoken
from mimic_core.filters.conditions import EnsembleVote
from mimic_core.filters.ensembles.config import EnsembleConfig
from mimic_core.runs.history import HistoryColumn

Show = Literal["mimic_score", "mimic_weight", "loss", "vote"]
Source = Literal["rows", "undecided", "flips"]

# What the heat map can be sorted by beside the table's number columns, and how people say it.
# The mean score is the table's column ``mimic_score``, which a recipe can name.
MEAN_SCORE = "mimic_score"
OVER_STEPS: dict[str, str] = {
    "last": "last score",
    "first": "first score",
    "change": "change first to last",
    "spread": "spread over epochs",
    "flips": "flips",
    "confidence": "ensemble confidence",
}
BY_VOTES = ("flips", "confidence")  # these change with the binarisation
_PREFIX = "over:"  # keeps them apart from columns of the same name


@dataclass(frozen=True, slots=True)
class Order:
    """The rows of the heat map: which samples, by what, from which end.

    ``sort`` is a column of the table or one of ``OVER_STEPS`` behind a prefix.
    """

    sort: str = MEAN_SCORE
    highest_first: bool = False
    scope: Scope = "all"

    @property
    def over(self) -> str | None:
        """The measure over the steps; None for a column of the table."""
        return self.sort.removeprefix(_PREFIX) if self.sort.startswith(_PREFIX) else None

    @property
    def column(self) -> str | None:
        """The column of the table; None for a measure over the steps."""
        return None if self.over is not None else self.sort


@dataclass(frozen=True, slots=True)
class Ranks:
    """Ranks ``start`` up to, without, ``stop`` (from 0) in the order that ``context`` names.

    Ranks mean nothing in another order, so they are shown only where the context is the same.
    """

    start: int
    stop: int
    context: str

    @property
    def count(self) -> int:
        """How many."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class DynamicsState:
    """The state of the page.

    Attributes:
        show: What colours the heat map and what the distributions are of.
        order: The rows of the heat map.
        zoom: Part of the heat map that is shown; None is all of it.
        rows: The rows last dragged over.
        flips: Least and largest number of flips of the bar last clicked.
        gallery: What the gallery shows, on its page ``page``.
        sample: uid whose trajectory is shown; None is the first of the gallery.
        missed: What was looked for and is not there.
        voting: The menu of the votes, maybe unfinished.
        ensemble: How the steps vote and how the votes are put together: the last finished menu.
    """

    show: Show = "mimic_score"
    order: Order = Order()
    zoom: Ranks | None = None
    rows: Ranks | None = None
    flips: tuple[int, int] | None = None
    gallery: Source = "rows"
    page: int = 1
    sample: str | None = None
    missed: str | None = None
    voting: LeafForm = field(default_factory=lambda: ensemble_form(EnsembleVote()))
    ensemble: EnsembleConfig = field(default_factory=lambda: EnsembleVote().config)


def over(measure: str) -> str:
    """The ``Order.sort`` of a measure over the steps."""
    return _PREFIX + measure


def sorts(number_columns: list[str]) -> list[str]:
    """All that the heat map can be sorted by: scores and measures over the steps first."""
    first = [MEAN_SCORE, *(over(measure) for measure in OVER_STEPS), "clip_score"]
    rest = [name for name in number_columns if name not in first]
    return [name for name in first if name.startswith(_PREFIX) or name in number_columns] + rest


def sort_name(sort: str) -> str:
    """What it is sorted by, as people say it."""
    if sort.startswith(_PREFIX):
        return OVER_STEPS[sort.removeprefix(_PREFIX)]
    return "mean score" if sort == MEAN_SCORE else spoken(sort)


def measured(show: Show, config: EnsembleConfig) -> HistoryColumn:
    """The column behind what is shown: votes are of the column that the binarisation cuts."""
    return config.binarise.column if show == "vote" else show
