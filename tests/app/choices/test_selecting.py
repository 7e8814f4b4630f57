from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.choices import selecting
from mimic_core.base.errors import MimicError
from mimic_core.filters.conditions import Absolute, Category, Not, Percentile, Region, TopK
from mimic_core.filters.recipe import Recipe, apply

VALUES = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
TABLE = pl.DataFrame({"uid": [f"{i:032x}" for i in range(10)], "score": VALUES})
EMPTY = Recipe()


def cut(recipe: Recipe) -> selecting.Band:
    return selecting.band(selecting.cutoff_of(recipe, "score"), VALUES)


def test_typing_a_score_shows_its_percentile_and_count() -> None:
    low = cut(selecting.set_score(EMPTY, "score", 7.0, keep="high")).low
    assert low is not None
    assert (low.score, low.percentile, low.kept) == (7.0, 70.0, 3)


def test_typing_a_percentile_shows_its_score_and_count() -> None:
    low = cut(selecting.set_percentile(EMPTY, "score", 70.0, keep="high")).low
    assert low is not None
    assert (low.score, low.percentile, low.kept) == (7.0, 70.0, 3)


def test_typing_a_count_shows_its_score_and_percentile() -> None:
    low = cut(selecting.set_kept(EMPTY, "score", 3, keep="high")).low
    assert low is not None
    assert (low.score, low.percentile, low.kept) == (7.0, 70.0, 3)


def test_keeping_below_counts_from_the_other_end() -> None:
    high = cut(selecting.set_kept(EMPTY, "score", 3, keep="low")).high
    assert high is not None
    assert (high.score, high.percentile, high.kept) == (2.0, 30.0, 3)


def test_a_cutoff_keeps_the_unit_it_was_set_in() -> None:
    name = selecting.cutoff_name("score")
    recipes = [
        selecting.set_score(EMPTY, "score", 7.0, keep="high"),
        selecting.set_percentile(EMPTY, "score", 70.0, keep="high"),
        selecting.set_kept(EMPTY, "score", 3, keep="high"),
    ]
    assert [type(selecting.condition_named(recipe, name)) for recipe in recipes] == [
        Absolute,
        Percentile,
        TopK,
    ]


def test_clearing_any_of_the_three_inputs_removes_the_cutoff() -> None:
    with_cutoff = selecting.set_score(EMPTY, "score", 7.0, keep="high")
    for change in (selecting.set_score, selecting.set_percentile, selecting.set_kept):
        assert change(with_cutoff, "score", None, keep="high") == EMPTY


def test_a_new_cutoff_takes_the_place_of_the_old_one() -> None:
    recipe = selecting.set_score(EMPTY, "score", 7.0, keep="high")
    recipe = selecting.set_percentile(recipe, "score", 20.0, keep="low")
    assert recipe.names == ("score cutoff",)


@given(kept=st.integers(1, 10), keep=st.sampled_from(["high", "low"]))
def test_the_three_units_select_the_same_samples(kept: int, keep: str) -> None:
    by_count = selecting.set_kept(EMPTY, "score", kept, keep=keep)  # type: ignore[arg-type]
    ends = cut(by_count)
    now = ends.low or ends.high
    assert now is not None
    by_score = selecting.set_score(EMPTY, "score", now.score, keep=keep)  # type: ignore[arg-type]
    by_percentile = selecting.set_percentile(EMPTY, "score", now.percentile, keep=keep)  # type: ignore[arg-type]
    masks = [apply(recipe, TABLE).mask.tolist() for recipe in (by_count, by_score, by_percentile)]
    assert masks[0] == masks[1] == masks[2]
    assert sum(masks[0]) == kept


@pytest.mark.parametrize(
    ("drag", "low", "high"),
    [
        ((3.0, 6.0), 3.0, 6.0),
        ((6.0, 3.0), 3.0, 6.0),
        ((3.0, 9.4), 3.0, None),
        ((3.0, 8.999), 3.0, None),
        ((-0.5, 6.0), None, 6.0),
    ],
)
def test_a_drag_keeps_what_it_covers(
    drag: tuple[float, float], low: float | None, high: float | None
) -> None:
    recipe = selecting.paint(EMPTY, "score", drag, axis=(0.0, 9.0))
    assert selecting.cutoff_of(recipe, "score") == Absolute(column="score", min=low, max=high)


