"""Every compared weighting against its definition, on explicit per-sample gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mimic_core.base.config import WeightingName
from mimic_core.base.errors import ScoreError
from mimic_core.mimic.geometry import GraphGeometry, LinearGeometry, cross_entropy_geometry
from mimic_core.mimic.grad_match import match_weights
from mimic_core.mimic.scores import task_vector
from mimic_core.mimic.weightings import (
    Geometry,
    batch_weights,
    mimic_scores_of,
    needs_comparison,
    needs_reference_losses,
    weighs_everything,
)
from mimic_core.scoring.training.comparison import mean_gradient
from mimic_core.scoring.training.distributed import Group
from mimic_core.scoring.training.tracing import trace_graph
from tests.core import oracle, tiny
from tests.core.tiny import PAIRS, batch_of

LAYERS = (tiny.IMAGE_MLP, "visual.proj")
B = 6


@pytest.fixture(scope="module")
def models() -> tuple[nn.Module, nn.Module]:
    return tiny.clip_vit(0).requires_grad_(True), tiny.clip_vit(1)


@pytest.fixture(scope="module")
def truth(models: tuple[nn.Module, nn.Module]) -> oracle.Truth:
    images, tokens = tiny.pairs(B, 0)
    return oracle.reverse_mode(
        *models, LAYERS, lambda m: oracle.contrastive_losses(*m(images.double(), tokens))
    )


@pytest.fixture(scope="module")
def gradients(truth: oracle.Truth) -> Tensor:
    """Explicit per-sample gradients over all mimic layers (B, P), float64."""
    return torch.cat([truth.gradients[name].flatten(1) for name in LAYERS], 1)


@pytest.fixture
def geometry(models: tuple[nn.Module, nn.Module]) -> Geometry:
    model, reference = models
    vector = task_vector(model, reference, LAYERS)
    return trace_graph(model, PAIRS, batch_of(B, 0), vector, Group()).geometry


@pytest.fixture(scope="module")
def comparison(models: tuple[nn.Module, nn.Module]) -> dict[str, Tensor]:
    return mean_gradient(models[0], PAIRS, [batch_of(B, 7)], LAYERS, Group())


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_comparison_gradient_in_parts_is_that_of_one_pass(
    cut: int, models: tuple[nn.Module, nn.Module], comparison: dict[str, Tensor]
) -> None:
    parts = [batch_of(B, 7, rows=slice(start, start + cut)) for start in range(0, B, cut)]
    found = mean_gradient(models[0], PAIRS, parts, LAYERS, Group())
    for name, expected in comparison.items():
        assert oracle.relative_difference(found[name], expected.double()) < 1e-5


def flat(direction: dict[str, Tensor]) -> Tensor:
    return torch.cat([direction[name].flatten() for name in LAYERS]).double()


def close(ours: Tensor, expected: Tensor) -> None:
    assert oracle.relative_difference(ours, expected) < 1e-4


def test_a_comparison_gradient_is_the_mean_of_the_per_sample_ones(
    models: tuple[nn.Module, nn.Module], comparison: dict[str, Tensor]
) -> None:
    images, tokens = tiny.pairs(B, 7)
    found = oracle.reverse_mode(
        *models, LAYERS, lambda m: oracle.contrastive_losses(*m(images.double(), tokens))
    )
    for name in LAYERS:
        close(comparison[name], found.gradients[name].mean(0))
    assert all(parameter.requires_grad for parameter in models[0].parameters())


def test_inner_products_by_reverse_mode(
    geometry: Geometry, gradients: Tensor, comparison: dict[str, Tensor]
) -> None:
    close(geometry.products(comparison), gradients @ flat(comparison))
    close(geometry.norms(), gradients.norm(dim=1))
    close(geometry.gram(), gradients @ gradients.T)


def test_a_gram_matrix_too_large_to_hold_its_gradients_is_the_same(
    geometry: Geometry, gradients: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mimic_core.mimic.geometry.GRAM_BYTES", 0)
    close(geometry.gram(), gradients @ gradients.T)


def test_products_where_the_graph_cannot_be_differentiated_twice(gradients: Tensor) -> None:
    def pull(weights: Tensor, *, differentiable: bool = False) -> dict[str, Tensor]:
        if differentiable:
            raise RuntimeError("derivative for aten::fused_attention_backward is not implemented")
        return {"all": weights.double() @ gradients}

    direction = {"all": torch.linspace(-1, 1, gradients.shape[1], dtype=torch.float64)}
    found = GraphGeometry(torch.zeros(B), pull).products(direction)
    close(found, gradients @ direction["all"])


def test_an_error_of_another_kind_is_not_hidden() -> None:
    def pull(weights: Tensor, *, differentiable: bool = False) -> dict[str, Tensor]:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        GraphGeometry(torch.zeros(B), pull).products({})


def test_mimic_scores_of_a_geometry_are_those_of_the_definition(
    models: tuple[nn.Module, nn.Module], geometry: Geometry, truth: oracle.Truth
) -> None:
    vector = task_vector(*models, LAYERS)
    close(mimic_scores_of(geometry, vector), truth.proj)
    close(mimic_scores_of(geometry, vector, method="cos"), truth.cos)


def softmax(values: Tensor, temperature: float) -> Tensor:
    return torch.exp(values / temperature) / torch.exp(values / temperature).sum()


def test_uniform_and_mimic(geometry: Geometry, truth: oracle.Truth) -> None:
    found = batch_weights("uniform", geometry, temperature=0.1)
    assert found.weights.tolist() == [pytest.approx(1 / B)] * B
    scores = truth.proj.float()
    found = batch_weights("mimic", geometry, temperature=0.1, scores=scores)
    close(found.weights, softmax(truth.proj, 0.1))


def test_grand_is_the_softmax_of_the_gradient_norms(geometry: Geometry, gradients: Tensor) -> None:
    found = batch_weights("grand", geometry, temperature=0.3)
    close(found.weights, softmax(gradients.norm(dim=1), 0.3))


def test_rho_is_the_softmax_of_loss_minus_reference_loss(
    geometry: Geometry, truth: oracle.Truth
) -> None:
    expected = torch.linspace(0, 1, B)
    found = batch_weights("rho", geometry, temperature=0.2, reference_losses=expected)
    close(found.weights, softmax(truth.losses - expected, 0.2))


def test_rho_attached_is_the_gradient_of_the_weighted_loss_with_its_weights_in_it() -> None:
    """By autograd on one linear layer, weights and all, against ``sum_i w_i g_i``."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(B, 5, generator=generator)
    weight = torch.randn(4, 5, generator=generator, requires_grad=True)
    labels = torch.tensor([0, 3, 1, 1, 2, 0])
    expected = torch.linspace(0.2, 1.4, B)
    logits = inputs @ weight.T
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    (torch.softmax(losses - expected, 0) * losses).sum().backward()
    geometry = cross_entropy_geometry(inputs, logits, labels, weight="w")
    found = batch_weights("rho_attached", geometry, temperature=0.05, reference_losses=expected)
    assert weight.grad is not None
    close(geometry.weighted_gradient(found.weights)["w"], weight.grad.double())
    assert float(found.weights.sum()) == pytest.approx(1, abs=1e-5)
    detached = batch_weights("rho", geometry, temperature=1, reference_losses=expected).weights
    assert not torch.allclose(found.weights, detached, atol=1e-2)


