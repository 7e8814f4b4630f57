from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mimic_core.base.errors import ConfigError, FilterError
from mimic_core.filters.conditions import (
    Absolute,
    AllOf,
    AnyOf,
    Category,
    Condition,
    Minus,
    Not,
    Percentile,
    Region,
    Text,
    TopK,
    Uids,
)
from mimic_core.filters.recipe import NamedCondition, Recipe, Selection, apply
from mimic_core.filters.votes import votes

TABLE = pl.DataFrame(
    {
        "uid": ["c", "a", "b", "e", "d"],
        "score": pl.Series([0.1, 0.2, 0.2, None, 0.4], dtype=pl.Float32),
        "width": [10, 20, 30, 40, None],
        "caption": ["A Dog", "a cat", None, "dogs.", "a.b"],
        "topic": ["x", "y", None, "x", "z"],
        "is_noisy": [True, False, None, False, True],
        "map_x": [0.0, 1.0, 2.0, 3.0, None],
        "map_y": [0.0, 1.0, 0.0, 5.0, 1.0],
    }
)


def kept(condition: Condition, table: pl.DataFrame = TABLE) -> str:
    """The kept uids as one word, in the order of the table."""
    return "".join(table["uid"].filter(votes(condition, table).fill_null(False)))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Absolute(column="score", min=0.2), "abd"),
        (Absolute(column="score", max=0.2), "cab"),
        (Absolute(column="score", min=0.15, max=0.3), "ab"),
        (Absolute(column="score", min=1e300), ""),
        (Absolute(column="width", min=20.5), "be"),
        (Percentile(column="score", lower=0, upper=100), "cabd"),
        (Percentile(column="score", lower=25), "abd"),
        (Percentile(column="score", lower=50), "abd"),  # the tie stays
        (Percentile(column="score", lower=75), "d"),
        (Percentile(column="score", lower=76), ""),
        (Percentile(column="score", upper=25), "c"),
        (Percentile(column="score", upper=24), ""),
        (Percentile(column="score", lower=25, upper=75), "ab"),
        (TopK(column="score", k=1), "d"),
        (TopK(column="score", k=2), "ad"),  # of the tie a and b, the smaller uid
        (TopK(column="score", k=2, end="smallest"), "ca"),
        (TopK(column="score", k=9), "cabd"),
        (Category(column="topic", values=("x", "z")), "ced"),
        (Category(column="is_noisy", values=(True,)), "cd"),
        (Category(column="width", values=(20, 40)), "ae"),
        (Text(contains="dog"), "ce"),
        (Text(contains="Dog", match_case=True), "c"),
        (Text(contains="."), "ed"),  # no pattern
        (Text(contains=".", match_case=True), "ed"),
        (Text(column="topic", contains="y"), "a"),
        (Region.box((0, 2), (0, 1)), "cab"),
        (Region.box((10, 30), (0.15, 0.5), columns=("width", "score")), "ab"),
        (Region(polygon=((-1, -1), (2, -1), (-1, 2))), "c"),
        (Uids(uids=("e", "a", "a")), "ae"),
        (Uids(uids=()), ""),
        (Not(condition=Absolute(column="score", min=0.2)), "c"),
        (Not(condition=Uids(uids=("e", "a"))), "cbd"),
    ],
    ids=lambda value: value.describe() if hasattr(value, "describe") else None,
)
def test_each_condition_keeps_exactly(condition: Condition, expected: str) -> None:
    assert kept(condition) == expected


def test_combinators_keep_exactly() -> None:
    low, noisy = Absolute(column="score", max=0.2), Category(column="is_noisy", values=(True,))
    assert kept(AllOf(conditions=(low, noisy))) == "c"
    assert kept(AnyOf(conditions=(low, noisy))) == "cabd"
    assert kept(Minus(keep=low, drop=noisy)) == "a"  # b: nobody knows whether it is noisy


