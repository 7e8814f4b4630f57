"""Loading without running code, each model's own preprocessing, default layers, projections."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from mimic_core.base.config import Side
from mimic_core.base.errors import ConfigError, ModelError
from mimic_core.models.devices import autocast, pick_device
from mimic_core.models.layers import default_mimic_layers, fresh_weight, reinitialised
from mimic_core.models.load import LoadedModel, load_model, weights_identity
from mimic_core.models.preprocessing import image_transform
from mimic_core.models.projections import find_projection, without_projection
from tests.core import checkpoints_on_disk as disk
from tests.core import tiny

MEAN_AND_STD = ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; ``build("vit")`` has the same weights."""
    return disk.write_model(tmp_path_factory.mktemp("models") / "vit")


def _same_weights(loaded: LoadedModel, module: nn.Module) -> None:
    ours, theirs = loaded.module.state_dict(), module.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- weights ---


def test_a_folder_gives_weights_preprocessing_and_a_frozen_module(vit: Path) -> None:
    loaded = load_model(str(vit))
    _same_weights(loaded, disk.build("vit"))
    assert not loaded.module.training
    assert not any(p.requires_grad for p in loaded.module.parameters())
    assert loaded.loss == "clip"
    assert (loaded.preprocessing["mean"], loaded.preprocessing["std"]) == MEAN_AND_STD
    assert loaded.preprocessing["size"] == [16, 16]
    assert loaded.preprocessing["interpolation"] == "bilinear"
    assert loaded.preprocessing["resize_mode"] == "squash"
    assert "open_clip_config.json" in loaded.preprocessing_origin
    tokens = loaded.tokenizer(["a cat", "a dog"])
    assert tokens.shape == (2, 16)
    assert not torch.equal(tokens[0], tokens[1])


def _checkpoint(kind: str, state: dict[str, Tensor]) -> dict[str, Any]:
    if kind == "plain":
        return dict(state)
    if kind == "ddp":
        return {f"module.{name}": value for name, value in state.items()}
    prefixed = {f"module.{name}": value for name, value in state.items()}
    return {"epoch": 3, "name": "run", "state_dict": prefixed, "optimizer": {"lr": 0.1}}


@pytest.mark.parametrize("kind", ["plain", "ddp", "training"])
def test_torch_files_of_every_usual_form(kind: str, tmp_path: Path) -> None:
    config = disk.write_config(tmp_path)
    file = tmp_path / "weights.pt"
    torch.save(_checkpoint(kind, disk.build("vit", seed=4).state_dict()), file)
    _same_weights(load_model(f"{config}:{file}"), disk.build("vit", seed=4))


def test_safetensors_beside_a_config_and_equal_identity_of_equal_weights(
    vit: Path, tmp_path: Path
) -> None:
    config = disk.write_config(tmp_path)
    file = tmp_path / "moved.safetensors"
    save_file({k: v.clone() for k, v in disk.build("vit").state_dict().items()}, file)
    loaded = load_model(f"{config}:{file}")
    _same_weights(loaded, disk.build("vit"))
    assert loaded.identity == load_model(str(vit)).identity


def test_identity_changes_with_any_value_name_or_shape() -> None:
    def identity(**tensors: Tensor) -> str:
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return weights_identity(module)

    base = identity(a=torch.zeros(2, 3))
    changed = torch.zeros(2, 3)
    changed[1, 2] = 1e-30
    others = [
        identity(a=changed),
        identity(b=torch.zeros(2, 3)),
        identity(a=torch.zeros(3, 2)),
        identity(a=torch.zeros(2, 3, dtype=torch.bfloat16)),
        identity(a=torch.zeros(2, 3), b=torch.zeros(1)),
    ]
    assert identity(a=torch.zeros(2, 3)) == base
    assert len({base, *others}) == 6


