"""The closed forms of phase 2 against the losses of ``losses.py``, differentiated by torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

from mimic_core.base.config import LossName, Side
from mimic_core.mimic import contrastive
from mimic_core.mimic.contrastive import (
    Embedded,
    Scaling,
    embedding_gradient,
    normalise,
    score_logits,
    score_planted,
    through_normalise,
)
from mimic_core.mimic.losses import clip_losses, siglip_losses

few = settings(max_examples=40, deadline=None, derandomize=True)
losses_names = st.sampled_from(["clip", "siglip"])
blocks = st.sampled_from([None, 1, 2, 3, 5, 100])


def _batch(size: int, seed: int, sides: str, width: int = 6) -> Embedded:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(4, size, width, generator=generator)
    return Embedded(
        F.normalize(draw[0], dim=1),
        F.normalize(draw[1], dim=1),
        draw[2] if "i" in sides else None,
        draw[3] if "t" in sides else None,
    )


def _scored(batch: Embedded, scaling: Scaling, block: int | None = None) -> tuple[Tensor, Tensor]:
    scored = score_logits(batch, scaling, block=block)
    return scored.losses, scored.scores


def _gradients(
    batch: Embedded, scaling: Scaling, weights: Tensor, block: int | None = None
) -> tuple[Tensor, Tensor]:
    scored = score_logits(batch, scaling, block=block)
    sides: tuple[Side, Side] = ("image", "text")
    image, text = (
        embedding_gradient(batch, scaling, scored, weights, side=side, block=block)
        for side in sides
    )
    return image, text


def _scaling(loss: LossName, *, scalars: bool) -> Scaling:
    bias = -2.0 if loss == "siglip" else 0.0
    if not scalars:
        return Scaling(loss, 9.0, bias)
    return Scaling(loss, 9.0, bias, scale_tangent=0.7, bias_tangent=-0.3 if bias else 0.0)


def _by_torch(batch: Embedded, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """Losses and minus their derivatives, float64, by forward mode through ``losses.py``."""

    def dual(value: Tensor, tangent: Tensor | None) -> Tensor:
        value = value.double()
        zero = torch.zeros_like(value)
        return forward_ad.make_dual(value, zero if tangent is None else tangent.double())

    with forward_ad.dual_level():
        image = dual(batch.image, batch.image_tangent)
        text = dual(batch.text, batch.text_tangent)
        scale = dual(torch.tensor(scaling.scale), torch.tensor(scaling.scale_tangent))
        bias = dual(torch.tensor(scaling.bias), torch.tensor(scaling.bias_tangent))
        losses = (
            clip_losses(image, text, scale)
            if scaling.loss == "clip"
            else siglip_losses(image, text, scale, bias)
        )
        pair = forward_ad.unpack_dual(losses)
        assert pair.tangent is not None
        return pair.primal.clone(), -pair.tangent.clone()


@few
@given(
    losses_names,
    st.integers(1, 12),
    st.integers(0, 999),
    st.sampled_from(["i", "t", "it", ""]),
    st.booleans(),
    blocks,
)
@example("clip", 1, 0, "it", True, None)
@example("siglip", 1, 0, "it", True, None)
@example("clip", 2, 0, "i", False, 1)
@example("siglip", 2, 0, "i", False, 1)
def test_closed_forms_are_the_derivatives(
    loss: LossName, size: int, seed: int, sides: str, scalars: bool, block: int | None
) -> None:
    batch, scaling = _batch(size, seed, sides), _scaling(loss, scalars=scalars)
    losses, scores = _scored(batch, scaling, block)
    expected_losses, expected_scores = _by_torch(batch, scaling)
    assert losses.shape == scores.shape == (size,)
    assert losses.dtype == scores.dtype == torch.float32
    torch.testing.assert_close(losses.double(), expected_losses, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(scores.double(), expected_scores, rtol=1e-4, atol=5e-5)


@few
@given(losses_names, st.integers(1, 12), st.integers(0, 999), blocks)
@example("clip", 1, 0, None)
@example("siglip", 2, 0, 1)
def test_gradients_of_the_weighted_loss(
    loss: LossName, size: int, seed: int, block: int | None
) -> None:
    batch, scaling = _batch(size, seed, ""), _scaling(loss, scalars=False)
    weights = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    ours = _gradients(batch, scaling, weights, block)
    image = batch.image.double().requires_grad_()
    text = batch.text.double().requires_grad_()
    losses = (
        clip_losses(image, text, scaling.scale)
        if loss == "clip"
        else siglip_losses(image, text, scaling.scale, scaling.bias)
    )
    expected = torch.autograd.grad((weights.double() * losses).sum(), (image, text))
    for got, want in zip(ours, expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_a_large_batch_in_blocks_equals_the_whole(
    loss: LossName, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, scaling = _batch(1500, 3, "it", width=16), _scaling(loss, scalars=True)
    weights = torch.rand(1500, generator=torch.Generator().manual_seed(1))
    whole = _scored(batch, scaling, 1500)
    gradients = _gradients(batch, scaling, weights, 1500)
    seen: list[int] = []
    plain = contrastive._blocks

    def counted(*args: object, **kwargs: object) -> object:
        for rows, logits, tangents in plain(*args, **kwargs):  # type: ignore[arg-type]
            seen.append(logits.numel())
            yield rows, logits, tangents

    monkeypatch.setattr(contrastive, "_blocks", counted)
    monkeypatch.setattr(contrastive, "BLOCK_ELEMENTS", 1500 * 64)
    parts = _scored(batch, scaling)
    assert len(seen) == 24  # ceil(1500 / 64)
    assert max(seen) == 1500 * 64
    scale = float(whole[1].abs().max())
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts[1], whole[1], rtol=0, atol=1e-5 * scale)
    for got, want in zip(_gradients(batch, scaling, weights), gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))


def test_logits_beyond_the_range_of_exp_do_not_overflow() -> None:
    # logit_scale is clamped at 100, but a checkpoint may hold more
    batch = _batch(8, 0, "it")
    for block in (None, 3):
        losses, scores = _scored(batch, Scaling("clip", 5000.0), block)
        expected_losses, expected_scores = _by_torch(batch, Scaling("clip", 5000.0))
        torch.testing.assert_close(losses.double(), expected_losses, rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(scores.double(), expected_scores, rtol=1e-3, atol=1e-1)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_well_fitted_pairs_have_no_negative_loss(loss: LossName) -> None:
    # every term is at least zero; subtracting a separately rounded diagonal must not undo that
    unit = F.normalize(torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    losses, _ = _scored(Embedded(unit, unit), Scaling(loss, 100.0, -10.0))
    assert float(losses.min()) >= 0.0


@few
@given(st.integers(1, 6), st.integers(2, 8), st.integers(0, 999))
def test_normalise_and_its_derivatives(size: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    raw, tangent, gradient = torch.randn(3, size, width, generator=generator).double()
    unit, along, norms = normalise(raw, tangent)
    torch.testing.assert_close(unit, F.normalize(raw, dim=1))
    torch.testing.assert_close(norms[:, 0], raw.norm(dim=1))
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(F.normalize(forward_ad.make_dual(raw, tangent), dim=1))
        torch.testing.assert_close(along, dual.tangent)
    leaf = raw.clone().requires_grad_()
    (expected,) = torch.autograd.grad(F.normalize(leaf, dim=1), leaf, gradient)
    torch.testing.assert_close(through_normalise(gradient, unit, norms), expected)
    assert normalise(raw)[1] is None


@pytest.mark.parametrize("loss", ["clip", "siglip"])
@pytest.mark.parametrize("sides", ["i", "t", "it"])
def test_a_planted_pair_has_the_score_that_it_would_have_in_its_place(
    loss: LossName, sides: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, others = _batch(7, 0, sides), _batch(3, 1, sides)
    scaling = _scaling(loss, scalars=True)
    places = torch.tensor([4, 0, 4])
    found = score_planted(batch, scaling, others, places)
    for k, place in enumerate(places.tolist()):
        put = _with_row(batch, place, others, k)
        whole = score_logits(put, scaling)
        torch.testing.assert_close(found.losses[k], whole.losses[place])
        torch.testing.assert_close(found.scores[k], whole.scores[place])
    monkeypatch.setattr(contrastive, "BLOCK_ELEMENTS", 7)  # one at a time
    torch.testing.assert_close(score_planted(batch, scaling, others, places).scores, found.scores)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_the_one_whose_caption_is_planted_can_be_left_out(loss: LossName) -> None:
    batch, others = _batch(6, 0, "it"), _batch(2, 1, "it")
    scaling = _scaling(loss, scalars=False)
    places, gone = torch.tensor([1, 5]), torch.tensor([3, 0])
    found = score_planted(batch, scaling, others, places, without=gone)
    for k in range(2):
        put = _with_row(batch, int(places[k]), others, k)
        kept = torch.arange(6) != gone[k]
        less = Embedded(
            *(None if t is None else t[kept] for t in (put.image, put.text)),  # type: ignore[arg-type]
            *(None if t is None else t[kept] for t in (put.image_tangent, put.text_tangent)),
        )
        place = int(kept[: int(places[k])].sum())
        whole = score_logits(less, scaling)
        torch.testing.assert_close(found.losses[k], whole.losses[place])
        torch.testing.assert_close(found.scores[k], whole.scores[place])


def _with_row(batch: Embedded, place: int, others: Embedded, k: int) -> Embedded:
    """``batch`` with pair ``k`` of ``others`` in one place."""

    def put(mine: Tensor | None, theirs: Tensor | None) -> Tensor | None:
        if mine is None or theirs is None:
            return None
        changed = mine.clone()
        changed[place] = theirs[k]
        return changed

    image, text = put(batch.image, others.image), put(batch.text, others.text)
    assert image is not None
    assert text is not None
    tangents = (
        put(batch.image_tangent, others.image_tangent),
        put(batch.text_tangent, others.text_tangent),
    )
    return Embedded(image, text, *tangents)
