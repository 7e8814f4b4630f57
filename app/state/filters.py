"""What the Filters page remembers of itself: one frozen part of the app's state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from app.choices.editing import Path
from app.choices.leafform import LeafForm
from mimic_core.filters.conditions import Condition
from mimic_core.stats.agreement import Quadrant

Task = Literal["add", "or", "minus", "edit"]
QUADRANTS: tuple[Quadrant, ...] = get_args(Quadrant)

# What can be compared beside saved recipes; saved names have no spaces, so they cannot be these.
PRESENT = "present selection"
BEFORE = "before the last change"
EVERYTHING = "all samples"
CONFIDENCE = "ensemble confidence"  # what the curve can be over beside columns of the table


@dataclass(frozen=True, slots=True)
class Editor:
    """The open editor: one leaf of one condition, or one that is yet to be added.

    Attributes:
        task: Add a condition, an alternative to ``card``, what ``card`` loses, or change a leaf.
        card: Name of the condition; None where one is added.
        path: Where in it the leaf is.
        form: The leaf as the controls show it, finished or not.
        base: The leaf in the recipe that the form was made from, or last applied to.
    """

    task: Task
    card: str | None = None
    path: Path = ()
    form: LeafForm = field(default_factory=LeafForm)
    base: Condition | None = None


@dataclass(frozen=True, slots=True)
class FiltersState:
    """The state of the page.

    Attributes:
        editor: The open editor.
        renaming: Name of the condition that is being renamed.
        deleting: Name of the saved recipe that has been asked once to be deleted.
        saved_as: Name of the saved recipe that the present one comes from.
        truth: Boolean column that marks noisy samples; None is the first there is.
        kind: Column that names the noise; None is the first there is.
        curve: Column of the retention curve, or ``CONFIDENCE``.
        a, b: The recipes compared: a saved name, or one of the words above.
        quadrant: The quadrant whose samples are shown, from the ``highest`` or lowest of ``rank``,
            on their page ``page``.
    """

    editor: Editor | None = None
    renaming: str | None = None
    deleting: str | None = None
    saved_as: str | None = None
    truth: str | None = None
    kind: str | None = None
    curve: str = "mimic_score"
    a: str = PRESENT
    b: str = BEFORE
    quadrant: Quadrant | None = None
    rank: str = "mimic_score"
    highest: bool = False
    page: int = 1
