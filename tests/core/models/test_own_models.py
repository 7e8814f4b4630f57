"""``MODULE.py:FUNCTION``: a torch module that the user's own file builds."""

from __future__ import annotations

import pickle
import textwrap
from pathlib import Path

import polars as pl
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from mimic_core.base.config import RunConfig
from mimic_core.base.errors import ModelError
from mimic_core.features.loading import count_tokens
from mimic_core.models import classifiers
from mimic_core.models.load import load_model
from mimic_core.scoring.labels.class_head import ClassHead
from mimic_core.scoring.pipeline import score_pool
from mimic_core.scoring.training.classifier_pair import pair_classifiers, require_layers
from tests.core.scoring_pool import picture

CLASSIFIER = """
    import torch
    from torch import nn

    class Net(nn.Module):
        classes = ("cat", "dog", "owl")

        def __init__(self, width=8):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.ReLU())
            self.fc = nn.Linear(width, 3)

        def forward(self, images):
            return self.fc(self.body(images).mean((2, 3)))

    class Backbone(Net):
        def forward(self, images):
            return self.body(images).mean((2, 3))

        def __init__(self):
            super().__init__()
            del self.fc

    def build():
        return Net()

    def backbone():
        return Backbone()

    def nothing():
        return None

    def fails():
        raise RuntimeError("no such weights")

    def with_arguments(path):
        return Net()

    def no_rows():
        return nn.Conv2d(3, 2, 3)

    def bad_tokenizer():
        return Net(), 3

    def no_towers():
        return Net(), lambda texts: torch.zeros(len(texts), 4).long()

    number = 3
"""
TWO_TOWERS = """
    import torch
    from torch import nn
    from words import SIZE

    class Tokenizer:
        def __call__(self, texts):
            rows = [[1 + ord(c) % (SIZE - 1) for c in text[:8]] for text in texts]
            return torch.tensor([row + [0] * (8 - len(row)) for row in rows])

    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = nn.Module()
            self.visual.body = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU())
            self.visual.proj = nn.Parameter(torch.randn(8, 6) / 3)
            self.words = nn.EmbeddingBag(SIZE, 6)
            self.logit_scale = nn.Parameter(torch.tensor(2.0))

        def encode_image(self, images, normalize=False):
            seen = self.visual.body(images).mean((2, 3))
            if self.visual.proj is not None:
                seen = seen @ self.visual.proj
            return nn.functional.normalize(seen, dim=-1) if normalize else seen

        def encode_text(self, tokens, normalize=False):
            read = self.words(tokens)
            return nn.functional.normalize(read, dim=-1) if normalize else read

    def build():
        return Towers(), Tokenizer()

    def other():
        torch.manual_seed(7)
        return build()
"""


@pytest.fixture
def preprocess(tmp_path: Path) -> str:
    file = tmp_path / "preprocess.json"
    file.write_text('{"size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}')
    return str(file)


def write(folder: Path, code: str, name: str = "own.py") -> Path:
    file = folder / name
    file.write_text(textwrap.dedent(code))
    return file


def test_a_classifier_of_ones_own_loads_frozen_and_repeats(tmp_path: Path, preprocess: str) -> None:
    file = write(tmp_path, CLASSIFIER)
    loaded, again = (load_model(f"{file}:build", preprocess=preprocess) for _ in range(2))
    assert loaded.identity == again.identity
    assert loaded.classes == ("cat", "dog", "owl")
    assert (loaded.tokenizer, loaded.preprocessing["size"]) == (None, [16, 16])
    assert not any(p.requires_grad for p in loaded.module.parameters())
    images = torch.randn(2, 3, 16, 16)
    head = classifiers.head(loaded.module)
    features = classifiers.features(loaded.module, images)
    torch.testing.assert_close(head(features), loaded.module(images))
    assert classifiers.head_name(loaded.module) == "fc"


def test_the_source_is_part_of_the_identity(tmp_path: Path, preprocess: str) -> None:
    """Equal weights compute other features where the code differs."""
    one = write(tmp_path, CLASSIFIER, "one.py")
    other = write(tmp_path, CLASSIFIER.replace("nn.ReLU", "nn.GELU"), "other.py")
    first, second = (load_model(f"{f}:build", preprocess=preprocess) for f in (one, other))
    assert first.identity != second.identity


