"""Votes that are kept between changes of a recipe: the same as counting anew, and counted once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest

from mimic_core.filters import votes as counting
from mimic_core.filters.conditions import AllOf, Leaf, Minus, Not, Percentile, Text, TopK
from mimic_core.filters.recipe import Recipe, apply, selection_of
from mimic_core.filters.table_view import TableView
from mimic_core.filters.votes import votes

N = 40
RANDOM = np.random.default_rng(0)
TABLE = pl.DataFrame(
    {
        "uid": [f"{row:032x}" for row in range(N)],
        "score": RANDOM.normal(size=N).astype(np.float32),
        "other": [None if row % 5 == 0 else float(row % 7) for row in range(N)],
        "topic": ["cat" if row % 3 else "dog" for row in range(N)],
    }
)
HIGH, LOW = Percentile(column="score", lower=60), Percentile(column="other", upper=50)
WORD = Text(column="topic", contains="dog")
TREE = Minus(keep=AllOf(conditions=(HIGH, Not(condition=WORD))), drop=AllOf(conditions=(LOW, HIGH)))


def test_a_tree_of_counted_leaves_votes_as_the_tree() -> None:
    asked: Counter[Leaf] = Counter()

    def leaf(one: Leaf) -> pl.Series:
        asked[one] += 1
        return votes(one, TABLE)

    assert counting.joined(TREE, leaf).to_list() == votes(TREE, TABLE).to_list()
    assert asked == {HIGH: 2, WORD: 1, LOW: 1}


def test_a_selection_of_counted_votes_is_the_selection_with_the_same_reasons() -> None:
    recipe = Recipe().with_condition("a", HIGH).with_condition("b", Not(condition=LOW))
    found = [votes(named.condition, TABLE) for named in recipe.conditions]
    one, other = apply(recipe, TABLE), selection_of(recipe, TABLE["uid"], found)
    assert (one.first_failed == other.first_failed).all()
    assert one.drops == other.drops


@pytest.mark.parametrize("by", [None, "topic"])
def test_rows_that_remember_give_the_same_votes(by: str | None) -> None:
    rows = TableView(TABLE, remember=2)
    for column in ("score", "other", "score"):
        for lower in (10.0, 50.0, 90.0):
            condition = Percentile(column=column, lower=lower, by=by)
            assert votes(condition, rows).to_list() == votes(condition, TABLE).to_list()
        top = TopK(column=column, k=5, by=by)
        assert votes(top, rows).to_list() == votes(top, TABLE).to_list()


def test_rows_remember_what_was_used_last_and_no_more_than_was_said() -> None:
    made: list[str] = []
    rows = TableView(TABLE, remember=2)

    def ask(name: str) -> str:
        return rows.once((name,), lambda: made.append(name) or name)  # type: ignore[func-returns-value]

    assert [ask(name) for name in "abacb"] == list("abacb")
    assert made == list("abcb")  # b was forgotten when c came, a had been used since
    forgetful = TableView(TABLE)
    forgetful.once(("a",), lambda: made.append("again"))
    forgetful.once(("a",), lambda: made.append("again"))
    assert made.count("again") == 2
