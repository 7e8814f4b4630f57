"""How images are prepared: for each way to name a model as its own library prepares them.

The oracle is the library: timm's ``resolve_data_config`` and ``create_transform``, open_clip's
``create_model``. No weights are downloaded: what a checkpoint needs is in the registry.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from timm.data import resolve_data_config, resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import nn

from mimic_core.base.errors import ModelError
from mimic_core.models import open_clip_models, timm_models
from mimic_core.models.load import load_model
from mimic_core.models.names import parse_spec
from mimic_core.models.preprocessing import image_transform
from tests.core import checkpoints_on_disk as disk

TIMM_TAGS: list[str] = timm.list_models(pretrained=True)
COLOUR = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}


def as_timm_says(config: dict[str, Any]) -> dict[str, Any]:
    """timm's own answer in our words."""
    theirs = resolve_data_config(pretrained_cfg=config)
    size = list(theirs.pop("input_size")[1:])
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in theirs.items()}
    return {"size": size, **plain}


def write_timm(folder: Path, arch: str, config: dict[str, Any], **model: Any) -> Path:
    """A folder in timm's layout; the file of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    module = timm.create_model(arch, num_classes=5, **model)
    save_file(module.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "model.safetensors"


# --- timm ---


def test_every_published_checkpoint_of_timms_is_prepared_as_timm_does_it(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"")
    different = []
    for name in TIMM_TAGS:
        config = timm.get_pretrained_cfg(name).to_dict()
        arch, _, tag = name.partition(".")
        wanted = as_timm_says(config)
        for text in (f"timm:{arch}:{tag}", f"timm:{name}:{file}"):
            ours, origin = timm_models.preprocessing(parse_spec(text))
            if ours != wanted or "published with" not in origin:
                different.append((text, ours, wanted))
    assert len(TIMM_TAGS) > 1500
    assert different == []


def test_every_transform_of_timms_is_timms_own() -> None:
    different = []
    for name in TIMM_TAGS[::5]:
        config = timm.get_pretrained_cfg(name).to_dict()
        arch, _, tag = name.partition(".")
        ours, _ = timm_models.preprocessing(parse_spec(f"timm:{arch}:{tag}"))
        theirs = create_transform(**resolve_data_config(pretrained_cfg=config), is_training=False)
        if str(image_transform(ours)) != str(theirs):
            different.append(name)
    assert different == []


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("timm:convnext_base.fb_in22k_ft_in1k_384", [384, 384]),
        ("timm:convnext_tiny.in12k_ft_in1k_384", [384, 384]),
        ("timm:resnet50.a1h_in1k", [176, 176]),  # its test_input_size is 224
        ("timm:vit_base_patch16_sapiens2.fb", [1024, 768]),
    ],
)
def test_the_size_is_the_tags_and_not_the_architectures(
    text: str, size: list[int], tmp_path: Path
) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"")
    settings, _ = timm_models.preprocessing(parse_spec(f"{text}:{file}"))
    assert settings["size"] == size


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit"])
def test_a_config_of_32_pixels_runs_at_32_pixels(arch: str, tmp_path: Path) -> None:
    """The built model's default is 160; a vision transformer must be built for 32."""
    model = {"img_size": 32} if arch == "test_vit" else {}
    config = {
        "architecture": arch,
        "pretrained_cfg": {
            **COLOUR,
            "input_size": [3, 32, 32],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "fixed_input_size": arch == "test_vit",
        },
    }
    file = write_timm(tmp_path, arch, config, **model)
    wanted = {
        **COLOUR,
        "size": [32, 32],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    for text in (f"timm:{arch}:{file}", str(tmp_path), f"timm:{tmp_path}"):
        loaded = load_model(text)
        assert loaded.preprocessing == wanted
        assert loaded.preprocessing_origin == "from config.json"
        assert loaded.module(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    module = timm.create_model(f"local-dir:{tmp_path}")
    assert as_timm_says(resolve_model_data_config(module)) == wanted
    theirs = create_transform(**resolve_model_data_config(module), is_training=False)
    image = Image.effect_noise((50, 41), 80).convert("RGB")
    assert torch.equal(image_transform(wanted)(image), theirs(image))


def test_a_repository_of_timms_is_the_folder_that_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"architecture": "test_resnet", **COLOUR, "labels": list("abcde")}
    sizes = {"input_size": [3, 48, 40], "interpolation": "bicubic", "crop_pct": 0.9}
    write_timm(tmp_path / "model", "test_resnet", {**config, **sizes})  # timm's first layout
    disk.fake_hub(tmp_path / "cache", monkeypatch, {"someone/small": tmp_path / "model"})
    loaded = load_model("timm:hf-hub:someone/small")
    assert loaded.preprocessing["size"] == [48, 40]
    assert loaded.preprocessing["mean"] == COLOUR["mean"]
    assert loaded.identity == load_model(str(tmp_path / "model")).identity


def test_a_config_of_another_architecture_is_refused(tmp_path: Path) -> None:
    file = write_timm(tmp_path, "test_resnet", {"architecture": "test_vit", **COLOUR})
    with pytest.raises(ModelError, match="of another architecture") as caught:
        load_model(f"timm:test_resnet:{file}")
    assert "test_vit" in str(caught.value.allowed)


def test_a_config_and_a_tag_that_disagree_are_refused(tmp_path: Path) -> None:
    config = {"architecture": "test_resnet", "pretrained_cfg": COLOUR}
    file = write_timm(tmp_path, "test_resnet", config)
    with pytest.raises(ModelError, match="said in two ways") as caught:
        load_model(f"timm:test_resnet.r160_in1k:{file}")
    assert "from config.json" in str(caught.value.allowed)
    assert "published with test_resnet.r160_in1k" in str(caught.value.allowed)
    chosen = load_model(f"timm:test_resnet.r160_in1k:{file}", preprocess="imagenet")
    assert chosen.preprocessing["size"] == [160, 160]


def test_a_transformer_whose_weights_are_of_another_size_is_refused(tmp_path: Path) -> None:
    size = {"input_size": [3, 64, 64], "interpolation": "bicubic", "crop_pct": 1.0}
    config = {"architecture": "test_vit", "pretrained_cfg": {**COLOUR, **size}}
    write_timm(tmp_path, "test_vit", config)  # built for 160
    with pytest.raises(ModelError, match=r"do not fit .*pos_embed"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"input_size": [1, 28, 28]}, "input_size"),
        ({"input_size": [224, 224]}, "input_size"),
        ({"input_size": [3, -4, 32]}, "size"),
        ({"mean": [0.5]}, "mean"),
        ({"std": [0.5, 0, 0.5]}, "std"),
        ({"interpolation": "random"}, "interpolation"),
        ({"crop_mode": "middle"}, "crop_mode"),
        ({"crop_pct": 0}, "crop_pct"),
    ],
)
def test_a_malformed_word_is_refused_by_name(
    wrong: dict[str, Any], named: str, tmp_path: Path
) -> None:
    whole = {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 1.0}
    config = {"architecture": "test_resnet", "pretrained_cfg": {**COLOUR, **whole, **wrong}}
    write_timm(tmp_path, "test_resnet", config)
    with pytest.raises(ModelError, match=f"wrong {named} "):
        load_model(str(tmp_path))