class _Payload:
    """Runs a command when unpickled, as a malicious checkpoint would."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_pickle_that_needs_code_is_refused_and_not_run(place: str, tmp_path: Path) -> None:
    config = disk.write_config(tmp_path)
    marker = tmp_path / "executed"
    file = tmp_path / "open_clip_pytorch_model.bin"
    torch.save({"state_dict": disk.build().state_dict(), "extra": _Payload(marker)}, file)
    with pytest.raises(ModelError) as caught:
        load_model(f"{config}:{file}" if place == "file" else str(tmp_path))
    assert "code" in str(caught.value)
    assert str(file) in str(caught.value)
    assert "safetensors" in str(caught.value)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_torchscript_archives_are_refused(tmp_path: Path) -> None:
    config, file = disk.write_config(tmp_path), tmp_path / "archive.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), str(file))
    with pytest.raises(ModelError) as caught:
        load_model(f"{config}:{file}")
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", ["cut", "empty", "text"])
def test_damaged_weights_are_refused_by_name(suffix: str, content: str, tmp_path: Path) -> None:
    config, file = disk.write_config(tmp_path), tmp_path / f"weights{suffix}"
    state = {k: v.clone() for k, v in disk.build().state_dict().items()}
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"<html>"}[content])
    with pytest.raises(ModelError) as caught:
        load_model(f"{config}:{file}")
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}])
def test_files_without_weights_are_refused(content: object, tmp_path: Path) -> None:
    config, file = disk.write_config(tmp_path), tmp_path / "weights.pt"
    torch.save(content, file)
    with pytest.raises(ModelError, match="holds no"):
        load_model(f"{config}:{file}")


def test_weights_of_another_architecture_are_named(tmp_path: Path) -> None:
    config, file = disk.write_config(tmp_path, "vit"), tmp_path / "weights.pt"
    torch.save(disk.build("resnet").state_dict(), file)
    with pytest.raises(ModelError) as caught:
        load_model(f"{config}:{file}")
    assert "do not fit the architecture" in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("missing", ["visual.proj", "text_projection", "logit_scale"])
def test_a_checkpoint_that_lacks_a_tensor_is_never_half_loaded(
    missing: str, tmp_path: Path
) -> None:
    config, file = disk.write_config(tmp_path), tmp_path / "weights.pt"
    state = disk.build().state_dict()
    del state[missing]
    torch.save(state, file)
    with pytest.raises(ModelError, match=missing):
        load_model(f"{config}:{file}")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_parameter(bad: float, tmp_path: Path) -> None:
    proj = disk.build().visual.proj.detach().clone()  # type: ignore[union-attr, operator]
    proj[3, 4] = bad
    disk.write_model(tmp_path, **{"visual.proj": proj})
    with pytest.raises(ModelError) as caught:
        load_model(str(tmp_path))
    assert "non-finite" in str(caught.value)
    assert "visual.proj" in str(caught.value)


# --- specifications ---


def test_random_weights_repeat_by_seed_and_leave_the_generators_alone(tmp_path: Path) -> None:
    config = disk.write_config(tmp_path)
    torch.manual_seed(1)
    random.seed(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = load_model(f"{config}:random:7")
    torch.rand(5)
    again, other = load_model(f"{config}:random:7"), load_model(f"{config}:random:8")
    assert first.identity == again.identity != other.identity
    torch.manual_seed(1)
    load_model(f"{config}:random:7")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # noqa: NPY002


def test_a_bare_model_config_works_too(tmp_path: Path) -> None:
    bare = tmp_path / "tiny.json"
    bare.write_text(json.dumps(disk.CONFIGS["vit"]))
    loaded = load_model(f"{bare}:random:0", preprocess="siglip")
    assert loaded.module.visual.proj.shape == (32, 24)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ViT-B-23:random:0", "ViT-B-32"),
        ("ViT-B-32", "names no weights"),
        ("ViT-B-32:laion3b", "laion2b_s34b_b79k"),
        ("ViT-B-32:/nowhere/epoch_32.pt", "/nowhere/epoch_32.pt"),
        ("ViT-B-32:random:abc", "whole number"),
        ("ViT-B-32:random:-1", "whole number"),
        ("/nowhere/config.json:random:0", "does not exist"),
    ],
)
def test_a_wrong_specification_is_answered_with_what_is_allowed(text: str, expected: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(text)
    assert expected in str(caught.value)
    assert repr(text) in str(caught.value) or text.partition(":")[0] in str(caught.value)


@pytest.mark.parametrize("content", ["{not json", "[]", '{"model_cfg": 3}', '{"embed_dim": 8}'])
def test_a_wrong_config_is_refused_by_name(content: str, tmp_path: Path) -> None:
    config = tmp_path / "broken.json"
    config.write_text(content)
    with pytest.raises(ModelError) as caught:
        load_model(f"{config}:random:0")
    assert str(config) in str(caught.value)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="open_clip_config"):
        load_model(str(tmp_path))


# --- preprocessing ---


def test_bare_weights_get_no_silent_preprocessing(tmp_path: Path) -> None:
    config = disk.write_config(tmp_path, preprocess=False)
    trained = disk.write_model(tmp_path / "trained") / "open_clip_model.safetensors"
    bare = tmp_path / "alone" / "weights.safetensors"
    bare.parent.mkdir()
    bare.write_bytes(trained.read_bytes())
    with pytest.raises(ModelError) as caught:
        load_model(f"{config}:{bare}")
    assert "how images were prepared" in str(caught.value)
    assert "--preprocess" in str(caught.value)


def test_random_weights_say_that_their_preprocessing_is_a_default(tmp_path: Path) -> None:
    config = disk.write_config(tmp_path, preprocess=False)
    assert "random weights have none" in load_model(f"{config}:random:0").preprocessing_origin


def test_a_repository_that_does_not_say_its_preprocessing_gets_no_silent_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open_clip fills the gap with OpenAI's mean and std without a word."""
    folder = disk.write_model(tmp_path / "model")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": disk.CONFIGS["vit"]}))
    disk.fake_hub(tmp_path / "cache", monkeypatch, {"someone/something": folder})
    with pytest.raises(ModelError, match="nothing says how images were prepared"):
        load_model("hf-hub:someone/something")
    disk.write_config(folder)
    disk.fake_hub(tmp_path / "second", monkeypatch, {"someone/something": folder})
    loaded = load_model("hf-hub:someone/something")
    assert (loaded.preprocessing["mean"], loaded.preprocessing["std"]) == MEAN_AND_STD
    assert loaded.preprocessing_origin == "from open_clip_config.json"
    _same_weights(loaded, disk.build("vit"))