def test_a_backbone_without_a_classifier_gives_features(tmp_path: Path, preprocess: str) -> None:
    loaded = load_model(f"{write(tmp_path, CLASSIFIER)}:backbone", preprocess=preprocess)
    assert classifiers.linear_head(loaded.module) is None
    assert classifiers.features(loaded.module, torch.zeros(2, 3, 16, 16)).shape == (2, 8)
    with pytest.raises(ModelError, match="does not end in a linear layer"):
        classifiers.head(loaded.module)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("missing", "no such function"),
        ("number", "no such function"),
        ("nothing", "returns no torch module"),
        ("fails", "failed in line .*RuntimeError: no such weights"),
        ("with_arguments", "TypeError: .*missing 1 required positional argument"),
        ("bad_tokenizer", "tokenizer cannot be called"),
        ("no_towers", "lacks what captions need.*got 'encode_image, encode_text, logit_scale'"),
    ],
)
def test_each_misuse_is_told(function: str, problem: str, tmp_path: Path, preprocess: str) -> None:
    file = write(tmp_path, CLASSIFIER)
    with pytest.raises(ModelError, match=problem) as caught:
        load_model(f"{file}:{function}", preprocess=preprocess)
    assert "without arguments" in str(caught.value.allowed)


@pytest.mark.parametrize("code", ["import nothing_of_that_name", "def build(:", "1 / 0"])
def test_a_file_that_cannot_be_imported_is_told(code: str, tmp_path: Path, preprocess: str) -> None:
    file = write(tmp_path, code)
    with pytest.raises(ModelError, match="the function failed"):
        load_model(f"{file}:build", preprocess=preprocess)


def test_a_module_without_a_place_for_a_head_cannot_be_trained_and_says_so(
    tmp_path: Path, preprocess: str
) -> None:
    loaded = load_model(f"{write(tmp_path, CLASSIFIER)}:build", preprocess=preprocess)
    head = ClassHead(("cat", "dog"), torch.zeros(2, 8), torch.zeros(2))
    with pytest.raises(ModelError, match=r"no place for one.*Net.*reset_classifier"):
        require_layers(loaded, ["fc.weight"])
    with pytest.raises(ModelError, match=r"no place for one.*Net.*reset_classifier"):
        pair_classifiers(loaded, loaded, head, seed=0, note=lambda _: None)


def test_the_preprocessing_must_be_given_whole(tmp_path: Path, preprocess: str) -> None:
    file = write(tmp_path, CLASSIFIER)
    with pytest.raises(ModelError, match="module of your own"):
        load_model(f"{file}:build")
    with pytest.raises(ModelError, match="nothing says the size"):
        load_model(f"{file}:build", preprocess="imagenet")
    Path(preprocess).write_text('{"size": 1, "mean": [0, 0, 0], "std": [1, 1, 1]}')
    with pytest.raises(ModelError, match="cannot take images"):
        load_model(f"{file}:build", preprocess=preprocess)


def test_labelled_images_are_scored_on_a_module_of_ones_own(
    tmp_path: Path, preprocess: str
) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    labels = [("cat", "dog", "owl")[n % 3] for n in range(12)]
    images = [{"bytes": picture(n), "path": f"{n}.png"} for n in range(12)]
    pl.DataFrame({"image": images, "label": labels}).write_parquet(pool / "images.parquet")
    file = write(tmp_path, CLASSIFIER)
    for function, head in (("build", None), ("backbone", {"trusted": "50%"})):
        config: RunConfig = RunConfig.parse(
            {
                "source": {"path": str(pool), "task": "labels", "label_column": "label"},
                "reference": f"{file}:{function}",
                "preprocess": preprocess,
                "head": head,
                "probe": {"epochs": 1, "batch_size": 4},
            }
        )
        run = score_pool(config, runs_root=tmp_path / "runs", device="cpu", workers=0)
        assert run.record.samples == (12 if head is None else 6)
        assert max(run.record.self_check.values()) < 1e-3


