"""Confident learning against values made by hand, laws, and cleanlab itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base.errors import MimicError
from mimic_core.stats.label_issues import (
    calibrated_counts,
    confident_thresholds,
    issues_of_class,
    label_issues,
)

# Four samples labelled 0, then five labelled 1: the probability of class 1.
SECOND = np.array([0.1, 0.2, 0.6, 0.9, 0.95, 0.85, 0.9, 0.3, 0.7])
TWO = np.stack([1 - SECOND, SECOND], 1)
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, C) of a model that is right more often than not, and noisy labels (N,)."""
    rng = np.random.default_rng(seed)
    classes, count = int(rng.integers(2, 12)), int(rng.integers(60, 600))
    truth = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), truth] += rng.uniform(0.5, 4)
    exponents = np.exp(logits)
    noisy = rng.random(count) < rng.uniform(0, 0.7)
    labels = np.where(noisy, rng.integers(0, classes, count), truth)
    labels[:classes] = np.arange(classes)  # none without samples
    return exponents / exponents.sum(1, keepdims=True), labels


def test_a_threshold_is_the_mean_probability_of_the_own_label() -> None:
    own = TWO[np.arange(9), LABELS]
    found = confident_thresholds(own, LABELS, classes=3)
    np.testing.assert_allclose(found[:2], [0.55, 0.74], atol=1e-12)
    assert found[2] == np.inf


def test_issues_by_hand() -> None:
    # Labelled 0: 0.9 and 0.8 reach 0.55, the third reaches neither, the fourth reaches 0.74 for
    # class 1: (2, 1), calibrated to 4 samples (3, 1). Labelled 1: (1, 3), calibrated to 5 (1, 4).
    thresholds = np.array([0.55, 0.74])
    assert calibrated_counts(TWO[:4], 0, thresholds).tolist() == [3, 1]
    assert calibrated_counts(TWO[4:], 1, thresholds).tolist() == [1, 4]
    assert np.flatnonzero(label_issues(TWO, LABELS)).tolist() == [3, 7]


def test_as_many_are_pruned_as_the_calibrated_counts_say() -> None:
    # One of class 0 reaches 0.7 for class 1 as surely as one reaches 0.6 for its own; half of the
    # six are said to be wrong, and those with the largest margin go.
    probabilities = np.array([[p, 1 - p] for p in (0.6, 0.59, 0.45, 0.4, 0.35, 0.3)])
    thresholds = np.array([0.6, 0.7])
    assert calibrated_counts(probabilities, 0, thresholds).tolist() == [3, 3]
    found = issues_of_class(probabilities, 0, thresholds)
    assert found.tolist() == [False, False, False, True, True, True]


def test_of_several_thresholds_reached_the_likeliest_class_counts() -> None:
    probabilities = np.array([[0.3, 0.45, 0.25]])
    assert calibrated_counts(probabilities, 0, np.array([0.2, 0.4, 0.9])).tolist() == [0, 1, 0]


def test_at_least_one_sample_counts_for_the_label_itself() -> None:
    # All four reach both thresholds and count for class 1; (1, 4) calibrated is (0.8, 3.2).
    probabilities = np.array([[0.2, 0.8], [0.21, 0.79], [0.22, 0.78], [0.23, 0.77]])
    thresholds = np.array([0.2, 0.7])
    assert calibrated_counts(probabilities, 0, thresholds).tolist() == [1, 3]
    assert issues_of_class(probabilities, 0, thresholds).tolist() == [True, True, True, False]


def test_the_only_sample_of_a_class_is_kept() -> None:
    probabilities = np.array([[0.05, 0.95], [0.1, 0.9], [0.2, 0.8]])
    assert not label_issues(probabilities, np.array([0, 1, 1])).any()


def test_margins_equal_to_the_last_pruned_one_go_too() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
    thresholds = np.array([0.5, 0.8])
    assert calibrated_counts(probabilities[1:], 0, thresholds).tolist() == [1, 2]
    counted = np.array([0.5, 0.75])
    found = issues_of_class(np.vstack([probabilities, [[0.6, 0.4]]]), 0, counted)
    assert found.tolist() == [False, False, True, True, False]


@given(st.integers(0, 10_000))
def test_an_issue_is_never_the_likeliest_class_and_every_class_keeps_a_sample(seed: int) -> None:
    probabilities, labels = drawn(seed)
    found = label_issues(probabilities, labels)
    assert not (found & (probabilities.argmax(1) == labels)).any()
    assert set(labels[~found]) == set(labels)


@given(st.integers(0, 10_000))
def test_neither_the_order_of_the_samples_nor_that_of_the_classes_matters(seed: int) -> None:
    probabilities, labels = drawn(seed)
    found = label_issues(probabilities, labels)
    order = np.random.default_rng(seed).permutation(len(labels))
    assert (label_issues(probabilities[order], labels[order]) == found[order]).all()


@pytest.mark.parametrize(
    ("probabilities", "labels", "problem"),
    [
        (TWO, LABELS[:3], "shapes do not fit"),
        (TWO, LABELS + 1, "no class number"),
        (TWO - 0.2, LABELS, "a probability is none"),
        (np.full((9, 2), np.nan), LABELS, "a probability is none"),
    ],
)
def test_what_are_no_probabilities_is_refused(
    probabilities: np.ndarray, labels: np.ndarray, problem: str
) -> None:
    with pytest.raises(MimicError, match=problem):
        label_issues(probabilities, labels)


def test_cleanlab_finds_the_same_issues() -> None:
    reason = "needs cleanlab (dev extra)"
    count = pytest.importorskip("cleanlab.count", reason=reason)
    theirs = pytest.importorskip("cleanlab.filter", reason=reason)
    compared = 0
    for seed in range(120):
        probabilities, labels = drawn(seed)
        classes = probabilities.shape[1]
        own = probabilities[np.arange(len(labels)), labels]
        thresholds = confident_thresholds(own, labels, classes=classes)
        joint = np.stack(
            [calibrated_counts(probabilities[labels == k], k, thresholds) for k in range(classes)]
        )
        raw = count.compute_confident_joint(labels, probabilities, calibrate=False)
        expected = count.compute_confident_joint(labels, probabilities)
        if not (joint == expected).all():
            # Where rounding must choose between equal rests, theirs are told apart by noise.
            exact = raw / raw.sum(1, keepdims=True) * np.bincount(labels)[:, None]
            for row, other in zip(exact % 1, joint != expected, strict=True):
                assert np.ptp(row[other]) < 1e-9 if other.any() else True
            continue
        if (
            joint.diagonal().min() < 1
        ):  # which of a class is kept then, they choose over all classes
            continue
        found = theirs.find_label_issues(labels, probabilities, n_jobs=1)
        assert (label_issues(probabilities, labels) == found).all(), seed
        compared += 1
    assert compared > 60
