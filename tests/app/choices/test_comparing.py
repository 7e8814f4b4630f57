"""Quadrants of two recipes, and the recipes that say them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.choices import comparing
from app.state.filters import QUADRANTS
from mimic_core.filters.conditions import Absolute, Minus, Not, Text
from mimic_core.filters.recipe import Recipe, apply
from mimic_core.stats.agreement import agreement, quadrants
from tests.recipes import recipe

N = 12
TABLE = pl.DataFrame(
    {
        "uid": [f"{row:032x}" for row in range(N)],
        "a": [float(row) for row in range(N)],
        "b": [float(5 * row % N) for row in range(N)],
        "gap": [None if row % 3 == 0 else float(row) for row in range(N)],
        "caption": ["dog" if row % 2 else "cat" for row in range(N)],
    }
)


full = st.builds(lambda low: Absolute(column="a", min=low), st.integers(0, N))
full |= st.builds(lambda low: Absolute(column="b", max=low), st.integers(0, N))
full |= st.sampled_from([Text(contains="dog"), Not(condition=Text(contains="dog"))])
recipes = st.lists(full, max_size=3).map(lambda parts: recipe(*parts))


@given(recipes, recipes)
def test_every_quadrant_is_kept_by_its_recipe(a: Recipe, b: Recipe) -> None:
    kept_a, kept_b = (apply(one, TABLE).mask for one in (a, b))
    masks = list(quadrants(kept_a, kept_b).values())
    assert (np.sum(masks, axis=0) == 1).all()  # each sample lies in one
    found = agreement(kept_a, kept_b)
    assert [int(mask.sum()) for mask in masks] == [getattr(found, name) for name in QUADRANTS]
    for quadrant, mask in zip(QUADRANTS, masks, strict=True):
        said = comparing.quadrant_recipe(a, b, quadrant)
        if said is None:
            assert not mask.any()
        else:
            assert (apply(said, TABLE).mask == mask).all()
            assert Recipe.from_yaml(said.to_yaml()) == said


def test_a_difference_is_said_as_minus() -> None:
    a, b = Absolute(column="a", min=3), Text(contains="dog")
    found = comparing.quadrant_recipe(recipe(a), recipe(b), "only_a")
    assert found is not None
    assert [named.condition for named in found.conditions] == [Minus(keep=a, drop=b)]


def test_a_condition_of_both_is_said_once_and_names_stay_apart() -> None:
    a, b = Absolute(column="a", min=3), Text(contains="dog")
    found = comparing.quadrant_recipe(recipe(a), recipe(b, a), "both")
    assert found is not None
    assert [(named.name, named.condition) for named in found.conditions] == [
        ("c0", a),
        ("c0 2", b),
    ]


def test_what_has_no_value_cannot_be_said_by_turning_a_condition_round() -> None:
    """The caller must compare before using it: here the recipe keeps fewer."""
    a, b = recipe(), recipe(Absolute(column="gap", min=5))
    kept = apply(b, TABLE).mask
    said = comparing.quadrant_recipe(a, b, "only_a")
    assert said is not None
    assert apply(said, TABLE).kept == (~kept & TABLE["gap"].is_not_null().to_numpy()).sum()
    uids = TABLE["uid"].filter(pl.Series(~kept)).to_list()
    assert (apply(comparing.uids_recipe(uids), TABLE).mask == ~kept).all()


@pytest.mark.parametrize("highest", [False, True])
def test_a_quadrant_is_ranked_from_the_wanted_end_with_missing_values_last(highest: bool) -> None:
    order = np.array([4, 2, 0, 3])  # row 1 has no value
    mask = np.array([True, True, False, True, True])
    rows = comparing.ranked(order, mask, highest=highest).tolist()
    assert rows == ([3, 0, 4, 1] if highest else [4, 0, 3, 1])
