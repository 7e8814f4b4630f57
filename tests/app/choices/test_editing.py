"""Trees as lines, and every change of a recipe that a click makes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.choices import editing
from mimic_core.base.errors import FilterError
from mimic_core.filters.conditions import (
    Absolute,
    AllOf,
    AnyOf,
    Category,
    Condition,
    EnsembleVote,
    Minus,
    Not,
    Percentile,
    Region,
    Text,
    TopK,
    Uids,
)
from mimic_core.filters.recipe import NamedCondition, Recipe
from mimic_core.filters.votes import votes

A = Percentile(column="a", lower=50)
B = Absolute(column="b", min=3)
C = Category(column="c", values=("x",))
LEAVES = (A, B, C)
TABLE = pl.DataFrame(
    {
        "uid": [f"{row:032x}" for row in range(8)],
        "a": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, None, 7.0],
        "b": [9.0, None, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0],
        "c": ["x", "y", "x", None, "y", "x", "x", "y"],
    }
)

conditions: st.SearchStrategy[Condition] = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: AllOf(conditions=tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: AnyOf(conditions=tuple(parts))),
        inner.map(lambda part: Not(condition=part)),
        st.tuples(inner, inner).map(lambda pair: Minus(keep=pair[0], drop=pair[1])),
    ),
    max_leaves=8,
)


def written(condition: Condition) -> str:
    """The lines joined: what a person reads from top to bottom."""
    names = {A: "a", B: "b", C: "c"}
    return " ".join(
        part
        for line in editing.lines(condition)
        for part in (line.before, names[line.leaf], line.after)  # type: ignore[index]
        if part
    )


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (A, "a"),
        (Not(condition=A), "not a"),
        (Not(condition=Not(condition=A)), "not not a"),
        (Minus(keep=A, drop=B), "a minus b"),
        (AnyOf(conditions=(A, B, C)), "a or b or c"),
        (AllOf(conditions=(A, Not(condition=B))), "a and not b"),
        (Minus(keep=Minus(keep=A, drop=B), drop=C), "a minus b minus c"),
        (Minus(keep=A, drop=Minus(keep=B, drop=C)), "a minus ( b minus c )"),
        (Minus(keep=AnyOf(conditions=(A, B)), drop=C), "( a or b ) minus c"),
        (Not(condition=AnyOf(conditions=(A, B))), "not ( a or b )"),
        (AllOf(conditions=(AnyOf(conditions=(A, B)), C)), "( a or b ) and c"),
        (
            AnyOf(conditions=(A, Not(condition=AllOf(conditions=(B, Minus(keep=C, drop=A)))))),
            "a or not ( b and ( c minus a ) )",
        ),
    ],
)
def test_a_tree_reads_as_a_sentence(condition: Condition, text: str) -> None:
    assert written(condition) == text


def test_a_nested_line_stands_further_in() -> None:
    tree = AnyOf(conditions=(A, AllOf(conditions=(B, Minus(keep=C, drop=A)))))
    assert [line.depth for line in editing.lines(tree)] == [0, 1, 2, 2]


class _Reader:
    """Reads a written tree back, by its own grammar: independent of the code that writes it."""

    def __init__(self, text: str) -> None:
        self.words = text.split()

    def all(self) -> pl.Series:
        found = self.part()
        while self.words and self.words[0] != ")":
            joint, other = self.words.pop(0), self.part()
            if joint == "and":
                found = found & other
            elif joint == "or":
                found = found | other
            else:
                assert joint == "minus"
                found = found & ~other
        return found

    def part(self) -> pl.Series:
        word = self.words.pop(0)
        if word == "not":
            return ~self.part()
        if word != "(":
            return votes({"a": A, "b": B, "c": C}[word], TABLE)
        found = self.all()
        assert self.words.pop(0) == ")"
        return found


@given(conditions)
def test_the_sentence_means_what_the_tree_means(condition: Condition) -> None:
    """Brackets leave no doubt: within one pair of them all joints are the same."""
    reader = _Reader(written(condition))
    assert reader.all().to_list() == votes(condition, TABLE).to_list()
    assert reader.words == []


@given(conditions, st.data())
def test_a_part_that_is_put_in_is_found_there_and_the_rest_stays(
    condition: Condition, data: st.DataObject
) -> None:
    found = editing.lines(condition)
    at = data.draw(st.integers(0, len(found) - 1))
    new = Text(contains="new")
    changed = editing.with_part(condition, found[at].path, new)
    assert editing.part_at(changed, found[at].path) == new
    assert [line.path for line in editing.lines(changed)] == [line.path for line in found]
    others = [line.leaf for place, line in enumerate(found) if place != at]
    after = [line.leaf for place, line in enumerate(editing.lines(changed)) if place != at]
    assert after == others
    assert editing.with_part(changed, found[at].path, found[at].leaf) == condition


@given(conditions, st.data())
def test_a_part_that_is_taken_out_leaves_the_others_or_is_refused(
    condition: Condition, data: st.DataObject
) -> None:
    found = editing.lines(condition)
    at = data.draw(st.integers(0, len(found) - 1))
    if not found[at].removable:
        with pytest.raises(FilterError, match="cannot be removed"):
            editing.without_part(condition, found[at].path)
        return
    try:
        rest = editing.without_part(condition, found[at].path)
    except FilterError:  # the only member of groups that hold nothing else
        return
    assert [line.leaf for line in editing.lines(rest)] == [
        line.leaf for place, line in enumerate(found) if place != at
    ]


def test_what_is_left_alone_loses_its_brackets() -> None:
    assert editing.without_part(AnyOf(conditions=(A, B)), (0,)) == B
    assert editing.without_part(Minus(keep=A, drop=B), ("drop",)) == A
    assert editing.without_part(AnyOf(conditions=(A, B, C)), (1,)) == AnyOf(conditions=(A, C))
    kept_not = AllOf(conditions=(A, Not(condition=B)))
    assert editing.without_part(kept_not, (1, "condition")) == A


@pytest.mark.parametrize("path", [(0,), ("keep",), ("condition",), ("drop", 0)])
def test_a_path_that_leads_nowhere_is_an_error(path: editing.Path) -> None:
    with pytest.raises(FilterError, match="no such part"):
        editing.part_at(A, path)
    with pytest.raises(FilterError, match="no such part"):
        editing.part_at(AnyOf(conditions=(A,)), (1,))


def test_alternatives_are_collected_and_inverting_twice_is_nothing() -> None:
    assert editing.or_else(editing.or_else(A, B), C) == AnyOf(conditions=(A, B, C))
    assert editing.inverted(editing.inverted(A)) == A
    assert editing.minus(A, B) == Minus(keep=A, drop=B)


def recipe(*parts: Condition) -> Recipe:
    found = Recipe()
    for part in parts:
        found = editing.added(found, part)
    return found


def test_conditions_are_named_as_on_explore() -> None:
    names = recipe(A, A, C, Text(contains="x"), Percentile(column="a", lower=1, by="c")).names
    assert names == ("a cutoff", "a cutoff 2", "c", "caption text", "a cutoff by c")
    others = [
        (TopK(column="a", k=3), "a cutoff"),
        (Region(polygon=((0, 0), (0, 1), (1, 1))), "map region"),
        (Uids(uids=("x",)), "chosen samples"),
        (EnsembleVote(), "ensemble"),
        (Not(condition=A), "not a cutoff"),
        (Minus(keep=A, drop=B), "a cutoff minus b cutoff"),
        (AnyOf(conditions=(A, C)), "a cutoff or c"),
        (AllOf(conditions=(A, C)), "a cutoff and c"),
    ]
    assert [editing.own_name(part) for part, _ in others] == [name for _, name in others]
    assert len(editing.own_name(AnyOf(conditions=(A,) * 40))) == editing.NAME_SHOWN


def test_a_name_follows_its_condition_until_a_person_gives_one() -> None:
    changed, name = editing.changed(recipe(A, A), "a cutoff 2", B)
    assert (name, changed.names) == ("b cutoff", ("a cutoff", "b cutoff"))
    named = editing.renamed(changed, "b cutoff", "  my   own ")
    assert named.names == ("a cutoff", "my own")
    again, name = editing.changed(named, "my own", C)
    assert (name, again.conditions[1].condition) == ("my own", C)


def test_a_name_that_is_taken_or_empty_is_refused() -> None:
    for new in ("b cutoff", " "):
        with pytest.raises(FilterError, match="cannot have that name"):
            editing.renamed(recipe(A, B), "a cutoff", new)
    assert editing.renamed(recipe(A, B), "a cutoff", "a cutoff") == recipe(A, B)


def test_conditions_move_as_far_as_there_are_places() -> None:
    three = recipe(A, B, C)
    assert editing.moved(three, "a cutoff", 1).names == ("b cutoff", "a cutoff", "c")
    assert editing.moved(three, "c", -1).names == ("a cutoff", "c", "b cutoff")
    assert editing.moved(three, "a cutoff", -1) == three
    assert editing.moved(three, "c", 1) == three


@given(st.lists(conditions, max_size=4))
def test_no_click_makes_two_conditions_of_one_name(parts: list[Condition]) -> None:
    found = recipe(*parts)
    assert len(set(found.names)) == len(parts)
    for name in found.names:
        found, _ = editing.changed(found, name, Not(condition=A))
    assert [named.condition for named in found.conditions] == [Not(condition=A)] * len(parts)
    assert isinstance(found, Recipe)
    assert all(isinstance(named, NamedCondition) for named in found.conditions)
    assert np.all([len(name) > 0 for name in found.names])