LEAVES: list[Condition] = [
    Absolute(column="score", min=0.2),
    Percentile(column="score", lower=50),
    Percentile(column="score", lower=99),
    TopK(column="score", k=2),
    TopK(column="score", k=4),
    Category(column="topic", values=("x",)),
    Category(column="is_noisy", values=(True,)),
    Text(contains="dog"),
    Region.box((0, 2), (0, 1)),
]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.describe())
def test_a_missing_value_is_never_kept_negated_or_not(leaf: Condition) -> None:
    columns = leaf.columns if isinstance(leaf, Region) else (leaf.column,)  # type: ignore[union-attr]
    missing = TABLE.select(pl.any_horizontal(pl.col(columns).is_null())).to_series()
    assert missing.any()
    assert votes(leaf, TABLE).filter(missing).is_null().all()
    assert votes(Not(condition=leaf), TABLE).filter(missing).is_null().all()
    assert votes(leaf, TABLE).filter(~missing).null_count() == 0


# Random tables and trees -------------------------------------------------------------------------

numbers = st.one_of(st.none(), st.integers(-3, 3).map(lambda v: v / 2))
rows = st.lists(
    st.tuples(numbers, numbers, st.sampled_from(["red", "green", None])), min_size=0, max_size=15
)


def table_of(found: list[tuple[Any, ...]]) -> pl.DataFrame:
    schema = {"x": pl.Float32, "y": pl.Float64, "colour": pl.String}
    uids = pl.Series("uid", [f"{i * 7 % 16:02d}" for i in range(len(found))], dtype=pl.String)
    return pl.DataFrame(found, schema=schema, orient="row").insert_column(0, uids)


tables = rows.map(table_of)
columns = st.sampled_from(["x", "y"])
finite = st.floats(-4, 4)
leaves: st.SearchStrategy[Condition] = st.one_of(
    st.builds(
        lambda column, ends: Absolute(column=column, min=min(ends), max=max(ends)),
        columns,
        st.tuples(finite, finite),
    ),
    st.builds(lambda column, low: Absolute(column=column, min=low), columns, finite),
    st.builds(
        lambda column, ends: Percentile(column=column, lower=min(ends), upper=max(ends)),
        columns,
        st.tuples(st.floats(0, 100), st.floats(0, 100)),
    ),
    st.builds(
        TopK, column=columns, k=st.integers(1, 20), end=st.sampled_from(["largest", "smallest"])
    ),
    st.builds(
        Category,
        column=st.just("colour"),
        values=st.lists(st.sampled_from(["red", "green", "1", "yes", "null"]), min_size=1).map(
            tuple
        ),
    ),
    st.builds(Text, column=st.just("colour"), contains=st.text(min_size=1, max_size=3)),
    st.builds(
        Region,
        columns=st.just(("x", "y")),
        polygon=st.lists(st.tuples(finite, finite), min_size=3, max_size=6).map(tuple),
    ),
)


