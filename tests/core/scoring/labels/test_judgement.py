"""What a reference head makes of the labels: losses, agreement, issues; nobody it was shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mimic_core.base.config import HeadConfig
from mimic_core.features.stored import Rows
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.labels import judgement
from mimic_core.scoring.labels.class_head import store_class_head
from mimic_core.scoring.labels.judgement import judged_labels
from mimic_core.scoring.labels.reference_head import Reference, make_reference
from mimic_core.stats.label_issues import label_issues
from tests.core.feature_sets import labelled_features, some_head
from tests.core.scoring.labels.test_reference_head import image_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    return labelled_features(tmp_path_factory.mktemp("judged") / "features", samples=200)


def by_hand(
    features: FeatureSet, reference: Reference, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, C) and labels (N,) of ``rows``, in numpy."""
    x = features.array("image_features").read()[rows].astype(np.float64)
    logits = x @ reference.head.weight.double().numpy().T + reference.head.bias.double().numpy()
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    labels = reference.head.numbers(features.samples["label"].gather(rows).to_list())
    return exponents / exponents.sum(1, keepdims=True), np.array(labels)


def test_judgements_equal_those_computed_by_hand(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judgement, "_BLOCK", 7)  # several blocks in each class
    config = HeadConfig(trusted="is_checked", trusted_label_column="clean")
    reference = make_reference(features, config, image_model(), CPU)
    places = reference.scored[::2]  # those that a training run has trained on
    found = judged_labels(features, reference, places)
    probabilities, labels = by_hand(features, reference, places)
    losses = -np.log(probabilities[np.arange(len(labels)), labels])
    np.testing.assert_allclose(found["reference_loss"].to_numpy(), losses, rtol=1e-4, atol=1e-6)
    agrees = probabilities.argmax(1) == labels
    assert found["reference_agrees"].to_list() == agrees.tolist()
    issues = label_issues(probabilities, labels)
    assert issues.any()
    assert found["label_issue"].to_list() == issues.tolist()


def test_samples_that_trained_the_head_are_not_judged_and_decide_nothing(
    features: FeatureSet,
) -> None:
    config = HeadConfig(trusted="is_checked", trusted_label_column="clean", score_trusted=True)
    reference = make_reference(features, config, image_model(), CPU)
    found = judged_labels(features, reference, reference.scored)
    trusted = features.samples["is_checked"]
    assert len(found) == 200
    for name in found.columns:
        assert found[name].is_null().to_list() == trusted.to_list()
    alone = HeadConfig(trusted="is_checked", trusted_label_column="clean")
    apart = make_reference(features, alone, image_model(), CPU)
    others = judged_labels(features, apart, apart.scored)
    assert found.filter(~trusted).equals(others)


def test_where_all_are_trusted_nobody_is_judged(features: FeatureSet) -> None:
    config = HeadConfig(trusted_label_column="clean", score_trusted=True)
    reference = make_reference(features, config, image_model(), CPU)
    found = judged_labels(features, reference, reference.scored)
    assert found.null_count().row(0) == (200, 200, 200)


def test_a_head_from_a_file_judges_everybody(features: FeatureSet, tmp_path: Path) -> None:
    store_class_head(tmp_path / "head.safetensors", some_head())
    config = HeadConfig(file=str(tmp_path / "head.safetensors"))
    reference = make_reference(features, config, image_model(), CPU)
    found = judged_labels(features, reference, reference.scored)
    assert found.null_count().row(0) == (0, 0, 0)
    share = found["reference_agrees"].mean()
    assert share == pytest.approx(reference.record.accuracy)
    assert not (found["reference_agrees"] & found["label_issue"]).any()
    rows = Rows(features, "image_features", CPU).take(np.arange(200))
    logs = reference.head.logits(rows).log_softmax(1)
    own = reference.head.numbers(features.samples["label"].to_list())
    expected = -logs[torch.arange(200), torch.tensor(own)].numpy()
    np.testing.assert_allclose(found["reference_loss"].to_numpy(), expected, rtol=1e-5, atol=1e-6)
