"""The direction check: measured against explicit interpolation, and said in the right words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mimic_core.mimic.scores import mimic_scores, task_vector
from mimic_core.models.layers import reinitialised
from mimic_core.scoring.direction import (
    POSITIONS,
    candidate_layers,
    direction_check,
    module_segment,
    sweep_layers,
)
from mimic_core.stats.agreement import rank_agreement
from mimic_core.stats.direction import Control, judge
from tests.core import checkpoints_on_disk as disk
from tests.core import oracle, tiny
from tests.core.tiny import batch_of

FALLING = (5.0, 4.0, 3.0, 2.5, 2.0)


def _models() -> tuple[nn.Module, nn.Module]:
    model, reference = tiny.clip_vit(0), tiny.clip_vit(1)
    return model.requires_grad_(False), reference.requires_grad_(False)


RISING = np.linspace(-0.1, 0.4, 50)


def _control(leads: list[float], *, reference: float = 6.0, count: int = 1500) -> Control:
    """Epochs in which own scores lead planted ones by so many standard deviations."""
    rng = np.random.default_rng(0)
    planted = rng.normal(size=(len(leads), count))
    own = rng.normal(size=(len(leads), count)) + np.array(leads)[:, None]
    seen = rng.normal(size=count)
    return Control(own, planted, -own, seen[::-1] + reference, seen)


@pytest.mark.parametrize(
    ("leads", "reference", "level", "words"),
    [
        ([2, 2], 6, "good", ["direction is sound", "AUROC for wrong captions 0.98"]),
        ([0.5, 0.5], 6, "caution", ["Use with care", "AUROC for wrong captions 0.71"]),
        ([3, -1, -1, -1], 6, "bad", ["turn round in epoch 2 of 4", "Use epoch 1 only"]),
        ([3, 1, -2], 6, "caution", ["turn round in epoch 3 of 3", "Use epochs 1-2 only"]),
        ([-1, -1], 6, "bad", ["Do not trust these scores", "mean different things"]),
        ([0, 0], 0, "unknown", ["knows nothing about this pool"]),
    ],
)
def test_the_verdict_follows_from_the_planted_captions(
    leads: list[float], reference: float, level: str, words: list[str]
) -> None:
    control = _control(leads, reference=reference)
    found = direction_check(
        FALLING, RISING, clip_scores=None, losses=-RISING, control=control, what="pairs"
    )
    assert found.level == level
    for some in words:
        assert some in found.verdict


def test_the_check_keeps_what_it_measured() -> None:
    scores = np.array([0.1, -0.2, 0.3, 0.4])
    clip = np.array([1.0, 0.0, 2.0, 3.0])
    control = _control([2, -2])
    found = direction_check(
        FALLING, scores, clip_scores=clip, losses=-clip, control=control, what="labels"
    )
    judged = judge(control)
    assert found.segment == tuple(zip(POSITIONS, FALLING, strict=True))
    assert found.share_positive == 0.75
    assert found.rank_with_clip_score == pytest.approx(1.0)
    assert found.rank_with_loss == pytest.approx(-1.0)
    assert found.figure == judged.figure.value
    assert found.error == judged.figure.error
    assert (found.planted, found.like_planted) == (1500, 0.0)
    assert [one.epoch for one in found.epochs] == [0, 1]
    assert [one.figure for one in found.epochs] == [one.figure.value for one in judged.epochs]
    assert [one.level_until for one in found.epochs] == ["good", found.level]
    assert (found.turns_at, found.use_epochs) == (1, 1)


def test_without_planted_samples_nothing_is_known() -> None:
    found = direction_check(
        FALLING, RISING, clip_scores=np.ones(50), losses=RISING, control=None, what="labels"
    )
    assert found.rank_with_clip_score is None
    assert (found.level, found.figure, found.epochs) == ("unknown", None, ())
    assert "no label could be planted" in found.verdict


def test_segment_is_the_loss_at_interpolated_weights_and_restores_them() -> None:
    model, reference = _models()
    layers = (tiny.IMAGE_MLP, "text_projection")
    vector = task_vector(model, reference, layers)
    batch = batch_of(9)
    before = {name: p.clone() for name, p in model.named_parameters()}
    segment = module_segment(model, vector, batch)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    for position, ours in zip(POSITIONS, segment, strict=True):
        between = tiny.clip_vit(0).double()
        with torch.no_grad():
            for name in layers:
                there = reference.get_parameter(name).double()
                here = model.get_parameter(name).double()
                between.get_parameter(name).copy_((1 - position) * here + position * there)
            losses = oracle.contrastive_losses(*between(batch.images.double(), batch.tokens))
        assert ours == pytest.approx(float(losses.mean()), rel=1e-5)


def test_weights_are_restored_after_a_failure() -> None:
    model, reference = _models()
    vector = task_vector(model, reference, [tiny.IMAGE_MLP])
    before = model.get_parameter(tiny.IMAGE_MLP).clone()
    calls = []

    def fails(*args: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyError
        return torch.ones(2)

    with pytest.raises(KeyError):
        module_segment(model, vector, batch_of(2), losses_of=fails)
    assert torch.equal(model.get_parameter(tiny.IMAGE_MLP), before)


def test_candidates_are_the_projections_and_the_mlps_of_each_tower() -> None:
    blocks = [f"transformer.resblocks.{n}.mlp.c_proj.weight" for n in range(2)]
    images = [f"visual.{name}" for name in blocks]
    assert candidate_layers(disk.build("vit")) == [
        ("visual.proj",),
        (images[1],),
        tuple(images),
        ("text_projection",),
        (blocks[1],),
        tuple(blocks),
    ]
    towers = candidate_layers(disk.build("siglip"))
    assert ("visual.head.proj.weight",) in towers
    assert ("visual.trunk.blocks.5.mlp.fc2.weight",) in towers
    assert ("text.text_projection.weight",) in towers
    assert ("visual.attnpool.c_proj.weight",) in candidate_layers(disk.build("resnet"))


@pytest.mark.parametrize("given", [True, False])
def test_the_sweep_measures_each_candidate_on_its_own(given: bool) -> None:
    model, reference = _models()
    batch = batch_of(12)
    found = sweep_layers(reference, model if given else None, batch, seed=5)
    assert [entry.mimic_layers for entry in found] == candidate_layers(reference)
    for entry in found:
        scored = model if given else reinitialised(reference, entry.mimic_layers, seed=5)
        vector = task_vector(scored, reference, entry.mimic_layers)
        losses, scores = mimic_scores(
            scored,
            vector,
            lambda scored=scored: tiny.CASES["clip"].ours(  # type: ignore[misc]
                scored, batch.images, batch.tokens
            ),
        )
        values = scores.numpy()
        assert entry.samples == 12
        assert entry.mean_score == pytest.approx(float(values.mean()), rel=1e-4, abs=1e-7)
        assert entry.share_positive == float((values > 0).mean())
        assert entry.rank_with_loss == pytest.approx(
            rank_agreement(values, losses.numpy()), abs=0.02
        )


def test_the_sweep_leaves_out_layers_on_which_the_models_agree() -> None:
    _, reference = _models()
    model = tiny.clip_vit(1).requires_grad_(False)
    with torch.no_grad():
        model.get_parameter("visual.proj").mul_(1.5)
    found = sweep_layers(reference, model, batch_of(6), seed=0)
    assert [entry.mimic_layers for entry in found] == [("visual.proj",)]
