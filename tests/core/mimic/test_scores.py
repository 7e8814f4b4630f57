"""Mimic scores against reverse mode, sample by sample; the promises about state; the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad

from mimic_core.base.config import Method
from mimic_core.base.errors import ModelError, ScoreError
from mimic_core.mimic import scores as mimic
from mimic_core.mimic.forward_mode import directional_derivative
from mimic_core.mimic.losses import clip_losses
from mimic_core.mimic.scores import (
    TaskVector,
    gradient_norms,
    mimic_scores,
    mimic_weights,
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


# --- exactness ---


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


# --- attention, autocast, ties, contexts ---


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


class _Tied(nn.Module):
    """One weight at two places, as in models that share embeddings and head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


@pytest.mark.parametrize("layers", [("first.weight",), ("first.weight", "second.bias")])
def test_a_tied_parameter_carries_its_tangent_at_every_place(
    layers: tuple[str, ...],
) -> None:
    model, reference = _Tied(0), _Tied(1)
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


# --- state is left as it was found ---


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


# --- errors that name cause and value ---


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
    model, reference = _Tied(0), _Tied(1)
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


def test_gradient_norms_over_all_parameters_together() -> None:
    a, b = (
        torch.tensor([2.0], requires_grad=True),
        torch.tensor([1.0], requires_grad=True),
    )
    losses = torch.stack([3 * a[0] + 4 * b[0], 5 * b[0], 0 * a[0]])
    assert gradient_norms(losses, [a, b]).tolist() == [5.0, 5.0, 0.0]


# --- mimic weights ---

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


def test_unit_directions_have_length_one() -> None:
    vector = TaskVector({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}, 5.0)
    assert vector.unit() == {
        "a": torch.tensor([3.0]) / 5,
        "b": torch.tensor([[4.0]]) / 5,
    }
