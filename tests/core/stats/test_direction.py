"""Planted labels and captions: who gets whose, and what follows from their scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.base.draws import Draw, uid_words
from mimic_core.stats.direction import (
    BAD,
    GOOD,
    MOST_ERROR,
    MOST_LIKE_PLANTED,
    Control,
    Figure,
    expected_auroc,
    judge,
    level_of,
    like_planted,
    next_different,
    other_pairs,
    planted_places,
    planting,
)

few = settings(max_examples=60, deadline=None, derandomize=True)
labels = st.lists(st.integers(0, 3), min_size=1, max_size=30)


def _uids(count: int) -> pl.Series:
    return pl.Series("uid", [f"{number:032x}" for number in range(count)])


def _pool(captions: list[str], images: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "uid": _uids(len(captions)),
            "caption": captions,
            "image_kind": ["range"] * len(captions),
            "image_path": [str(image) for image in images],
            "image_offset": [0] * len(captions),
            "image_member": [""] * len(captions),
        }
    )


# --- whose label or caption ---


@few
@given(labels)
def test_the_next_different_value_is_found_by_looking_at_each_in_turn(values: list[int]) -> None:
    count = len(values)

    def looked_up(start: int) -> int:
        steps = (k % count for k in range(start + 1, start + count + 1))
        return next((k for k in steps if values[k] != values[start]), -1)

    assert next_different(np.array(values)).tolist() == [looked_up(k) for k in range(count)]


def test_a_caption_comes_from_another_image_and_differs() -> None:
    captions, images = np.array([0, 1, 2, 0, 3]), np.array([7, 7, 7, 8, 9])
    assert other_pairs(captions, images).tolist() == [4, 3, 3, 4, 0]


def test_no_partner_is_found_where_all_captions_are_of_one_image() -> None:
    assert other_pairs(np.arange(3), np.zeros(3)).tolist() == [-1, -1, -1]
    assert other_pairs(np.zeros(3), np.arange(3)).tolist() == [-1, -1, -1]


@few
@given(labels.filter(lambda values: len(set(values)) > 1))
def test_planted_labels_differ_whatever_the_order_of_the_pool(values: list[int]) -> None:
    samples = pl.DataFrame({"uid": _uids(len(values)), "label": [str(v) for v in values]})
    partners = planting(uid_words(samples["uid"]), samples, "label")
    assert all(values[row] != values[other] for row, other in enumerate(partners))
    turned = samples.reverse()
    other = planting(uid_words(turned["uid"]), turned, "label")
    names = samples["uid"].gather(partners).to_list()
    assert turned["uid"].gather(other).reverse().to_list() == names


def test_no_more_are_planted_than_asked_for() -> None:
    samples = pl.DataFrame({"uid": _uids(50), "label": ["a", "b"] * 25})
    partners = planting(uid_words(samples["uid"]), samples, "label", most=7)
    assert (partners >= 0).sum() == 7


def test_captions_are_planted_from_other_images() -> None:
    samples = _pool(["x", "y", "x", "z"], [1, 1, 2, 2])
    partners = planting(uid_words(samples["uid"]), samples, "caption")
    for row, other in enumerate(partners):
        assert samples["caption"][row] != samples["caption"][int(other)]
        assert samples["image_path"][row] != samples["image_path"][int(other)]


def test_who_fills_a_short_batch_is_not_planted_again() -> None:
    partners = np.array([3, -1, 0, 2])
    places, rows, others = planted_places(Draw(0, np.array([2, 1, 0, 3]), 3), partners)
    assert (places.tolist(), rows.tolist(), others.tolist()) == ([0, 2], [2, 0], [0, 3])


# --- the figure ---


def test_a_share_of_own_scores_above_planted_ones_is_scaled_by_what_looks_planted() -> None:
    own, planted = np.array([1.0, 2.0, 3.0, -1.0]), np.array([0.0, 0.5, -2.0, 0.2])
    found = expected_auroc(own, planted, like=0.25)
    assert found.above == 13 / 16  # three are above all four, one is above one
    assert found.value == pytest.approx(0.5 + (13 / 16 - 0.5) / 0.75)
    assert found.above_error == pytest.approx((9 / (12 * 16)) ** 0.5)
    assert found.error == pytest.approx(found.above_error / 0.75)


def test_of_two_classes_a_planted_label_may_be_right() -> None:
    """Scores 1 for right and 0 for wrong labels, 30 % wrong: the AUROC is 1."""
    wrong = np.arange(1000) < 300
    own, planted = (~wrong).astype(float), wrong.astype(float)
    like = like_planted(own, planted)
    assert like == pytest.approx(0.3 / 0.7, abs=0.01)
    found = expected_auroc(own, planted, like=like, right_by_chance=1.0)
    assert found.value == pytest.approx(1.0, abs=0.01)


def test_scores_that_run_the_wrong_way_are_not_scaled() -> None:
    own, planted = np.array([0.0, 0.0, 3.0, 0.0]), np.array([1.0, 2.0, 1.0, 2.0])
    assert expected_auroc(own, planted, like=0.5).value == 0.25


def test_a_figure_is_at_most_one_and_scaled_by_no_more_than_is_known() -> None:
    own, planted = np.array([3.0, 2.0]), np.array([0.0, 1.0])
    assert expected_auroc(own, planted, like=0.8).value == 1.0
    close = np.array([3.0, 0.5]), np.array([0.0, 2.0])  # 3 of 4 pairs
    assert expected_auroc(*close, like=1.0) == expected_auroc(*close, like=MOST_LIKE_PLANTED)


@few
@given(st.floats(0.05, 0.6), st.integers(0, 100))
def test_the_figure_is_the_auroc_where_labels_are_wrong_at_random(rate: float, seed: int) -> None:
    """Against the truth: right labels score 1 higher on average, wrong ones like planted ones."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(20_000) < rate
    own = rng.normal(size=len(wrong)) + ~wrong
    planted = rng.normal(size=len(wrong))
    figure = expected_auroc(own, planted, like=rate)
    pairs = own[~wrong][: wrong.sum(), None][:4000] > own[wrong][None, :4000]
    assert abs(figure.value - pairs.mean()) < 0.04