def test_grad_match_one_by_one_is_each_gradients_own_projection(
    geometry: Geometry, gradients: Tensor
) -> None:
    mean = gradients.mean(0)
    found = batch_weights("grad_match_single", geometry, temperature=1)
    close(found.weights, (gradients @ mean) / gradients.square().sum(1))


def test_grad_match_one_by_one_may_be_negative_and_gives_a_zero_gradient_no_weight() -> None:
    geometry = cross_entropy_geometry(
        torch.tensor([[1.0], [3.0], [0.0]]), torch.zeros(3, 2), torch.tensor([0, 1, 0]), weight="w"
    )
    found = batch_weights("grad_match_single", geometry, temperature=1).weights
    # Per-sample gradients on the two classes: (-1/2, 1/2), (3/2, -3/2), 0; their mean (1/3, -1/3).
    assert found.tolist() == pytest.approx([-2 / 3, 2 / 9, 0.0])


def test_agra_keeps_who_goes_with_the_comparison_batch(
    geometry: Geometry, gradients: Tensor, comparison: dict[str, Tensor]
) -> None:
    cosines = gradients @ flat(comparison) / gradients.norm(dim=1) / flat(comparison).norm()
    positive = cosines > 0
    assert 0 < int(positive.sum()) < B  # else the test would show nothing
    found = batch_weights("agra", geometry, temperature=1, comparison=comparison)
    close(found.weights, positive.double() / positive.sum())
    assert found.note is None


def test_agra_is_uniform_and_says_so_where_nobody_goes_with_it() -> None:
    inputs, logits = torch.ones(3, 2), torch.zeros(3, 2)
    geometry = cross_entropy_geometry(inputs, logits, torch.tensor([0, 0, 0]), weight="w")
    against = {"w": -geometry.mean_gradient()["w"]}
    found = batch_weights("agra", geometry, temperature=1, comparison=against)
    assert found.weights.tolist() == [pytest.approx(1 / 3)] * 3
    assert found.note == "no sample goes with the comparison batch"
    found = batch_weights("grad_match", geometry, temperature=1, comparison=against)
    assert found.weights.tolist() == [pytest.approx(1 / 3)] * 3
    assert found.note == "no sample helps to match the comparison batch"


def test_grad_match_is_the_least_squares_match(
    geometry: Geometry, gradients: Tensor, comparison: dict[str, Tensor]
) -> None:
    from scipy.optimize import nnls

    expected = torch.from_numpy(nnls(gradients.T.numpy(), flat(comparison).numpy())[0])
    found = batch_weights("grad_match", geometry, temperature=1, comparison=comparison)
    close(found.weights, expected / expected.sum())


