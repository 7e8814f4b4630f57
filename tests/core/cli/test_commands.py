"""A run or a proof written as a command reads back to the same one; fresh weights by name."""

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
    SnapshotConfig,
    SourceConfig,
    TrainConfig,
)
from mimic_core.base.errors import ConfigError
from mimic_core.base.specification import fresh_weights
from mimic_core.cli import options as cli
from mimic_core.cli.commands import export_command, prove_command, run_arguments, run_command
from mimic_core.export.settings import ExportConfig
from mimic_core.filters.recipe import Recipe
from mimic_core.jobs.options import JobOptions
from mimic_core.proofs.record import ProofRequest
from mimic_core.proofs.settings import ProveConfig
from tests.fakes import fake_run

PLAIN = RunConfig(
    source=SourceConfig(path="pool"), reference="ref", training=TrainConfig(model="start")
)
FULL = RunConfig(
    source=SourceConfig(
        path="my pool's", also=("other",), image_column="img", caption_column="text",
        sample=50, sample_seed=9,
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


def options_of(command: str) -> dict[str, Any]:
    """The options that the command line makes of ``command``."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "mimic_core"]
    parser: Any = typer.main.get_command(app).commands[words[3]]  # type: ignore[attr-defined]
    options: dict[str, Any] = parser.make_context(words[3], words[4:]).params
    return cli.given(options)


def read_back(command: str) -> RunConfig:
    options = options_of(command)
    return cli.run_config(options.get("mode", "training"), options)


def test_every_setting_reads_back() -> None:
    job = JobOptions(device="cuda:1", workers=0, map=True)
    command = run_command(FULL, job, out="some where")
    assert read_back(command) == FULL
    options = options_of(command)
    assert JobOptions.parse(cli.values(JobOptions, options)) == job
    assert options["out"] == Path("some where")


def test_defaults_are_not_said() -> None:
    assert run_command(PLAIN) == (
        "python -m mimic_core train pool \\\n  --reference ref \\\n  --model start"
    )
    assert read_back(run_command(PLAIN)) == PLAIN


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
    assert read_back(run_command(config)) == config


def test_labels_and_their_head_are_said() -> None:
    head = HeadConfig(trusted="clean=true", trusted_label_column="right", score_trusted=True)
    source = SourceConfig(path="pool", task="labels", label_column="noisy")
    labelled = PLAIN.model_copy(update={"source": source, "head": head})
    assert read_back(run_command(labelled)) == labelled
    groups = run_arguments(labelled)
    assert groups[3:] == [
        ["--task", "labels"],
        ["--label-column", "noisy"],
        ["--trusted", "clean=true"],
        ["--trusted-label-column", "right"],
        ["--score-trusted"],
    ]
    of_clip = HeadConfig(prompts=("a {}", "the {}"))
    words = PLAIN.model_copy(update={"head": of_clip})
    assert read_back(run_command(words)) == words
    of_file = PLAIN.model_copy(update={"head": HeadConfig(file="/weights/a head.safetensors")})
    assert read_back(run_command(of_file)) == of_file
    assert run_arguments(words)[3:] == [
        ["--prompt", "a {}"],
        ["--prompt", "the {}"],
    ]


SCORED = [
    RunConfig(source=SourceConfig(path="pool"), reference="r", probe=ProbeConfig()),
    RunConfig(
        source=SourceConfig(path="a pool", task="pairs", sample=9, sample_seed=4),
        reference="r",
        precision="fp16",
        probe=ProbeConfig(
            side="text", epochs=2, batch_size=8, temperature=0.1, learning_rate=0.5,
            weight_decay=0.0, weighting="uniform", method="cos", seed=4,
        ),
    ),
    RunConfig(
        source=SourceConfig(path="pool"),
        reference="timm:resnet18:random:0",
        probe=ProbeConfig(temperature=1.0),
        head=HeadConfig(trusted="20%"),
    ),
    RunConfig(
        source=SourceConfig(path="pool"),
        reference="timm:resnet18:random:0",
        probe=ProbeConfig(temperature=0.05),  # not what suits that model, so it has to be said
    ),
    RunConfig(
        source=SourceConfig(path="pool", sample_seed=3),
        reference="r",
        snapshot=SnapshotConfig(model="m", mimic_layers=("a", "b"), repeats=2, seed=3),
    ),
]  # fmt: skip


@pytest.mark.parametrize("config", SCORED)
def test_a_scored_run_reads_back(config: RunConfig) -> None:
    assert read_back(run_command(config)) == config


def test_a_scored_run_says_its_mode_and_what_is_not_usual() -> None:
    assert run_arguments(SCORED[0], JobOptions(map=True, sweep=True)) == [
        ["score", "pool"],
        ["--reference", "r"],
        ["--sweep"],
        ["--map"],
    ]
    assert run_arguments(SCORED[2])[2:] == [["--trusted", "20%"]]
    assert ["--temperature", "0.05"] in run_arguments(SCORED[3])
    assert run_arguments(SCORED[4])[1] == ["--mode", "snapshot"]


def test_a_proof_reads_back(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=4)
    config = ProveConfig.for_run(
        run.record.config, trusted="is noisy=false", trusted_label_column="right",
        held_out_share=0.4, seeds=7, seed=2, steps=3, batch_size=16, margin=0.025,
        duplicate_cosine=0.9, caption_limit=0,
    )  # fmt: skip
    recipes = (("a", Recipe()), ("b", Recipe()))
    request = ProofRequest(run=str(run.path), recipes=recipes, config=config)
    files = ["a.yaml", "b.yaml"]
    said = options_of(
        prove_command(request, run, runs="my runs", recipes=files, held_out="it's.txt")
    )
    assert [str(one) for one in said["recipe"]] == files
    assert (said["run"], said["runs"], said["held_out"]) == (
        run.id, Path("my runs"), Path("it's.txt"),
    )  # fmt: skip
    given_settings = cli.values(ProveConfig, said)
    assert ProveConfig.for_run(run.record.config, **given_settings) == config
    plain = request.model_copy(update={"config": ProveConfig.for_run(run.record.config)})
    assert prove_command(plain, run, runs="runs", recipes=["a.yaml"]) == (
        f"python -m mimic_core prove {run.id} --runs runs \\\n  --recipe a.yaml"
    )


def test_an_export_reads_back(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=4)
    for config in (
        ExportConfig(format="csv"),
        ExportConfig(format="webdataset", shard_size=7),
        ExportConfig(format="hf_parquet", split_column="my split"),
        ExportConfig(format="classes", no_splits=True),
        ExportConfig(format="datacomp", repeats="a b", repeats_total=9, repeats_penalty=0.5),
        ExportConfig(format="keep_column", table="it's.csv"),
    ):
        said = options_of(export_command(config, run, runs="my runs", out="k", recipe="r.yaml"))
        assert ExportConfig.parse(cli.values(ExportConfig, said)) == config
        assert (said["run"], said["runs"], said["out"], said["recipe"]) == (
            run.id, Path("my runs"), "k", Path("r.yaml"),
        )  # fmt: skip


def test_a_sample_drawn_by_another_seed_cannot_be_said() -> None:
    source = SourceConfig(path="pool", sample=5, sample_seed=1)
    with pytest.raises(ConfigError, match="by the seed of the run"):
        run_command(PLAIN.model_copy(update={"source": source}))


def test_fresh_weights_have_the_architecture_of_the_reference(tmp_path: Path) -> None:
    config = f"{tmp_path}/open_clip_config.json:random:3"
    assert fresh_weights(str(tmp_path), 3) == config
    assert fresh_weights(f"local-dir:{tmp_path}/", 3) == config
    assert fresh_weights("ViT-B-32:openai", 0) == "ViT-B-32:random:0"
    assert fresh_weights("c.json:/weights/last.safetensors", 1) == "c.json:random:1"
    assert fresh_weights("timm:resnet18:a1_in1k", 2) == "timm:resnet18:random:2"
    assert fresh_weights("hf-hub:timm/ViT-B-16-SigLIP", 0) is None
    assert fresh_weights("ViT-B-32", 0) is None
