"""What the user does to a view, as changes of the recipe: the one selection of all views.

Every function takes and returns a frozen ``Recipe``. A cutoff keeps the unit it was set in, so that
"the top 30 %" still means that after the scores have been tuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from app.choices import editing
from mimic_core.filters import conditions as kinds
from mimic_core.filters.conditions import Condition
from mimic_core.filters.recipe import Recipe
from mimic_core.stats.cutoffs import Cutoff, Keep

MAP_NAME = "map region"
TEXT_NAME = "caption text"
Corner = tuple[float, float]
Range = kinds.Absolute | kinds.Percentile | kinds.TopK
_EDGE = 0.004  # a drag that ends this near the end of the axis, as a share of it, means the end


@dataclass(frozen=True, slots=True)
class Band:
    """The values of a column that its cutoff keeps; None is open. Both ends are kept."""

    low: Cutoff | None
    high: Cutoff | None

    @property
    def kept(self) -> int | None:
        """Number of values kept by a one-sided cutoff; None for a band."""
        if self.low is not None and self.high is not None:
            return None
        one = self.low or self.high
        return None if one is None else one.kept


def cutoff_name(column: str) -> str:
    """Name of the cutoff's condition, which is also the reason of its drops."""
    return f"{column} cutoff"


def condition_named(recipe: Recipe, name: str) -> Condition | None:
    """The recipe's condition of that name."""
    found = (named.condition for named in recipe.conditions if named.name == name)
    return next(found, None)


def is_range(condition: Condition | None) -> TypeGuard[Range]:
    """Whether a condition cuts a column at one place for the whole table."""
    if isinstance(condition, kinds.Percentile | kinds.TopK):
        return condition.by is None
    return isinstance(condition, kinds.Absolute)


def cutoff_of(recipe: Recipe, column: str) -> Range | None:
    """The condition that cuts ``column``, if there is one."""
    condition = condition_named(recipe, cutoff_name(column))
    return condition if is_range(condition) else None


def band(condition: Range | None, values: np.ndarray) -> Band:
    """The ends of the cutoff in all three units, on the ascending ``values`` (N,)."""
    low = high = None
    if condition is None or not len(values):
        return Band(None, None)
    if isinstance(condition, kinds.TopK):
        kept = min(condition.k, len(values))
        if condition.end == "largest":
            low = Cutoff.from_kept(values, kept, keep="high")
        else:
            high = Cutoff.from_kept(values, kept, keep="low")
    elif isinstance(condition, kinds.Absolute):
        if condition.min is not None:
            low = Cutoff.from_score(values, condition.min, keep="high")
        if condition.max is not None:
            high = Cutoff.from_score(values, condition.max, keep="low")
    else:
        if condition.lower > 0:
            low = Cutoff.from_percentile(values, condition.lower, keep="high")
        if condition.upper < 100:
            high = Cutoff.from_percentile(values, condition.upper, keep="low")
    return Band(low, high)


def keep_side(condition: Range | None) -> Keep | None:
    """Which side a one-sided cutoff keeps; None without one, or for a band."""
    match condition:
        case kinds.TopK():
            return "high" if condition.end == "largest" else "low"
        case kinds.Absolute(min=None) | kinds.Percentile(lower=0.0):
            return "low"
        case kinds.Absolute(max=None) | kinds.Percentile(upper=100.0):
            return "high"
    return None


def set_score(recipe: Recipe, column: str, score: float | None, *, keep: Keep) -> Recipe:
    """Cut at a score; None removes the cutoff."""
    if score is None:
        return without_cutoff(recipe, column)
    ends = {"min": score} if keep == "high" else {"max": score}
    return _with_cutoff(recipe, column, kinds.Absolute.parse({"column": column, **ends}))


def set_percentile(recipe: Recipe, column: str, percent: float | None, *, keep: Keep) -> Recipe:
    """Cut at a percentile; None removes the cutoff."""
    if percent is None:
        return without_cutoff(recipe, column)
    ends = {"lower": percent} if keep == "high" else {"upper": percent}
    return _with_cutoff(recipe, column, kinds.Percentile.parse({"column": column, **ends}))


def set_kept(recipe: Recipe, column: str, kept: int | None, *, keep: Keep) -> Recipe:
    """Keep that many of the highest (or lowest) values; None removes the cutoff."""
    if kept is None:
        return without_cutoff(recipe, column)
    end = "largest" if keep == "high" else "smallest"
    return _with_cutoff(recipe, column, kinds.TopK.parse({"column": column, "k": kept, "end": end}))


def set_band(recipe: Recipe, column: str, low: float | None, high: float | None) -> Recipe:
    """Keep the values from ``low`` to ``high``; both None removes the cutoff."""
    if low is None and high is None:
        return without_cutoff(recipe, column)
    return _with_cutoff(
        recipe, column, kinds.Absolute.parse({"column": column, "min": low, "max": high})
    )


