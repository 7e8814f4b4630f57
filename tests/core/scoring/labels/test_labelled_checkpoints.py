"""What labelled training stores is a model again: to go on from, and to be a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import timm
import torch
from safetensors.torch import save_file

from mimic_core.base.config import HeadConfig, RunConfig, SourceConfig, TrainConfig
from mimic_core.base.errors import ConfigError, ModelError
from mimic_core.models import classifiers
from mimic_core.models.class_names import names_metadata
from mimic_core.models.load import load_model
from mimic_core.runs.run import Run
from mimic_core.scoring.labels.class_head import ClassHead, own_head, store_class_head
from mimic_core.scoring.training.classifier_pair import pair_classifiers
from mimic_core.scoring.training.state import weights_file
from mimic_core.scoring.training.train import train_pool
from tests.core import checkpoints_on_disk as disk
from tests.core.scoring_pool import picture

ARCH = "test_vit"
# As many numbers as it takes for the order of text to differ from that of numbers.
DIGITS = tuple(str(n) for n in range(12))
COUNT = 36


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of each of twelve classes with numbers for names."""
    root = tmp_path_factory.mktemp("pool")
    frame = pl.DataFrame(
        {
            "image": [{"bytes": picture(n), "path": f"{n}.png"} for n in range(COUNT)],
            "label": [DIGITS[n % 12] for n in range(COUNT)],
        }
    )
    frame.write_parquet(root / "images.parquet")
    return root


def train(pool: Path, out: Path, reference: str, model: str, **changes: Any) -> Run:
    head = changes.pop("head", None)
    settings = {"model": model, "epochs": 1, "batch_size": 12, "learning_rate": 1e-3, **changes}
    config = RunConfig(
        source=SourceConfig(path=str(pool), task="labels", label_column="label"),
        reference=reference,
        preprocess="imagenet",
        head=head,
        training=TrainConfig.parse(settings),
    )
    return train_pool(config, runs_root=out, device="cpu", workers=0)


def stored(run: Run) -> Path:
    return weights_file(run.path / "checkpoints", 0)


def test_a_checkpoint_names_its_classes_in_the_order_of_its_rows(
    pool: Path, tmp_path: Path
) -> None:
    trusted = HeadConfig(trusted_label_column="label", score_trusted=True)
    random = f"timm:{ARCH}:random"
    run = train(pool, tmp_path, f"{random}:0", f"{random}:1", head=trusted)
    loaded = load_model(f"timm:{ARCH}:{stored(run)}", preprocess="imagenet")
    assert loaded.classes[:4] == ("0", "1", "10", "11")  # not the order of the numbers
    own = own_head(loaded, width=64, labels=loaded.classes)
    wanted = tuple(sorted(DIGITS, key=int, reverse=True))
    head = ClassHead(wanted, torch.randn(12, 64), torch.zeros(12))
    reference = load_model(f"{random}:0", preprocess="imagenet")
    notes: list[str] = []
    pair = pair_classifiers(loaded, reference, head, seed=0, note=notes.append)
    assert notes == ["the model's own head is over the same classes and is kept"]
    weight = classifiers.head(pair[0]).weight
    for row, name in enumerate(wanted):
        assert torch.equal(weight[row], own.weight[own.classes.index(name)]), name


def test_a_head_in_an_order_of_its_own_is_stored_with_that_order(
    pool: Path, tmp_path: Path
) -> None:
    order = tuple(reversed(DIGITS))
    torch.manual_seed(0)
    file = tmp_path / "head.safetensors"
    store_class_head(file, ClassHead(order, torch.randn(12, 64), torch.zeros(12)))
    random = f"timm:{ARCH}:random"
    given = HeadConfig(file=str(file))
    run = train(pool, tmp_path / "runs", f"{random}:0", f"{random}:1", head=given)
    as_reference = f"timm:{ARCH}:{stored(run)}"
    again = train(pool, tmp_path / "more", as_reference, f"{random}:1")
    assert again.record.reference_head is not None
    assert again.record.reference_head.origin == "checkpoint"
    assert again.record.reference_head.classes == 12
    assert load_model(as_reference, preprocess="imagenet").classes == order


def test_a_trained_clip_tower_is_a_model_and_a_reference(pool: Path, tmp_path: Path) -> None:
    config = disk.write_config(tmp_path / "arch")
    clip = str(disk.write_model(tmp_path / "reference", seed=1))
    first = train(pool, tmp_path / "runs", clip, f"{config}:random:2")
    named = f"{config}:{stored(first)}"
    loaded = load_model(named, preprocess="imagenet")
    assert loaded.tokenizer is None
    assert loaded.classes == tuple(sorted(DIGITS))
    kept = classifiers.head(loaded.module).weight.detach().clone()

    on = train(pool, tmp_path / "on", clip, named, learning_rate=1e-12)
    after = classifiers.head(load_model(f"{config}:{stored(on)}", preprocess="imagenet").module)
    torch.testing.assert_close(after.weight, kept, rtol=0, atol=1e-6)

    judged = train(pool, tmp_path / "judged", named, f"{config}:random:3")
    record = judged.record.reference_head
    assert record is not None
    assert record.origin == "checkpoint"
    last = first.metrics().filter(pl.col("epoch") == 0)
    assert len(last) == 1
    right = pl.read_parquet(judged.path / "reference_labels.parquet")
    labels = judged.features.samples.select("uid", "label")
    both = right.join(labels, on="uid")
    assert record.accuracy == (both["reference_label"] == both["label"]).mean()
    features = torch.from_numpy(judged.features.array("image_features").take(range(COUNT))).float()
    predicted = (features @ kept.T + loaded.module.head.bias).argmax(1).tolist()
    assert [loaded.classes[n] for n in predicted] == right["reference_label"].to_list()


def test_a_trained_clip_tower_cannot_stand_for_a_model_of_pairs(pool: Path, tmp_path: Path) -> None:
    config = disk.write_config(tmp_path / "arch")
    clip = str(disk.write_model(tmp_path / "reference", seed=1))
    named = f"{config}:{stored(train(pool, tmp_path / 'runs', clip, f'{config}:random:2'))}"
    other = disk.write_config(tmp_path / "other", "resnet")
    with pytest.raises(ModelError, match="image tower of"):
        load_model(named.replace(str(config), str(other)), preprocess="imagenet")
    captions = tmp_path / "pairs"
    frame = pl.read_parquet(pool / "images.parquet").rename({"label": "caption"})
    captions.mkdir()
    frame.write_parquet(captions / "images.parquet")
    for reference, model in ((named, clip), (clip, named)):
        config_ = RunConfig(
            source=SourceConfig(path=str(captions), task="pairs"),
            reference=reference,
            preprocess="imagenet",
            training=TrainConfig(model=model),
        )
        with pytest.raises((ConfigError, ModelError), match="text tower"):
            train_pool(config_, runs_root=tmp_path / "runs", device="cpu", workers=0)


def test_names_in_the_file_win_over_those_beside_it(tmp_path: Path) -> None:
    module = timm.create_model(ARCH, num_classes=3)
    tensors = {k: v.contiguous().clone() for k, v in module.state_dict().items()}
    save_file(tensors, tmp_path / "w.safetensors", metadata=names_metadata(("c", "a", "b")))
    (tmp_path / "config.json").write_text('{"label_names": ["x", "y", "z"]}')
    found = load_model(f"timm:{ARCH}:{tmp_path / 'w.safetensors'}", preprocess="imagenet")
    assert found.classes == ("c", "a", "b")
