"""Grad-Mimic on a linear head: exact scores, honest logs, every weighting."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimic_core.base.config import (
    CLEAN_PER_CLASS,
    HeadConfig,
    Method,
    ProbeConfig,
    TrainConfig,
    WeightingName,
)
from mimic_core.base.errors import ConfigError, ModelError, ScoreError
from mimic_core.base.schema import ScoreBatch
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.run import epoch_frame
from mimic_core.scoring.labels.class_head import ClassHead
from mimic_core.scoring.labels.probe import MIMIC_LAYER, LabelProbe
from mimic_core.scoring.training.splitting import split_samples
from mimic_core.sources.marks import trusted_samples
from tests.core.feature_sets import labelled_features, some_head
from tests.core.oracle import reverse_mode

CONFIG = ProbeConfig(epochs=3, batch_size=16, temperature=1.0, learning_rate=0.05)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    return labelled_features(tmp_path_factory.mktemp("labels") / "features")


def inputs(features: FeatureSet, head: ClassHead) -> tuple[Tensor, Tensor]:
    """All features (N, F) and class numbers (N,)."""
    x = torch.from_numpy(features.array("image_features").read()).float()
    return x, torch.tensor(head.numbers(features.samples["label"].to_list()))


def as_module(weight: Tensor, bias: Tensor) -> nn.Module:
    """The head as a torch module whose weight has the mimic layer's name."""
    classes, width = weight.shape
    module = nn.Module()
    module.head = nn.Linear(width, classes)
    module.head.load_state_dict({"weight": weight, "bias": bias})
    return module


