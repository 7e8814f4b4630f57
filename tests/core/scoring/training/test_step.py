"""One step: logged scores, and the re-weighted gradients of both variants, against reverse mode."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mimic_core.base.config import TrainConfig
from mimic_core.base.errors import ScoreError
from mimic_core.mimic.scores import TaskVector, task_vector
from mimic_core.scoring.training.check import self_check
from mimic_core.scoring.training.distributed import Group
from mimic_core.scoring.training.objectives import PairObjective
from mimic_core.scoring.training.step import Aids, Learner, add_gradients, visit_batch, weigh
from mimic_core.scoring.training.tracing import Swap, trace_graph
from tests.core import oracle, tiny
from tests.core.tiny import PAIRS, batch_of

B = 5
MIMIC = {
    "one": (tiny.IMAGE_MLP,),
    "several": ("visual.proj", "text_projection", "logit_scale"),
    "upstream of attention": ("visual.transformer.resblocks.0.mlp.c_proj.weight",),
}
BUILDS = {"clip": tiny.clip_vit, "siglip": tiny.siglip_vit}


def _losses(kind: str, module: nn.Module, images: Tensor, tokens: Tensor) -> Tensor:
    outputs = module(images, tokens)
    if kind == "siglip":
        return oracle.sigmoid_losses(*outputs)
    return oracle.contrastive_losses(*outputs)


def _truth(
    kind: str, model: nn.Module, reference: nn.Module, layers: tuple[str, ...]
) -> oracle.Truth:
    images, tokens = tiny.pairs(B, 3)
    return oracle.reverse_mode(
        model, reference, layers, lambda m: _losses(kind, m, images.double(), tokens)
    )


@pytest.mark.parametrize("reweight", ["layers", "all"])
@pytest.mark.parametrize("choice", MIMIC)
@pytest.mark.parametrize("kind", BUILDS)
def test_reweighted_gradients_are_the_explicit_weighted_sums(
    kind: str, choice: str, reweight: str
) -> None:
    model, reference = BUILDS[kind](0).requires_grad_(True), BUILDS[kind](1)
    layers = MIMIC[choice]
    everything = tuple(name for name, _ in model.named_parameters())
    truth = _truth(kind, model, reference, layers)
    gradients = _truth(kind, model, reference, everything).gradients
    config = TrainConfig.parse({"model": "m", "temperature": 0.02})
    trace = trace_graph(
        model, PAIRS, batch_of(B, 3), task_vector(model, reference, layers), Group()
    )
    visit = weigh(trace, config, Aids())
    add_gradients(
        trace,
        visit.train_weights,
        layers={name: model.get_parameter(name) for name in layers},
        others=[p for name, p in model.named_parameters() if name not in layers],
        reweight_all=reweight == "all",
    )
    assert oracle.relative_difference(visit.losses, truth.losses) < 1e-5
    assert oracle.relative_difference(visit.mimic_scores, truth.proj) < 1e-4
    weights = torch.softmax(truth.proj / 0.02, 0)
    assert oracle.relative_difference(visit.mimic_weights, weights) < 1e-3
    assert float(weights.max()) > 1.5 / B  # else both variants would be the mean gradient
    for name, parameter in model.named_parameters():
        weighted = reweight == "all" or name in layers
        by = weights if weighted else torch.full_like(weights, 1 / B)
        expected = torch.tensordot(by, gradients[name], 1)
        assert parameter.grad is not None, name
        scale = float(gradients[name].abs().max())
        difference = float((parameter.grad.double() - expected).abs().max())
        assert difference <= 1e-3 * scale, (name, difference, scale)


def test_rho_attached_takes_the_gradient_of_one_loss_over_all_parameters() -> None:
    """Also where ``reweight`` names the mimic layers alone: it is the authors' update."""
    model, reference = tiny.clip_vit(0).requires_grad_(True), tiny.clip_vit(1)
    expected = torch.linspace(1.0, 2.0, B)
    config = TrainConfig.parse({"model": "m", "temperature": 0.02, "weighting": "rho_attached"})
    target = {tiny.IMAGE_MLP: reference.get_parameter(tiny.IMAGE_MLP)}
    visit_batch(
        Learner(model, PAIRS, target, config), batch_of(B, 3), Aids(reference_losses=expected)
    )
    ours = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    images, tokens = tiny.pairs(B, 3)
    losses = oracle.contrastive_losses(*model(images, tokens))
    (torch.softmax(losses - expected, 0) * losses).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert oracle.relative_difference(ours[name], parameter.grad.double()) < 1e-3  # type: ignore[arg-type]


