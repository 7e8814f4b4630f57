"""Held-out metrics against brute force: losses and recalls, with and without each sample."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.proofs import metrics
from mimic_core.proofs.metrics import (
    clip_contributions,
    jackknife_values,
    lse_without,
    recall_contributions,
    siglip_contributions,
)
from tests.core import oracle


def embeddings(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image, text = (rng.normal(size=(count, 5)) for _ in range(2))
    return tuple(side / np.linalg.norm(side, axis=1, keepdims=True) for side in (image, text))  # type: ignore[return-value]


def clip_mean(logits: np.ndarray) -> float:
    rows = np.log(np.exp(logits).sum(1))
    columns = np.log(np.exp(logits).sum(0))
    return float((0.5 * (rows + columns) - np.diagonal(logits)).mean())


def siglip_mean(logits: np.ndarray) -> float:
    signs = 2 * np.eye(len(logits)) - 1
    return float(np.log1p(np.exp(-signs * logits)).sum(1).mean())


def recall_mean(similarity: np.ndarray, k: int) -> float:
    """Over all orders among equal answers: the share of queries that find theirs in the first k."""
    found = []
    for i, row in enumerate(similarity):
        above = sum(value > row[i] for value in row)
        level = [j for j, value in enumerate(row) if value == row[i]]
        orders = list(itertools.permutations(level))
        found.append(sum(above + order.index(i) < k for order in orders) / len(orders))
    return float(np.mean(found))


def without(matrix: np.ndarray, j: int) -> np.ndarray:
    kept = [i for i in range(len(matrix)) if i != j]
    return matrix[np.ix_(kept, kept)]


@pytest.mark.parametrize(
    ("ours", "mean"), [(clip_contributions, clip_mean), (siglip_contributions, siglip_mean)]
)
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_losses_are_the_mean_and_their_jackknife(ours: object, mean: object, scale: float) -> None:
    assert callable(ours)
    assert callable(mean)
    image, text = embeddings(9, 1)
    logits = scale * image @ text.T
    remaining = np.array([mean(without(logits, j)) for j in range(9)])
    truth = mean(logits) + 8 * (remaining.mean() - remaining)
    np.testing.assert_allclose(ours(logits), truth, rtol=1e-9)
    assert ours(logits).mean() == pytest.approx(mean(logits), rel=1e-12)


def test_losses_equal_those_of_torch() -> None:
    image, text = embeddings(7, 2)
    scale, bias = torch.tensor(12.0), torch.tensor(-3.0)
    sides = torch.from_numpy(image), torch.from_numpy(text)
    clip = float(oracle.contrastive_losses(*sides, scale).mean())
    siglip = float(oracle.sigmoid_losses(*sides, scale, bias).mean())
    assert clip_contributions(12 * image @ text.T).mean() == pytest.approx(clip, rel=1e-9)
    assert siglip_contributions(12 * image @ text.T - 3).mean() == pytest.approx(siglip, rel=1e-9)


def test_leaving_the_only_large_logit_out_loses_no_digits() -> None:
    logits = np.array([[800.0, 1.0, 2.0], [0.0, 0.0, 0.0], [5.0, 5.0, -900.0]])
    left = lse_without(logits)
    assert left[0] == pytest.approx([np.log(np.exp(1) + np.exp(2)), 800, 800])
    assert left[1] == pytest.approx(np.log(2))
    assert left[2] == pytest.approx([5, 5, 5 + np.log(2)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(-2, 2), min_size=2, max_size=2), min_size=2, max_size=6),
    st.integers(1, 5),
)
def test_recall_is_exact_with_ties(points: list[list[int]], k: int) -> None:
    answers = np.array(points, np.float64)
    queries = np.roll(answers, 1, axis=1)
    (ours,) = recall_contributions(queries, answers, [k])
    similarity = queries @ answers.T
    assert ours.mean() == pytest.approx(recall_mean(similarity, k), abs=1e-12)
    if len(points) > 2:
        count = len(points)
        remaining = np.array([recall_mean(without(similarity, j), k) for j in range(count)])
        truth = recall_mean(similarity, k) + (count - 1) * (remaining.mean() - remaining)
        np.testing.assert_allclose(ours, truth, atol=1e-9)


def test_equal_embeddings_tie_to_the_last_bit_wherever_they_stand() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(60, 64))
    answers = np.concatenate([one, one])  # every answer is there twice
    at_one, at_two = recall_contributions(answers, answers, [1, 2])
    assert at_one.mean() == 0.5
    assert at_two.mean() == 1.0


@pytest.mark.parametrize("cells", [1, 90, 250, 900])
def test_recall_does_not_depend_on_the_size_of_the_blocks(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    queries, answers = (rng.integers(-1, 2, (30, 3)).astype(np.float64) for _ in range(2))
    whole = recall_contributions(queries, answers, [1, 5])
    monkeypatch.setattr(metrics, "BLOCK_CELLS", cells)
    sizes: list[int] = []
    compare = metrics._comparisons

    def seen(*parts: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        for found in compare(*parts):
            sizes.append(found[1].size)
            yield found

    monkeypatch.setattr(metrics, "_comparisons", seen)
    np.testing.assert_allclose(recall_contributions(queries, answers, [1, 5]), whole, atol=1e-12)
    assert max(sizes) <= max(cells, 30)


def test_a_model_that_tells_nothing_apart_finds_by_chance() -> None:
    (found,) = recall_contributions(np.ones((20, 3)), np.ones((20, 3)), [5])
    assert found.mean() == pytest.approx(0.25)
    assert not math.isnan(found.sum())


def test_a_single_sample_has_itself_as_contribution() -> None:
    assert jackknife_values(3.0, np.array([0.0])).tolist() == [3.0]
