"""A recipe as cards that are edited in place: its trees as lines, and every change a click makes.

A condition may be a tree. It is shown as lines, one per leaf, and a leaf is addressed by its path:
the fields and positions that lead to it. All functions take and return frozen values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mimic_core.base.errors import FilterError
from mimic_core.filters import conditions as kinds
from mimic_core.filters.conditions import Condition
from mimic_core.filters.recipe import NamedCondition, Recipe

Step = Literal["keep", "drop", "condition"] | int
Path = tuple[Step, ...]
NAME_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Line:
    """One leaf of a condition as a line.

    Attributes:
        path: Where the leaf is.
        depth: How many brackets it stands in.
        before, after: The words and brackets around it, such as ``minus (`` and ``)``.
        leaf: The leaf.
    """

    path: Path
    depth: int
    before: str
    after: str
    leaf: Condition

    @property
    def removable(self) -> bool:
        """Whether the rest still says something without it."""
        return _removable(self.path) is not None


def lines(condition: Condition) -> list[Line]:
    """The leaves of ``condition`` in order, with the words that join them.

    What is nested stands in brackets, except for ``a minus b minus c``, which is read from the
    left.
    """
    return _lines(condition, (), depth=0, word="")


def _lines(condition: Condition, path: Path, *, depth: int, word: str) -> list[Line]:
    found: list[Line]
    match condition:
        case kinds.Not():
            inner = condition.condition
            spoken = f"{word} not".strip()
            if _grouped(inner):
                return _bracketed(inner, (*path, "condition"), depth=depth, word=spoken)
            return _lines(inner, (*path, "condition"), depth=depth, word=spoken)
        case kinds.AllOf() | kinds.AnyOf():
            joint = "and" if isinstance(condition, kinds.AllOf) else "or"
            found = []
            for place, part in enumerate(condition.conditions):
                here = joint if place else word
                found += _member(part, (*path, place), depth=depth, word=here)
            return found
        case kinds.Minus():
            keep = condition.keep
            first = _lines if isinstance(keep, kinds.Minus) else _member
            found = first(keep, (*path, "keep"), depth=depth, word=word)
            return found + _member(condition.drop, (*path, "drop"), depth=depth, word="minus")
    return [Line(path, depth, word, "", condition)]


def _member(condition: Condition, path: Path, *, depth: int, word: str) -> list[Line]:
    inside = _bracketed if _grouped(condition) else _lines
    return inside(condition, path, depth=depth, word=word)


def _bracketed(condition: Condition, path: Path, *, depth: int, word: str) -> list[Line]:
    found = _lines(condition, path, depth=depth + 1, word="")
    found[0] = replace(found[0], before=f"{word} ( {found[0].before}".strip())
    found[-1] = replace(found[-1], after=f"{found[-1].after} )".strip())
    return found


def _grouped(condition: Condition) -> bool:
    return isinstance(condition, kinds.AllOf | kinds.AnyOf | kinds.Minus)


def part_at(condition: Condition, path: Path) -> Condition:
    """The part of ``condition`` at ``path``.

    Raises:
        FilterError: The condition has been changed and has no such part any more.
    """
    if not path:
        return condition
    step, rest = path[0], path[1:]
    match condition, step:
        case kinds.AllOf() | kinds.AnyOf(), int() if 0 <= step < len(condition.conditions):
            return part_at(condition.conditions[step], rest)
        case kinds.Not(), "condition":
            return part_at(condition.condition, rest)
        case kinds.Minus(), "keep" | "drop":
            return part_at(condition.keep if step == "keep" else condition.drop, rest)
    raise FilterError(
        "the condition has no such part",
        got="/".join(str(one) for one in path),
        next_step="close the editor and open it again",
    )


def with_part(condition: Condition, path: Path, part: Condition) -> Condition:
    """``condition`` with ``part`` at ``path``. Raises like ``part_at``."""
    if not path:
        return part
    step, rest = path[0], path[1:]
    inner = with_part(part_at(condition, path[:1]), rest, part)
    match condition, step:
        case kinds.AllOf() | kinds.AnyOf(), int():
            parts = list(condition.conditions)
            parts[step] = inner
            return type(condition)(conditions=tuple(parts))
        case kinds.Minus(), "keep":
            return kinds.Minus(keep=inner, drop=condition.drop)
        case kinds.Minus(), _:
            return kinds.Minus(keep=condition.keep, drop=inner)
    return kinds.Not(condition=inner)


def without_part(condition: Condition, path: Path) -> Condition:
    """``condition`` without the leaf at ``path``; what is left alone loses its brackets.

    Raises:
        FilterError: Nothing would be left, or nothing to take away from.
    """
    place = _removable(path)
    if place is None:
        raise FilterError(
            "this part cannot be removed from its condition",
            got=part_at(condition, path).describe(),
            next_step="remove the whole condition",
        )
    group = part_at(condition, place[:-1])
    if isinstance(group, kinds.Minus):
        return with_part(condition, place[:-1], group.keep)
    assert isinstance(group, kinds.AllOf | kinds.AnyOf)  # what else has members
    rest = tuple(one for at, one in enumerate(group.conditions) if at != place[-1])
    if not rest:
        return without_part(condition, place[:-1])
    left = rest[0] if len(rest) == 1 else type(group)(conditions=rest)
    return with_part(condition, place[:-1], left)


def _removable(path: Path) -> Path | None:
    """The path of what goes when the leaf at ``path`` goes: its ``not`` goes with it."""
    while path and path[-1] == "condition":
        path = path[:-1]
    return None if not path or path[-1] == "keep" else path


def or_else(condition: Condition, other: Condition) -> Condition:
    """Keep what either keeps."""
    if isinstance(condition, kinds.AnyOf):
        return kinds.AnyOf(conditions=(*condition.conditions, other))
    return kinds.AnyOf(conditions=(condition, other))


def minus(condition: Condition, drop: Condition) -> Condition:
    """Drop what ``drop`` keeps."""
    return kinds.Minus(keep=condition, drop=drop)


def inverted(condition: Condition) -> Condition:
    """Keep what the condition rejects; twice is once again the condition."""
    return (
        condition.condition if isinstance(condition, kinds.Not) else kinds.Not(condition=condition)
    )


def own_name(condition: Condition) -> str:
    """The name that a condition has until a person gives it one.

    A cutoff, a category or a text is named as on Explore, whose charts then show and change it.
    """
    match condition:
        case kinds.Percentile(by=str(by)) | kinds.TopK(by=str(by)):
            name = f"{condition.column} cutoff by {by}"
        case kinds.Absolute() | kinds.Percentile() | kinds.TopK():
            name = f"{condition.column} cutoff"
        case kinds.Category():
            name = condition.column
        case kinds.Text():
            name = f"{condition.column} text"
        case kinds.Region():
            name = "map region"
        case kinds.Uids():
            name = "chosen samples"
        case kinds.UidList():
            name = condition.describe()
        case kinds.EnsembleVote():
            name = "ensemble"
        case kinds.Not():
            name = f"not {own_name(condition.condition)}"
        case kinds.Minus():
            name = f"{own_name(condition.keep)} minus {own_name(condition.drop)}"
        case kinds.AllOf() | kinds.AnyOf():
            joint = " and " if isinstance(condition, kinds.AllOf) else " or "
            name = joint.join(own_name(part) for part in condition.conditions)
    return name if len(name) <= NAME_SHOWN else f"{name[: NAME_SHOWN - 1]}…"


def free_name(name: str, taken: tuple[str, ...]) -> str:
    """``name``, with a number behind it where it is taken."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name} {number}"
    return found


