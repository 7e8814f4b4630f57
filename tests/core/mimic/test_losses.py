"""The per-sample losses: means against open_clip and torch, single values by hand."""

from __future__ import annotations

import math

import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import SigLipLoss
from torch import Tensor
from torch.autograd import forward_ad

from mimic_core.base.errors import ScoreError
from mimic_core.mimic.losses import clip_losses, cross_entropy_losses, require_finite, siglip_losses
from tests.core import oracle

few = settings(max_examples=25, deadline=None, derandomize=True)
sizes = st.integers(1, 9)
widths = st.integers(1, 20)
seeds = st.integers(0, 2**31)


def _pairs(
    batch: int, width: int, seed: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(2, batch, width, generator=generator, dtype=torch.float64)
    return tuple(F.normalize(raw, dim=-1).to(dtype))  # type: ignore[return-value]


@few
@given(sizes, widths, seeds, st.floats(0.1, 100))
def test_mean_clip_loss_is_open_clips(batch: int, width: int, seed: int, scale: float) -> None:
    image, text = _pairs(batch, width, seed)
    theirs = open_clip.ClipLoss()(image, text, torch.tensor(scale))
    torch.testing.assert_close(
        clip_losses(image, text, torch.tensor(scale)).mean(), theirs, atol=2e-5, rtol=1e-5
    )


@few
@given(sizes, widths, seeds, st.floats(0.1, 100), st.floats(-20, 5))
def test_mean_siglip_loss_is_open_clips(
    batch: int, width: int, seed: int, scale: float, bias: float
) -> None:
    image, text = _pairs(batch, width, seed)
    numbers = torch.tensor(scale), torch.tensor(bias)
    theirs = SigLipLoss()(image, text, *numbers)
    torch.testing.assert_close(
        siglip_losses(image, text, *numbers).mean(), theirs, atol=2e-5, rtol=1e-5
    )


@few
@given(sizes, st.integers(2, 12), seeds)
def test_mean_cross_entropy_is_torchs(batch: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(batch, classes, generator=generator)
    labels = torch.randint(classes, (batch,), generator=generator)
    ours = cross_entropy_losses(logits, labels)
    torch.testing.assert_close(ours.mean(), F.cross_entropy(logits, labels))
    # class probabilities that are one-hot say the same
    one_hot = F.one_hot(labels, classes).float()
    torch.testing.assert_close(cross_entropy_losses(logits, one_hot), ours)


@few
@given(st.integers(1, 6), widths, seeds)
def test_each_loss_is_the_written_out_one(batch: int, width: int, seed: int) -> None:
    image, text = _pairs(batch, width, seed, torch.float64)
    scale, bias = torch.tensor(7.0).double(), torch.tensor(-3.0).double()
    exact = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(
        clip_losses(image, text, scale),
        oracle.contrastive_losses(image, text, scale),
        **exact,
    )
    torch.testing.assert_close(
        siglip_losses(image, text, scale, bias),
        oracle.sigmoid_losses(image, text, scale, bias),
        **exact,
    )


def test_values_by_hand() -> None:
    # cosines [[1, 0], [1, 0]]: image 1 looks like text 0, so its own text gets nothing.
    image = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    row = math.log(1 + math.exp(2))  # lse of (2, 0)
    expected = [0.5 * (row + 2 + math.log(2)) - 2, 0.5 * (row + math.log(2))]
    torch.testing.assert_close(clip_losses(image, text, 2.0), torch.tensor(expected))
    # rows of logits: (2 + b, b) for both images; signs (+, -) and (-, +)
    bias = -1.0
    softplus = lambda x: math.log1p(math.exp(x))  # noqa: E731
    expected = [
        softplus(-(2 + bias)) + softplus(bias),
        softplus(2 + bias) + softplus(-bias),
    ]
    torch.testing.assert_close(siglip_losses(image, text, 2.0, bias), torch.tensor(expected))


def test_one_pair_has_no_contrastive_loss_and_no_gradient() -> None:
    image, text = _pairs(1, 8, 0)
    image.requires_grad_()
    loss = clip_losses(image, text, 10.0)
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert image.grad is not None
    assert float(image.grad.abs().max()) == 0.0


@few
@given(st.integers(2, 7), seeds)
def test_losses_follow_a_change_of_order(batch: int, seed: int) -> None:
    image, text = _pairs(batch, 6, seed, torch.float64)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    for losses in (clip_losses, lambda u, t, s: siglip_losses(u, t, s, -2.0)):
        torch.testing.assert_close(
            losses(image[order], text[order], 9.0), losses(image, text, 9.0)[order]
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_widened_before_the_logits(dtype: torch.dtype) -> None:
    image, text = _pairs(5, 16, 3, dtype)
    wide = image.float(), text.float()
    scale, bias = torch.tensor(50.0, dtype=dtype), torch.tensor(-10.0, dtype=dtype)
    labels = torch.tensor([0, 3, 1, 15, 2])
    for low, high in [
        (clip_losses(image, text, scale), clip_losses(*wide, 50.0)),
        (siglip_losses(image, text, scale, bias), siglip_losses(*wide, 50.0, -10.0)),
        (
            cross_entropy_losses(image, labels),
            cross_entropy_losses(image.float(), labels),
        ),
    ]:
        assert low.dtype == torch.float32
        assert torch.equal(low, high)


def test_float64_stays_float64() -> None:
    image, text = _pairs(3, 4, 0, torch.float64)
    assert clip_losses(image, text, 10.0).dtype == torch.float64
    assert siglip_losses(image, text, 10.0, -10.0).dtype == torch.float64
    assert cross_entropy_losses(image, torch.tensor([0, 1, 2])).dtype == torch.float64


def test_losses_are_float32_inside_autocast() -> None:
    image, text = _pairs(6, 16, 5)
    plain = (
        clip_losses(image, text, 100.0),
        siglip_losses(image, text, 100.0, -10.0),
        cross_entropy_losses(100 * image, torch.arange(6)),
    )
    with torch.autocast("cpu", torch.bfloat16):
        inside = (
            clip_losses(image, text, 100.0),
            siglip_losses(image, text, 100.0, -10.0),
            cross_entropy_losses(100 * image, torch.arange(6)),
        )
    for ours, expected in zip(inside, plain, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("name", ["clip", "siglip", "cross-entropy"])
def test_forward_and_reverse_mode_agree(name: str) -> None:
    image, text = _pairs(5, 8, 11, torch.float64)
    along = torch.randn(5, 8, generator=torch.Generator().manual_seed(1)).double()

    def losses(x: Tensor) -> Tensor:
        if name == "clip":
            return clip_losses(x, text, 8.0)
        if name == "siglip":
            return siglip_losses(x, text, 8.0, -4.0)
        return cross_entropy_losses(8 * x, torch.arange(5))

    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(losses(forward_ad.make_dual(image, along))).tangent
    step = 1e-6
    numeric = (losses(image + step * along) - losses(image - step * along)) / (2 * step)
    assert tangent is not None
    torch.testing.assert_close(tangent, numeric, rtol=1e-6, atol=1e-8)
    leaf = image.clone().requires_grad_()
    jacobian = torch.stack(
        [torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in losses(leaf)]
    )
    torch.testing.assert_close(tangent, (jacobian * along).sum((1, 2)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_losses_that_are_not_finite_are_refused_with_value_and_place(
    bad: float,
) -> None:
    losses = torch.tensor([1.0, 2.0, bad, bad])
    with pytest.raises(ScoreError) as caught:
        require_finite(losses, step=7)
    message = str(caught.value)
    assert "2 of 4 losses are not finite in step 7" in message
    assert f"loss {bad} at position 2" in message


def test_finite_losses_pass() -> None:
    require_finite(torch.tensor([0.0, 3e38]))
    require_finite(torch.empty(0))


def test_a_label_outside_the_classes_is_no_loss_of_zero() -> None:
    # torch's ignore_index (-100) would make the sample's loss and score silently zero
    with pytest.raises((ScoreError, IndexError, RuntimeError)):
        cross_entropy_losses(torch.zeros(2, 3), torch.tensor([0, -100]))