def test_preprocessing_beside_the_weights_counts(tmp_path: Path) -> None:
    bare = tmp_path / "arch.json"
    bare.write_text(json.dumps(disk.CONFIGS["vit"]))
    folder = disk.write_model(tmp_path / "trained")
    loaded = load_model(f"{bare}:{folder / 'open_clip_model.safetensors'}")
    assert (loaded.preprocessing["mean"], loaded.preprocessing["std"]) == MEAN_AND_STD


def test_preprocessing_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "arch.json"
    bare.write_text(json.dumps(disk.CONFIGS["vit"]))
    elsewhere = tmp_path / "elsewhere"
    disk.write_config(elsewhere)
    here = load_model(f"{bare}:random:0").preprocessing
    monkeypatch.chdir(elsewhere)  # holds a config of some other model
    assert load_model(f"{bare}:random:0").preprocessing == here
    assert (here["mean"], here["std"]) != MEAN_AND_STD


def test_chosen_preprocessing_wins_and_is_named_as_chosen(vit: Path, tmp_path: Path) -> None:
    loaded = load_model(str(vit), preprocess="siglip")
    assert loaded.preprocessing["mean"] == [0.5, 0.5, 0.5]
    assert "siglip" in loaded.preprocessing_origin
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}))
    loaded = load_model(str(vit), preprocess=str(file))
    assert loaded.preprocessing["mean"] == [0.1, 0.2, 0.3]
    assert loaded.preprocessing["size"] == [16, 16]