# --- open_clip ---


class _Shell(nn.Module):
    """Stands for a model of open_clip's where only its image size matters."""

    def __init__(self, vision_cfg: dict[str, Any], **_: Any) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.image_size = vision_cfg.get("image_size", 224)


def test_every_published_checkpoint_of_open_clips_is_prepared_as_open_clip_does_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """open_clip's factory runs as it is, but for towers and weights."""
    for name in ("CLIP", "CustomTextCLIP", "CoCa"):
        monkeypatch.setattr(f"open_clip.factory.{name}", _Shell)
    monkeypatch.setattr("open_clip.factory.download_pretrained", lambda *_, **__: "weights")
    monkeypatch.setattr("open_clip.factory.load_checkpoint", lambda *_, **__: None)
    different = []
    published = open_clip.list_pretrained()
    for arch, tag in published:
        spec = parse_spec(f"{arch}:{tag}")
        needs = bool(open_clip.get_model_config(arch).get("quick_gelu"))
        if needs and not open_clip.get_pretrained_cfg(arch, tag).get("quick_gelu"):
            continue  # refused: these weights were trained without
        ours, origin = open_clip_models.preprocessing(spec)
        quick = open_clip_models.needs_quick_gelu(spec)
        shell = open_clip.create_model(arch, pretrained=tag, force_quick_gelu=quick)
        theirs = PreprocessCfg(**shell.visual.preprocess_cfg)
        size = theirs.size
        wanted = {
            **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(theirs).items()},
            "size": [size, size] if isinstance(size, int) else list(size),
        }
        same = str(image_transform(ours)) == str(image_transform_v2(theirs, is_train=False))
        if ours != wanted or not same or origin != "published with the checkpoint":
            different.append((arch, tag, ours, wanted))
    assert len(published) > 150
    assert different == []


