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
from tests.core import checkpoints_on_disk as disk
from tests.core import oracle, tiny
from tests.core.tiny import batch_of

FALLING = (5.0, 4.0, 3.0, 2.5, 2.0)


def _models() -> tuple[nn.Module, nn.Module]:
    model, reference = tiny.clip_vit(0), tiny.clip_vit(1)
    return model.requires_grad_(False), reference.requires_grad_(False)


def _check(segment: tuple[float, ...], scores: np.ndarray, clip: np.ndarray) -> tuple[str, str]:
    found = direction_check(segment, scores, clip_scores=clip, losses=-scores)
    return found.level, found.verdict


RISING = np.linspace(-0.1, 0.4, 50)


@pytest.mark.parametrize(
    ("segment", "scores", "clip", "level", "words"),
    [
        (FALLING, RISING, RISING, "good", "direction is sound"),
        ((2.0, 2.1, 2.2, 2.3, 2.4), RISING, RISING, "bad", "reference is not better"),
        ((2.0, 2.0, 2.0, 2.0, 1.99), RISING, RISING, "bad", "reference is not better"),
        (FALLING, RISING, -RISING, "bad", "run against"),
        (FALLING, RISING - 0.3, RISING, "caution", "only 20%"),
        ((5.0, 5.5, 4.0, 3.0, 2.0), RISING, RISING, "caution", "not steadily"),
        ((5.0, 4.0, 1.0, 1.5, 2.0), RISING, RISING, "caution", "not steadily"),
    ],
)
def test_the_verdict_follows_from_the_measurements(
    segment: tuple[float, ...], scores: np.ndarray, clip: np.ndarray, level: str, words: str
) -> None:
    found, verdict = _check(segment, scores, clip)
    assert found == level
    assert words in verdict
    assert f"{segment[0]:.3f}" in verdict
    assert f"{segment[-1]:.3f}" in verdict


def test_the_check_keeps_what_it_measured() -> None:
    scores = np.array([0.1, -0.2, 0.3, 0.4])
    clip = np.array([1.0, 0.0, 2.0, 3.0])
    found = direction_check(FALLING, scores, clip_scores=clip, losses=-clip)
    assert found.segment == tuple(zip(POSITIONS, FALLING, strict=True))
    assert found.share_positive == 0.75
    assert found.rank_with_clip_score == pytest.approx(1.0)
    assert found.rank_with_loss == pytest.approx(-1.0)


def test_equal_clip_scores_have_no_rank_agreement() -> None:
    found = direction_check(FALLING, RISING, clip_scores=np.ones(50), losses=RISING)
    assert found.rank_with_clip_score is None
    assert found.level == "good"


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