def test_captions_are_scored_on_two_towers_of_ones_own(tmp_path: Path, preprocess: str) -> None:
    """The file imports its neighbour, and its tokenizer goes to loading processes."""
    write(tmp_path, "SIZE = 50", "words.py")
    file = write(tmp_path, TWO_TOWERS)
    loaded = load_model(f"{file}:build", preprocess=preprocess)
    assert loaded.loss == "clip"
    assert loaded.tokenizer is not None
    again = pickle.loads(pickle.dumps(loaded.tokenizer))  # noqa: S301
    assert torch.equal(again(["a cat", "dog"]), loaded.tokenizer(["a cat", "dog"]))
    assert count_tokens(loaded.tokenizer, "a cat") is None  # it cannot tell
    pool = tmp_path / "pool"
    pool.mkdir()
    images = [{"bytes": picture(n), "path": f"{n}.png"} for n in range(8)]
    frame = pl.DataFrame({"image": images, "caption": [f"caption {n}" for n in range(8)]})
    frame.write_parquet(pool / "images.parquet")
    config: RunConfig = RunConfig.parse(
        {
            "source": {"path": str(pool)},
            "reference": f"{file}:build",
            "preprocess": preprocess,
            "probe": {"epochs": 1, "batch_size": 4},
        }
    )
    run = score_pool(config, runs_root=tmp_path / "runs", device="cpu", workers=0)
    assert run.record.samples == 8
    assert run.record.mimic_layers == ("visual.proj",)
    values = config.model_dump() | {"probe": None}
    for model in (None, f"{file}:other"):
        layers = ["visual.proj"]
        snapshot = {"model": model, "mimic_layers": layers, "batch_size": 4, "repeats": 2}
        fixed: RunConfig = RunConfig.parse(values | {"snapshot": snapshot})
        run = score_pool(fixed, runs_root=tmp_path / "runs", device="cpu", workers=0)
        assert (run.record.samples, run.record.mimic_layers) == (8, ("visual.proj",))
        assert max(run.record.self_check.values()) < 1e-3  # against reverse mode


def test_a_tokenizer_without_a_row_for_each_text_is_told(tmp_path: Path, preprocess: str) -> None:
    write(tmp_path, "SIZE = 50", "words.py")
    code = TWO_TOWERS.replace("return torch.tensor([row", "return torch.tensor([[row").replace(
        "for row in rows])", "for row in rows]])"
    )
    loaded = load_model(f"{write(tmp_path, code)}:build", preprocess=preprocess)
    assert loaded.tokenizer is not None
    with pytest.raises(ModelError, match="one row of tokens for each text"):
        loaded.tokenizer(["a", "b"])


# --- architectures that a user has registered with timm ---


class Registered(nn.Module):
    """As people write them: no config, and a head whatever the number of classes."""

    def __init__(self, num_classes: int = 10, **_: object) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, num_classes)
        self.pretrained_cfg = self.default_cfg = {"input_size": (3, 32, 32)}

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.stem(images).mean((2, 3))

    def forward_head(self, seen: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return seen if pre_logits else self.head(seen)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        return self.head


def mimicscope_registered(
    pretrained: bool = False,
    pretrained_cfg: object = None,
    pretrained_cfg_overlay: object = None,
    cache_dir: object = None,
    **options: int,
) -> nn.Module:
    return Registered(**options)


@pytest.fixture
def registered() -> str:
    name = "mimicscope_registered"
    if not timm.is_model(name):
        timm.models.register_model(mimicscope_registered)
    return name


def test_a_registered_architecture_keeps_its_classifier(registered: str, tmp_path: Path) -> None:
    module = Registered(5)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    loaded = load_model(f"timm:{registered}:{tmp_path / 'w.safetensors'}", preprocess="imagenet")
    assert classifiers.head(loaded.module).out_features == 5
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded.module(images), module(images))


def test_a_registered_architecture_survives_weights_without_a_classifier(
    registered: str, tmp_path: Path
) -> None:
    """It is asked for no classes and builds a layer of no outputs, which no file holds."""
    stem = {k: v for k, v in Registered().state_dict().items() if k.startswith("stem.")}
    save_file(stem, tmp_path / "w.safetensors")
    loaded = load_model(f"timm:{registered}:{tmp_path / 'w.safetensors'}", preprocess="imagenet")
    assert classifiers.linear_head(loaded.module) is None
    assert classifiers.features(loaded.module, torch.zeros(2, 3, 32, 32)).shape == (2, 4)
