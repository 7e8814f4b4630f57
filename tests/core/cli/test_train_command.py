"""A training run written as a command reads back to the same run; fresh weights by name."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.__main__ import app
from mimic_core.base.config import (
    HeadConfig,
    ProbeConfig,
    RunConfig,
    SourceConfig,
    TrainConfig,
    fresh_weights,
)
from mimic_core.base.errors import ConfigError
from mimic_core.cli import options as cli
from mimic_core.cli.commands import train_arguments, train_command
from mimic_core.cli.train import run_config
from mimic_core.jobs.record import JobOptions

PLAIN = RunConfig(
    source=SourceConfig(path="pool"), reference="ref", training=TrainConfig(model="start")
)
FULL = RunConfig(
    source=SourceConfig(
        path="my pool's", image_column="img", caption_column="text", sample=50, sample_seed=9
    ),
    reference="a b/ref",
    preprocess="openai",
    precision="bf16",
    training=TrainConfig(
        model="start", mimic_layers=("a.weight", "b.weight"), weighting="influence",
        reweight="all", temperature=0.5, method="cos", epochs=3, batch_size=16, accumulate=4,
        optimiser="sgd", learning_rate=0.01, weight_decay=0.1, momentum=0.5, schedule="cosine",
        warmup_steps=7, clip_norm=1.5, held_out=0.25, held_out_column="split=a 'test'",
        held_out_label_column="right",
        clean_column="noisy=false", clean_per_class=3, evaluate_every=100, flip=True,
        compile=True, seed=9,
    ),
)  # fmt: skip


def read_back(command: str) -> dict[str, Any]:
    """The options that the command line makes of ``command``."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:4] == ["python", "-m", "mimic_core", "train"]
    train: Any = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    options: dict[str, Any] = train.make_context("train", words[4:]).params
    return cli.given(options)


def test_every_setting_reads_back() -> None:
    options = read_back(
        train_command(FULL, JobOptions(device="cuda:1", workers=0), out="some where")
    )
    assert run_config(options) == FULL
    assert (options["device"], options["workers"]) == ("cuda:1", 0)
    assert options["out"] == Path("some where")


def test_defaults_are_not_said() -> None:
    assert train_command(PLAIN) == (
        "python -m mimic_core train pool \\\n  --model start --reference ref"
    )
    assert run_config(read_back(train_command(PLAIN))) == PLAIN


@settings(deadline=None, max_examples=60)
@given(
    rate=st.floats(min_value=1e-9, max_value=1e3, allow_nan=False),
    share=st.floats(min_value=0, max_value=0.99),
    seed=st.integers(0, 2**40),
    model=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1).filter(
        lambda text: not text.startswith("-") and text == text.strip() and text
    ),
)
def test_any_number_and_name_survives(rate: float, share: float, seed: int, model: str) -> None:
    training = TrainConfig(model=model, learning_rate=rate, held_out=share, seed=seed)
    config = PLAIN.model_copy(
        update={"training": training, "source": SourceConfig(path="p", sample_seed=seed)}
    )
    assert run_config(read_back(train_command(config))) == config


def test_labels_and_their_head_are_said() -> None:
    head = HeadConfig(trusted="clean=true", trusted_label_column="right", score_trusted=True)
    source = SourceConfig(path="pool", task="labels", label_column="noisy")
    labelled = PLAIN.model_copy(update={"source": source, "head": head})
    assert run_config(read_back(train_command(labelled))) == labelled
    groups = train_arguments(labelled)
    assert groups[2:] == [
        ["--task", "labels"],
        ["--label-column", "noisy"],
        ["--trusted", "clean=true"],
        ["--trusted-label-column", "right"],
        ["--score-trusted"],
    ]
    of_clip = HeadConfig(prompts=("a {}", "the {}"))
    words = PLAIN.model_copy(update={"head": of_clip})
    assert run_config(read_back(train_command(words))) == words
    of_file = PLAIN.model_copy(update={"head": HeadConfig(file="/weights/a head.safetensors")})
    assert run_config(read_back(train_command(of_file))) == of_file
    assert train_arguments(words)[2:] == [
        ["--prompt", "a {}"],
        ["--prompt", "the {}"],
    ]


def test_what_is_no_training_has_no_such_command() -> None:
    probe = RunConfig(source=SourceConfig(path="pool"), reference="r", probe=ProbeConfig())
    with pytest.raises(ConfigError, match="only a training run"):
        train_command(probe)


def test_a_sample_drawn_by_another_seed_cannot_be_said() -> None:
    source = SourceConfig(path="pool", sample=5, sample_seed=1)
    with pytest.raises(ConfigError, match="by the seed of the training"):
        train_command(PLAIN.model_copy(update={"source": source}))


def test_fresh_weights_have_the_architecture_of_the_reference(tmp_path: Path) -> None:
    config = f"{tmp_path}/open_clip_config.json:random:3"
    assert fresh_weights(str(tmp_path), 3) == config
    assert fresh_weights(f"local-dir:{tmp_path}/", 3) == config
    assert fresh_weights("ViT-B-32:openai", 0) == "ViT-B-32:random:0"
    assert fresh_weights("c.json:/weights/last.safetensors", 1) == "c.json:random:1"
    assert fresh_weights("timm:resnet18:a1_in1k", 2) == "timm:resnet18:random:2"
    assert fresh_weights("hf-hub:timm/ViT-B-16-SigLIP", 0) is None
    assert fresh_weights("ViT-B-32", 0) is None