@pytest.mark.parametrize("choice", MIMIC)
@pytest.mark.parametrize("kind", BUILDS)
def test_swapped_captions_have_the_scores_of_a_batch_without_their_own_sample(
    kind: str, choice: str
) -> None:
    model, reference = BUILDS[kind](0).requires_grad_(True), BUILDS[kind](1)
    layers = MIMIC[choice]
    vector = task_vector(model, reference, layers)
    trace = trace_graph(model, PAIRS, batch_of(B, 3), vector, Group())
    swap = Swap(torch.tensor([0, 3]), partners=torch.tensor([2, 4]))
    visit = weigh(trace, TrainConfig.parse({"model": "m", "temperature": 1.0}), Aids(swap=swap))
    assert visit.planted is not None
    images, tokens = tiny.pairs(B, 3)
    for k, (place, partner) in enumerate([(0, 2), (3, 4)]):
        texts = tokens.clone()
        texts[place] = tokens[partner]
        kept = torch.tensor([row for row in range(B) if row != partner])
        truth = oracle.reverse_mode(
            model,
            reference,
            layers,
            lambda m, kept=kept, texts=texts: _losses(  # type: ignore[misc]
                kind, m, images[kept].double(), texts[kept]
            ),
        )
        expected = float(truth.proj[int((kept < place).sum())])
        scale = float(truth.proj.abs().max())
        assert float(visit.planted[k]) == pytest.approx(expected, abs=1e-4 * scale)


def test_the_cosine_of_deeper_layers_is_not_planted() -> None:
    model, reference = tiny.clip_vit(0).requires_grad_(True), tiny.clip_vit(1)
    vector = task_vector(model, reference, MIMIC["one"])
    trace = trace_graph(model, PAIRS, batch_of(B, 3), vector, Group())
    swap = Swap(torch.tensor([0]), partners=torch.tensor([1]))
    config = TrainConfig.parse({"model": "m", "temperature": 1.0, "method": "cos"})
    assert weigh(trace, config, Aids(swap=swap)).planted is None


def test_accumulated_batches_add_up() -> None:
    model, reference = tiny.clip_vit(0).requires_grad_(True), tiny.clip_vit(1)
    layers = {tiny.IMAGE_MLP: model.get_parameter(tiny.IMAGE_MLP)}
    others = [p for name, p in model.named_parameters() if name != tiny.IMAGE_MLP]

    def add(seed: int, share: float) -> dict[str, Tensor]:
        vector = task_vector(model, reference, list(layers))
        trace = trace_graph(model, PAIRS, batch_of(B, seed), vector, Group())
        weights = torch.softmax(trace.scores / 0.02, 0)
        add_gradients(
            trace, weights, layers=layers, others=others, reweight_all=False,
            scale=lambda c: c * share,
        )  # fmt: skip
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    parts = []
    for seed in (1, 2):
        parts.append(add(seed, 1.0))
        model.zero_grad(set_to_none=True)
    add(1, 0.5)
    both = add(2, 0.5)
    for name, gradient in both.items():
        expected = (parts[0][name] + parts[1][name]) / 2
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_all_parameters_as_mimic_layers_leave_no_others() -> None:
    model, reference = tiny.clip_vit(0).requires_grad_(True), tiny.clip_vit(1)
    parameters = dict(model.named_parameters())
    vector = task_vector(model, reference, list(parameters))
    trace = trace_graph(model, PAIRS, batch_of(B, 3), vector, Group())
    weights = torch.softmax(trace.scores / 0.02, 0)
    add_gradients(trace, weights, layers=parameters, others=[], reweight_all=False)
    gradients = _truth("clip", model, reference, tuple(parameters)).gradients
    for name, parameter in parameters.items():
        expected = torch.tensordot(weights.double(), gradients[name], 1)
        assert oracle.relative_difference(parameter.grad, expected) < 1e-3  # type: ignore[arg-type]


