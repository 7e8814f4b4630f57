"""Recipes of tests, in as few words as they have conditions."""

from __future__ import annotations

from mimic_core.filters.conditions import Category, Condition
from mimic_core.filters.recipe import NamedCondition, Recipe


def recipe(*conditions: Condition, **named: Condition) -> Recipe:
    """A recipe of these conditions: ``c0``, ``c1``, ... and those with names of their own."""
    numbered = {f"c{number}": condition for number, condition in enumerate(conditions)}
    all_of_them = {**numbered, **named}.items()
    return Recipe(
        conditions=tuple(NamedCondition(name=name, condition=one) for name, one in all_of_them)
    )


def keeping(column: str, *values: bool | str) -> Recipe:
    """A recipe that keeps these values of a column."""
    return recipe(**{column: Category(column=column, values=values)})
