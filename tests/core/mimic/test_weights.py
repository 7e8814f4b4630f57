"""Mimic weights: a softmax with a temperature that no input turns into NaN."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base.errors import ScoreError
from mimic_core.mimic.scores import (
    mimic_weights,
)

scores_list = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=40)
temperatures = st.floats(0.01, 10)


@given(scores_list, temperatures)
def test_weights_sum_to_one_and_keep_the_order(values: list[float], temperature: float) -> None:
    scores = torch.tensor(values)
    weights = mimic_weights(scores, temperature=temperature)
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-5)
    assert bool((weights >= 0).all())
    order = scores.argsort()
    assert bool((weights[order].diff() >= 0).all())


@given(scores_list, temperatures, st.floats(-3, 3, width=32))
def test_weights_do_not_change_with_a_shift(
    values: list[float], temperature: float, shift: float
) -> None:
    scores = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(
        mimic_weights(scores + shift, temperature=temperature),
        mimic_weights(scores, temperature=temperature),
        rtol=1e-6,
        atol=1e-9,
    )


@given(st.integers(1, 300), st.floats(-5, 5), temperatures)
def test_equal_scores_have_the_neutral_weight(batch: int, value: float, temperature: float) -> None:
    weights = mimic_weights(torch.full((batch,), value), temperature=temperature)
    torch.testing.assert_close(weights, torch.full((batch,), 1 / batch))


@given(scores_list, temperatures)
def test_weights_are_the_written_out_softmax(values: list[float], temperature: float) -> None:
    top = max(values)
    powers = [math.exp((value - top) / temperature) for value in values]
    expected = torch.tensor([power / sum(powers) for power in powers], dtype=torch.float64)
    weights = mimic_weights(torch.tensor(values, dtype=torch.float64), temperature=temperature)
    torch.testing.assert_close(weights, expected, rtol=1e-9, atol=1e-12)


def test_a_high_temperature_is_neutral_and_a_low_one_takes_the_best() -> None:
    scores = torch.tensor([0.1, 0.3, 0.2, -1.0])
    torch.testing.assert_close(mimic_weights(scores, temperature=1e9), torch.full((4,), 0.25))
    assert mimic_weights(scores, temperature=1e-4).tolist() == [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("temperature", [1e-30, 1e-45, 1e-300])
def test_no_temperature_above_zero_gives_nan(temperature: float) -> None:
    weights = mimic_weights(torch.tensor([1e-3, 2e-3, -1.0]), temperature=temperature)
    assert weights.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ScoreError) as caught:
        mimic_weights(torch.zeros(3), temperature=temperature)
    assert "temperature" in str(caught.value)
    assert f"got {temperature!r}" in str(caught.value)


def test_weights_of_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ScoreError, match="not finite"):
        mimic_weights(torch.tensor([0.0, math.nan]), temperature=1.0)
