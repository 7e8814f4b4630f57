"""What is trained in a proof: the same training as a probe's, and heads against autograd."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from mimic_core.base.config import ProbeConfig, Side
from mimic_core.base.draws import uid_words
from mimic_core.base.errors import ConfigError
from mimic_core.features.stored import read_ends
from mimic_core.proofs import tasks
from mimic_core.proofs.settings import ProveConfig
from mimic_core.proofs.tasks import LabelsTask, PairsTask, batches, judged_batches, open_task
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.probe import Probe
from tests.core import oracle
from tests.core.feature_sets import feature_set, learnable, proving_set
from tests.core.scoring_pool import uid_of

CONFIG = ProveConfig(batch_size=16, learning_rate=1e-2)


def never() -> None:
    pass


@pytest.mark.parametrize("siglip", [False, True])
@pytest.mark.parametrize("side", ["image", "text"])
def test_plain_training_is_a_uniform_probe_to_the_last_bit(
    tmp_path: Path, side: Side, siglip: bool
) -> None:
    features = feature_set(tmp_path / "f", siglip=siglip)
    config = ProbeConfig(
        side=side, epochs=2, batch_size=16, learning_rate=1e-2, weighting="uniform", seed=3
    )
    probe = Probe(features, config)
    for epoch in range(2):
        list(probe.run(epoch))  # 4 steps each
    task = PairsTask(features, CONFIG.model_copy(update={"side": side}))
    (weight,) = task.fit(np.arange(50), seed=3, steps=8, batch_size=16, check=never)
    assert torch.equal(weight, probe.weight)
    (other,) = task.fit(np.arange(50), seed=4, steps=8, batch_size=16, check=never)
    assert not torch.equal(weight, other)


@pytest.mark.parametrize("siglip", [False, True])
def test_pairs_are_judged_in_fixed_batches(tmp_path: Path, siglip: bool) -> None:
    features = feature_set(tmp_path / "f", siglip=siglip)
    task = PairsTask(features, CONFIG)
    model = task.fit(np.arange(30), seed=0, steps=3, batch_size=8, check=never)
    held_out = np.array([49, 31, 44, 33, 40, 36, 37, 42, 30, 46, 38, 35, 47, 34, 48, 32, 41, 45])
    found = task.contributions(model, held_out)
    images = torch.from_numpy(features.array("image_features").read()).double()[held_out]
    texts = torch.from_numpy(features.array("text_embedding").read()).double()[held_out]
    unit = F.normalize(images @ model[0].double(), dim=1)
    scaling, losses = read_ends(features).scaling, []
    for part in (slice(0, 9), slice(9, 18)):
        scale, bias = torch.tensor(scaling.scale), torch.tensor(scaling.bias)
        both = unit[part], texts[part]
        losses.append(
            oracle.sigmoid_losses(*both, scale, bias)
            if siglip
            else oracle.contrastive_losses(*both, scale)
        )
    assert found.shape == (5, 18)
    assert found[0].mean() == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
    for metric, similarity in ((1, unit @ texts.T), (3, texts @ unit.T)):
        for more, k in ((0, 1), (1, 5)):
            rank = (similarity > similarity.diagonal()[:, None]).sum(1)
            share = float((rank < k).double().mean())
            assert found[metric + more].mean() == pytest.approx(share, abs=1e-9)


def test_judged_batches_are_nearly_equal() -> None:
    parts = judged_batches(350, 256)
    assert parts == [slice(0, 175), slice(175, 350)]
    assert judged_batches(10, 256) == [slice(0, 10)]
    assert len(judged_batches(20_000, 65_536)) == 5  # of 4,000 each


def test_batches_go_on_over_epochs_and_hold_only_the_given_rows() -> None:
    words = uid_words([uid_of(n) for n in range(40)])
    rows = np.arange(5, 30)
    drawn = list(batches(words, rows, seed=1, steps=9, batch_size=10))
    assert len(drawn) == 9
    assert {len(batch) for batch in drawn} == {10}
    assert set(np.concatenate(drawn)) == set(rows)
    assert set(np.concatenate(drawn[:3])) == set(rows)  # one epoch
    again = list(islice(batches(words, rows, seed=1, steps=90, batch_size=10), 9))
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))


def labelled_set(path: Path, count: int = 60) -> tuple[FeatureSet, torch.Tensor, torch.Tensor]:
    """Of three classes; and its features (N, 4) and class numbers (N,)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    arrays = {"image_features": rng.normal(size=(count, 4)) + 2 * np.eye(3, 4)[labels]}
    columns = {"label": np.array(["cat", "dog", "eel"])[labels].tolist()}
    features = proving_set(path, arrays, columns=columns, task="labels")
    inputs = torch.from_numpy(features.array("image_features").read()).float()
    return features, inputs, torch.from_numpy(labels)