def nested(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    several = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return st.one_of(
        st.builds(AllOf, conditions=several),
        st.builds(AnyOf, conditions=several),
        st.builds(Not, condition=inner),
        st.builds(Minus, keep=inner, drop=inner),
    )


trees = st.recursive(leaves, nested, max_leaves=6)
recipes = st.lists(
    st.tuples(st.text(min_size=1, max_size=8), trees), max_size=4, unique_by=lambda named: named[0]
).map(
    lambda named: Recipe(
        conditions=tuple(NamedCondition(name=name, condition=tree) for name, tree in named)
    )
)


def same(one: Condition, other: Condition, table: pl.DataFrame) -> bool:
    return votes(one, table).equals(votes(other, table))


@given(tables, trees, trees)
def test_de_morgans_laws_hold_with_missing_values(
    table: pl.DataFrame, a: Condition, b: Condition
) -> None:
    both, either = AllOf(conditions=(a, b)), AnyOf(conditions=(a, b))
    not_a, not_b = Not(condition=a), Not(condition=b)
    assert same(Not(condition=both), AnyOf(conditions=(not_a, not_b)), table)
    assert same(Not(condition=either), AllOf(conditions=(not_a, not_b)), table)
    assert same(Not(condition=not_a), a, table)


@given(tables, trees, trees)
def test_minus_is_all_and_not(table: pl.DataFrame, a: Condition, b: Condition) -> None:
    assert same(Minus(keep=a, drop=b), AllOf(conditions=(a, Not(condition=b))), table)


@given(tables, trees)
def test_a_condition_and_its_negation_never_both_keep(table: pl.DataFrame, tree: Condition) -> None:
    one, other = votes(tree, table), votes(Not(condition=tree), table)
    assert len(one) == len(table)
    assert not (one & other).any()


@given(tables, recipes)
def test_drops_add_up_and_name_the_first_condition_that_fails(
    table: pl.DataFrame, recipe: Recipe
) -> None:
    found = apply(recipe, table)
    assert sum(found.drops.values()) == found.total - found.kept
    assert tuple(found.drops) == recipe.names
    assert found.uids.to_list() == sorted(table["uid"].filter(pl.Series(found.mask)))
    for row, reason in enumerate(found.reasons):
        passing = [votes(named.condition, table)[row] is True for named in recipe.conditions]
        expected = recipe.names[passing.index(False)] if False in passing else None
        assert reason == expected


@given(tables, recipes)
def test_order_of_rows_and_conditions_does_not_change_what_is_kept(
    table: pl.DataFrame, recipe: Recipe
) -> None:
    expected = apply(recipe, table).uids
    turned = Recipe(conditions=recipe.conditions[::-1])
    assert apply(recipe, table.reverse()).uids.equals(expected)
    assert apply(turned, table).uids.equals(expected)


@given(tables, columns, st.integers(1, 20), st.sampled_from(["largest", "smallest"]))
def test_top_k_keeps_exactly_k_of_the_best(
    table: pl.DataFrame, column: str, k: int, end: Any
) -> None:
    found = set(kept_uids(TopK(column=column, k=k, end=end), table))
    present = [(row[column], row["uid"]) for row in table.to_dicts() if row[column] is not None]
    sign = -1 if end == "largest" else 1
    best = sorted(present, key=lambda pair: (sign * pair[0], pair[1]))[:k]
    assert found == {uid for _, uid in best}


def kept_uids(condition: Condition, table: pl.DataFrame) -> list[str]:
    return apply(Recipe().with_condition("one", condition), table).uids.to_list()


@settings(max_examples=200)
@given(recipes)
def test_yaml_round_trip(recipe: Recipe) -> None:
    text = recipe.to_yaml()
    again = Recipe.from_yaml(text)
    assert again == recipe
    assert again.to_yaml() == text


@given(tables, recipes)
def test_a_recipe_read_back_from_yaml_keeps_the_same(table: pl.DataFrame, recipe: Recipe) -> None:
    again = apply(Recipe.from_yaml(recipe.to_yaml()), table)
    assert (again.first_failed == apply(recipe, table).first_failed).all()


@pytest.mark.parametrize(
    "text", ["\x85", "a\u2028b", "مرحبا", "🐈‍⬛", "\ufeff", "yes", "1e3", " ", "\n"]
)
def test_any_text_survives_yaml(text: str) -> None:
    recipe = Recipe().with_condition(text, Text(contains=text))
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_the_yaml_is_as_documented() -> None:
    tree = Minus(
        keep=Percentile(column="clip_score", lower=70),
        drop=Percentile(column="mimic_score", upper=15),
    )
    recipe = Recipe().with_condition("CLIP without low mimic", tree)
    assert recipe.to_yaml() == (
        "version: 1\n"
        "conditions:\n"
        "- name: CLIP without low mimic\n"
        "  condition:\n"
        "    kind: minus\n"
        "    keep:\n"
        "      kind: percentile\n"
        "      column: clip_score\n"
        "      lower: 70.0\n"
        "      upper: 100.0\n"
        "    drop:\n"
        "      kind: percentile\n"
        "      column: mimic_score\n"
        "      lower: 0.0\n"
        "      upper: 15.0\n"
    )


# Recipes and selections --------------------------------------------------------------------------


def test_a_selection_counts_what_it_keeps_and_drops() -> None:
    recipe = (
        Recipe()
        .with_condition("good", Absolute(column="score", min=0.2))
        .with_condition("wide", Absolute(column="width", max=25))
    )
    found = apply(recipe, TABLE)
    assert found.uids.to_list() == ["a"]
    assert (found.total, found.kept, found.retention_rate) == (5, 1, 0.2)
    assert found.drops == {"good": 2, "wide": 2}
    assert found.mask.tolist() == [False, True, False, False, False]
    assert found.reasons.to_list() == ["good", None, "wide", "good", "wide"]


def test_an_empty_recipe_keeps_all() -> None:
    found = apply(Recipe(), TABLE)
    assert found.uids.to_list() == list("abcde")
    assert (found.drops, found.retention_rate) == ({}, 1.0)
    assert found.reasons.to_list() == [None] * 5


def test_an_empty_table_is_filtered_too() -> None:
    for leaf in LEAVES:
        found: Selection = apply(Recipe().with_condition("one", leaf), TABLE.clear())
        assert (found.total, found.kept, found.retention_rate) == (0, 0, 0.0)
        assert found.drops == {"one": 0}


def test_recipes_change_by_copy() -> None:
    one, two = Absolute(column="score", min=0.2), Absolute(column="score", min=0.3)
    recipe = Recipe().with_condition("a", one).with_condition("b", one)
    changed = recipe.with_condition("a", two)
    assert recipe.conditions[0].condition == one
    assert changed.names == ("a", "b")
    assert changed.conditions[0].condition == two
    assert changed.without("a").names == ("b",)
    assert len({recipe, changed, recipe.with_condition("a", one)}) == 2  # equal ones hash alike


def test_names_are_unique_and_must_exist() -> None:
    named = NamedCondition(name="a", condition=Text(contains="x"))
    with pytest.raises(ValidationError, match="two conditions are named 'a'"):
        Recipe(conditions=(named, named))
    with pytest.raises(FilterError, match="no condition of that name; got 'b'; allowed: a"):
        Recipe(conditions=(named,)).without("b")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "a recipe is a mapping"),
        ("", "a recipe is a mapping; got None"),
        ("version: 2", "at version"),
        ("extra: 1", "at extra"),
        ("conditions: [{name: a, condition: {kind: magic}}]", "at conditions.0.condition"),
        (
            "conditions: [{name: a, condition: {kind: absolute, column: x, min: .nan}}]",
            r"at conditions.0.condition.absolute.min: .* finite number; got nan",
        ),
        (
            "conditions: [{name: a, condition: {kind: not, condition: {kind: all}}}]",
            "conditions.0.condition.not.condition.all.conditions",
        ),
        ("conditions: [{name: '', condition: {kind: text, contains: a}}]", "conditions.0.name"),
        ("!!python/object/apply:os.getcwd []", "the tag"),
        ("[" * 1500, "64 levels"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_place(text: str, says: str) -> None:
    with pytest.raises(FilterError, match=says):
        Recipe.from_yaml(text)


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (Absolute, {"column": "x"}, "give min, max or both"),
        (Absolute, {"column": "x", "min": 2, "max": 1}, "min 2.0 is above max 1.0"),
        (Absolute, {"column": "x", "min": math.inf}, "finite"),
        (Percentile, {"column": "x", "lower": 60, "upper": 40}, "lower 60.0 is above upper 40.0"),
        (Percentile, {"column": "x", "lower": -1}, "greater than or equal to 0"),
        (TopK, {"column": "x", "k": 0}, "greater than or equal to 1"),
        (Category, {"column": "x", "values": ()}, "at least 1"),
        (Text, {"contains": ""}, "at least 1"),
        (Region, {"polygon": ((0, 0), (1, 1))}, "at least 3"),
        (Region, {"polygon": ((0, 0), (1, 1), (0, math.nan))}, "finite"),
    ],
)
def test_impossible_conditions_are_refused(kind: Any, values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        kind.parse(values)


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (Absolute(column="scroe", min=0), "got 'scroe'; allowed: score. Next step: did you mean s"),
        (Absolute(column="zzz", min=0), "allowed: uid, score, width, .* choose one of its columns"),
        (Absolute(column="caption", min=0), "got 'String'; allowed: a numeric column"),
        (Absolute(column="is_noisy", min=0), "got 'Boolean'; allowed: a numeric column"),
        (Text(column="score", contains="a"), "got 'Float32'; allowed: a text column"),
        (Category(column="score", values=(1,)), "got 'Float32'; allowed: a text, boolean"),
        (Category(column="topic", values=("x", 1)), "got 1; allowed: text values"),
        (Category(column="is_noisy", values=(1,)), "got 1; allowed: true or false"),
        (Category(column="width", values=(True,)), "got True; allowed: whole numbers"),
        (Uids(uids=("a", "q", "r")), "2 of the 3 chosen samples are not in this table; got 'q'"),
    ],
)
def test_a_condition_that_does_not_fit_the_table_is_refused(
    condition: Condition, says: str
) -> None:
    with pytest.raises(FilterError, match=says):
        apply(Recipe().with_condition("one", condition), TABLE)


