"""Conditions as the values of a form, and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.choices.leafform import LeafForm, as_kind, form_of, votes_by
from mimic_core.base.errors import MimicError
from mimic_core.filters.conditions import (
    Absolute,
    AnyOf,
    Category,
    Condition,
    EnsembleVote,
    Percentile,
    Region,
    Text,
    TopK,
    UidList,
    Uids,
)
from mimic_core.filters.ensembles.config import (
    AtLeast,
    GaussianMixture,
    KMeans,
    LabelModel,
    Majority,
    MeanRank,
    Threshold,
    TopPercent,
    Unanimous,
)

VALUES = np.arange(10, dtype=np.float64)
BINARISATIONS = (
    KMeans(),
    KMeans(column="loss", scope="all"),
    GaussianMixture(column="mimic_weight"),
    TopPercent(percent=30),
    Threshold(),
    Threshold(factor=0.5),
    Threshold(column="loss", value=1.5),
    Threshold(value=0.01),
)
AGGREGATIONS = (Majority(), AtLeast(votes=3), Unanimous(), MeanRank(), LabelModel())


@pytest.mark.parametrize(
    "condition",
    [
        Percentile(column="x", lower=70),
        Percentile(column="x", lower=29.9, by="topic"),
        Percentile(column="x", upper=15),
        Percentile(column="x", lower=10, upper=90),
        Percentile(column="x"),
        Percentile(column="x", lower=100),
        Percentile(column="x", upper=0),
        Absolute(column="x", min=0.1),
        Absolute(column="x", max=-2),
        Absolute(column="x", min=0, max=0),
        TopK(column="x", k=7),
        TopK(column="x", k=7, end="smallest", by="topic"),
        Category(column="topic", values=("cat", "dog")),
        Category(column="flag", values=(True,)),
        Category(column="width", values=(32, 64)),
        Text(contains="dog"),
        Text(column="key", contains="Dog", match_case=True),
        UidList(file="a.npy", listed="drop"),
        EnsembleVote(min_confidence=0.8),
    ],
)
def test_every_condition_with_a_form_comes_back_from_it(condition: Condition) -> None:
    form = form_of(condition)
    assert form is not None
    assert form.condition() == condition


@pytest.mark.parametrize("binarise", BINARISATIONS)
@pytest.mark.parametrize("aggregate", AGGREGATIONS)
def test_every_ensemble_comes_back_from_its_form(
    binarise: KMeans | GaussianMixture | TopPercent | Threshold,
    aggregate: Majority | AtLeast | Unanimous | MeanRank | LabelModel,
) -> None:
    condition = EnsembleVote(binarise=binarise, aggregate=aggregate)
    form = form_of(condition)
    assert form is not None
    assert form.condition() == condition


def test_what_is_drawn_or_joined_has_no_form() -> None:
    corners = ((0.0, 0.0), (0.0, 1.0), (1.0, 1.0))
    leaf = Text(contains="x")
    for condition in (Region(polygon=corners), Uids(uids=("a",)), AnyOf(conditions=(leaf, leaf))):
        assert form_of(condition) is None


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (LeafForm("text"), "text to look for"),
        (LeafForm("category", category="topic"), "values to keep"),
        (LeafForm("category"), "values to keep"),
        (LeafForm("uid_list"), "which file lists"),
        (LeafForm("absolute"), "end of the range"),
        (LeafForm("top_k"), "how many"),
        (LeafForm("ensemble", binarise="threshold", score="loss"), "score to cut at"),
        (LeafForm("ensemble", binarise="threshold", score="mimic_weight", factor=0.0), "factor"),
        (LeafForm(percent=120.0), "lower"),
    ],
)
def test_an_unfinished_form_says_what_is_missing(form: LeafForm, message: str) -> None:
    with pytest.raises(MimicError, match=message):
        form.condition()


def test_ends_in_the_wrong_order_are_put_right() -> None:
    assert LeafForm("absolute", "x", low=2, high=1).condition() == Absolute(
        column="x", min=1, max=2
    )
    assert LeafForm(column="x", side="between", lower=90, upper=10).condition() == Percentile(
        column="x", lower=10, upper=90
    )


@pytest.mark.parametrize(
    ("form", "kind", "wanted"),
    [
        (LeafForm(column="x", percent=30), "absolute", Absolute(column="x", min=7)),
        (LeafForm(column="x", percent=30), "top_k", TopK(column="x", k=3)),
        (
            LeafForm(column="x", side="lowest", percent=20),
            "top_k",
            TopK(column="x", k=2, end="smallest"),
        ),
        (LeafForm(column="x", side="lowest", percent=20), "absolute", Absolute(column="x", max=1)),
        (LeafForm("top_k", "x", k=4), "percentile", Percentile(column="x", lower=60)),
        (LeafForm("absolute", "x", low=8.5), "percentile", Percentile(column="x", lower=90)),
        (LeafForm("absolute", "x", high=3), "top_k", TopK(column="x", k=4, end="smallest")),
    ],
)
def test_a_cutoff_keeps_its_place_when_its_kind_changes(
    form: LeafForm, kind: str, wanted: Condition
) -> None:
    assert as_kind(form, kind, VALUES).condition() == wanted  # type: ignore[arg-type]


def test_a_band_or_an_empty_column_only_changes_its_kind() -> None:
    band = LeafForm(column="x", side="between", lower=10, upper=20)
    assert as_kind(band, "absolute", VALUES) == replace(band, kind="absolute")
    assert as_kind(LeafForm(), "top_k", np.array([])).k == 1
    assert as_kind(LeafForm(by="topic"), "top_k", VALUES).k == 5


@given(st.floats(0, 100), st.sampled_from(["top", "lowest"]))
def test_percents_survive_the_way_through_a_recipe(percent: float, side: str) -> None:
    form = LeafForm(column="x", side=side, percent=round(percent, 6))  # type: ignore[arg-type]
    condition = form.condition()
    again = form_of(condition)
    assert again is not None
    assert again.condition() == condition


def test_a_fixed_cutoff_starts_as_the_neutral_weight_and_leaves_nothing_behind() -> None:
    form = LeafForm("ensemble", score="loss")
    assert votes_by(form, "gmm") == {"binarise": "gmm"}  # the column stays
    fixed = replace(form, **votes_by(form, "threshold"))
    assert fixed.binarisation() == Threshold()
    assert votes_by(fixed, "kmeans") == {"binarise": "kmeans", "score": "mimic_score"}
    typed = replace(fixed, score="loss", value=2.0)
    assert votes_by(typed, "kmeans") == {"binarise": "kmeans"}