def test_a_match_that_is_not_found_is_an_error_that_can_be_acted_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def endless(*_: Any, **__: Any) -> None:
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr("scipy.optimize.nnls", endless)
    with pytest.raises(ScoreError, match=r"cannot be found.*Maximum.*another weighting"):
        match_weights(torch.eye(3), torch.ones(3))


def test_grad_match_of_the_batch_itself_is_uniform(geometry: Geometry) -> None:
    gram = geometry.gram()
    np.testing.assert_allclose(match_weights(gram, gram.mean(1)), 1 / B, atol=1e-4)


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 10_000))
def test_no_other_weights_match_better(samples: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, goal = rng.normal(size=(samples, width)), rng.normal(size=width)

    def distance(weights: np.ndarray) -> float:
        return float(((weights @ rows - goal) ** 2).sum())

    found = match_weights(torch.from_numpy(rows @ rows.T), torch.from_numpy(rows @ goal)).numpy()
    assert (found >= 0).all()
    others = np.abs(found + rng.normal(size=(50, samples)) * 0.1)
    assert distance(found) <= min(distance(other) for other in others) + 1e-5


def test_influence_is_the_mimic_score_along_a_descent_on_clean_samples(
    geometry: Geometry, gradients: Tensor, comparison: dict[str, Tensor]
) -> None:
    direction = -flat(comparison)
    scores = -(gradients @ direction) / direction.norm()
    found = batch_weights("influence", geometry, temperature=0.1, comparison=comparison)
    close(found.weights, softmax(scores, 0.1))


def test_influence_as_a_cosine(
    geometry: Geometry, gradients: Tensor, comparison: dict[str, Tensor]
) -> None:
    clean = flat(comparison)
    cosine = (gradients @ clean) / clean.norm() / gradients.norm(dim=1)
    found = batch_weights(
        "influence", geometry, temperature=0.1, method="cos", comparison=comparison
    )
    close(found.weights, softmax(cosine, 0.1))


def test_a_zero_gradient_of_the_clean_samples_is_said(geometry: Geometry) -> None:
    zero = {"w": torch.zeros(2)}
    found = batch_weights("influence", geometry, temperature=0.1, comparison=zero)
    assert found.note == "the clean samples' gradient is zero"


@pytest.mark.parametrize(
    "name", ["mimic", "agra", "grad_match", "influence", "rho", "rho_attached"]
)
def test_what_is_missing_is_named(name: str, geometry: Geometry) -> None:
    with pytest.raises(ScoreError, match="this weighting needs"):
        batch_weights(name, geometry, temperature=1)  # type: ignore[arg-type]


def test_what_each_weighting_needs() -> None:
    names: tuple[WeightingName, ...] = get_args(WeightingName)
    compared = {name: needs_comparison(name) for name in names}
    assert {name: found for name, found in compared.items() if found is not None} == {
        "agra": "pool",
        "grad_match": "pool",
        "influence": "clean",
    }
    assert [name for name in names if needs_reference_losses(name)] == ["rho", "rho_attached"]
    assert [name for name in names if weighs_everything(name)] == ["uniform", "rho_attached"]


# --- the closed form of a linear last layer ---


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_closed_form_equals_explicit_gradients(with_bias: bool, transposed: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(B, 5, generator=generator)
    weight = torch.randn(4, 5, generator=generator)
    bias = torch.randn(4, generator=generator)
    labels = torch.tensor([0, 3, 1, 1, 2, 0])
    logits = inputs @ weight.T + bias

    def loss(parameters: tuple[Tensor, Tensor], i: int) -> Tensor:
        logits = parameters[0] @ inputs[i].double() + parameters[1]
        return -torch.log_softmax(logits, 0)[labels[i]]

    rows = []
    for i in range(B):
        parts = (weight.double().requires_grad_(True), bias.double().requires_grad_(True))
        of_weight, of_bias = torch.autograd.grad(loss(parts, i), parts)
        of_weight = of_weight.T if transposed else of_weight
        rows.append(
            torch.cat([of_weight.flatten(), of_bias] if with_bias else [of_weight.flatten()])
        )
    expected = torch.stack(rows)
    geometry = cross_entropy_geometry(
        inputs, logits, labels, weight="w", bias="b" if with_bias else None, transposed=transposed
    )

    def as_row(direction: dict[str, Tensor]) -> Tensor:
        return torch.cat([direction[name].flatten() for name in direction]).double()

    weights = torch.rand(B, generator=generator)
    direction = geometry.weighted_gradient(weights)
    assert direction["w"].shape == ((5, 4) if transposed else (4, 5))
    close(as_row(direction), weights.double() @ expected)
    close(as_row(geometry.mean_gradient()), expected.mean(0))
    close(geometry.products(direction), expected @ as_row(direction))
    close(geometry.norms(), expected.norm(dim=1))
    close(geometry.gram(), expected @ expected.T)
    found: Callable[[int], Tensor] = lambda i: loss((weight.double(), bias.double()), i)  # noqa: E731
    close(geometry.losses, torch.stack([found(i) for i in range(B)]))
    assert isinstance(geometry, LinearGeometry)
