"""Scoring leaves the model, its gradients and torch's settings as it found them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from mimic_core.base.config import Method
from mimic_core.base.errors import ScoreError
from mimic_core.mimic import scores as mimic
from mimic_core.mimic.losses import clip_losses
from mimic_core.mimic.scores import (
    mimic_scores,
    mimic_weights,
    task_vector,
)
from tests.core import oracle, tiny


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Same parameter objects, values, flags and gradients after as before; no dual level open."""
    before = {
        name: (p, p.detach().clone(), p.requires_grad, p.grad)
        for name, p in model.named_parameters(remove_duplicate=False)
    }
    state = list(model.state_dict())
    mode = torch.is_grad_enabled()
    yield
    after = dict(model.named_parameters(remove_duplicate=False))
    assert list(after) == list(before)
    assert list(model.state_dict()) == state
    for name, (parameter, values, wanted, grad) in before.items():
        assert after[name] is parameter
        assert isinstance(after[name], nn.Parameter)
        assert torch.equal(after[name], values)
        assert after[name].requires_grad == wanted
        assert after[name].grad is grad
    assert torch.is_grad_enabled() == mode
    with forward_ad.dual_level():  # raises where one is still open: levels do not nest
        pass


@pytest.mark.parametrize("method", ["proj", "cos"])
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize(
    "outcome", ["success", "before", "after", "not finite", "independent", "too large"]
)
def test_nothing_of_the_model_is_changed(
    method: Method,
    trainable: bool,
    outcome: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if outcome == "too large":
        if method == "proj":
            pytest.skip("proj has no limit")
        monkeypatch.setattr(mimic, "COS_MAX_BATCH", 2)
    case = tiny.CASES["clip"]
    model, reference = case.build(0), case.build(1)
    model.requires_grad_(trainable)
    images, tokens = tiny.pairs(3, 0)

    def losses() -> Tensor:
        if outcome == "before":
            raise ZeroDivisionError("before the forward pass")
        found = case.ours(model, images, tokens)
        if outcome == "after":
            raise ZeroDivisionError("after the forward pass")
        if outcome == "not finite":
            return found / torch.tensor([1.0, 0.0, 1.0])
        return torch.ones(3) if outcome == "independent" else found

    for choice in ("one", "several", "all"):
        vector = task_vector(model, reference, case.layers(choice))
        directions = {name: d.clone() for name, d in vector.directions.items()}
        with _unchanged(model):
            if outcome == "success":
                mimic_scores(model, vector, losses, method=method)
            else:
                with pytest.raises((ScoreError, ZeroDivisionError)):
                    mimic_scores(model, vector, losses, method=method)
        for name, direction in directions.items():
            assert torch.equal(vector.directions[name], direction)


def test_flags_of_single_parameters_are_kept() -> None:
    model, reference = tiny.clip_vit(0), tiny.clip_vit(1)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("attn" in name or name == tiny.IMAGE_MLP)
    images, tokens = tiny.pairs(3, 0)
    vector = task_vector(model, reference, tiny.CASES["clip"].layers("several"))
    with _unchanged(model):
        mimic_scores(model, vector, lambda: clip_losses(*model(images, tokens)), method="cos")


@pytest.mark.parametrize("choice", ["one", "several", "all"])
@pytest.mark.parametrize("method", ["proj", "cos"])
def test_weighted_losses_go_backward_after_the_level(choice: str, method: Method) -> None:
    case = tiny.CASES["clip"]
    model, reference = case.build(0), case.build(1)
    every = case.layers("all")
    images, tokens = tiny.pairs(6, 4)
    truth = oracle.reverse_mode(
        model, reference, every, lambda m: case.truth(m, images.double(), tokens)
    )
    vector = task_vector(model, reference, case.layers(choice))
    losses, scores = mimic_scores(
        model, vector, lambda: case.ours(model, images, tokens), method=method
    )
    weights = mimic_weights(scores, temperature=0.05)
    (weights * losses).sum().backward()
    for name in every:
        gradient = model.get_parameter(name).grad
        assert gradient is not None, name
        expected = torch.einsum("b,b...->...", weights.double(), truth.gradients[name])
        assert oracle.relative_difference(gradient, expected) <= 1e-4, name


def test_gradients_are_those_of_an_ordinary_training_step() -> None:
    # a late layer: no attention in the tangent path, so the same kernels in the same order
    model, twin, reference = tiny.clip_vit(0), tiny.clip_vit(0), tiny.clip_vit(1)
    images, tokens = tiny.pairs(6, 4)
    vector = task_vector(model, reference, [tiny.IMAGE_MLP])
    losses, _ = mimic_scores(model, vector, lambda: clip_losses(*model(images, tokens)))
    losses.mean().backward()
    plain = clip_losses(*twin(images, tokens))
    plain.mean().backward()
    assert torch.equal(losses, plain)
    for (name, ours), (_, theirs) in zip(
        model.named_parameters(), twin.named_parameters(), strict=True
    ):
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-8, msg=name)


def test_a_training_loop_with_an_optimizer_reaches_the_reference() -> None:
    # the usage in the module's docstring: a new task vector at each step, the optimizer untouched
    torch.manual_seed(0)
    model, reference = nn.Linear(4, 3), nn.Linear(4, 3)
    x = torch.randn(256, 4)
    labels = torch.softmax(reference(x), 1).detach()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    norms = []
    for _ in range(30):
        vector = task_vector(model, reference, ["weight", "bias"])
        norms.append(vector.norm)
        losses, scores = mimic_scores(
            model, vector, lambda: F.cross_entropy(model(x), labels, reduction="none")
        )
        optimizer.zero_grad()
        (mimic_weights(scores, temperature=1.0) * losses).sum().backward()
        optimizer.step()
    assert norms[-1] < norms[0]
    assert float((model(x).argmax(1) == labels.argmax(1)).float().mean()) > 0.95
