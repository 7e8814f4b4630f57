"""timm's image models: specification, weights, preprocessing, features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import resolve_model_data_config
from timm.data.transforms_factory import create_transform

from mimic_core.base.errors import ModelError
from mimic_core.models import timm_models
from mimic_core.models.load import load_model
from mimic_core.models.names import parse_spec
from mimic_core.models.preprocessing import image_transform


def saved(folder: Path, *, classes: int = 5, name: str = "model.safetensors") -> Path:
    """A checkpoint of a small ResNet."""
    module = timm.create_model("test_resnet", num_classes=classes)
    path = folder / name
    if path.suffix == ".safetensors":
        save_file(module.state_dict(), path)
    else:
        torch.save({"state_dict": module.state_dict()}, path)
    return path


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("timm:resnett18:random:0", "no architecture of that name"),
        ("timm:resnet18", "neither a file on this machine nor a published tag"),
        ("timm:resnet18:no_such_tag", "neither a file on this machine nor a published tag"),
        ("timm:resnet18:random:x", "seed of random weights must be a whole number"),
        ("timm:resnet18.a1_in1k:a2_in1k", "tag and the weights' tag differ"),
        ("timm:resnet18.no_such_tag:random:0", "no architecture of that name"),
    ],
)
def test_wrong_specifications_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ModelError, match=problem) as caught:
        load_model(text)
    assert caught.value.allowed is not None


def test_published_tags_are_known_without_loading() -> None:
    spec = parse_spec("timm:resnet18:a1_in1k")
    assert (spec.arch, spec.kind, spec.weights) == ("resnet18", "tag", "a1_in1k")


def test_random_weights_depend_on_the_seed_alone() -> None:
    one, same, other = (load_model(f"timm:test_resnet:random:{seed}") for seed in (1, 1, 2))
    assert one.identity == same.identity != other.identity
    assert (one.tokenizer, one.loss) == (None, None)
    assert "random weights" in one.preprocessing_origin


@pytest.mark.parametrize("arch", ["test_vit", "test_resnet", "test_convnext", "test_efficientnet"])
def test_classifier_on_features_is_the_model(arch: str) -> None:
    model = load_model(f"timm:{arch}:random:0").module
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    layer = timm_models.classifier(model)
    assert layer is not None
    with torch.no_grad():
        torch.testing.assert_close(layer(timm_models.features_of(model, images)), model(images))


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_local_checkpoint_keeps_its_classifier(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, name=name)
    loaded = load_model(f"timm:test_resnet:{path}")
    layer = timm_models.classifier(loaded.module)
    assert layer is not None
    assert layer.out_features == 5
    assert not loaded.module.training


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(ModelError, match="do not fit the architecture test_vit"):
        load_model(f"timm:test_vit:{path}", preprocess="imagenet")


def test_a_pickle_that_needs_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save(timm.create_model("test_resnet"), path)
    with pytest.raises(ModelError, match="needs code to be executed"):
        load_model(f"timm:test_resnet:{path}")


# --- preprocessing ---


def test_a_bare_file_of_an_ambiguous_architecture_needs_a_choice(tmp_path: Path) -> None:
    module = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    path = tmp_path / "w.safetensors"
    save_file(module.state_dict(), path)
    published = {
        tuple(timm.get_pretrained_cfg(f"vit_tiny_patch16_224.{tag}").mean)  # type: ignore[union-attr]
        for tag in ("augreg_in21k",)
    }
    assert published == {(0.5, 0.5, 0.5)}
    chosen = load_model(f"timm:vit_tiny_patch16_224:{path}", preprocess="imagenet")
    assert (chosen.preprocessing["mean"], "crop_pct" in chosen.preprocessing) == (
        [0.485, 0.456, 0.406],
        False,
    )
    tagged = load_model(f"timm:vit_tiny_patch16_224.augreg_in21k:{path}")
    assert tagged.preprocessing["mean"] == [0.5, 0.5, 0.5]
    assert tagged.preprocessing_origin == "published with vit_tiny_patch16_224.augreg_in21k"


def test_disagreeing_checkpoints_are_not_guessed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(ModelError, match="nothing says how images were prepared") as caught:
        timm_models.preprocessing(parse_spec(f"timm:vit_base_patch16_224:{path}"))
    assert "--preprocess" in str(caught.value.allowed)


def test_the_config_beside_the_weights_counts(tmp_path: Path) -> None:
    path = saved(tmp_path)
    config: dict[str, Any] = {
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 1.0},
        "label_names": ["a", "b", "c", "d", "e"],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_model(f"timm:test_resnet:{path}")
    assert loaded.preprocessing["mean"] == [0.1, 0.2, 0.3]
    assert loaded.preprocessing["crop_pct"] == 1.0
    assert loaded.preprocessing_origin == "from config.json"
    assert loaded.classes == ("a", "b", "c", "d", "e")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="config cannot be read"):
        load_model(f"timm:test_resnet:{path}")


def test_images_are_prepared_as_timm_does_it() -> None:
    loaded = load_model("timm:test_resnet:random:0")
    timms = create_transform(**resolve_model_data_config(loaded.module), is_training=False)
    image = Image.effect_noise((200, 170), 80).convert("RGB")
    ours = image_transform(loaded.preprocessing)(image)
    assert torch.equal(ours, timms(image))