@pytest.mark.parametrize("content", ["", "[]", "3", '{"mean": [0.5]}', '{"mean": 1, "sdt": 2}'])
def test_a_wrong_preprocessing_is_refused(vit: Path, content: str, tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(content)
    for choice in (str(file), "clip"):
        with pytest.raises(ModelError) as caught:
            load_model(str(vit), preprocess=choice)
        assert choice in str(caught.value)


def test_the_hash_of_the_preprocessing_tells_settings_apart(vit: Path, tmp_path: Path) -> None:
    hashes = {load_model(str(vit)).preprocessing_sha256 for _ in range(2)}
    assert len(hashes) == 1
    assert len(next(iter(hashes))) == 64
    for change in (
        {"mean": [0.5, 0.4, 0.31]},
        {"interpolation": "bicubic"},
        {"resize_mode": "longest"},
    ):
        file = tmp_path / "own.json"
        file.write_text(json.dumps({**disk.PREPROCESS, **change}))
        hashes.add(load_model(str(vit), preprocess=str(file)).preprocessing_sha256)
    assert len(hashes) == 4


def test_images_are_prepared_with_the_checkpoints_own_mean_and_std(vit: Path) -> None:
    transform = image_transform(load_model(str(vit)).preprocessing)
    pixel = transform(Image.new("RGB", (40, 20), (255, 0, 51)))
    assert pixel.shape == (3, 16, 16)  # squashed to the model's size
    expected = [(1 - 0.5) / 0.2, (0 - 0.4) / 0.25, (0.2 - 0.3) / 0.3]
    torch.testing.assert_close(pixel.mean((1, 2)), torch.tensor(expected))


# --- mimic layers ---


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("vit", tiny.IMAGE_MLP),
        ("siglip", "visual.trunk.blocks.5.mlp.fc2.weight"),
        ("resnet", "visual.attnpool.c_proj.weight"),
        ("timm-classifier", "visual.trunk.stages.3.blocks.1.mlp.fc2.weight"),
    ],
)
def test_default_mimic_layer_is_the_last_image_mlp(name: str, layer: str) -> None:
    assert default_mimic_layers(disk.build(name)) == (layer,)


