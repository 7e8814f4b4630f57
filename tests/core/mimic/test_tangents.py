"""What could drop a tangent: fused attention, autocast, tied and half-precision weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimic_core.base.config import Method
from mimic_core.mimic.losses import clip_losses
from mimic_core.mimic.scores import (
    mimic_scores,
    task_vector,
)
from tests.core import oracle, tiny

TOLERANCE = 1e-5  # of the batch's largest score


class _Encoder(nn.Module):
    """torch's own encoder layer, whose eval mode takes the fused multi-head path."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


@pytest.mark.parametrize(
    "layers",
    [
        ("layer.self_attn.in_proj_weight",),
        ("layer.linear2.weight",),
        ("head.weight",),
        (),
    ],
)
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize("frozen", [False, True])
def test_fused_multi_head_fast_path_drops_no_tangent(
    layers: tuple[str, ...],
    context: Callable[[], AbstractContextManager[None]],
    frozen: bool,
) -> None:
    model, reference = _Encoder(0).eval(), _Encoder(1).eval()
    names = layers or tuple(name for name, _ in model.named_parameters())
    x, labels = torch.randn(5, 6, 16), torch.tensor([0, 1, 2, 3, 0])
    truth = oracle.reverse_mode(
        model, reference, names, lambda m: oracle.label_losses(m(x.double()), labels)
    )
    model.requires_grad_(not frozen)
    vector = task_vector(model, reference, names)
    with context():
        _, scores = mimic_scores(
            model,
            vector,
            lambda: F.cross_entropy(model(x), labels, reduction="none"),
        )
    assert oracle.relative_difference(scores, truth.proj) <= TOLERANCE


def _attention_flags() -> tuple[bool, ...]:
    return (
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.math_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.cuda.cudnn_sdp_enabled(),
    )


@pytest.mark.parametrize("fastpath", [True, False])
@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_attention_settings_are_as_before(fastpath: bool, flash: bool, fails: bool) -> None:
    model, reference = tiny.clip_vit(0), tiny.clip_vit(1)
    vector = task_vector(model, reference, tiny.CASES["clip"].layers("all"))
    images, tokens = tiny.pairs(2, 0)
    inside: list[tuple[bool, ...]] = []

    def losses() -> Tensor:
        found = clip_losses(*model(images, tokens))
        inside.append(_attention_flags())
        if fails:
            raise KeyError("a failure after the forward pass")
        return found

    default = _attention_flags()
    try:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        torch.backends.cuda.enable_flash_sdp(flash)
        before = _attention_flags()
        if fails:
            with pytest.raises(KeyError):
                mimic_scores(model, vector, losses)
        else:
            mimic_scores(model, vector, losses)
        assert _attention_flags() == before
        if flash:  # else the first try may have met plain attention already
            assert inside[-1] == (False, False, True, False, False)
    finally:
        torch.backends.mha.set_fastpath_enabled(default[0])
        torch.backends.cuda.enable_flash_sdp(default[1])


@pytest.mark.parametrize("layers", [("first.weight",), ("first.weight", "second.bias")])
def test_a_tied_parameter_carries_its_tangent_at_every_place(
    layers: tuple[str, ...],
) -> None:
    model, reference = tiny.Tied(0), tiny.Tied(1)
    x, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    truth = oracle.reverse_mode(
        model, reference, layers, lambda m: oracle.label_losses(m(x.double()), labels)
    )
    _, scores = mimic_scores(
        model,
        task_vector(model, reference, layers),
        lambda: F.cross_entropy(model(x), labels, reduction="none"),
    )
    assert oracle.relative_difference(scores, truth.proj) <= TOLERANCE
    assert model.second.weight is model.first.weight


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("choice", ["one", "all"])
@pytest.mark.parametrize("method", ["proj", "cos"])
def test_usable_without_grad(
    context: Callable[[], AbstractContextManager[None]], choice: str, method: Method
) -> None:
    if method == "cos" and context is torch.inference_mode:
        pytest.skip("reverse mode does not exist in inference mode: refused, see below")
    case = tiny.CASES["clip"]
    model, reference = case.build(0), case.build(1)
    layers = case.layers(choice)
    images, tokens = tiny.pairs(4, 3)
    truth = oracle.reverse_mode(
        model, reference, layers, lambda m: case.truth(m, images.double(), tokens)
    )
    with context():
        vector = task_vector(model, reference, layers)
        losses, scores = mimic_scores(
            model,
            vector,
            lambda: case.ours(model, images.clone(), tokens.clone()),
            method=method,
        )
    expected = truth.proj if method == "proj" else truth.cos
    assert oracle.relative_difference(scores, expected) <= TOLERANCE
    assert oracle.relative_difference(losses, truth.losses) <= TOLERANCE


@pytest.mark.parametrize("layer", ["visual.proj", "text_projection", tiny.IMAGE_MLP])
def test_scores_under_autocast_do_not_use_a_cached_cast_without_tangent(layer: str) -> None:
    model, reference = tiny.clip_vit(0), tiny.clip_vit(1)
    images, tokens = tiny.pairs(16, 3)
    vector = task_vector(model, reference, [layer])
    _, exact = mimic_scores(model, vector, lambda: clip_losses(*model(images, tokens)))
    with torch.autocast("cpu", torch.bfloat16):
        model(images, tokens)  # autocast now holds a bfloat16 copy of every weight
        _, scores = mimic_scores(model, vector, lambda: clip_losses(*model(images, tokens)))
    assert scores.dtype == torch.float32
    assert oracle.relative_difference(scores, exact.double()) < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["clip", "siglip", "vit", "resnet", "convnext"])
def test_every_kind_of_norm_lets_tangents_through_autocast(name: str, dtype: torch.dtype) -> None:
    case = tiny.CASES[name]
    model, reference = case.build(0), case.build(1)
    images, targets = case.draw(8, 0)
    vector = task_vector(model, reference, case.layers("several"))
    hooks = [len(module._forward_hooks) for module in model.modules()]
    _, exact = mimic_scores(model, vector, lambda: case.ours(model, images, targets))
    with torch.autocast("cpu", dtype):
        _, scores = mimic_scores(model, vector, lambda: case.ours(model, images, targets))
    assert oracle.relative_difference(scores, exact.double()) < 0.1
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


def test_half_precision_weights_give_float32_scores() -> None:
    model, reference = nn.Linear(8, 3).bfloat16(), nn.Linear(8, 3)
    x, labels = torch.randn(4, 8, dtype=torch.bfloat16), torch.tensor([0, 1, 2, 0])
    vector = task_vector(model, reference, ["weight"])
    assert vector.directions["weight"].dtype == torch.float32

    def losses() -> Tensor:
        return F.cross_entropy(model(x).float(), labels, reduction="none")

    _, scores = mimic_scores(model, vector, losses)
    truth = oracle.reverse_mode(
        model,
        reference,
        ["weight"],
        lambda m: oracle.label_losses(m(x.double()), labels),
    )
    assert scores.dtype == torch.float32
    assert oracle.relative_difference(scores, truth.proj) < 0.03
