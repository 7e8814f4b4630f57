"""Two recipes side by side: the quadrants they cut a table into, each said as a recipe."""

from __future__ import annotations

import numpy as np

from app.choices import editing
from mimic_core.filters.conditions import AllOf, Condition, Minus, Not, Uids
from mimic_core.filters.recipe import NamedCondition, Recipe
from mimic_core.stats.agreement import Quadrant

UID_LIMIT = 2_000  # a recipe of more uids is slow to read and too long for the address of the page


def said(recipe: Recipe) -> Condition | None:
    """All conditions of a recipe as one; None for a recipe that keeps every sample."""
    parts = tuple(named.condition for named in recipe.conditions)
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else AllOf(conditions=parts)


def quadrant_recipe(a: Recipe, b: Recipe, quadrant: Quadrant) -> Recipe | None:
    """A recipe that keeps a quadrant of A and B; None where that quadrant is always empty.

    It keeps no sample about which a condition that it turns round cannot say anything, while the
    quadrant counts that sample as dropped: compare what both keep before using it.
    """
    if quadrant == "both":
        return _both(a, b)
    one, other = said(a), said(b)
    if quadrant == "only_b":
        one, other = other, one
    if quadrant == "neither":
        if one is None or other is None:
            return None
        nots = (Not(condition=one), Not(condition=other))
        return _single("neither", AllOf(conditions=nots))
    if other is None:
        return None
    if one is None:
        return _single("the rest", Not(condition=other))
    return _single("the difference", Minus(keep=one, drop=other))


def _single(name: str, condition: Condition) -> Recipe:
    return Recipe(conditions=(NamedCondition(name=name, condition=condition),))


def _both(a: Recipe, b: Recipe) -> Recipe:
    """The conditions of A and those of B that are not among them."""
    known = {named.condition for named in a.conditions}
    found = a
    for named in b.conditions:
        if named.condition not in known:
            name = editing.free_name(named.name, found.names)
            found = found.with_condition(name, named.condition)
    return found


def uids_recipe(uids: list[str]) -> Recipe:
    """A recipe that names the samples one by one."""
    return _single("chosen samples", Uids(uids=tuple(uids)))


def ranked(order: np.ndarray, mask: np.ndarray, *, highest: bool) -> np.ndarray:
    """Rows (M,) that lie in ``mask`` (N,), from the wanted end; those without a value come last.

    Args:
        order: Rows that have a value, lowest first.
        mask: Which rows are wanted.
        highest: Which end comes first.
    """
    rows = order[mask[order]]
    left = mask.copy()
    left[order] = False
    return np.concatenate([rows[::-1] if highest else rows, np.flatnonzero(left)])
