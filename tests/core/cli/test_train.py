"""The command that trains: every option arrives, and it prints and returns as ``score`` does."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mimic_core.__main__ import main
from mimic_core.base.config import HeadConfig, RunConfig, SourceConfig, TrainConfig
from mimic_core.base.errors import Interrupted
from mimic_core.base.progress import Progress
from mimic_core.runs.run import Run
from tests.fakes import fake_run

COMMAND = ["train", "some/pool", "--model", "start", "--reference", "tiny"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fake_run(tmp_path_factory.mktemp("cli") / "runs", n=40)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The pool of ``COMMAND`` is there."""
    (tmp_path / "some" / "pool").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mimic_core.sources.opening.open_source", lambda _: None)


@pytest.fixture
def trained(
    monkeypatch: pytest.MonkeyPatch, run: Run, pool: None
) -> Iterator[list[dict[str, Any]]]:
    """The calls of ``train_pool``, which trains nothing and returns a finished run."""
    calls: list[dict[str, Any]] = []

    def train_pool(config: RunConfig, *, progress: Progress, **options: Any) -> Run:
        progress.phase("training", 2)
        progress.advance(2)
        calls.append({"config": config, **options})
        return run

    module = types.ModuleType("mimic_core.scoring.training.train")
    vars(module)["train_pool"] = train_pool
    monkeypatch.setitem(sys.modules, "mimic_core.scoring.training.train", module)
    return calls


def test_plain_options_train_with_the_defaults(
    trained: list[dict[str, Any]], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(COMMAND) == 0
    config = RunConfig(
        source=SourceConfig(path="some/pool"), reference="tiny", training=TrainConfig(model="start")
    )
    how = {"runs_root": Path("runs"), "device": None, "workers": None, "epochs_used": None}
    assert trained == [{"config": config, **how}]
    printed = capsys.readouterr()
    assert printed.out == f"{run.path}\n"  # results only
    assert "training: 2/2 samples" in printed.err


def test_every_option_arrives(trained: list[dict[str, Any]]) -> None:
    options = (
        "--mimic-layer a.weight --mimic-layer b.weight --weighting influence --reweight all "
        "--temperature 0.5 --method cos --epochs 3 --batch-size 16 --accumulate 4 --optimiser sgd "
        "--learning-rate 0.01 --weight-decay 0.1 --momentum 0.5 --schedule cosine "
        "--warmup-steps 7 --clip-norm 1.5 --held-out 0.25 --held-out-column split=test "
        "--held-out-label-column checked "
        "--clean-column noisy=false --clean-per-class 3 --evaluate-every 100 --flip "
        "--image-column img --caption-column text --sample 50 --preprocess other "
        "--task labels --label-column label --trusted checked --trusted-label-column right "
        "--score-trusted --precision bf16 --seed 9 --compile --device cpu --workers 0 "
        "--epochs-used 2 --out elsewhere"
    )
    assert main([*COMMAND, *options.split()]) == 0
    [call] = trained
    assert call["config"] == RunConfig(
        source=SourceConfig(
            path="some/pool", task="labels", image_column="img", caption_column="text",
            label_column="label", sample=50, sample_seed=9,
        ),
        head=HeadConfig(trusted="checked", trusted_label_column="right", score_trusted=True),
        reference="tiny",
        preprocess="other",
        precision="bf16",
        training=TrainConfig(
            model="start", mimic_layers=("a.weight", "b.weight"), weighting="influence",
            reweight="all", temperature=0.5, method="cos", epochs=3, batch_size=16, accumulate=4,
            optimiser="sgd", learning_rate=0.01, weight_decay=0.1, momentum=0.5,
            schedule="cosine", warmup_steps=7, clip_norm=1.5, held_out=0.25,
            held_out_column="split=test", held_out_label_column="checked",
            clean_column="noisy=false", clean_per_class=3,
            evaluate_every=100, flip=True, compile=True, seed=9,
        ),
    )  # fmt: skip
    assert (call["device"], call["workers"], call["runs_root"]) == ("cpu", 0, Path("elsewhere"))
    assert call["epochs_used"] == 2


def test_prompts_and_a_file_of_the_reference_head_arrive(trained: list[dict[str, Any]]) -> None:
    assert main([*COMMAND, "--prompt", "a {}", "--prompt", "the {}"]) == 0
    assert main([*COMMAND, "--reference-head", "head.safetensors"]) == 0
    heads = [call["config"].head for call in trained]
    assert heads == [HeadConfig(prompts=("a {}", "the {}")), HeadConfig(file="head.safetensors")]


def test_a_value_out_of_range_is_refused(
    trained: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, "--held-out", "1"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: setting held_out: ")
    assert printed.out == ""
    assert trained == []


@pytest.mark.parametrize(
    "arguments",
    [["train", "pool", "--reference", "r"], ["train", "pool", "--model", "m"],
     [*COMMAND, "--weighting", "none"]],
)  # fmt: skip
def test_a_command_line_that_cannot_be_read_is_an_error(arguments: list[str]) -> None:
    assert main(arguments) == 1


def test_an_interrupted_training_says_how_to_resume(
    pool: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train_pool(*_: Any, **__: Any) -> None:
        raise Interrupted("stopped")

    module = types.ModuleType("mimic_core.scoring.training.train")
    vars(module)["train_pool"] = train_pool
    monkeypatch.setitem(sys.modules, "mimic_core.scoring.training.train", module)
    assert main(COMMAND) == 130
    assert "run the same command to resume" in capsys.readouterr().err


def test_only_the_first_of_several_processes_prints(
    trained: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(COMMAND) == 0
    assert capsys.readouterr().out == ""


def test_the_map_is_made_where_it_is_asked_for(
    trained: list[dict[str, Any]], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr("mimic_core.runs.layout.ensure_map", lambda *given: made.append(given[0]))
    assert main(COMMAND) == 0
    assert made == []
    assert main([*COMMAND, "--map"]) == 0
    assert made == [run.features]