def test_no_default_layer_names_parameters_that_exist() -> None:
    with pytest.raises(ModelError) as caught:
        default_mimic_layers(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert "1.weight" in str(caught.value)


def test_reinitialising_changes_the_named_layers_alone_and_repeats() -> None:
    module = disk.build("vit")
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    layers = ("visual.proj", tiny.IMAGE_MLP, "visual.ln_post.bias")
    fresh, again = (reinitialised(module, layers, seed=3) for _ in range(2))
    other = reinitialised(module, layers, seed=4)
    for name, parameter in fresh.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
        assert torch.equal(module.get_parameter(name), before[name])
        if name not in ("visual.proj", tiny.IMAGE_MLP):
            assert torch.equal(parameter, before[name]), name
    assert not torch.equal(fresh.get_parameter("visual.proj"), before["visual.proj"])
    assert not torch.equal(fresh.get_parameter("visual.proj"), other.get_parameter("visual.proj"))


@pytest.mark.parametrize(
    ("name", "shape", "fan_in"),
    [
        ("visual.proj", (400, 100), 400),
        ("visual.head.proj.weight", (100, 400), 400),
        ("visual.conv1.weight", (100, 16, 5, 5), 400),
        ("transformer.resblocks.0.attn.in_proj_weight", (300, 100), 100),
    ],
)
def test_fresh_weights_have_the_scale_of_their_fan_in(
    name: str, shape: tuple[int, ...], fan_in: int
) -> None:
    drawn = fresh_weight(name, shape, torch.Generator().manual_seed(0))
    assert float(drawn.std()) == pytest.approx(fan_in**-0.5, rel=0.03)
    assert abs(float(drawn.mean())) < 0.05 * fan_in**-0.5


def test_an_unknown_layer_is_not_reinitialised() -> None:
    with pytest.raises(ModelError, match=r"visual\.proj"):
        reinitialised(disk.build("vit"), ("visual.porj",), seed=0)


# --- projections ---

SIDES: list[tuple[str, Side, str]] = [
    ("vit", "image", "visual.proj"),
    ("vit", "text", "text_projection"),
    ("siglip", "image", "visual.head.proj.weight"),
    ("siglip", "text", "text.text_projection.weight"),
    ("resnet", "image", "visual.attnpool.c_proj.weight"),
    ("timm-classifier", "image", "visual.trunk.head.fc.weight"),
]


@pytest.mark.parametrize(("name", "side", "parameter"), SIDES)
def test_features_times_projection_are_the_embeddings(
    name: str, side: Side, parameter: str
) -> None:
    module = disk.build(name)
    nn.init.normal_(module.logit_scale)  # type: ignore[arg-type]
    for key, value in module.named_parameters():
        if key.endswith(("proj.bias", "fc.bias")):
            nn.init.normal_(value)  # zero by default: a forgotten bias must show
    size = module.visual.image_size  # type: ignore[union-attr]
    size = size[0] if isinstance(size, tuple) else size
    images, _ = tiny.pairs(3, 0, size=size)  # type: ignore[arg-type]
    tokens = torch.randint(1, 400, (3, 16))
    tokens[:, 9] = 49407
    encode, inputs = (
        (module.encode_image, images) if side == "image" else (module.encode_text, tokens)
    )
    state = {key: value.clone() for key, value in module.state_dict().items()}
    with torch.no_grad():
        embedding = encode(inputs)  # type: ignore[operator]
        projection = find_projection(module, side)
        with without_projection(module, side):
            features = encode(inputs)  # type: ignore[operator]
        raw = features @ projection.weight
        if projection.bias is not None:
            raw = raw + projection.bias
        assert torch.equal(encode(inputs), embedding)  # type: ignore[operator]
    assert projection.name == parameter
    assert features.shape[1] == projection.weight.shape[0]
    torch.testing.assert_close(
        F.normalize(raw, dim=1), F.normalize(embedding, dim=1), rtol=1e-4, atol=1e-5
    )
    held = module.get_parameter(parameter).detach()
    assert torch.equal(projection.weight, held) or torch.equal(projection.weight, held.T)
    after = module.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[key], state[key]) for key in state)


@pytest.mark.parametrize(("name", "side", "parameter"), SIDES)
def test_the_projection_is_put_back_after_a_failure(name: str, side: Side, parameter: str) -> None:
    module = disk.build(name)
    held = module.get_parameter(parameter)
    with pytest.raises(KeyError), without_projection(module, side):
        raise KeyError
    assert module.get_parameter(parameter) is held


def test_a_tower_without_linear_projection_says_what_to_use() -> None:
    with pytest.raises(ModelError) as caught:
        find_projection(disk.build("timm-mlp"), "image")
    message = str(caught.value)
    assert "does not end in a linear projection" in message
    assert "TimmModel" in message
    assert "--mode snapshot" in message
    assert "--side" in message


def test_the_towers_class_is_named_for_the_text_side_too() -> None:
    module = disk.build("vit")
    module.text_projection = None
    with pytest.raises(ModelError, match="text tower"):
        find_projection(module, "text")


# --- devices ---


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "gpu"])
def test_a_device_that_is_not_here_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pick_device(name)
    assert repr(name) in str(caught.value)


def test_precision_is_a_context_of_the_device() -> None:
    cpu = pick_device("cpu")
    weight = torch.ones(2, 2)
    with autocast(cpu, "fp32"):
        assert (weight @ weight).dtype == torch.float32
    with autocast(cpu, "bf16"):
        assert (weight @ weight).dtype == torch.bfloat16