def paint(
    recipe: Recipe, column: str, drag: tuple[float, float], *, axis: tuple[float, float]
) -> Recipe:
    """Keep what was dragged over on the histogram.

    A drag that reaches an end of the axis leaves that end open, so dragging from the cutoff to the
    right edge means "this and above".
    """
    low, high = sorted(drag)
    slack = _EDGE * (axis[1] - axis[0])
    open_low, open_high = low <= axis[0] + slack, high >= axis[1] - slack
    return set_band(recipe, column, None if open_low else low, None if open_high else high)


def flip(recipe: Recipe, column: str, values: np.ndarray) -> Recipe:
    """Keep the other side of a one-sided cutoff, at the same place and in the same unit."""
    condition = cutoff_of(recipe, column)
    side = keep_side(condition)
    if condition is None or side is None:
        return recipe
    other: Keep = "low" if side == "high" else "high"
    match condition:
        case kinds.TopK():
            rest = max(1, len(values) - condition.k)
            return set_kept(recipe, column, rest, keep=other)
        case kinds.Percentile():
            percent = condition.lower if side == "high" else condition.upper
            return set_percentile(recipe, column, percent, keep=other)
    return set_score(recipe, column, condition.min if side == "high" else condition.max, keep=other)


def without_cutoff(recipe: Recipe, column: str) -> Recipe:
    """The recipe without the cutoff of ``column``, if it has one."""
    return recipe if cutoff_of(recipe, column) is None else recipe.without(cutoff_name(column))


def keep_region(recipe: Recipe, corners: Sequence[Corner]) -> Recipe:
    """Keep only what lies inside the polygon on the map; it takes the place of an earlier one."""
    return recipe.with_condition(MAP_NAME, _region(corners))


def drop_region(recipe: Recipe, corners: Sequence[Corner]) -> Recipe:
    """Drop what lies inside the polygon on the map, beside all that is dropped already."""
    return editing.dropping(recipe, MAP_NAME, _region(corners))


def regions(recipe: Recipe) -> list[tuple[Corner, ...]]:
    """Corners of every region on the map that the recipe keeps or drops, for drawing."""
    return [region.polygon for region in _regions(recipe)]


def inside_regions(recipe: Recipe) -> Condition | None:
    """What lies inside any region on the map, whether it is kept or dropped; None without one."""
    found = tuple(_regions(recipe))
    return kinds.AnyOf(conditions=found) if found else None


def _regions(recipe: Recipe) -> list[kinds.Region]:
    found = []
    for named in recipe.conditions:
        one = (
            named.condition.condition if isinstance(named.condition, kinds.Not) else named.condition
        )
        if isinstance(one, kinds.Region) and one.columns == ("map_x", "map_y"):
            found.append(one)
    return found


def set_categories(recipe: Recipe, column: str, values: Sequence[str | bool | int]) -> Recipe:
    """Keep only these values of a category column; none removes the condition."""
    if not values:
        return recipe.without(column) if column in recipe.names else recipe
    return recipe.with_condition(
        column, kinds.Category.parse({"column": column, "values": tuple(values)})
    )


def toggle_category(recipe: Recipe, column: str, *, value: str | bool | int) -> Recipe:
    """Keep that value of a category column alone; all values again where it is so already."""
    now = condition_named(recipe, column)
    alone = isinstance(now, kinds.Category) and now.values == (value,)
    return set_categories(recipe, column, () if alone else (value,))


def set_text(recipe: Recipe, contains: str, *, keep: bool = True) -> Recipe:
    """Keep (or drop) captions that contain a text; an empty one removes the condition."""
    if not contains:
        return recipe.without(TEXT_NAME) if TEXT_NAME in recipe.names else recipe
    condition = kinds.Text.parse({"contains": contains})
    return recipe.with_condition(TEXT_NAME, condition if keep else kinds.Not(condition=condition))


def chips(recipe: Recipe) -> list[tuple[str, str]]:
    """Every condition as (name, what it says)."""
    return [(named.name, named.condition.describe()) for named in recipe.conditions]


def _region(corners: Sequence[Corner]) -> kinds.Region:
    return kinds.Region.parse({"polygon": tuple(corners)})


def _with_cutoff(recipe: Recipe, column: str, condition: Range) -> Recipe:
    name = cutoff_name(column)
    if name in recipe.names and not is_range(condition_named(recipe, name)):
        # A condition that no chart can show gets another name, so that it is not replaced.
        recipe = editing.renamed(recipe, name, editing.free_name(name, recipe.names))
    return recipe.with_condition(name, condition)
