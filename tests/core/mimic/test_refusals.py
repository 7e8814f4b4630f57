"""What has no mimic score is refused, with the cause and the value."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mimic_core.base.config import Method
from mimic_core.base.errors import ModelError, ScoreError
from mimic_core.mimic import scores as mimic
from mimic_core.mimic.scores import (
    mimic_scores,
    task_vector,
)
from tests.core import tiny


def _pair_of(cls: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return cls(), cls()


def test_equal_weights_have_no_direction() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ScoreError) as caught:
        task_vector(model, model, ["weight", "bias"])
    assert "equal on the mimic layers" in str(caught.value)
    assert "norm 0.0 over weight, bias" in str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_weights_that_are_not_finite_have_no_direction(bad: float, which: int) -> None:
    models = _pair_of(lambda: nn.Linear(2, 2))
    with torch.no_grad():
        models[which].get_parameter("weight")[0, 1] = bad
    with pytest.raises(ScoreError) as caught:
        task_vector(*models, ["weight"])
    assert "non-finite" in str(caught.value)
    assert "weight" in str(caught.value)


def test_architectures_that_differ_are_named_with_both_shapes() -> None:
    with pytest.raises(ModelError) as caught:
        task_vector(nn.Linear(2, 3), nn.Linear(2, 4), ["bias", "weight"])
    message = str(caught.value)
    assert "differ in architecture at bias" in message
    assert "(3,) and (4,)" in message
    with pytest.raises(ModelError) as caught:
        task_vector(nn.Linear(2, 3), nn.Linear(2, 3, bias=False), ["bias"])
    assert "(3,) and no such parameter" in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("visual.transformer.resblocks.11.mlp.c_proj.weight", tiny.IMAGE_MLP),
        ("visual.transformer.resblocks.1.mlp.c_proj", tiny.IMAGE_MLP),
        ("proj", "visual.proj"),
        ("visual.porj", "visual.proj"),
    ],
)
def test_a_wrong_layer_name_lists_near_matches(wrong: str, near: str) -> None:
    model, reference = tiny.clip_vit(0), tiny.clip_vit(1)
    with pytest.raises(ModelError) as caught:
        task_vector(model, reference, [wrong])
    assert repr(wrong) in str(caught.value)
    assert near in str(caught.value)


def test_the_second_name_of_a_tied_parameter_is_answered_with_the_first() -> None:
    model, reference = tiny.Tied(0), tiny.Tied(1)
    with pytest.raises(ModelError) as caught:
        task_vector(model, reference, ["second.weight"])
    assert "first.weight" in str(caught.value)


def test_no_layer_at_all_is_refused() -> None:
    with pytest.raises(ModelError, match="no mimic layer"):
        task_vector(nn.Linear(2, 2), nn.Linear(2, 2), [])


@pytest.mark.parametrize("method", ["proj", "cos"])
def test_losses_without_the_mimic_layers_are_refused(method: Method) -> None:
    model, reference = tiny.clip_vit(0), tiny.clip_vit(1)
    images, _ = tiny.pairs(3, 0)
    vector = task_vector(model, reference, ["text_projection"])
    with pytest.raises(ScoreError) as caught:
        mimic_scores(model, vector, lambda: model.encode_image(images).sum(1), method=method)
    assert "do not depend on the mimic layers" in str(caught.value)
    assert "text_projection" in str(caught.value)


@pytest.mark.parametrize("method", ["proj", "cos"])
def test_a_loss_that_is_not_finite_is_refused_with_its_value(method: Method) -> None:
    model, reference = _pair_of(lambda: nn.Linear(2, 1))
    vector = task_vector(model, reference, ["weight"])
    x = torch.tensor([[1.0, 1.0], [1.0, math.inf], [1.0, 1.0]])
    with pytest.raises(ScoreError) as caught:
        mimic_scores(model, vector, lambda: model(x).abs()[:, 0], method=method)
    assert "1 of 3 losses are not finite" in str(caught.value)
    assert "loss inf at position 1" in str(caught.value)


@pytest.mark.parametrize("method", ["proj", "cos"])
def test_a_score_that_is_not_finite_is_refused_too(method: Method) -> None:
    # the square root's slope at zero: a finite loss with a NaN derivative
    model, reference = _pair_of(lambda: nn.Linear(2, 2, bias=False))
    vector = task_vector(model, reference, ["weight"])
    x = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    with pytest.raises(ScoreError, match="not finite"):
        mimic_scores(model, vector, lambda: model(x).square().sum(1).sqrt(), method=method)


@pytest.mark.parametrize("shape", ["mean", "column"])
def test_losses_that_are_not_one_per_sample_are_refused(shape: str) -> None:
    model, reference = _pair_of(lambda: nn.Linear(2, 1))
    vector = task_vector(model, reference, ["weight"])
    x = torch.randn(3, 2)
    losses = (lambda: model(x).mean()) if shape == "mean" else (lambda: model(x))
    with pytest.raises(ScoreError):
        mimic_scores(model, vector, losses)


def test_cos_above_its_limit_is_refused_with_both_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mimic, "COS_MAX_BATCH", 4)
    model, reference = _pair_of(lambda: nn.Linear(2, 1))
    vector = task_vector(model, reference, ["weight"])
    mimic_scores(model, vector, lambda: model(torch.ones(4, 2))[:, 0], method="cos")
    mimic_scores(model, vector, lambda: model(torch.ones(5, 2))[:, 0], method="proj")
    with pytest.raises(ScoreError) as caught:
        mimic_scores(model, vector, lambda: model(torch.ones(5, 2))[:, 0], method="cos")
    assert "got 5" in str(caught.value)
    assert "at most 4 samples" in str(caught.value)


def test_a_failure_of_the_loss_itself_is_passed_on_after_one_call() -> None:
    model, reference = _pair_of(lambda: nn.Linear(2, 1))
    vector = task_vector(model, reference, ["weight"])
    calls = []

    def losses() -> Tensor:
        calls.append(1)
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        mimic_scores(model, vector, losses)
    assert len(calls) == 1