def test_labels_that_look_planted_are_counted_where_planted_ones_look_worst() -> None:
    planted = np.arange(100.0)
    right, wrong = np.full(60, 200.0), np.arange(0, 100, 2.5)
    assert like_planted(np.concatenate([right, wrong]), planted) == pytest.approx(0.4, abs=0.01)
    assert like_planted(np.full(10, 200.0), planted) == 0.0
    assert like_planted(planted, planted) == 1.0
    assert like_planted(-planted, planted) == 1.0


# --- the verdict ---

SURE = Figure(0.9, 0.01, 0.8, 0.01)


@pytest.mark.parametrize(
    ("figure", "like", "lowest", "level"),
    [
        (SURE, 0.3, 0.9, "good"),
        (replace(SURE, value=GOOD), 0.3, 0.9, "good"),
        (replace(SURE, value=GOOD - 0.001), 0.3, 0.7, "caution"),
        (SURE, 0.3, BAD - 0.001, "caution"),
        (replace(SURE, value=BAD), 0.3, 0.6, "caution"),
        (replace(SURE, value=BAD - 0.001), 0.3, 0.5, "bad"),
        (replace(SURE, error=MOST_ERROR + 0.001), 0.3, 0.9, "unknown"),
        (SURE, MOST_LIKE_PLANTED + 0.001, 0.9, "unknown"),
        # Whatever the reference thinks: own labels clearly score below planted ones.
        (Figure(0.4, 0.2, 0.4, 0.04), 1.0, 0.4, "bad"),
        (Figure(0.4, 0.2, 0.4, 0.06), 1.0, 0.4, "unknown"),
    ],
)
def test_the_level_follows_from_the_figure(
    figure: Figure, like: float, lowest: float, level: str
) -> None:
    assert level_of(figure, like=like, lowest=lowest) == level


def _control(leads: list[float], count: int = 2000) -> Control:
    """Epochs in which own scores lead planted ones by so many standard deviations."""
    rng = np.random.default_rng(0)
    planted = rng.normal(size=(len(leads), count)) / 10
    own = rng.normal(size=(len(leads), count)) / 10 + np.array(leads)[:, None] / 10
    right = rng.normal(size=count)
    return Control(own, planted, -own, right + 6, right)


def test_scores_that_turn_round_are_not_good_and_the_epoch_is_named() -> None:
    found = judge(_control([3, 0.6, -0.4, -0.4, -0.4]))
    assert found.level == "caution"
    assert found.turns_at == 2
    assert found.use_epochs == 2
    assert [one.level_until for one in found.epochs] == ["good", "good", *["caution"] * 3]
    assert found.epochs[0].figure.value == pytest.approx(0.983, abs=0.01)
    assert found.epochs[0].rank_with_loss == pytest.approx(-1.0)


def test_steady_scores_are_good_and_nothing_is_offered() -> None:
    found = judge(_control([2, 2, 2]))
    assert (found.level, found.turns_at, found.use_epochs, found.like) == ("good", None, None, 0.0)


def test_inverted_scores_are_bad_from_the_beginning() -> None:
    found = judge(_control([-0.5, -0.5]))
    assert (found.level, found.turns_at, found.use_epochs) == ("bad", None, None)


def test_the_mean_is_that_of_the_scores() -> None:
    control = _control([1, 1])
    until = judge(control).epochs[1].until
    both = control.own.sum(0), control.planted.sum(0)
    assert until == expected_auroc(*both, like=0.0)
