"""Mimic scores against reverse mode, sample by sample, and against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mimic_core.base.config import Method
from mimic_core.mimic.forward_mode import directional_derivative
from mimic_core.mimic.losses import clip_losses
from mimic_core.mimic.scores import (
    TaskVector,
    gradient_norms,
    mimic_scores,
    task_vector,
)
from tests.core import oracle, tiny

TOLERANCE = 1e-5  # of the batch's largest score
PAIRS = [(name, choice) for name in tiny.CASES for choice in ("one", "several", "all")]
few = settings(max_examples=20, deadline=None, derandomize=True)


def _compare(
    name: str, choice: str, method: Method, batch: int, seed: int, dtype: torch.dtype
) -> tuple[float, float]:
    """Relative differences of losses and scores from the float64 oracle."""
    case = tiny.CASES[name]
    model, reference = case.build(2 * seed).to(dtype), case.build(2 * seed + 1).to(dtype)
    layers = case.layers(choice)
    images, targets = case.draw(batch, seed)
    images = images.to(dtype)
    truth = oracle.reverse_mode(
        model, reference, layers, lambda m: case.truth(m, images.double(), targets)
    )
    losses, scores = mimic_scores(
        model,
        task_vector(model, reference, layers),
        lambda: case.ours(model, images, targets),
        method=method,
    )
    assert losses.shape == scores.shape == (batch,)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    expected = truth.proj if method == "proj" else truth.cos
    return (
        oracle.relative_difference(losses, truth.losses),
        oracle.relative_difference(scores, expected),
    )


@pytest.mark.parametrize("method", ["proj", "cos"])
@pytest.mark.parametrize(
    ("name", "choice", "batch"),
    # The CLIP loss of a lone pair is constant: see below.
    [(*pair, batch) for pair in PAIRS for batch in (1, 2, 5) if (pair[0], batch) != ("clip", 1)],
)
def test_scores_equal_reverse_mode(name: str, choice: str, batch: int, method: Method) -> None:
    losses, scores = _compare(name, choice, method, batch, seed=1, dtype=torch.float32)
    assert losses <= TOLERANCE
    assert scores <= TOLERANCE


@few
@given(
    st.sampled_from(["clip", "siglip", "vit", "resnet", "convnext"]),
    st.sampled_from(["one", "several", "all"]),
    st.sampled_from(["proj", "cos"]),
    st.integers(1, 7),
    st.integers(0, 50),
)
@example("clip", "all", "cos", 2, 0)
@example("siglip", "all", "cos", 1, 0)
@example("resnet", "all", "cos", 1, 0)
def test_scores_equal_reverse_mode_for_any_batch(
    name: str, choice: str, method: Method, batch: int, seed: int
) -> None:
    assume(not (name == "clip" and batch == 1))  # its loss is constant: see the next test
    losses, scores = _compare(name, choice, method, batch, seed, torch.float32)
    assert losses <= TOLERANCE
    assert scores <= TOLERANCE
    losses, scores = _compare(name, choice, method, batch, seed, torch.float64)
    assert losses <= 1e-10
    assert scores <= 1e-6  # scores are float32


@pytest.mark.parametrize("method", ["proj", "cos"])
def test_a_lone_pair_under_the_clip_loss_scores_exactly_zero(method: Method) -> None:
    model, reference = tiny.clip_vit(0), tiny.clip_vit(1)
    vector = task_vector(model, reference, tiny.CASES["clip"].layers("all"))
    images, tokens = tiny.pairs(1, 0)
    losses, scores = mimic_scores(
        model, vector, lambda: clip_losses(*model(images, tokens)), method=method
    )
    assert losses.tolist() == [0.0]
    assert scores.tolist() == [0.0]


@few
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_score_is_minus_the_slope_towards_the_reference(
    batch: int, width: int, depth: int, seed: int
) -> None:
    def build(number: int) -> nn.Sequential:
        torch.manual_seed(number)
        blocks = [nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(depth)]
        return nn.Sequential(*blocks, nn.Linear(width, 3)).double()

    model, reference = build(seed), build(seed + 1000)
    layers = [name for name, _ in model.named_parameters()]
    inputs, labels = torch.randn(batch, width).double(), torch.randint(3, (batch,))
    vector = task_vector(model, reference, layers)
    _, scores = mimic_scores(
        model,
        vector,
        lambda: F.cross_entropy(model(inputs), labels, reduction="none"),
    )
    step, values = 1e-6, []
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    for sign in (1, -1):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                difference = dict(reference.named_parameters())[name] - start[name]
                parameter.copy_(start[name] + sign * step * difference / vector.norm)
            values.append(F.cross_entropy(model(inputs), labels, reduction="none"))
    slope = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close(scores.double(), -slope, rtol=1e-5, atol=1e-7)


def test_values_by_hand() -> None:
    # loss_i = w . x_i, so g_i = x_i; v = (3, 4), |v| = 5.
    model, reference = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1.0]]))
        reference.weight.copy_(torch.tensor([[4.0, 5.0]]))
    x = torch.tensor([[1.0, 0.0], [0.0, -2.0], [4.0, -3.0], [-3.0, -4.0], [0.0, 0.0]])
    vector = task_vector(model, reference, ["weight"])
    assert vector.norm == 5.0
    assert vector.layers == ("weight",)
    assert vector.unit()["weight"].tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]
    losses, proj = mimic_scores(model, vector, lambda: model(x)[:, 0])
    assert losses.tolist() == [1.0, -2.0, 1.0, -7.0, 0.0]
    assert proj.tolist() == pytest.approx([-0.6, 1.6, 0.0, 5.0, 0.0], abs=1e-6)
    _, cos = mimic_scores(model, vector, lambda: model(x)[:, 0], method="cos")
    assert cos.tolist() == pytest.approx([-0.6, 0.8, 0.0, 1.0, 0.0], abs=1e-6)


def test_norm_is_taken_over_all_layers_together() -> None:
    model, reference = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        for module, weight, bias in ((model, 0.0, 0.0), (reference, 3.0, 4.0)):
            module.weight.fill_(weight)
            module.bias.fill_(bias)
    both = task_vector(model, reference, ["weight", "bias", "weight"])
    assert both.norm == 5.0
    assert both.layers == ("weight", "bias")
    assert task_vector(model, reference, ["bias"]).norm == 4.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norm_is_not_rounded_to_the_precision_of_the_weights(dtype: torch.dtype) -> None:
    # 40,000 differences of 400 have a norm of 80,000: beyond float16, and of 3 digits in bfloat16
    model, reference = nn.Linear(200, 200, dtype=dtype), nn.Linear(200, 200, dtype=dtype)
    with torch.no_grad():
        model.weight.zero_()
        reference.weight.fill_(400.0)
    assert task_vector(model, reference, ["weight"]).norm == pytest.approx(80_000, rel=1e-6)
    with torch.no_grad():
        reference.weight.fill_(0.0)
        reference.weight[0, :3] = torch.tensor([1.0, 1.0, 1.0])
    assert task_vector(model, reference, ["weight"]).norm == pytest.approx(3**0.5, rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e-25])
def test_cosines_of_well_fitted_samples_do_not_vanish(scale: float) -> None:
    # the cosine does not depend on the gradient's length, however far the sample is fitted
    model, reference = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        reference.weight.copy_(model.weight + torch.tensor([[3.0, 4.0]]))
    x = torch.tensor([[-1.0, 0.0], [-3.0, -4.0]]) * scale
    vector = task_vector(model, reference, ["weight"])
    _, cos = mimic_scores(model, vector, lambda: model(x)[:, 0], method="cos")
    assert cos.tolist() == pytest.approx([0.6, 1.0], rel=1e-4)


def test_one_forward_pass_for_a_late_layer_and_one_more_once_for_attention() -> None:
    model, reference = tiny.clip_vit(0), tiny.clip_vit(1)
    images, tokens = tiny.pairs(3, 0)
    calls: list[int] = []

    def losses() -> Tensor:
        calls.append(1)
        return clip_losses(*model(images, tokens))

    late = task_vector(model, reference, [tiny.IMAGE_MLP])
    everything = task_vector(model, reference, tiny.CASES["clip"].layers("all"))
    counts = []
    with torch.no_grad():
        for vector in (late, everything, everything, late):
            calls.clear()
            mimic_scores(model, vector, losses)
            counts.append(len(calls))
    assert counts in ([1, 2, 1, 1], [1, 1, 1, 1])  # the try may become needless in a later torch


def test_directional_derivative_gives_none_where_an_output_is_independent() -> None:
    model, reference = tiny.clip_vit(0), tiny.clip_vit(1)
    images, tokens = tiny.pairs(4, 0)
    vector = task_vector(model, reference, ["visual.proj"])

    def towers() -> tuple[Tensor, ...]:
        return model.encode_image(images), model.encode_text(tokens)

    (image, along), (text, none) = directional_derivative(model, vector.unit(), towers)
    assert none is None
    assert torch.equal(text, model.encode_text(tokens))
    assert torch.equal(image, model.encode_image(images))
    # the features before the projection, times v / |v|
    proj = model.visual.proj
    model.visual.proj = None
    features = model.encode_image(images)
    model.visual.proj = proj
    expected = features @ vector.directions["visual.proj"] / vector.norm
    torch.testing.assert_close(along, expected)
    assert along is not None
    assert not along.requires_grad


def test_gradient_norms_over_all_parameters_together() -> None:
    a, b = (
        torch.tensor([2.0], requires_grad=True),
        torch.tensor([1.0], requires_grad=True),
    )
    losses = torch.stack([3 * a[0] + 4 * b[0], 5 * b[0], 0 * a[0]])
    assert gradient_norms(losses, [a, b]).tolist() == [5.0, 5.0, 0.0]


def test_unit_directions_have_length_one() -> None:
    vector = TaskVector({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}, 5.0)
    assert vector.unit() == {
        "a": torch.tensor([3.0]) / 5,
        "b": torch.tensor([[4.0]]) / 5,
    }
