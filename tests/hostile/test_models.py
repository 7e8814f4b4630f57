"""Models as strangers send them: their code never runs, their size is known before it is built.

Every case ends in a ``ModelError`` that says what is wrong, what was got, what is allowed and what
to do. Whatever could run writes a marker file, which must not appear.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import socket
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file

from mimic_core.base.errors import ModelError
from mimic_core.models.load import load_model
from mimic_core.scoring.labels.class_head import read_class_head
from tests.core import checkpoints_on_disk as disk
from tests.hostile.runner import Hostile

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(autouse=True)
def own_temporary_folder(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Libraries' temporary files count as the case's own output."""
    place = hostile.out / "temporary"
    place.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return None


def refused(hostile: Hostile, text: str, says: str = "", **named: Any) -> ModelError:
    """The error that loading ``text`` ends in; complete."""
    error = hostile.error(load_model, text, says=says, **named)
    assert isinstance(error, ModelError)
    assert error.problem
    assert error.got is not None
    assert error.allowed
    assert error.next_step
    return error


# --- code ---

# What a model's author would hide; importing it, or unpickling ``Payload``, leaves the marker.
CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import BertConfig, BertModel, BertTokenizer
class Config(BertConfig):
    model_type = "strange"
class Model(BertModel):
    config_class = Config
class Tokenizer(BertTokenizer):
    pass
"""
SPECIAL = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]"
AUTO_MAP = {
    "AutoConfig": "code.Config",
    "AutoModel": "code.Model",
    "AutoTokenizer": ["code.Tokenizer", None],
}
BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 120,
    "max_position_embeddings": 32,
}


class Payload:
    """Leaves a marker when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(hostile: Hostile) -> Iterator[Path]:
    place = hostile.root / "marker"
    yield place
    assert not place.exists(), "a model's own code has run"


def add_code(folder: Path, marker: Path, **tokenizer: Any) -> None:
    """Code, and configs of transformers that ask for it, beside a model."""
    (folder / "code.py").write_text(CODE.format(marker=str(marker)))
    (folder / "config.json").write_text(json.dumps({**BERT, "auto_map": AUTO_MAP}))
    asks = {"tokenizer_class": "Tokenizer", "auto_map": AUTO_MAP, **tokenizer}
    (folder / "tokenizer_config.json").write_text(json.dumps(asks))
    (folder / "vocab.txt").write_text(SPECIAL)


def changed_config(folder: Path, change: Change) -> None:
    file = folder / "open_clip_config.json"
    written = json.loads(file.read_text())
    change(written["model_cfg"])
    file.write_text(json.dumps(written))


def trusting(config: dict[str, Any]) -> None:
    config["text_cfg"] = {
        **config["text_cfg"],
        "hf_tokenizer_name": "someone/strange",
        "tokenizer_kwargs": {"trust_remote_code": True},
    }


def asking(config: dict[str, Any]) -> None:
    config["text_cfg"] = {**config["text_cfg"], "hf_tokenizer_name": "someone/strange"}


def strange_tower(source: str) -> Change:
    def change(config: dict[str, Any]) -> None:
        config["text_cfg"] = {
            "hf_model_name": source,
            "hf_tokenizer_name": source,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "linear",
        }

    return change


def test_the_trap_is_real(tmp_path: Path) -> None:
    """open_clip itself runs that code."""
    folder = disk.write_model(tmp_path / "model")
    add_code(folder, tmp_path / "ran")
    changed_config(folder, trusting)
    open_clip.get_tokenizer(f"local-dir:{folder}")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("change", [trusting, asking])
