"""Snapshot mode: scores in two phases equal one forward-mode pass over the same batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mimic_core.base.config import SnapshotConfig
from mimic_core.base.errors import ConfigError, ScoreError
from mimic_core.features.encoders import TangentEncoder, embed_with_tangents, tangent_sides
from mimic_core.features.loading import LoadedBatch
from mimic_core.features.stored import contrastive_scaling
from mimic_core.mimic.contrastive import score_logits
from mimic_core.mimic.losses import contrastive_losses
from mimic_core.mimic.scores import mimic_scores, mimic_weights, task_vector
from mimic_core.models import clip
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring import snapshot as score
from mimic_core.scoring.snapshot import (
    Snapshot,
    module_losses,
    scaling_with_tangents,
    self_check,
)
from tests.core import oracle, tiny
from tests.core.feature_sets import write_features
from tests.core.tiny import batch_of

CPU = torch.device("cpu")
TEXT_MLP = "transformer.resblocks.1.mlp.c_proj.weight"
LAYERS = {
    "image": (tiny.IMAGE_MLP,),
    "text": (TEXT_MLP,),
    "both": (tiny.IMAGE_MLP, TEXT_MLP),
    "attention": ("visual.transformer.resblocks.0.attn.in_proj_weight",),
    "scale": ("logit_scale",),
    "scale and projection": ("logit_scale", "text_projection"),
}


def _pair(kind: str) -> tuple[nn.Module, nn.Module]:
    build = tiny.siglip_vit if kind == "siglip" else tiny.clip_vit
    model, reference = build(0), build(1)
    with torch.no_grad():
        reference.logit_scale += 0.3  # type: ignore[operator]
    return model.requires_grad_(False), reference.requires_grad_(False)


def _stored(path: Path, encoder: TangentEncoder, batches: list[LoadedBatch]) -> FeatureSet:
    """A finished feature set with one shard for each of ``batches``."""
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in encoder.arrays}
    for batch in batches:
        encoded = encoder.encode_images(batch.images)[0]
        encoded = {name: value[batch.image_of] for name, value in encoded.items()}
        encoded |= encoder.encode_texts(batch.tokens, batch.labels)[0]
        for name, value in encoded.items():
            arrays[name].append(value.numpy())
    whole = {name: np.concatenate(parts) for name, parts in arrays.items()}
    return write_features(path, whole, shards=[len(batch.rows) for batch in batches])


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("choice", [*LAYERS, "all"])
def test_planted_scores_are_those_of_a_batch_with_one_caption_of_another(
    kind: str, choice: str, tmp_path: Path
) -> None:
    model, reference = _pair(kind)
    layers = LAYERS.get(choice) or tuple(name for name, _ in model.named_parameters())
    vector = task_vector(model, reference, layers)
    parts = [batch_of(4, 0), batch_of(4, 1)]
    images = torch.cat([part.images for part in parts])
    tokens = torch.cat([part.tokens for part in parts])
    features = _stored(tmp_path, TangentEncoder(model, vector, CPU, "fp32"), parts)
    snapshot = Snapshot(
        features, scaling_with_tangents(model, vector), SnapshotConfig(batch_size=4)
    )
    for batch in snapshot.run(0):
        planted = batch.planted
        assert planted is not None
        assert planted.rows.tolist() == batch.rows.tolist()
        place = 2
        texts = tokens[batch.rows].clone()
        texts[place] = tokens[planted.partners[place]]
        _, scores = mimic_scores(
            model,
            vector,
            lambda texts=texts, rows=batch.rows: contrastive_losses(  # type: ignore[misc]
                *model(images[rows], texts)[:2], clip.logit_scale(model), clip.logit_bias(model)
            ),
        )
        np.testing.assert_allclose(
            planted.scores[place], float(scores[place]), atol=1e-5 * float(scores.abs().max())
        )


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("choice", [*LAYERS, "all"])
def test_two_phases_equal_one_forward_mode_pass(kind: str, choice: str, tmp_path: Path) -> None:
    model, reference = _pair(kind)
    layers = LAYERS.get(choice) or tuple(name for name, _ in model.named_parameters())
    vector = task_vector(model, reference, layers)
    # phase 1 sees the samples 5 and 6 at a time, phase 2 in batches of 4
    parts = [batch_of(5, 0), batch_of(6, 1)]
    images = torch.cat([part.images for part in parts])
    tokens = torch.cat([part.tokens for part in parts])
    features = _stored(tmp_path, TangentEncoder(model, vector, CPU, "fp32"), parts)
    config = SnapshotConfig(batch_size=4, repeats=2, temperature=0.1)
    snapshot = Snapshot(features, scaling_with_tangents(model, vector), config)
    for repeat in range(2):
        batches = list(snapshot.run(repeat))
        order = np.concatenate([batch.rows for batch in batches])
        assert sorted(order) == list(range(11))
        for batch in batches:
            rows = np.concatenate([batch.rows, order[: 4 - len(batch.rows)]])
            losses, scores = mimic_scores(
                model,
                vector,
                lambda rows=rows: contrastive_losses(  # type: ignore[misc]
                    *model(images[rows], tokens[rows])[:2],
                    clip.logit_scale(model),
                    clip.logit_bias(model),
                ),
            )
            counted = len(batch.rows)
            weights = mimic_weights(scores, temperature=0.1)
            scale = float(scores.abs().max())
            np.testing.assert_allclose(batch.loss, losses[:counted], rtol=1e-5, atol=2e-6)
            np.testing.assert_allclose(
                batch.mimic_score, scores[:counted], rtol=0, atol=1e-5 * scale
            )
            np.testing.assert_allclose(batch.mimic_weight, weights[:counted], rtol=1e-4)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_two_phases_equal_the_oracle(kind: str) -> None:
    model, reference = _pair(kind)
    layers = tuple(name for name, _ in model.named_parameters())
    vector = task_vector(model, reference, layers)
    batch = batch_of(7)
    embedded = embed_with_tangents(model, vector, batch, device=CPU)
    scores = score_logits(embedded, scaling_with_tangents(model, vector)).scores
    case = tiny.CASES[kind]
    truth = oracle.reverse_mode(
        model, reference, layers, lambda m: case.truth(m, batch.images.double(), batch.tokens)
    )
    assert oracle.relative_difference(scores, truth.proj) <= 1e-5


def test_captions_that_share_an_image_share_its_embedding_and_tangent() -> None:
    model, reference = _pair("clip")
    vector = task_vector(model, reference, [tiny.IMAGE_MLP])
    shared = batch_of(4, image_of=[0, 0, 1, 0])
    whole = LoadedBatch(
        np.arange(4),
        shared.images[shared.image_of],
        torch.arange(4),
        shared.tokens,
    )
    ours = embed_with_tangents(model, vector, shared, device=CPU)
    plain = embed_with_tangents(model, vector, whole, device=CPU)
    torch.testing.assert_close(ours.image, plain.image)
    torch.testing.assert_close(ours.image_tangent, plain.image_tangent)
    torch.testing.assert_close(module_losses(model, shared), module_losses(model, whole))


@pytest.mark.parametrize(
    ("layers", "sides"),
    [
        (("visual.proj",), ("image",)),
        (("text_projection",), ("text",)),
        (("text.transformer.x.weight", "visual.proj"), ("image", "text")),
        (("logit_scale", "logit_bias"), ()),
        (("token_embedding.weight", "logit_scale"), ("text",)),
    ],
)
def test_only_towers_with_mimic_layers_have_tangents(
    layers: tuple[str, ...], sides: tuple[str, ...]
) -> None:
    assert tangent_sides(layers) == sides


def test_arrays_are_float32_and_named_for_the_towers() -> None:
    model, reference = _pair("clip")
    vector = task_vector(model, reference, [TEXT_MLP])
    encoder = TangentEncoder(model, vector, CPU, "fp32")
    batch = batch_of(3)
    arrays = encoder.encode_images(batch.images)[0]
    arrays |= encoder.encode_texts(batch.tokens, batch.labels)[0]
    assert encoder.arrays == ("image_embedding", "text_embedding", "text_tangent")
    assert tuple(arrays) == encoder.arrays
    assert {array.dtype for array in arrays.values()} == {torch.float32}
    norms = arrays["text_embedding"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(3))
    along = (arrays["text_embedding"] * arrays["text_tangent"]).sum(1)
    torch.testing.assert_close(along, torch.zeros(3), rtol=0, atol=1e-5)  # stays on the sphere


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("choice", ["image", "text", "both", "attention"])
def test_low_precision_gives_close_scores(precision: str, choice: str) -> None:
    model, reference = _pair("clip")
    vector = task_vector(model, reference, LAYERS[choice])
    head = scaling_with_tangents(model, vector)
    batch = batch_of(16)
    exact = score_logits(embed_with_tangents(model, vector, batch, device=CPU), head).scores
    low = embed_with_tangents(model, vector, batch, device=CPU, precision=precision)  # type: ignore[arg-type]
    assert low.image.dtype == torch.float32
    scores = score_logits(low, head).scores
    limit = 0.1 if precision == "bf16" else 0.02
    assert oracle.relative_difference(scores, exact.double()) < limit
    correlation = torch.corrcoef(torch.stack([scores, exact]))[0, 1]
    assert float(correlation) > 0.99


def test_the_head_knows_the_models_scale_bias_and_their_slopes() -> None:
    model, reference = _pair("siglip")
    head = contrastive_scaling(model)
    assert head.loss == "siglip"
    assert head.scale == pytest.approx(float(model.logit_scale.exp()))  # type: ignore[operator]
    assert head.bias == pytest.approx(-2.0)
    assert (head.scale_tangent, head.bias_tangent) == (0.0, 0.0)
    vector = task_vector(model, reference, ["logit_scale", "logit_bias"])
    # scale 1.5 -> 1.9 (seed and the shift above), bias -2.0 -> -2.2
    norm = (0.4**2 + 0.2**2) ** 0.5
    head = scaling_with_tangents(model, vector)
    assert head.scale_tangent == pytest.approx(head.scale * 0.4 / norm, rel=1e-5)
    assert head.bias_tangent == pytest.approx(-0.2 / norm, rel=1e-5)
    assert contrastive_scaling(_pair("clip")[0]).loss == "clip"


# --- the self-check ---


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("choice", [*LAYERS, "all"])
def test_self_check_is_small_and_changes_nothing(kind: str, choice: str) -> None:
    model, reference = _pair(kind)
    layers = LAYERS.get(choice) or tuple(name for name, _ in model.named_parameters())
    model.get_parameter("visual.proj").requires_grad_(True)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    vector = task_vector(model, reference, layers)
    assert 0 <= self_check(model, vector, batch_of(2)) < 1e-4
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert all(p.grad is None for p in model.parameters())


def test_self_check_sees_a_wrong_score(monkeypatch: pytest.MonkeyPatch) -> None:
    model, reference = _pair("clip")
    vector = task_vector(model, reference, LAYERS["both"])
    right = score.embed_with_tangents

    def without_text(*args: object, **kwargs: object) -> object:
        found = right(*args, **kwargs)  # type: ignore[arg-type]
        return type(found)(found.image, found.text, found.image_tangent, None)

    monkeypatch.setattr(score, "embed_with_tangents", without_text)
    assert self_check(model, vector, batch_of(2)) > 0.01


@pytest.mark.parametrize("logit_scale", [14.3, 100.0, 250.0])
def test_self_check_accepts_pairs_that_the_model_tells_apart_with_ease(logit_scale: float) -> None:
    # trained CLIP models have a logit scale of 100 and cosines of 0.3 against 0.1: two clear pairs
    # then have a loss of about exp(-20), and rounding is all that float32 leaves of their scores
    model, reference = _pair("clip")
    model.logit_scale.fill_(float(np.log(logit_scale)))  # type: ignore[operator, union-attr]
    vector = task_vector(model, reference, [tiny.IMAGE_MLP])
    images, tokens = tiny.pairs(24, 0)
    with torch.no_grad():
        cosines = (
            model.encode_image(images, normalize=True)
            @ model.encode_text(  # type: ignore[operator]
                tokens, normalize=True
            ).T
        )
    own = cosines.diagonal()
    gaps = own[:, None] + own[None, :] - cosines - cosines.T
    worst = 0.0
    for number in gaps.flatten().argsort(descending=True)[:80:2].tolist():
        rows = torch.tensor(divmod(number, 24))
        batch = LoadedBatch(np.arange(2), images[rows], torch.arange(2), tokens[rows])
        worst = max(worst, self_check(model, vector, batch))
    assert worst < 1e-3


def test_self_check_accepts_two_equal_samples() -> None:
    model, reference = _pair("clip")
    vector = task_vector(model, reference, [tiny.IMAGE_MLP])
    batch = batch_of(2, image_of=[0, 0])
    batch.tokens = batch.tokens[[0, 0]]
    assert self_check(model, vector, batch) < 1e-3


# --- errors ---


def test_cos_is_refused_before_any_work_with_the_way_out() -> None:
    config = SnapshotConfig(method="cos")
    with pytest.raises(ConfigError) as caught:
        score.require_projection_method(config)
    message = str(caught.value)
    assert "got 'cos'" in message
    assert "--method proj" in message
    score.require_projection_method(SnapshotConfig())


def test_tangents_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model, reference = _pair("clip")
    vector = task_vector(model, reference, [tiny.IMAGE_MLP])
    encoder = TangentEncoder(model, vector, CPU, "fp32")
    features = _stored(tmp_path, encoder, [batch_of(6)])
    file = features.array_file("00000", "image_tangent")
    array: np.ndarray = np.load(file)
    array[2, 0] = np.nan
    np.save(file, array)
    snapshot = Snapshot(
        features, scaling_with_tangents(model, vector), SnapshotConfig(batch_size=4)
    )
    with pytest.raises(ScoreError, match="not finite"):
        list(snapshot.run(0))


def test_one_sample_is_refused(tmp_path: Path) -> None:
    model, reference = _pair("clip")
    vector = task_vector(model, reference, [tiny.IMAGE_MLP])
    encoder = TangentEncoder(model, vector, CPU, "fp32")
    features = _stored(tmp_path, encoder, [batch_of(1)])
    with pytest.raises(ScoreError, match="too few readable samples"):
        Snapshot(features, scaling_with_tangents(model, vector), SnapshotConfig())


def test_repeats_draw_other_batches(tmp_path: Path) -> None:
    model, reference = _pair("clip")
    vector = task_vector(model, reference, [tiny.IMAGE_MLP])
    encoder = TangentEncoder(model, vector, CPU, "fp32")
    features = _stored(tmp_path, encoder, [batch_of(12)])
    head = scaling_with_tangents(model, vector)

    def scores(repeat: int, seed: int = 0) -> dict[int, float]:
        snapshot = Snapshot(features, head, SnapshotConfig(batch_size=4, seed=seed))
        return {
            int(row): float(value)
            for batch in snapshot.run(repeat)
            for row, value in zip(batch.rows, batch.mimic_score, strict=True)
        }

    assert scores(0) == scores(0)
    assert scores(0) != scores(1)
    assert scores(0) != scores(0, seed=1)