def test_a_drag_over_everything_removes_the_cutoff() -> None:
    recipe = selecting.set_score(EMPTY, "score", 7.0, keep="high")
    assert selecting.paint(recipe, "score", (-1.0, 10.0), axis=(0.0, 9.0)) == EMPTY


@pytest.mark.parametrize(
    ("recipe", "kept"),
    [
        (selecting.set_kept(EMPTY, "score", 3, keep="high"), 7),
        (selecting.set_percentile(EMPTY, "score", 70.0, keep="high"), 7),
        (selecting.set_score(EMPTY, "score", 6.5, keep="high"), 7),
    ],
)
def test_flipping_keeps_the_other_side(recipe: Recipe, kept: int) -> None:
    flipped = selecting.flip(recipe, "score", VALUES)
    assert selecting.keep_side(selecting.cutoff_of(flipped, "score")) == "low"
    assert apply(flipped, TABLE).kept == kept
    assert apply(selecting.flip(flipped, "score", VALUES), TABLE).kept == 10 - kept


def test_a_band_has_no_side_to_flip() -> None:
    recipe = selecting.set_band(EMPTY, "score", 2.0, 5.0)
    assert selecting.flip(recipe, "score", VALUES) == recipe


SQUARE = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]


def test_a_lasso_that_keeps_takes_the_place_of_the_last_one() -> None:
    recipe = selecting.keep_region(EMPTY, [(5.0, 5.0), (6.0, 5.0), (6.0, 6.0)])
    recipe = selecting.keep_region(recipe, SQUARE)
    assert [named.condition for named in recipe.conditions] == [Region(polygon=tuple(SQUARE))]


def test_lassos_that_drop_add_up() -> None:
    recipe = selecting.drop_region(selecting.drop_region(EMPTY, SQUARE), SQUARE[:3])
    assert [type(named.condition) for named in recipe.conditions] == [Not, Not]
    assert selecting.regions(recipe) == [tuple(SQUARE), tuple(SQUARE[:3])]


def test_choosing_no_value_removes_the_category_condition() -> None:
    recipe = selecting.set_categories(EMPTY, "topic", ["cat", "dog"])
    assert selecting.condition_named(recipe, "topic") == Category(
        column="topic", values=("cat", "dog")
    )
    assert selecting.set_categories(recipe, "topic", []) == EMPTY


def test_text_conditions_keep_or_drop() -> None:
    recipe = selecting.set_text(EMPTY, "dog", keep=False)
    assert selecting.chips(recipe) == [("caption text", 'not (caption contains "dog")')]
    assert selecting.set_text(recipe, "") == EMPTY


def test_a_number_out_of_range_is_an_error_to_act_on() -> None:
    with pytest.raises(MimicError, match="upper"):
        selecting.set_percentile(EMPTY, "score", 170.0, keep="low")


def test_a_column_without_values_has_no_band() -> None:
    condition = Absolute(column="score", min=1.0)
    assert selecting.band(condition, np.array([])) == selecting.Band(None, None)


def test_a_click_in_a_legend_keeps_a_value_alone_and_another_takes_that_back() -> None:
    cats = selecting.toggle_category(Recipe(), "topic", value="cat")
    assert cats == selecting.set_categories(Recipe(), "topic", ["cat"])
    dogs = selecting.toggle_category(cats, "topic", value="dog")
    assert dogs == selecting.set_categories(Recipe(), "topic", ["dog"])
    assert selecting.toggle_category(dogs, "topic", value="dog") == Recipe()
    clean = selecting.toggle_category(Recipe(), "is_noisy", value=False)
    assert clean.conditions[0].condition == Category(column="is_noisy", values=(False,))