def test_the_cosine_variant_divides_by_the_gradients_norms() -> None:
    model, reference = tiny.clip_vit(0).requires_grad_(True), tiny.clip_vit(1)
    layers = MIMIC["one"]
    vector = task_vector(model, reference, layers)
    trace = trace_graph(model, PAIRS, batch_of(B, 3), vector, Group())
    config = TrainConfig.parse({"model": "m", "temperature": 0.02, "method": "cos"})
    visit = weigh(trace, config, Aids())
    truth = _truth("clip", model, reference, layers)
    assert oracle.relative_difference(visit.mimic_scores, truth.cos) < 1e-4


def test_captions_that_share_an_image_are_separate_samples() -> None:
    model, reference = tiny.clip_vit(0).requires_grad_(True), tiny.clip_vit(1)
    vector = task_vector(model, reference, MIMIC["one"])
    whole = batch_of(B, 3)
    image_of = torch.tensor([0, 0, 1, 2, 1])
    shared = replace(whole, images=whole.images[:3], image_of=image_of)
    apart = replace(whole, images=whole.images[image_of])
    ours = trace_graph(model, PAIRS, shared, vector, Group()).scores
    expected = trace_graph(model, PAIRS, apart, vector, Group()).scores
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)


def test_the_self_check_sees_a_wrong_score() -> None:
    model, reference = tiny.clip_vit(0).requires_grad_(True), tiny.clip_vit(1)
    vector = task_vector(model, reference, MIMIC["one"])
    assert self_check(model, PAIRS, batch_of(2, 1), vector) < 1e-5
    wrong = TaskVector({n: d.flip(0) for n, d in vector.directions.items()}, vector.norm)

    class Confused(TaskVector):
        def unit(self) -> dict[str, Tensor]:
            calls.append(0)
            return wrong.unit() if len(calls) == 1 else vector.unit()

    calls: list[int] = []
    confused = Confused(vector.directions, vector.norm)
    assert self_check(model, PAIRS, batch_of(2, 1), confused) > 1e-3


def test_layers_that_no_loss_depends_on_are_refused() -> None:
    model, reference = tiny.clip_vit(0), tiny.clip_vit(1)
    for module, value in ((model, 0.0), (reference, 1.0)):
        module.register_parameter("unused", nn.Parameter(torch.full((2,), value)))
    vector = task_vector(model, reference, ["unused"])
    with pytest.raises(ScoreError, match="do not depend"):
        trace_graph(model, PAIRS, batch_of(B, 3), vector, Group())


def test_low_precision_scores_are_close_to_full_precision() -> None:
    model, reference = tiny.clip_vit(0).requires_grad_(True), tiny.clip_vit(1)
    vector = task_vector(model, reference, MIMIC["one"])
    exact = trace_graph(model, PAIRS, batch_of(8, 3), vector, Group()).scores
    half = PairObjective(torch.device("cpu"), "bf16")
    rough = trace_graph(model, half, batch_of(8, 3), vector, Group()).scores
    assert rough.dtype == torch.float32
    assert float((rough - exact).abs().max()) < 0.1 * float(exact.abs().max())


def test_the_self_check_accepts_two_equal_pairs() -> None:
    model, reference = tiny.clip_vit(0).requires_grad_(True), tiny.clip_vit(1)
    vector = task_vector(model, reference, MIMIC["one"])
    batch = batch_of(2, 1)
    equal = replace(batch, tokens=batch.tokens[[0, 0]], image_of=batch.image_of[[0, 0]])
    assert self_check(model, PAIRS, equal, vector) < 1e-3


def test_what_a_module_has_frozen_is_not_trained() -> None:
    model, reference = BUILDS["clip"](0).requires_grad_(True), BUILDS["clip"](1)
    layers = next(iter(MIMIC.values()))
    frozen = next(name for name, _ in model.named_parameters() if name not in layers)
    free = dict(model.named_parameters())
    config = TrainConfig.parse({"model": "m", "temperature": 0.02})
    target = {name: reference.get_parameter(name) for name in layers}
    learner = Learner(model, PAIRS, target, config)
    visit_batch(learner, batch_of(B, 3), Aids())
    expected = {name: one.grad for name, one in free.items()}
    model.zero_grad()
    free[frozen].requires_grad_(False)
    visit_batch(learner, batch_of(B, 3), Aids())
    for name, one in free.items():
        if name == frozen:
            assert one.grad is None
        else:
            torch.testing.assert_close(one.grad, expected[name])