def test_a_head_is_trained_as_torch_would(tmp_path: Path) -> None:
    features, inputs, targets = labelled_set(tmp_path / "f")
    words = uid_words([uid_of(n) for n in range(60)])
    task = LabelsTask(features, CONFIG)
    rows = np.arange(40)
    weight, bias = task.fit(rows, seed=2, steps=12, batch_size=16, check=never)
    generator = torch.Generator().manual_seed(2)
    start = (torch.randn(4, 3, generator=generator) / 2).requires_grad_(True)
    shift = torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.AdamW([start, shift], lr=1e-2, weight_decay=1e-5)
    for batch in batches(words, rows, seed=2, steps=12, batch_size=16):
        optimiser.zero_grad()
        F.cross_entropy(inputs[batch] @ start + shift, targets[batch]).backward()
        optimiser.step()
    torch.testing.assert_close(weight, start.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(bias, shift.detach(), rtol=1e-5, atol=1e-6)
    held_out = np.arange(40, 60)
    found = task.contributions((weight, bias), held_out)
    logits = inputs[held_out] @ weight + bias
    losses = F.cross_entropy(logits, targets[held_out], reduction="none")
    np.testing.assert_allclose(found[0], losses.numpy(), rtol=1e-5, atol=1e-6)
    assert found[1].tolist() == (logits.argmax(1) == targets[held_out]).double().tolist()


def test_classes_on_a_level_share_the_answer(tmp_path: Path) -> None:
    features, _, targets = labelled_set(tmp_path / "f")
    level = torch.zeros(4, 3), torch.tensor([1.0, 1.0, 0.0])
    right = LabelsTask(features, CONFIG).contributions(level, np.arange(60))[1]
    assert right.tolist() == [[0.5, 0.5, 0.0][number] for number in targets]


@pytest.mark.parametrize("array", ["image_features", "image_embedding"])
def test_a_labelled_set_opens_as_labels_and_unlabelled_rows_are_left_out(
    tmp_path: Path, array: str
) -> None:
    arrays = {array: learnable(40, seed=0)[array]}  # timm's models store one, CLIP models the other
    names = [None, *(["cat", "dog", "eel"] * 13)]
    features = proving_set(tmp_path / "f", arrays, columns={"label": names}, task="labels")
    task = open_task(features, CONFIG, "cpu")
    assert task.kind == "labels"
    assert task.usable.tolist() == [False, *([True] * 39)]
    model = task.fit(np.arange(1, 30), seed=0, steps=2, batch_size=8, check=never)
    assert model[0].shape == (arrays[array].shape[1], 3)


def test_features_that_serve_neither_are_refused(tmp_path: Path) -> None:
    arrays = {"image_embedding": learnable(10, seed=0)["image_embedding"]}
    with pytest.raises(ConfigError, match="cannot be trained on") as caught:
        open_task(proving_set(tmp_path / "f", arrays), CONFIG, "cpu")
    assert caught.value.got == repr("image_embedding")


def test_pairs_open_as_pairs(tmp_path: Path) -> None:
    features: FeatureSet = feature_set(tmp_path / "f")
    assert open_task(features, CONFIG, "cpu").metrics == tasks.PAIR_METRICS
    assert isinstance(features.samples, pl.DataFrame)