def dropping(recipe: Recipe, what: str, condition: Condition) -> Recipe:
    """The recipe that drops what ``condition`` keeps too, by the name of ``what`` and a number."""
    number = 1
    while (name := f"{what} {number} dropped") in recipe.names:
        number += 1
    return recipe.with_condition(name, kinds.Not(condition=condition))


def added(recipe: Recipe, condition: Condition) -> Recipe:
    """The recipe with one more condition at its end."""
    name = free_name(own_name(condition), recipe.names)
    return recipe.with_condition(name, condition)


def changed(recipe: Recipe, name: str, condition: Condition) -> tuple[Recipe, str]:
    """The recipe with another condition in the place of ``name``, and the name it has then.

    A name that a person gave stays; one that only said what the condition is follows it.
    """
    place = recipe.names.index(name)
    before = own_name(recipe.conditions[place].condition)
    others = (*recipe.names[:place], *recipe.names[place + 1 :])
    if name == before or (name.startswith(f"{before} ") and name[len(before) + 1 :].isdigit()):
        name = free_name(own_name(condition), others)
    return _with_at(recipe, place, NamedCondition(name=name, condition=condition)), name


def renamed(recipe: Recipe, old: str, new: str) -> Recipe:
    """The recipe with a condition under another name.

    Raises:
        FilterError: The name is empty, or another condition has it.
    """
    new = " ".join(new.split())
    if not new or (new != old and new in recipe.names):
        raise FilterError(
            "the condition cannot have that name",
            got=new,
            allowed="a name that no other condition of the recipe has",
            next_step="choose another name",
        )
    place = recipe.names.index(old)
    named = NamedCondition(name=new, condition=recipe.conditions[place].condition)
    return _with_at(recipe, place, named)


def moved(recipe: Recipe, name: str, by: int) -> Recipe:
    """The recipe with a condition ``by`` places further down, as far as there are places."""
    rest = [named for named in recipe.conditions if named.name != name]
    place = recipe.names.index(name)
    rest.insert(min(max(0, place + by), len(rest)), recipe.conditions[place])
    return Recipe(conditions=tuple(rest))


def _with_at(recipe: Recipe, place: int, named: NamedCondition) -> Recipe:
    before, after = recipe.conditions[:place], recipe.conditions[place + 1 :]
    return Recipe(conditions=(*before, named, *after))
