"""Recipes with ensembles and groups, on tables in memory and lazy ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from mimic_core.filters.ensembles.config import (
    AtLeast,
    EnsembleConfig,
    KMeans,
    LabelModel,
    Majority,
    MeanRank,
    Threshold,
    TopPercent,
    Unanimous,
)
from mimic_core.filters.ensembles.ensemble import ensemble
from mimic_core.filters.recipe import NamedCondition, Recipe, apply, needed_columns, needed_history
from mimic_core.filters.votes import votes
from mimic_core.runs.history import History
from tests.core.histories import history

TABLE = pl.DataFrame(
    {
        "uid": ["c", "a", "b", "e", "d", "f"],
        "score": pl.Series([1, 3, 2, None, 5, 6], dtype=pl.Float32),
        "topic": ["x", "x", "y", "y", None, "y"],
        "level": [1, 1, 2, 2, 1, 2],
        "flag": [True, True, False, False, True, False],
    }
)


def kept(condition: Condition, table: Any = TABLE, past: History | None = None) -> str:
    chosen = votes(condition, table, past).fill_null(False)
    return "".join(TABLE["uid"].filter(chosen))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Percentile(column="score", lower=50, by="topic"), "af"),
        (Percentile(column="score", upper=50, by="topic"), "cb"),
        (Percentile(column="score", by="topic"), "cabf"),  # d has no topic, e no score
        (Percentile(column="score", lower=100, by="topic"), ""),
        (TopK(column="score", k=1, by="topic"), "af"),
        (TopK(column="score", k=1, end="smallest", by="topic"), "cb"),
        (TopK(column="score", k=9, by="topic"), "cabf"),
        (TopK(column="score", k=1, by="level"), "df"),
        (TopK(column="score", k=2, by="flag"), "abdf"),
        (Not(condition=TopK(column="score", k=1, by="topic")), "cb"),
        (TopK(column="level", k=1, by="topic"), "ab"),  # ties: the smaller uid
    ],
    ids=lambda value: value.describe() if hasattr(value, "describe") else None,
)
def test_groups_are_cut_each_by_itself(condition: Condition, expected: str) -> None:
    assert kept(condition) == expected
    assert kept(condition, TABLE.lazy()) == expected
    categorical = TABLE.with_columns(pl.col("topic").cast(pl.Categorical))
    assert kept(condition, categorical) == expected


def test_groups_read_well_and_must_be_groups() -> None:
    assert Percentile(column="clip_score", lower=70, by="topic").describe() == (
        "CLIP score: top 30 % in each topic"
    )
    assert TopK(column="loss", k=5, end="smallest", by="source_id").describe() == (
        "5 smallest by loss in each source id"
    )
    with pytest.raises(FilterError, match="column score is of the wrong type"):
        votes(TopK(column="score", k=1, by="score"), TABLE)
    with pytest.raises(FilterError, match="no such column; got 'topik'; allowed: topic"):
        votes(TopK(column="score", k=1, by="topik"), TABLE)


PAST = history([[1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 1, 0], [1, 0, 0, 0, 1, 1]], uids="abcdef")


def test_an_ensemble_votes_by_uid_whatever_the_order() -> None:
    assert kept(EnsembleVote(), past=PAST) == "ae"
    assert kept(Not(condition=EnsembleVote()), past=PAST) == "cbdf"
    some = EnsembleVote(aggregate=AtLeast(votes=1))
    assert kept(some, past=PAST) == "cabef"
    part = TABLE.filter(pl.col("uid").is_in(["e", "f"]))  # the ensemble still asks all samples
    assert votes(some, part, PAST).to_list() == [True, True]
    turned = history(PAST.mimic_score[:, ::-1], uids="fedcba")
    assert kept(some, past=turned) == "cabef"


def test_a_confidence_is_asked_for_on_top() -> None:
    some = EnsembleVote(aggregate=AtLeast(votes=1), min_confidence=0.5)
    assert kept(some, past=PAST) == "ae"
    none = EnsembleVote(aggregate=Unanimous(), min_confidence=0)
    assert kept(none, past=PAST) == "ae"  # never more than the ensemble keeps
    assert some.describe() == "at least 1 vote of mimic score: k-means, confidence >= 0.5"
    assert some.config == EnsembleConfig(binarise=KMeans(), aggregate=AtLeast(votes=1))


def test_an_ensemble_needs_the_history_of_these_samples() -> None:
    with pytest.raises(FilterError, match="needs the history of the run"):
        votes(EnsembleVote(), TABLE)
    fewer = history(PAST.mimic_score[:, :4], uids="abcd")
    with pytest.raises(FilterError, match="2 of the 6 rows have no scores in the history; got 'e'"):
        votes(EnsembleVote(), TABLE, fewer)


def test_a_recipe_says_what_it_needs() -> None:
    tree = Minus(
        keep=AllOf(
            conditions=(
                Percentile(column="clip_score", lower=70, by="topic"),
                AnyOf(conditions=(Text(contains="a"), Region.box((0, 1), (0, 1)))),
            )
        ),
        drop=Not(condition=EnsembleVote(binarise=Threshold())),
    )
    recipe = (
        Recipe()
        .with_condition("tree", tree)
        .with_condition("few", TopK(column="loss", k=3, by="flag"))
        .with_condition("chosen", Uids(uids=("a",)))
        .with_condition("kind", Category(column="level", values=(1,)))
        .with_condition("loss", EnsembleVote(binarise=KMeans(column="loss")))
        .with_condition("wide", Absolute(column="width", min=3))
    )
    expected = "uid caption clip_score flag level loss map_x map_y topic width"
    assert needed_columns(recipe) == tuple(expected.split())
    assert needed_history(recipe) == ("mimic_weight", "loss")
    assert needed_columns(Recipe()) == ("uid",)
    assert needed_history(Recipe()) == ()


def test_the_yaml_of_an_ensemble_is_as_documented() -> None:
    vote = EnsembleVote(
        binarise=TopPercent(percent=30, column="loss", scope="all"),
        aggregate=AtLeast(votes=3),
        min_confidence=0.8,
    )
    text = Recipe().with_condition("votes", vote).to_yaml()
    assert text == (
        "version: 1\n"
        "conditions:\n"
        "- name: votes\n"
        "  condition:\n"
        "    kind: ensemble\n"
        "    binarise:\n"
        "      column: loss\n"
        "      scope: all\n"
        "      kind: top_percent\n"
        "      percent: 30.0\n"
        "    aggregate:\n"
        "      kind: at_least\n"
        "      votes: 3\n"
        "    min_confidence: 0.8\n"
    )
    short = "conditions: [{name: votes, condition: {kind: ensemble, binarise: {kind: gmm}}}]"
    assert Recipe.from_yaml(short).conditions[0].condition.describe() == (
        "majority of mimic score: two normal components"
    )


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("{kind: ensemble, binarise: {kind: otsu}}", "ensemble.binarise"),
        ("{kind: ensemble, binarise: {kind: threshold, column: loss}}", "1/B is a mimic weight"),
        ("{kind: ensemble, aggregate: {kind: at_least}}", "aggregate.at_least.votes"),
        ("{kind: ensemble, min_confidence: 2}", "min_confidence"),
        ("{kind: ensemble, binarise: {kind: kmeans, column: clip_score}}", "column"),
        ("{kind: top_k, column: x, k: 1, by: 3}", "top_k.by"),
    ],
)
def test_a_wrong_ensemble_is_refused_with_its_place(condition: str, says: str) -> None:
    with pytest.raises(FilterError, match=says):
        Recipe.from_yaml(f"conditions: [{{name: a, condition: {condition}}}]")


# Random tables, histories and trees --------------------------------------------------------------

numbers = st.one_of(st.none(), st.integers(-3, 3).map(lambda value: value / 2))
cells = st.tuples(numbers, numbers, st.sampled_from(["red", "green", None]))
columns = st.sampled_from(["x", "y"])
finite = st.floats(-4, 4)
binarisations = st.sampled_from(
    [Threshold(), KMeans(), KMeans(column="loss", scope="all"), TopPercent(percent=40)]
)
aggregations = st.sampled_from(
    [Majority(), AtLeast(votes=2), Unanimous(), MeanRank(), LabelModel()]
)
groups = st.sampled_from([None, "colour", "x_is_high"])
leaves: st.SearchStrategy[Condition] = st.one_of(
    st.builds(lambda column, low: Absolute(column=column, min=low), columns, finite),
    st.builds(
        lambda column, ends, by: Percentile(column=column, lower=min(ends), upper=max(ends), by=by),
        columns,
        st.tuples(st.floats(0, 100), st.floats(0, 100)),
        groups,
    ),
    st.builds(
        TopK,
        column=columns,
        k=st.integers(1, 6),
        end=st.sampled_from(["largest", "smallest"]),
        by=groups,
    ),
    st.builds(Text, column=st.just("colour"), contains=st.sampled_from("redgn")),
    st.builds(
        EnsembleVote,
        binarise=binarisations,
        aggregate=aggregations,
        min_confidence=st.one_of(st.none(), st.floats(0, 1)),
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


trees = st.recursive(leaves, nested, max_leaves=5)
recipes = st.lists(
    st.tuples(st.text(min_size=1, max_size=5), trees), max_size=4, unique_by=lambda named: named[0]
).map(
    lambda named: Recipe(
        conditions=tuple(NamedCondition(name=name, condition=tree) for name, tree in named)
    )
)


@st.composite
def pools(draw: st.DrawFn) -> tuple[pl.DataFrame, History]:
    """A table of up to 15 rows and a history of three epochs that lists them in another order."""
    rows = draw(st.lists(cells, min_size=1, max_size=15))
    schema = {"x": pl.Float32, "y": pl.Float64, "colour": pl.String}
    uids = pl.Series("uid", [f"{i * 7 % 16:02d}" for i in range(len(rows))])
    table = pl.DataFrame(rows, schema=schema, orient="row").insert_column(0, uids)
    table = table.with_columns((pl.col("x") > 0).alias("x_is_high"))
    scores = np.array(
        draw(
            st.lists(
                st.lists(st.integers(-3, 3), min_size=len(rows), max_size=len(rows)),
                min_size=3,
                max_size=3,
            )
        ),
        np.float32,
    )
    past = history(scores, uids=sorted(uids), weight=scores / 4, loss=-scores)
    return table, past


@settings(max_examples=150, deadline=None)
@given(pools(), trees, trees)
def test_the_laws_of_all_any_not_and_minus(
    pool: tuple[pl.DataFrame, History], a: Condition, b: Condition
) -> None:
    table, past = pool

    def same(one: Condition, other: Condition) -> bool:
        return votes(one, table, past).equals(votes(other, table, past))

    both, either = AllOf(conditions=(a, b)), AnyOf(conditions=(a, b))
    not_a, not_b = Not(condition=a), Not(condition=b)
    assert same(Not(condition=both), AnyOf(conditions=(not_a, not_b)))
    assert same(Not(condition=either), AllOf(conditions=(not_a, not_b)))
    assert same(Not(condition=not_a), a)
    assert same(Minus(keep=a, drop=b), AllOf(conditions=(a, not_b)))
    assert same(both, AllOf(conditions=(b, a)))
    assert not (votes(a, table, past) & votes(not_a, table, past)).any()


@settings(max_examples=100, deadline=None)
@given(pools(), leaves)
def test_a_missing_value_or_group_is_kept_by_no_leaf_and_by_no_negation(
    pool: tuple[pl.DataFrame, History], leaf: Condition
) -> None:
    table, past = pool
    looked_at = needed_columns(Recipe().with_condition("a", leaf))  # the uid is never missing
    missing = table.select(pl.any_horizontal(pl.col(looked_at).is_null()))
    for condition in (leaf, Not(condition=leaf)):
        found = votes(condition, table, past)
        assert found.is_null().to_list() == missing.to_series().to_list()


@settings(max_examples=100, deadline=None)
@given(pools(), recipes)
def test_drops_add_up_and_a_lazy_table_gives_the_same(
    pool: tuple[pl.DataFrame, History], recipe: Recipe
) -> None:
    table, past = pool
    found = apply(recipe, table, past)
    assert sum(found.drops.values()) == found.total - found.kept
    for row, reason in enumerate(found.reasons):
        fails = [
            votes(named.condition, table, past)[row] is not True for named in recipe.conditions
        ]
        assert reason == (recipe.names[fails.index(True)] if True in fails else None)
    lazy = table.lazy().select(needed_columns(recipe))
    again = apply(Recipe.from_yaml(recipe.to_yaml()), lazy, past)
    assert (again.first_failed == found.first_failed).all()
    assert apply(recipe, table.reverse(), past).uids.equals(found.uids)


@settings(max_examples=200)
@given(recipes)
def test_yaml_round_trip(recipe: Recipe) -> None:
    text = recipe.to_yaml()
    assert Recipe.from_yaml(text) == recipe
    assert Recipe.from_yaml(text).to_yaml() == text


@given(pools(), columns, st.integers(1, 6), st.sampled_from(["largest", "smallest"]))
def test_the_best_of_each_group_by_brute_force(
    pool: tuple[pl.DataFrame, History], column: str, k: int, end: Any
) -> None:
    table, _ = pool
    sign = -1 if end == "largest" else 1
    expected = set()
    for colour in ("red", "green"):
        rows = [
            (sign * row[column], row["uid"])
            for row in table.to_dicts()
            if row["colour"] == colour and row[column] is not None
        ]
        expected |= {uid for _, uid in sorted(rows)[:k]}
    condition = TopK(column=column, k=k, end=end, by="colour")
    assert set(table["uid"].filter(votes(condition, table).fill_null(False))) == expected


@given(pools(), columns, st.floats(0, 100), st.floats(0, 100))
def test_percentiles_of_a_group_are_those_of_the_group_alone(
    pool: tuple[pl.DataFrame, History], column: str, one: float, other: float
) -> None:
    table, _ = pool
    ends = {"lower": min(one, other), "upper": max(one, other)}
    found = votes(Percentile(column=column, by="colour", **ends), table)
    for colour in ("red", "green"):
        here = (table["colour"] == colour).fill_null(False)
        alone = votes(Percentile(column=column, **ends), table.filter(here))
        assert found.filter(here).to_list() == alone.to_list()
    assert found.filter(table["colour"].is_null()).null_count() == table["colour"].null_count()


def test_a_group_may_hold_any_text_and_nothing_at_all() -> None:
    table = pl.DataFrame(
        {"uid": ["a", "b", "c"], "v": [1.0, 2.0, None], "g": ["", "", "🐈"]},
    )
    assert votes(TopK(column="v", k=1, by="g"), table).to_list() == [False, True, None]
    nothing = table.with_columns(pl.lit(None, pl.String).alias("g"))
    for condition in (TopK(column="v", k=1, by="g"), Percentile(column="v", by="g")):
        assert votes(condition, nothing).to_list() == [None] * 3
        assert len(votes(condition, table.clear())) == 0


def test_nan_in_a_lazy_column_is_refused_too() -> None:
    table = pl.LazyFrame({"uid": ["a", "b"], "v": [1.0, math.nan]})
    with pytest.raises(FilterError, match=r"column v holds NaN.*uid b"):
        votes(Absolute(column="v", min=0), table)
    with pytest.raises(FilterError, match="no such column; got 'w'; allowed: uid, v"):
        votes(Absolute(column="w", min=0), table)


def test_an_ensemble_in_a_recipe_is_the_ensemble() -> None:
    random = np.random.default_rng(0)
    past = history(random.normal(size=(4, 50)) + (np.arange(50) % 3 > 0))
    table = past.uids.to_frame()
    for aggregate in (Majority(), MeanRank(), LabelModel()):
        condition = EnsembleVote(aggregate=aggregate)
        found = apply(Recipe().with_condition("one", condition), table, past)
        assert found.mask.tolist() == ensemble(past, condition.config).keep.tolist()