def test_nan_in_a_table_from_elsewhere_is_refused() -> None:
    table = pl.DataFrame({"uid": ["a", "b"], "x": [1.0, math.nan]})
    with pytest.raises(FilterError, match=r"column x holds NaN.*got 'uid b'"):
        apply(Recipe().with_condition("one", Absolute(column="x", min=0)), table)


def test_categorical_columns_compare_by_their_text() -> None:
    for dtype in (pl.Categorical, pl.Enum(["x", "y", "z"])):
        table = TABLE.with_columns(pl.col("topic").cast(dtype))
        assert kept(Category(column="topic", values=("x", "w")), table) == "ce"


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Absolute(column="mimic_score", min=0.012), "mimic score >= 0.012"),
        (Absolute(column="loss", max=2), "loss <= 2"),
        (Absolute(column="loss", min=0.1, max=2), "0.1 <= loss <= 2"),
        (Percentile(column="clip_score", lower=70), "CLIP score: top 30 %"),
        (Percentile(column="mimic_score", upper=15), "mimic score: lowest 15 %"),
        (Percentile(column="loss", lower=5, upper=95), "loss: percentile 5 to 95"),
        (TopK(column="mimic_score", k=1000), "1,000 largest by mimic score"),
        (Category(column="topic", values=("cat", "dog")), "topic is cat or dog"),
        (Category(column="n", values=(1, 2, 3, 4, 5)), "n is 1 or 2 or 3 or 2 more"),
        (Text(contains="dog"), 'caption contains "dog"'),
        (Text(contains="D", match_case=True), 'caption contains "D" (exact case)'),
        (Region(polygon=((0, 0), (1, 0), (1, 1), (0, 2), (0, 1))), "map: inside lasso (5 points)"),
        (Region.box((0, 1), (2, 3)), "map: inside box"),
        (Region.box((0, 1), (2, 3), columns=("width", "height")), "width and height: inside box"),
        (Uids(uids=("a",)), "1 chosen sample"),
        (Uids(uids=("b", "a")), "2 chosen samples"),
        (Not(condition=Text(contains="a")), 'not (caption contains "a")'),
        (
            AllOf(
                conditions=(
                    Text(contains="a"),
                    AnyOf(conditions=(Text(contains="b"), Text(contains="c"))),
                )
            ),
            'caption contains "a" and (caption contains "b" or caption contains "c")',
        ),
        (
            Minus(
                keep=Percentile(column="clip_score", lower=70),
                drop=Percentile(column="mimic_score", upper=15),
            ),
            "CLIP score: top 30 % minus mimic score: lowest 15 %",
        ),
    ],
)
def test_conditions_read_well(condition: Condition, expected: str) -> None:
    assert condition.describe() == expected


def test_applying_twice_gives_the_same_bytes() -> None:
    rng = np.random.default_rng(0)
    uids = [f"{value:032x}" for value in rng.permutation(2000)]
    table = pl.DataFrame({"uid": uids, "x": rng.integers(0, 9, 2000) / 8, "y": rng.random(2000)})
    recipe = (
        Recipe()
        .with_condition("k", TopK(column="x", k=700))
        .with_condition("lasso", Region(columns=("x", "y"), polygon=((0, 0), (2, 0), (0, 2))))
    )
    one, two = apply(recipe, table), apply(recipe, table)
    assert one.first_failed.tobytes() == two.first_failed.tobytes()
    assert one.drops["k"] == 1300
