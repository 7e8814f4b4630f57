"""Where a labelled run's reference head comes from, and what it may see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip import build_zero_shot_classifier
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from mimic_core.base.config import HeadConfig
from mimic_core.base.errors import ConfigError, ModelError, ScoreError
from mimic_core.features.stored import Rows
from mimic_core.models.load import load_model
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.record import HeadRecord
from mimic_core.scoring.labels.class_head import (
    ClassHead,
    named_classes,
    read_class_head,
    store_class_head,
)
from mimic_core.scoring.labels.logistic import fit_logistic
from mimic_core.scoring.labels.reference_head import (
    class_embeddings,
    make_reference,
    say,
    spoken_class,
)
from mimic_core.sources.marks import trusted_samples
from tests.core import checkpoints_on_disk as disk
from tests.core.feature_sets import labelled_features, some_head
from tests.core.scoring_pool import CLASSES

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    return labelled_features(tmp_path_factory.mktemp("labels") / "features")


# --- trusted samples ---


def rows_of(features: FeatureSet, **config: Any) -> list[int]:
    return trusted_samples(features.samples, HeadConfig(**config)).rows.tolist()


def test_trusted_samples_by_flag_value_and_label_column(features: FeatureSet) -> None:
    assert rows_of(features, trusted="is_checked") == list(range(0, 60, 3))
    assert rows_of(features, trusted="split=train") == list(range(1, 60, 2))
    assert rows_of(features, trusted="number=7") == [7]
    found = trusted_samples(features.samples, HeadConfig(trusted_label_column="clean"))
    assert found.labels == features.samples["clean"].to_list()


def test_a_share_is_drawn_by_uid(features: FeatureSet) -> None:
    drawn = rows_of(features, trusted="20%")
    assert len(drawn) == 12
    shuffled = features.samples.sample(fraction=1, shuffle=True, seed=3)
    again = trusted_samples(shuffled, HeadConfig(trusted="20%")).rows
    assert set(shuffled["uid"].gather(again)) == set(features.samples["uid"].gather(drawn))


def test_a_trusted_sample_without_a_trusted_label_is_not_trusted(features: FeatureSet) -> None:
    import polars as pl

    partly = features.samples.with_columns(
        pl.when(pl.col("number") < 5).then("clean").otherwise(pl.lit(" ")).alias("checked")
    )
    config = HeadConfig(trusted_label_column="checked")
    assert trusted_samples(partly, config).rows.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"trusted": "nothing"}, "no such column"),
        ({"trusted": "nothing=1"}, "no such column"),
        ({"trusted": "split"}, "does not say true or false"),
        ({"trusted": "split=dev"}, "no sample has that value"),
        ({"trusted": "0%"}, "between 0 and 100"),
        ({"trusted": "is_checked", "trusted_label_column": "none"}, "no such column"),
    ],
)
def test_trusted_samples_that_are_not_there_are_refused(
    features: FeatureSet, config: dict[str, str], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        rows_of(features, **config)


def test_a_reserved_column_is_found_by_its_own_name(features: FeatureSet) -> None:
    samples = features.samples.rename({"clean": "source_label"})
    config = HeadConfig(trusted="is_checked", trusted_label_column="label")
    # `label` is the scored label; the pool's own column of that name was kept under another
    assert trusted_samples(samples, config).labels == samples["source_label"].to_list()[::3]


# --- training on trusted samples ---


def test_the_fit_equals_scikit_learns(features: FeatureSet) -> None:
    x = features.array("image_features").read().astype(np.float64)
    y = np.array([CLASSES.index(name) for name in features.samples["clean"]])
    fit = fit_logistic(
        lambda rows: torch.from_numpy(x[rows]).float(), y, classes=3, width=7, weight_decay=0.05
    )
    weight, bias = fit.weight, fit.bias
    assert fit.converged
    centred = x - x.mean(0)
    scale = np.sqrt(np.square(centred).mean())
    theirs = LogisticRegression(C=1 / (0.05 * len(y)), tol=1e-10, max_iter=5000)
    theirs.fit(centred / scale, y)
    expected = theirs.decision_function(centred / scale)
    ours = x @ weight.numpy().T + bias.numpy()
    ours, expected = (logits - logits.mean(1, keepdims=True) for logits in (ours, expected))
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_features_without_differences_cannot_be_fitted() -> None:
    with pytest.raises(ScoreError, match="the same features"):
        fit_logistic(
            lambda rows: torch.ones(len(rows), 3),
            np.array([0, 1]),
            classes=2,
            width=3,
            weight_decay=0.1,
        )


def test_a_trusted_head_never_sees_another_sample(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    take = Rows.take

    def watched(self: Rows, rows: np.ndarray) -> torch.Tensor:
        if watching:
            seen.update(rows.tolist())
        return take(self, rows)

    from mimic_core.scoring.labels import reference_head

    train = reference_head.trained_head

    def trained(*arguments: Any, **options: Any) -> ClassHead:
        nonlocal watching
        watching = True
        head = train(*arguments, **options)
        watching = False
        return head

    watching = False
    monkeypatch.setattr(Rows, "take", watched)
    monkeypatch.setattr(reference_head, "trained_head", trained)
    config = HeadConfig(trusted="is_checked", trusted_label_column="clean")
    found = make_reference(features, config, image_model(), CPU)
    assert seen == set(range(0, 60, 3))
    assert not set(found.scored.tolist()) & seen
    assert (found.record.origin, found.record.trusted, found.record.scored) == ("trusted", 20, 40)
    assert found.record.disjoint
    labels = features.samples["label"].gather(found.scored).to_list()
    predicted = [found.head.classes[number] for number in found.predicted]
    agreed = sum(a == b for a, b in zip(labels, predicted, strict=True)) / 40
    assert found.record.accuracy == pytest.approx(agreed)
    assert found.record.trusted_accuracy is not None
    assert found.record.trusted_accuracy > 0.8


def test_other_samples_do_not_change_a_trusted_head(tmp_path: Path, features: FeatureSet) -> None:
    config = HeadConfig(trusted="is_checked", trusted_label_column="clean")
    base = make_reference(features, config, image_model(), CPU).head
    changed = labelled_features(tmp_path / "features")
    for shard in changed.shards:
        file = changed.array_file(shard, "image_features")
        array = np.load(file)
        numbers = changed.samples.filter(changed.samples["shard"] == shard)["number"].to_numpy()
        array[numbers % 3 != 0] += 1
        np.save(file, array)
    again = make_reference(changed, config, image_model(), CPU).head
    assert torch.equal(again.weight, base.weight)


def test_trusted_samples_may_be_scored_if_the_user_wants(features: FeatureSet) -> None:
    config = HeadConfig(trusted_label_column="clean", score_trusted=True)
    found = make_reference(features, config, image_model(), CPU)
    assert (len(found.scored), found.record.disjoint) == (60, False)
    with pytest.raises(ConfigError, match="leaves none to be scored"):
        make_reference(features, HeadConfig(trusted_label_column="clean"), image_model(), CPU)


def test_a_head_that_has_not_converged_is_said(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = HeadConfig(trusted="is_checked", trusted_label_column="clean")
    whole = make_reference(features, config, image_model(), CPU).record
    assert whole.converged
    assert "converged" not in whole.as_sentence()
    monkeypatch.setattr("mimic_core.scoring.labels.logistic.MAX_ITERATIONS", 2)
    short = make_reference(features, config, image_model(), CPU).record
    assert not short.converged
    assert "stopped by its limit before it had converged" in short.as_sentence()


def test_trusted_samples_of_one_class_are_refused(features: FeatureSet) -> None:
    number = features.samples["clean"].to_list().index("cat")
    config = HeadConfig(trusted=f"number={number}", trusted_label_column="clean")
    with pytest.raises(ConfigError, match="one class only"):
        make_reference(features, config, image_model(), CPU)


def test_a_trusted_head_without_a_class_of_the_pool_is_refused(features: FeatureSet) -> None:
    import polars as pl

    without = features.samples.filter(pl.col("clean") != "owl")["number"].to_list()
    changed = features.samples.with_columns(ok=pl.col("number").is_in(without))
    object.__setattr__(features, "samples", changed)
    config = HeadConfig(trusted="ok", trusted_label_column="clean")
    with pytest.raises(ModelError, match="does not know 1 of the pool's labels"):
        make_reference(features, config, image_model(), CPU)


# --- heads from files and checkpoints ---


def image_model() -> Any:
    """An image model with random weights, which offers no head of its own."""
    return load_model("timm:test_resnet:random:0")


def test_without_any_head_the_options_are_named(features: FeatureSet) -> None:
    with pytest.raises(ModelError, match="no trained classifier of its own") as caught:
        make_reference(features, None, image_model(), CPU)
    assert "--trusted" in caught.value.next_step


def test_a_stored_head_comes_back_with_its_classes(tmp_path: Path) -> None:
    head = some_head(classes=("zebra", "cat", "Grüße"))
    path = tmp_path / "head.safetensors"
    store_class_head(path, head)
    back = read_class_head(path, width=7, labels=["a", "b"])
    assert back.classes == head.classes
    assert torch.equal(back.weight, head.weight)
    assert torch.equal(back.bias, head.bias)


@pytest.mark.parametrize("prefix", ["", "head.", "fc.", "classifier.", "head.fc."])
def test_a_classifiers_last_layer_is_found(tmp_path: Path, prefix: str) -> None:
    head = some_head()
    tensors = {"conv.weight": torch.ones(2, 2, 3, 3), f"{prefix}weight": head.weight}
    torch.save({"state_dict": {**tensors, f"{prefix}bias": head.bias}}, tmp_path / "last.pt")
    found = read_class_head(tmp_path / "last.pt", width=7, labels=["b", "a", "c"])
    assert found.classes == ("a", "b", "c")
    assert torch.equal(found.weight, head.weight)


def test_heads_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    head = some_head()
    path = tmp_path / "head.safetensors"
    store_class_head(path, head)
    with pytest.raises(ModelError, match="for other features"):
        read_class_head(path, width=8, labels=[])
    with pytest.raises(ModelError, match="does not exist"):
        read_class_head(tmp_path / "none", width=7, labels=[])
    save_file({"weight": head.weight * float("nan")}, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match="non-finite"):
        read_class_head(tmp_path / "nan.safetensors", width=7, labels=["a", "b", "c"])
    save_file({"a": head.weight}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="no classifier's last layer"):
        read_class_head(tmp_path / "other.safetensors", width=7, labels=[])
    save_file({"weight": head.weight}, tmp_path / "x.safetensors", metadata={"classes": "{}"})
    with pytest.raises(ModelError, match="not a JSON list"):
        read_class_head(tmp_path / "x.safetensors", width=7, labels=[])


def test_outputs_without_names_are_numbers_or_sorted_classes_or_refused() -> None:
    assert named_classes((), 12, ["3", "11"], "f") == tuple(str(n) for n in range(12))
    assert named_classes((), 2, ["b", "a"], "f") == ("a", "b")
    assert named_classes(("x", "y"), 2, ["b", "a"], "f") == ("x", "y")
    with pytest.raises(ModelError, match="nothing says which classes"):
        named_classes((), 3, ["a", "b"], "f")
    with pytest.raises(ModelError, match="one name for each output"):
        named_classes(("x", "x"), 2, ["a", "b"], "f")


def test_a_checkpoints_own_classifier_serves(tmp_path: Path) -> None:
    import timm

    module = timm.create_model("test_resnet", num_classes=3)
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    names = {"label_names": list(CLASSES), "pretrained_cfg": dict(disk_config())}
    (tmp_path / "config.json").write_text(json.dumps(names))
    model = load_model(f"timm:test_resnet:{tmp_path / 'model.safetensors'}")
    layer = module.get_classifier()
    found = labelled_features(tmp_path / "features", width=layer.in_features)
    reference = make_reference(found, None, model, CPU)
    assert (reference.record.origin, reference.head.classes) == ("checkpoint", CLASSES)
    assert torch.equal(reference.head.weight, layer.weight)


def disk_config() -> dict[str, Any]:
    return {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


# --- zero-shot ---


# --- how good it is ---


def test_a_head_whose_classes_are_in_another_order_is_warned_of(
    tmp_path: Path, features: FeatureSet
) -> None:
    model = load_model("timm:test_resnet:random:0")
    good = make_reference(
        features, HeadConfig(trusted="is_checked", trusted_label_column="clean"), model, CPU
    )
    assert good.record.warning is None  # three in ten labels are wrong
    told: list[str] = []
    say(good.record, told.append)
    assert len(told) == 1
    turned = ClassHead(CLASSES, good.head.weight.roll(1, 0), good.head.bias.roll(1, 0))
    store_class_head(tmp_path / "turned.safetensors", turned)
    config = HeadConfig(file=str(tmp_path / "turned.safetensors"))
    bad = make_reference(features, config, model, CPU)
    labels = np.array([CLASSES.index(name) for name in features.samples["label"]])
    assert bad.record.accuracy == pytest.approx((bad.predicted == labels).mean())
    pairs = bad.predicted[:, None] == labels[None, :]
    assert bad.record.chance == pytest.approx(pairs.mean())  # over all pairings
    say(bad.record, told.append)
    assert "--preprocess" in told[-1]
    assert f"{bad.record.accuracy:.1%} of the labels" in told[-1]


@pytest.mark.parametrize(
    ("accuracy", "chance", "warned"),
    [
        (0.195, 0.10, True),  # images at the wrong size
        (0.648, 0.10, False),  # the same prepared rightly
        (0.37, 0.10, False),  # seven in ten labels drawn anew, a perfect reference
        (0.10, 0.10, True),
        (0.03, 0.001, True),
        (0.30, 0.001, False),
        (0.96, 0.95, False),  # nearly all of one class
        (0.2, None, False),  # a run from before this was measured
    ],
)
def test_the_warning_is_of_agreement_beyond_chance(
    accuracy: float, chance: float | None, warned: bool
) -> None:
    record = HeadRecord(
        origin="checkpoint", classes=10, scored=100, accuracy=accuracy, chance=chance
    )
    assert (record.warning is not None) is warned


def test_zero_shot_equals_open_clips_own_classifier(tmp_path: Path) -> None:
    model = load_model(str(disk.write_model(tmp_path)))
    prompts = ("a photo of a {}", "a drawing of the {}", "{}")
    ours = class_embeddings(model, ["cat", "hot_dog"], prompts, CPU)
    theirs = build_zero_shot_classifier(
        model.module,
        model.tokenizer,
        ["cat", "hot dog"],
        [lambda name, prompt=prompt: prompt.format(name) for prompt in prompts],
        num_classes_per_batch=None,
        device="cpu",
    )
    torch.testing.assert_close(ours, theirs.T, rtol=1e-5, atol=1e-6)
    assert spoken_class("hot_dog__stand") == "hot dog stand"


def test_an_image_model_has_no_words() -> None:
    with pytest.raises(ModelError, match="without a text tower"):
        class_embeddings(image_model(), ["a"], ["{}"], CPU)