def test_two_configs_that_disagree_are_refused(tmp_path: Path) -> None:
    trained = disk.write_model(tmp_path / "trained") / "open_clip_model.safetensors"
    other = tmp_path / "other.json"
    preprocess = {**disk.PREPROCESS, "resize_mode": "shortest"}
    other.write_text(json.dumps({"model_cfg": disk.CONFIGS["vit"], "preprocess_cfg": preprocess}))
    with pytest.raises(ModelError, match="said in two ways") as caught:
        load_model(f"{other}:{trained}")
    assert "resize_mode" in str(caught.value.allowed)
    assert load_model(f"{other}:{trained}", preprocess="openai").preprocessing["size"] == [16, 16]


def test_a_config_whose_two_sizes_differ_is_refused(tmp_path: Path) -> None:
    """open_clip takes the tower's without a word."""
    disk.write_model(tmp_path)
    config = {"model_cfg": disk.CONFIGS["vit"], "preprocess_cfg": {**disk.PREPROCESS, "size": 32}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="said in two ways") as caught:
        load_model(str(tmp_path))
    assert "[32, 32]" in str(caught.value.allowed)


def test_a_timm_tower_that_is_not_built_for_the_images_is_refused(tmp_path: Path) -> None:
    """open_clip builds timm's towers at timm's own size, whatever the config says."""
    vision = {**disk.TIMM, "timm_model_name": "vit_tiny_patch16_224", "image_size": 32}
    config = tmp_path / "tower.json"
    config.write_text(json.dumps({**disk.CONFIGS["siglip"], "vision_cfg": vision}))
    with pytest.raises(ModelError, match="cannot take images") as caught:
        load_model(f"{config}:random:0", preprocess="siglip")
    assert "32 x 32" in str(caught.value)


# --- what the user chooses ---


def test_a_chosen_file_may_speak_timms_words_or_be_timms_config(tmp_path: Path) -> None:
    file = tmp_path / "chosen.json"
    for written in (
        {**COLOUR, "crop_pct": 0.9, "crop_mode": "squash", "size": 40},
        {
            "pretrained_cfg": {
                **COLOUR,
                "crop_pct": 0.9,
                "crop_mode": "squash",
                "input_size": [3, 40, 40],
            }
        },
    ):
        file.write_text(json.dumps(written))
        loaded = load_model("timm:test_resnet:random:0", preprocess=str(file))
        assert loaded.preprocessing == {
            **COLOUR,
            "size": [40, 40],
            "interpolation": "bicubic",
            "crop_pct": 0.9,
            "crop_mode": "squash",
        }
    file.write_text(json.dumps({**COLOUR, "crop_pct": 0.9, "resize_mode": "squash"}))
    with pytest.raises(ModelError, match="neither a known name nor a JSON file"):
        load_model("timm:test_resnet:random:0", preprocess=str(file))


def test_a_chosen_size_that_the_model_cannot_take_is_refused(tmp_path: Path) -> None:
    folder = disk.write_model(tmp_path / "vit")
    file = tmp_path / "chosen.json"
    file.write_text(json.dumps({**COLOUR, "size": 24}))
    with pytest.raises(ModelError, match="cannot take images") as caught:
        load_model(str(folder), preprocess=str(file))
    assert "24 x 24" in str(caught.value)


def test_a_scored_model_sees_the_references_images(tmp_path: Path) -> None:
    reference = load_model("timm:test_resnet:random:0")
    like = {**reference.preprocessing, "size": [48, 48]}
    scored = load_model("timm:test_vit:random:1", like=like)
    assert scored.preprocessing == like
    assert scored.module(torch.zeros(1, 3, 48, 48)).shape == (1, 1000)