@pytest.mark.parametrize("way", ["folder", "config", "hub"])
def test_code_beside_a_tokenizer_never_runs(
    way: str, change: Change, hostile: Hostile, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = disk.write_model(hostile.root / "model")
    add_code(folder, marker)
    changed_config(folder, change)
    cache = {"someone/strange": folder}
    disk.fake_hub(hostile.root / "cache", monkeypatch, cache)
    weights = folder / "open_clip_model.safetensors"
    text = {
        "folder": str(folder),
        "config": f"{folder / 'open_clip_config.json'}:{weights}",
        "hub": "hf-hub:someone/strange",
    }[way]
    error = refused(hostile, text, "code")
    named = "trust_remote_code" if change is trusting else "auto_map"
    assert named in str(error)


@pytest.mark.parametrize("way", ["folder", "config", "hub", "random"])
@pytest.mark.parametrize("tower", ["local", "hub"])
def test_code_of_a_text_tower_never_runs(
    tower: str, way: str, hostile: Hostile, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = hostile.root / "strange"
    strange.mkdir()
    add_code(strange, marker)
    folder = disk.write_model(hostile.root / "model")
    source = str(strange) if tower == "local" else "someone/tower"
    changed_config(folder, strange_tower(source))
    cache = {"someone/tower": strange, "someone/model": folder}
    disk.fake_hub(hostile.root / "cache", monkeypatch, cache)
    config = folder / "open_clip_config.json"
    text = {
        "folder": str(folder),
        "config": f"{config}:{folder / 'open_clip_model.safetensors'}",
        "hub": "hf-hub:someone/model",
        "random": f"{config}:random:0",
    }[way]
    refused(hostile, text, "auto_map")


def test_pickles_of_a_text_tower_are_never_read(hostile: Hostile, marker: Path) -> None:
    """A harmless tower's folder is used for its config alone."""
    strange = hostile.root / "strange"
    strange.mkdir()
    (strange / "config.json").write_text(json.dumps(BERT))
    (strange / "vocab.txt").write_text(f"{SPECIAL}\ncat")
    for name in ("pytorch_model.bin", "vocab.pkl", "added_tokens.pt", "tokenizer.pickle"):
        (strange / name).write_bytes(pickle.dumps(Payload(marker)))
    config = disk.write_config(hostile.root / "model")
    changed_config(config.parent, strange_tower(str(strange)))
    loaded = load_model(f"{config}:random:0")
    assert loaded.tokenizer is not None
    assert loaded.tokenizer(["cat"]).shape[0] == 1


@pytest.mark.parametrize(
    "asks",
    [
        {"attn_implementation": "someone/kernel"},
        {"_attn_implementation": "someone/kernel"},
        {"quantization_config": {"quant_method": "strange"}},
        {"trust_remote_code": True},
        {"custom_generate": "code.py"},
        {"model_type": "strange"},
        {"model_type": None},
        {"model_type": ["bert"]},
    ],
)
def test_a_text_tower_that_asks_for_more_is_refused(
    asks: dict[str, Any], hostile: Hostile, marker: Path
) -> None:
    strange = hostile.root / "strange"
    strange.mkdir()
    (strange / "config.json").write_text(json.dumps({**BERT, **asks}))
    config = disk.write_config(hostile.root / "model")
    changed_config(config.parent, strange_tower(str(strange)))
    refused(hostile, f"{config}:random:0")


@pytest.mark.parametrize("name", ["model.bin", "pytorch_model.bin", "model.pth"])
@pytest.mark.parametrize("way", ["folder", "hub", "file"])
@pytest.mark.parametrize("library", ["open_clip", "timm"])
def test_pickled_weights_are_never_unpickled(
    library: str, way: str, name: str, hostile: Hostile, marker: Path, monkeypatch: Any
) -> None:
    folder = hostile.root / "model"
    if library == "open_clip":
        config, prefix = disk.write_config(folder), ""
        name = {"pytorch_model.bin": "open_clip_pytorch_model.bin"}.get(name, name)
        arch = str(config)
    else:
        folder.mkdir()
        settings = {"mean": [0, 0, 0], "std": [1, 1, 1], "input_size": [3, 32, 32]}
        whole = {**settings, "interpolation": "bicubic", "crop_pct": 1.0}
        written = {"architecture": "test_resnet", "pretrained_cfg": whole}
        (folder / "config.json").write_text(json.dumps(written))
        arch, prefix = "timm:test_resnet", "timm:"
    if way == "hub" and name == "model.bin":
        name = "pytorch_model.bin" if library == "timm" else "open_clip_pytorch_model.bin"
    (folder / name).write_bytes(pickle.dumps({"state_dict": Payload(marker)}))
    disk.fake_hub(hostile.root / "cache", monkeypatch, {"someone/strange": folder})
    text = {
        "folder": f"{prefix}{folder}",
        "hub": f"{prefix}hf-hub:someone/strange",
        "file": f"{arch}:{folder / name}",
    }[way]
    refused(hostile, text)


def test_no_config_leads_to_a_users_own_module(hostile: Hostile, marker: Path) -> None:
    """``MODULE.py:FUNCTION`` is a person's to say."""
    (hostile.root / "code.py").write_text(f"open({str(marker)!r}, 'w')\ndef build(): ...\n")
    own = f"{hostile.root / 'code.py'}:build"
    config = disk.write_config(hostile.root / "model")

    def tower(written: dict[str, Any]) -> None:
        written["vision_cfg"] = {"timm_model_name": own}

    changed_config(config.parent, tower)
    refused(hostile, f"{config}:random:0", "timm_model_name")
    changed_config(config.parent, strange_tower(own))
    changed_config(config.parent, lambda c: c.update(vision_cfg=disk.CONFIGS["vit"]["vision_cfg"]))
    refused(hostile, f"{config}:random:0")


@pytest.mark.parametrize(
    "arguments",
    [
        {"checkpoint_path": "code.pth"},
        {"pretrained_cfg": {"file": "code.pth"}},
        {"trust_remote_code": True},
        {"features_only": True},
        {"in_chans": 1},
        {"depth": 10**9},
        {"img_size": [1, 2, 3]},
        {"act_layer": "os.system"},
        {"": 1},
    ],
)
def test_arguments_of_a_timm_config_are_named_one_by_one(
    arguments: dict[str, Any], hostile: Hostile, marker: Path
) -> None:
    folder = hostile.root / "model"
    folder.mkdir()
    save_file(timm.create_model("test_resnet").state_dict(), folder / "model.safetensors")
    settings = {"mean": [0, 0, 0], "std": [1, 1, 1], "input_size": [3, 32, 32]}
    written = {
        "architecture": "test_resnet",
        "pretrained_cfg": {**settings, "interpolation": "bicubic", "crop_pct": 1.0},
        "model_args": arguments,
    }
    (folder / "config.json").write_text(json.dumps(written))
    refused(hostile, str(folder), next(iter(arguments)))


# --- configs ---


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def put(*path: str) -> Callable[[Any], Change]:
    """Changes that put a value at ``path`` of a model config."""

    def with_value(value: Any) -> Change:
        def change(config: dict[str, Any]) -> None:
            inner = config
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value

        return change

    return with_value


def drop(*path: str) -> Change:
    def change(config: dict[str, Any]) -> None:
        inner = config
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]

    return change


_VISION, _TEXT = put("vision_cfg"), put("text_cfg")
MALFORMED: dict[str, Change] = {
    **{f"embed_dim {v!r}": put("embed_dim")(v) for v in (0, -8, "8", None, 1.5, True, 10**12, [8])},
    **{f"vision {v!r}": _VISION(v) for v in (None, [], 3, "vit", True)},
    **{f"text {v!r}": _TEXT(v) for v in (None, [], 3, "bert", False)},
    **{
        f"vision {key} {v!r}": put("vision_cfg", key)(v)
        for key, values in {
            "layers": (-1, "2", 10**9, [1, 1], [1, -1, 1, 1], None, {}),
            "width": (0, -32, 10**9, "32", None, 33),
            "head_width": (0, 10**6),
            "patch_size": (0, -8, "8", 10**6, 64),
            "image_size": (0, -16, 10**9, "16", [16, 16, 16], [], None),
            "mlp_ratio": (-4, 0, 1e300, "4", None),
            "pool_type": ("strange", 3),
            "act_kwargs": ({"approximate": "os.system"}, {"inplace": True}, "gelu"),
            "timm_model_name": ("hf-hub:someone/strange", "../../etc", "no_such_model", 7, "a b"),
            "unknown_key": (1,),
        }.items()
        for v in values
    },
    **{
        f"text {key} {v!r}": put("text_cfg", key)(v)
        for key, values in {
            "context_length": (0, -1, 10**9, "16", None),
            "vocab_size": (0, -1, 10**12, "x"),
            "width": (0, -1, 10**9, 33),
            "heads": (0, -1, 3, "2"),
            "layers": (-1, 10**9, "2", 1.5),
            "hf_tokenizer_name": (3, ["a"], "nowhere/at/all", "nul\0name"),
            "hf_model_name": (3, "nowhere/at/all", "../strange"),
            "tokenizer_kwargs": ("x", {"auto_map": {}}, {"use_fast": "x"}, {"clean": "ftfy"}),
            "tokenizer_mode": ("strange", 1),
            "norm_kwargs": ({"eps": "x"}, {"eps": -1}, []),
        }.items()
        for v in values
    },
    "no embed_dim": drop("embed_dim"),
    "no vision_cfg": drop("vision_cfg"),
    "no text_cfg": drop("text_cfg"),
    "init_logit_scale nan": put("init_logit_scale")(float("nan")),
    "init_logit_scale text": put("init_logit_scale")("1"),
    "init_logit_bias list": put("init_logit_bias")([1]),
    "cast_dtype": put("cast_dtype")("fp16"),
    "custom_text text": put("custom_text")("yes"),
    "multimodal_cfg text": put("multimodal_cfg")("x"),
    "a key of a megabyte": put("k" * 1_000_000)(1),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=[name[:60] for name in MALFORMED])
def test_malformed_configs_are_refused(
    change: Change, hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.fake_hub(hostile.root / "cache", monkeypatch, {})
    config = copy.deepcopy(disk.CONFIGS["vit"])
    change(config)
    file = hostile.root / "strange.json"
    file.write_text(json.dumps(config))
    error = refused(hostile, f"{file}:random:0", preprocess="openai")
    assert len(str(error)) < 6000


RAW: dict[str, bytes] = {
    "empty": b"",
    "not json": b"{not json",
    "not utf-8": b"\xff\xfe\x00{",
    "a list": b"[]",
    "a number": b"3",
    "null": b"null",
    "model_cfg a number": b'{"model_cfg": 3}',
    "model_cfg null": b'{"model_cfg": null}',
    "deep": deep(100_000).encode(),
    "a number of 5,000 digits": b'{"embed_dim": ' + b"9" * 5000 + b"}",
    "5 megabytes": b'{"embed_dim": 8, "a": "' + b"x" * 5_000_000 + b'"}',
    "NUL": b"\0" * 100,
}


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("place", ["open_clip", "timm", "beside", "preprocess"])
def test_files_that_are_no_configs_are_refused(name: str, place: str, hostile: Hostile) -> None:
    folder = disk.write_model(hostile.root / "model")
    file = folder / "open_clip_config.json"
    text, named = str(folder), {}
    if place == "timm":
        file, text = folder / "config.json", f"timm:{folder}"
    elif place == "beside":
        bare = hostile.root / "bare.json"
        bare.write_text(json.dumps(disk.CONFIGS["vit"]))
        text = f"{bare}:{folder / 'open_clip_model.safetensors'}"
    elif place == "preprocess":
        file = hostile.root / "preprocess.json"
        named = {"preprocess": str(file)}
    file.write_bytes(RAW[name])
    refused(hostile, text, **named)


def test_a_config_of_115_billion_parameters_is_refused_before_anything_is_allocated(
    hostile: Hostile,
) -> None:
    folder = disk.write_model(hostile.root / "model")

    def huge(config: dict[str, Any]) -> None:
        config["vision_cfg"] |= {"width": 16_384, "layers": 40, "head_width": 128}

    changed_config(folder, huge)
    error = refused(hostile, str(folder), "far too few")
    assert "numbers" in str(error.allowed)
    wide = {"width": 32_768, "layers": 200, "head_width": 128}
    changed_config(folder, lambda config: config["vision_cfg"].update(wide))
    refused(hostile, f"{folder / 'open_clip_config.json'}:random:0", "more than this machine")


def test_a_table_of_positions_without_bound_is_refused(hostile: Hostile) -> None:
    """It would be computed while everything else is only counted."""
    config = copy.deepcopy(disk.CONFIGS["vit"])
    config["vision_cfg"] |= {"image_size": 8192, "patch_size": 1, "pos_embed_type": "sin_cos_2d"}
    file = hostile.root / "strange.json"
    file.write_text(json.dumps(config))
    refused(hostile, f"{file}:random:0", "image_size", preprocess="openai")


# --- names ---

NAMES = [
    "",
    ":",
    "::",
    "ViT-B-32",
    "ViT-B-32:",
    "ViT-B-32:random:",
    "ViT-B-32:random",
    "ViT-B-32:random:-1",
    "ViT-B-32:random:1.5",
    "ViT-B-32:random:0x10",
    "ViT-B-32:random:٣",
    "ViT-B-32:random:1:2",
    "ViT-B-32:random: 1",
    f"ViT-B-32:random:{2**64}",
    f"ViT-B-32:random:{'9' * 5000}",
    "ViT-B-32:randomly",
    "ViT-B-32:openai:extra",
    "vit-b-32:random:0",
    "ViT-B-32\0:random:0",
    "ViT-B-32:/dev/zero",
    "ViT-B-32:/dev/null",
    "ViT-B-32:/proc/self/mem",
    "ViT-B-32:\udcff",
    "/dev/zero",
    "/dev/zero:random:0",
    "/",
    "x" * 100_000,
    "ViT-B-32:" + "x" * 100_000,
    "../" * 2000,
    "hf-hub:",
    "hf-hub:name",
    "hf-hub:../../etc/passwd",
    "hf-hub:a/b/c",
    "hf-hub:a/b\0",
    "hf-hub:nobody/nothing",
    "hf-hub:nobody/nothing@" + "r" * 300,
    "local-dir:",
    "local-dir:/nowhere",
    "timm:",
    "timm::",
    "timm:resnet18",
    "timm:resnet18:",
    "timm:resnet18:random:",
    "timm:resnet18:random",
    "timm:resnet18:random:-1",
    f"timm:resnet18:random:{2**64}",
    "timm:resnet18.a1_in1k:random:",
    "timm:resnet18.nothing:random:0",
    "timm:hf-hub:timm/resnet18.a1_in1k",
    "timm:hf-hub:",
    "timm:/nowhere:random:0",
    "timm:*:random:0",
    "timm:resnet18:/dev/zero",
    "timm:timm:resnet18:random:0",
    "model.py",
    "model.py:",
    "model.py:build",
    "model.py:build()",
    "model.py:os.system",
    "/dev/zero.py:build",
]


@pytest.mark.parametrize("text", NAMES, ids=[repr(name)[:50] for name in NAMES])
def test_odd_names_are_refused(
    text: str, hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.fake_hub(hostile.root / "cache", monkeypatch, {})
    refused(hostile, text)


def test_no_seed_is_taken_in_silence_and_the_largest_is_taken(hostile: Hostile) -> None:
    config = disk.write_config(hostile.root / "model")
    assert load_model(f"{config}:random:{2**64 - 1}").spec.seed == 2**64 - 1
    refused(hostile, f"{config}:random:", "whole number")
    (hostile.root / "random").write_bytes(b"weights")
    refused(hostile, f"{config}:random", "the checkpoint")  # it is a file here


# --- weights ---


def header(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def compressed(value: Any) -> bytes:
    """A torch file of a few kilobytes that would be a gigabyte in memory."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved(value))) as plain,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    return buffer.getvalue()


WEIGHTS: dict[str, Callable[[], bytes]] = {
    "empty.safetensors": lambda: b"",
    "none.safetensors": lambda: header(b"{}"),
    "metadata.safetensors": lambda: header(b'{"__metadata__": {"classes": "["}}'),
    "long_header.safetensors": lambda: struct.pack("<Q", 2**63) + b"{}",
    "lying_header.safetensors": lambda: struct.pack("<Q", 10**8) + b"{}",
    "outside.safetensors": lambda: header(
        b'{"a": {"dtype": "F32", "shape": [1000000000], "data_offsets": [0, 4000000000]}}'
    ),
    "negative.safetensors": lambda: header(
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}'
    ),
    "overflow.safetensors": lambda: header(
        b'{"a": {"dtype": "F32", "shape": [9223372036854775807, 9], "data_offsets": [0, 4]}}'
    ),
    "strange_type.safetensors": lambda: header(
        b'{"a": {"dtype": "X99", "shape": [1], "data_offsets": [0, 4]}}'
    ),
    "text.safetensors": lambda: b"<html>not found</html>",
    "pointer.safetensors": lambda: b"version https://git-lfs.github.com/spec/v1\n",
    "empty.pt": lambda: b"",
    "text.pt": lambda: b"<html>not found</html>",
    "zeros.pt": lambda: b"\0" * 4096,
    "cut.pt": lambda: saved(disk.build().state_dict())[:5000],
    "list.pt": lambda: saved([1, 2, 3]),
    "number.pt": lambda: saved(3),
    "nothing.pt": lambda: saved({}),
    "nested.pt": lambda: saved({"state_dict": {"state_dict": {"a": torch.zeros(1)}}}),
    "expanded.pt": lambda: saved({"a": torch.zeros(1).expand(10**5, 10**5)}),
    "sparse.pt": lambda: saved(
        {"a": torch.sparse_coo_tensor(torch.zeros(2, 1).long(), torch.ones(1), (10**6, 10**6))}
    ),
    "meta.pt": lambda: saved({"a": torch.zeros(10**6, 10**6, device="meta")}),
    "quantised.pt": lambda: saved(
        {"a": torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.quint8)}
    ),
    "compressed.pt": lambda: compressed({"a": torch.zeros(10**6)}),
    "names.pt": lambda: saved({1: torch.zeros(1), None: torch.zeros(1)}),
    "module.pt": lambda: saved({"module.": torch.zeros(1)}),
    "pickle.pt": lambda: pickle.dumps({"a": 1}),
    "deep.pt": lambda: b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".",
    "whole_module.pt": lambda: saved(torch.nn.Linear(1, 1)),
    "npz.npz": lambda: b"PK\x05\x06" + b"\0" * 18,
    "npy.npy": lambda: b"\x93NUMPY\x01\x00",
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("library", ["open_clip", "timm", "head"])
def test_strange_weights_are_refused(name: str, library: str, hostile: Hostile) -> None:
    config = disk.write_config(hostile.root / "model")
    file = hostile.root / "model" / name
    file.write_bytes(WEIGHTS[name]())
    if library == "head":
        error = hostile.error(read_class_head, file, width=3, labels=("a", "b"))
        assert isinstance(error, ModelError)
        return
    arch = str(config) if library == "open_clip" else "timm:test_resnet"
    refused(hostile, f"{arch}:{file}", preprocess="imagenet")


@pytest.mark.parametrize("kind", ["fifo", "zero", "folder", "socket", "loop"])
@pytest.mark.parametrize("place", ["weights", "in a folder", "config", "preprocess", "head"])
def test_only_regular_files_are_read(kind: str, place: str, hostile: Hostile) -> None:
    folder = disk.write_model(hostile.root / "m")
    weights, config = folder / "open_clip_model.safetensors", folder / "open_clip_config.json"
    strange = {
        "weights": hostile.root / "s.safetensors",
        "in a folder": weights,
        "config": config,
        "preprocess": hostile.root / "p.json",
        "head": hostile.root / "h.safetensors",
    }[place]
    strange.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(strange)
    elif kind == "zero":
        strange.symlink_to("/dev/zero")
    elif kind == "folder":
        strange.mkdir()
    elif kind == "loop":
        strange.symlink_to(strange)
    else:
        before = Path.cwd()
        os.chdir(strange.parent)  # the names of sockets are short
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(strange.name)
        os.chdir(before)
    if place == "head":
        error = hostile.error(read_class_head, strange, width=3, labels=("a", "b"))
        assert isinstance(error, ModelError)
        return
    text = f"{config}:{strange}" if place == "weights" else str(folder)
    refused(hostile, text, preprocess=str(strange) if place == "preprocess" else None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_refused(hostile: Hostile) -> None:
    folder = disk.write_model(hostile.root / "model")
    (folder / "open_clip_model.safetensors").chmod(0)
    refused(hostile, str(folder))


def test_two_files_of_weights_are_not_chosen_between_in_silence(hostile: Hostile) -> None:
    folder = disk.write_model(hostile.root / "model")
    held = (folder / "open_clip_model.safetensors").rename(folder / "a.safetensors")
    (folder / "b.safetensors").write_bytes(held.read_bytes())
    refused(hostile, str(folder), "several files")


def test_the_command_line_says_it_without_a_traceback(hostile: Hostile) -> None:
    folder = disk.write_model(hostile.root / "model")
    changed_config(folder, trusting)
    pool = hostile.root / "pool"
    pool.mkdir()
    (pool / "captions.csv").write_text("image,caption\na.png,a cat\n")
    for reference in (str(folder), "ViT-B-32:random:", "timm:resnet18:/dev/zero"):
        hostile.refused("score", pool, "--reference", reference, "--runs", hostile.out)