@pytest.mark.parametrize("method", get_args(Method))
def test_scores_equal_reverse_mode_at_every_step(features: FeatureSet, method: Method) -> None:
    head = some_head()
    x, labels = inputs(features, head)
    probe = LabelProbe(features, head, CONFIG.model_copy(update={"method": method}))
    for epoch in range(2):
        steps = probe.run(epoch)
        for _ in range(4):
            model = as_module(probe.weight.clone(), probe.bias.clone())
            reference = as_module(head.weight, head.bias)
            batch = next(steps)
            rows = torch.from_numpy(batch.rows)

            def losses(module: nn.Module, rows: Tensor = rows) -> Tensor:
                classifier = module.head
                assert isinstance(classifier, nn.Linear)
                logits = classifier(x[rows].double())
                return F.cross_entropy(logits, labels[rows], reduction="none")

            truth = reverse_mode(model, reference, [MIMIC_LAYER], losses)
            expected = (truth.proj if method == "proj" else truth.cos).numpy()
            close = np.abs(batch.mimic_score - expected).max() / np.abs(expected).max()
            assert close < 1e-5
            np.testing.assert_allclose(batch.loss, truth.losses.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("method", get_args(Method))
def test_planted_scores_are_those_of_the_same_model_on_another_label(
    features: FeatureSet, method: Method
) -> None:
    head = some_head()
    x, labels = inputs(features, head)
    probe = LabelProbe(features, head, CONFIG.model_copy(update={"method": method}))
    whose: dict[int, int] = {}
    for epoch in range(2):
        steps = probe.run(epoch)
        for _ in range(4):
            model = as_module(probe.weight.clone(), probe.bias.clone())
            planted = next(steps).planted
            assert planted is not None
            rows, partners = (torch.from_numpy(p) for p in (planted.rows, planted.partners))
            assert (labels[rows] != labels[partners]).all()
            for row, other in zip(rows.tolist(), partners.tolist(), strict=True):
                assert whose.setdefault(row, other) == other  # the same in every epoch

            def losses(module: nn.Module) -> Tensor:
                classifier = module.head
                assert isinstance(classifier, nn.Linear)
                logits = classifier(x[rows].double())  # noqa: B023 - called here and now
                return F.cross_entropy(logits, labels[partners], reduction="none")  # noqa: B023

            truth = reverse_mode(model, as_module(head.weight, head.bias), [MIMIC_LAYER], losses)
            expected = (truth.proj if method == "proj" else truth.cos).numpy()
            assert np.abs(planted.scores - expected).max() / np.abs(expected).max() < 1e-5
    assert len(whose) == len(labels)


def test_a_replay_by_torch_gives_the_same_weights_and_logs(features: FeatureSet) -> None:
    """Independent training: autograd on the explicit weighted sum, torch's own AdamW."""
    head = some_head()
    x, labels = inputs(features, head)
    probe = LabelProbe(features, head, CONFIG)
    model = as_module(probe.weight.clone(), probe.bias.clone())
    linear = model.head
    assert isinstance(linear, nn.Linear)
    groups = [
        {"params": [linear.weight], "weight_decay": CONFIG.weight_decay},
        {"params": [linear.bias], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=CONFIG.learning_rate)
    for epoch in range(CONFIG.epochs):
        for batch in probe.run(epoch):
            if len(batch.rows) < CONFIG.batch_size:
                return  # the filled last batch has rows that are not told
            rows = torch.from_numpy(batch.rows)
            logits = linear(x[rows])
            losses = F.cross_entropy(logits, labels[rows], reduction="none")
            direction = head.weight - linear.weight.detach()
            scores = torch.stack(
                [
                    -(torch.autograd.grad(one, linear.weight, retain_graph=True)[0] * direction)
                    .sum()
                    .div(direction.norm())
                    for one in losses
                ]
            )
            weights = torch.softmax(scores / CONFIG.temperature, 0)
            np.testing.assert_allclose(batch.mimic_weight, weights.numpy(), rtol=1e-3, atol=1e-6)
            assert batch.correct is not None
            right = (logits.argmax(1) == labels[rows]).numpy()
            assert batch.correct.tolist() == right.tolist()
            optimiser.zero_grad()
            (weights * losses).sum().backward()
            optimiser.step()
            torch.testing.assert_close(probe.weight, linear.weight.detach(), rtol=1e-3, atol=1e-5)


def run_all(probe: LabelProbe) -> list[ScoreBatch]:
    return [batch for epoch in range(probe.config.epochs) for batch in probe.run(epoch)]


def test_every_sample_is_visited_once_in_every_epoch(features: FeatureSet) -> None:
    probe = LabelProbe(features, some_head(), CONFIG)
    for epoch in range(CONFIG.epochs):
        frame = epoch_frame(epoch, probe.uids, probe.run(epoch))
        assert frame["uid"].to_list() == features.samples["uid"].to_list()
        assert frame["correct"].null_count() == frame["mimic_score"].null_count() == 0
        assert frame["step"].n_unique() == 4


def test_only_the_scored_rows_are_trained_on_and_logged(features: FeatureSet) -> None:
    scored = np.arange(0, 60, 2)
    probe = LabelProbe(features, some_head(), CONFIG, scored=scored)
    frame = epoch_frame(0, probe.uids, probe.run(0))
    assert frame["uid"].to_list() == features.samples["uid"].gather(scored).to_list()


def test_equal_settings_give_equal_scores_and_other_seeds_others(features: FeatureSet) -> None:
    def scores(seed: int) -> np.ndarray:
        config = CONFIG.model_copy(update={"seed": seed})
        return np.concatenate(
            [batch.mimic_score for batch in run_all(LabelProbe(features, some_head(), config))]
        )

    assert scores(1).tobytes() == scores(1).tobytes()
    assert scores(1).tobytes() != scores(2).tobytes()


@pytest.mark.parametrize("weighting", get_args(WeightingName))
def test_every_weighting_trains_and_tells_what_it_used(
    features: FeatureSet, weighting: WeightingName
) -> None:
    trusted = trusted_samples(features.samples, HeadConfig(trusted="is_checked"))
    config = CONFIG.model_copy(update={"weighting": weighting})
    probe = LabelProbe(features, some_head(), config, trusted=trusted)
    for batch in run_all(probe):
        assert batch.train_weight is not None
        whole = len(batch.rows) == CONFIG.batch_size
        if whole and weighting != "grad_match_single":  # whose weights may be negative
            assert batch.train_weight.sum() == pytest.approx(1, abs=1e-5)
        if weighting == "uniform":
            assert batch.train_weight == pytest.approx(1 / 16)
        if weighting == "mimic":
            np.testing.assert_array_equal(batch.train_weight, batch.mimic_weight)
    assert torch.isfinite(probe.weight).all()


def test_influence_compares_with_the_clean_samples_that_training_would_draw(
    features: FeatureSet,
) -> None:
    wanted = HeadConfig(trusted="is_checked", trusted_label_column="clean")
    trusted = trusted_samples(features.samples, wanted)
    config = CONFIG.model_copy(update={"weighting": "influence", "seed": 3})
    probe = LabelProbe(features, some_head(), config, trusted=trusted)
    training = TrainConfig(
        model="", clean_column="is_checked", clean_per_class=CLEAN_PER_CLASS, seed=3
    )
    classes = features.samples["clean"]
    clean = split_samples(features.samples, training, classes=classes).clean
    assert probe._clean is not None
    held, numbers = probe._clean
    stored = features.array("image_features").take(clean).astype(np.float32)
    np.testing.assert_array_equal(held.numpy(), stored)
    assert [some_head().classes[n] for n in numbers] == classes.gather(clean).to_list()


def test_influence_without_trusted_samples_is_refused(features: FeatureSet) -> None:
    config = CONFIG.model_copy(update={"weighting": "influence"})
    with pytest.raises(ConfigError, match="known to be right"):
        LabelProbe(features, some_head(), config)


def test_rho_weighs_by_loss_above_the_reference(features: FeatureSet) -> None:
    head = some_head()
    x, labels = inputs(features, head)
    config = CONFIG.model_copy(update={"weighting": "rho"})
    batch = next(LabelProbe(features, head, config).run(0))
    rows = torch.from_numpy(batch.rows)
    expected = F.cross_entropy(head.logits(x[rows]), labels[rows], reduction="none")
    weights = torch.softmax(torch.from_numpy(batch.loss) - expected, 0)
    np.testing.assert_allclose(batch.train_weight, weights.numpy(), rtol=1e-4, atol=1e-7)


def test_self_check_and_segment(features: FeatureSet) -> None:
    head = some_head()
    x, labels = inputs(features, head)
    probe = LabelProbe(features, head, CONFIG.model_copy(update={"batch_size": 60}))
    assert probe.self_check() < 1e-5
    start, end = probe.segment_losses((0.0, 1.0))
    assert start == pytest.approx(float(F.cross_entropy(x @ probe.weight.T, labels)), rel=1e-5)
    assert end == pytest.approx(float(F.cross_entropy(x @ head.weight.T, labels)), rel=1e-5)


def test_a_label_that_the_reference_does_not_know_is_named(features: FeatureSet) -> None:
    with pytest.raises(ModelError, match="does not know 1 of the pool's labels") as caught:
        LabelProbe(features, some_head(classes=("cat", "dog")), CONFIG)
    assert caught.value.got == "'owl'"


def test_a_head_that_is_the_reference_has_no_direction(features: FeatureSet) -> None:
    probe = LabelProbe(features, some_head(), CONFIG)
    same = ClassHead(("cat", "dog", "owl"), probe.weight.clone(), probe.bias.clone())
    with pytest.raises(ScoreError, match="equal to the reference"):
        next(LabelProbe(features, same, CONFIG).run(0))


def test_the_fresh_head_suits_the_length_of_the_features(tmp_path: Path) -> None:
    spreads = []
    for scale in (1.0, 64.0):
        found = labelled_features(tmp_path / str(scale), scale=scale, samples=200)
        head = some_head()
        probe = LabelProbe(found, head, CONFIG)
        x, _ = inputs(found, head)
        lengths = float(x.square().sum(1).mean().sqrt())
        assert float(probe.weight.std()) * lengths == pytest.approx(0.1, rel=0.5)
        spreads.append(probe.weight * lengths)
    torch.testing.assert_close(spreads[0], spreads[1], rtol=1e-3, atol=1e-4)
