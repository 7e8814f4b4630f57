"""The command line: what it accepts, prints and returns."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mimic_core.__main__ import main
from mimic_core.base.config import HeadConfig, ProbeConfig, RunConfig, SnapshotConfig, SourceConfig
from mimic_core.base.errors import Interrupted
from mimic_core.base.progress import Progress
from mimic_core.cli.commands import run_command
from mimic_core.jobs.processes import environment
from mimic_core.runs.run import Run, open_run
from tests.core.sources_pools import write_files
from tests.fakes import fake_run


@pytest.fixture(scope="module")
def runs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli") / "runs"
    fake_run(root, n=40)
    return root


@pytest.fixture(scope="module")
def run(runs_root: Path) -> Run:
    return fake_run(runs_root, n=40)


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The pools that commands name are there."""
    for name in ("pool", "some/pool"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mimic_core.sources.opening.open_source", lambda _: None)


@pytest.fixture
def scored(
    monkeypatch: pytest.MonkeyPatch, run: Run, pools: None
) -> Iterator[list[dict[str, Any]]]:
    """The calls of ``score_pool``, which scores nothing and returns a finished run."""
    calls: list[dict[str, Any]] = []

    def score_pool(config: RunConfig, *, progress: Progress, **options: Any) -> Run:
        progress.phase("images", 2)
        progress.advance(2)
        calls.append({"config": config, **options})
        return run

    module = types.ModuleType("mimic_core.scoring.pipeline")
    vars(module)["score_pool"] = score_pool
    monkeypatch.setitem(sys.modules, "mimic_core.scoring.pipeline", module)
    return calls


def test_plain_options_score_with_the_defaults(
    scored: list[dict[str, Any]], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "some/pool", "--reference", "tiny"]) == 0
    config = RunConfig(source=SourceConfig(path="some/pool"), reference="tiny", probe=ProbeConfig())
    how = {"device": None, "workers": None, "sweep": False, "epochs_used": None}
    assert scored == [{"config": config, "runs_root": Path("runs"), **how}]
    printed = capsys.readouterr()
    assert printed.out == f"{run.path}\n"  # results only
    assert "images: 2/2 samples" in printed.err
    assert "skipped" in printed.err


def test_every_option_of_probe_mode_arrives(scored: list[dict[str, Any]]) -> None:
    options = (
        "--reference tiny --mode probe --epochs 2 --batch-size 16 --temperature 0.5 --seed 3 "
        "--learning-rate 0.01 --weight-decay 0.1 --side text --weighting uniform --method cos "
        "--precision bf16 --preprocess other --image-column img --caption-column text --sample 100 "
        "--device cpu --workers 0 --sweep --epochs-used 1 --out elsewhere"
    )
    assert main(["score", "pool", *options.split()]) == 0
    config = RunConfig(
        source=SourceConfig(
            path="pool", image_column="img", caption_column="text", sample=100, sample_seed=3
        ),
        reference="tiny",
        precision="bf16",
        preprocess="other",
        probe=ProbeConfig(
            side="text",
            epochs=2,
            batch_size=16,
            temperature=0.5,
            learning_rate=0.01,
            weight_decay=0.1,
            weighting="uniform",
            method="cos",
            seed=3,
        ),
    )
    how = {"device": "cpu", "workers": 0, "sweep": True, "epochs_used": 1}
    assert scored == [{"config": config, "runs_root": Path("elsewhere"), **how}]


def test_columns_are_joined_listed_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fake_run(tmp_path / "runs", n=20, images=False)
    uids = run.features.samples["uid"]
    np.save(tmp_path / "dfn.npy", np.arange(10, dtype=np.float32))
    (tmp_path / "order.txt").write_text("\n".join(uids[:10]))
    to = ["--runs", str(run.path.parent)]
    file = str(tmp_path / "dfn.npy")
    assert main(["join", run.id, file, "--uids", str(tmp_path / "order.txt"), *to]) == 0
    said = (
        f"dfn: dfn from {file}: 10 of 20 samples have a row there, 10 have none; 0 of its 10 rows "
        "are of no sample\n"
    )
    assert capsys.readouterr().out == said
    assert main(["join", run.id, *to]) == 0
    assert capsys.readouterr().out == said
    assert main(["join", run.id, file, "--remove", "dfn", *to]) == 1
    assert "not both at once" in capsys.readouterr().err
    assert main(["join", run.id, "--remove", "dfn", *to]) == 0
    assert capsys.readouterr().out == "removed dfn; 0 joins are left\n"


def test_scoring_joins_columns_at_its_end_and_refuses_such_as_cannot_be_at_once(
    scored: list[dict[str, Any]],
    runs_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = fake_run(tmp_path / "runs", n=40)
    run.features.samples.select("uid", dfn=pl.lit(1)).write_csv(tmp_path / "dfn.csv")
    command = ["score", "pool", "--reference", "tiny", "--join"]
    assert main([*command, str(tmp_path / "gone.csv")]) == 1
    assert scored == []
    vars(sys.modules["mimic_core.scoring.pipeline"])["score_pool"] = lambda *_, **__: run
    assert main([*command, str(tmp_path / "dfn.csv")]) == 0
    said = capsys.readouterr()
    assert "note: joined dfn from" in said.err
    assert open_run(run.path).record.joins[0].columns == {"dfn": "dfn"}


def test_features_of_ones_own_take_the_place_of_a_reference(
    scored: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "pool", "--features", "own.npy", "--trusted", "ok"]) == 0
    config = scored[0]["config"]
    assert config.reference == "features:own.npy"
    assert (config.head, config.probe.temperature) == (HeadConfig(trusted="ok"), 1.0)
    assert main(shlex.split(run_command(config).replace("\\\n", " "))[3:]) == 0
    assert scored[1]["config"] == config
    capsys.readouterr()
    for given, got in (
        ([], "neither"),
        (["--reference", "r", "--features", "f"], "--reference r --features f"),
    ):
        assert main(["score", "pool", *given]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "give a reference model or features of your own, and not both" in said
        assert got in said
    assert len(scored) == 2


def test_every_option_of_labelled_images_arrives(scored: list[dict[str, Any]]) -> None:
    options = [
        *("--task", "labels", "--label-column", "noisy", "--trusted", "split=train"),
        *("--trusted-label-column", "clean", "--score-trusted", "--weighting", "rho"),
        *("--prompt", "a photo of a {}", "--prompt", "{}"),
    ]
    assert main(["score", "pool", "--reference", "timm:resnet18:random:0", *options]) == 0
    config = scored[0]["config"]
    assert config.source == SourceConfig(path="pool", task="labels", label_column="noisy")
    assert config.head == HeadConfig(
        trusted="split=train",
        trusted_label_column="clean",
        score_trusted=True,
        prompts=("a photo of a {}", "{}"),
    )
    assert (config.probe.weighting, config.probe.temperature) == ("rho", 1.0)
    assert main(["score", "pool", "--reference", "r", "--reference-head", "h.pt"]) == 0
    assert scored[1]["config"].head == HeadConfig(file="h.pt")


@pytest.mark.parametrize(
    "options",
    [
        ("--reference-head", "h", "--trusted", "x"),
        ("--score-trusted",),
        ("--prompt", "no place for the class"),
    ],
)
def test_a_head_from_two_places_or_none_is_refused(
    scored: list[dict[str, Any]], options: tuple[str, ...]
) -> None:
    assert main(["score", "pool", "--reference", "r", *options]) == 1
    assert not scored


def test_every_option_of_snapshot_mode_arrives(scored: list[dict[str, Any]]) -> None:
    options = (
        "--reference tiny --mode snapshot --model other --mimic-layer a.weight "
        "--mimic-layer b.weight --repeats 4 --seed 7 --batch-size 8"
    )
    assert main(["score", "pool", *options.split()]) == 0
    assert scored[0]["config"] == RunConfig(
        source=SourceConfig(path="pool", sample_seed=7),
        reference="tiny",
        snapshot=SnapshotConfig(
            model="other", mimic_layers=("a.weight", "b.weight"), repeats=4, seed=7, batch_size=8
        ),
    )


@pytest.mark.parametrize(
    ("mode", "option", "value", "other"),
    [
        ("probe", "--model", "m", "snapshot"),
        ("probe", "--mimic-layer", "l", "snapshot"),
        ("probe", "--repeats", "2", "snapshot"),
        ("snapshot", "--epochs", "2", "probe"),
        ("snapshot", "--learning-rate", "1", "probe"),
        ("snapshot", "--weight-decay", "1", "probe"),
        ("snapshot", "--side", "text", "probe"),
        ("snapshot", "--weighting", "uniform", "probe"),
    ],
)
def test_an_option_of_the_other_mode_is_refused(
    scored: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    mode: str,
    option: str,
    value: str,
    other: str,
) -> None:
    assert main(["score", "pool", "--reference", "tiny", "--mode", mode, option, value]) == 1
    assert scored == []
    assert capsys.readouterr().err == (
        f"error: {option} belongs to --mode {other}\n"
        f"  got: '--mode {mode}'\n"
        f"  allowed: --mode {other}\n"
        f"  next step: leave that option out, or give --mode {other}\n"
    )


def test_a_value_out_of_range_is_refused(
    scored: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "pool", "--reference", "tiny", "--batch-size", "1"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: setting batch_size: ")
    assert "  got: 1\n" in printed.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "pool"],
        ["score", "pool", "--reference", "tiny", "--mode", "training"],
        ["score", "pool", "--reference", "tiny", "--nonsense"],
        ["nonsense"],
    ],
)
def test_a_command_line_that_cannot_be_read_is_an_error(arguments: list[str]) -> None:
    assert main(arguments) == 1


def test_an_interrupted_run_says_how_to_resume(
    pools: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def score_pool(*_: Any, **__: Any) -> None:
        raise Interrupted("stopped")

    module = types.ModuleType("mimic_core.scoring.pipeline")
    vars(module)["score_pool"] = score_pool
    monkeypatch.setitem(sys.modules, "mimic_core.scoring.pipeline", module)
    assert main(["score", "pool", "--reference", "tiny"]) == 130
    printed = capsys.readouterr()
    assert "run the same command to resume" in printed.err
    assert printed.out == ""


def test_runs_are_listed_newest_first_and_damaged_ones_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = fake_run(tmp_path, n=4), fake_run(tmp_path, n=5, seed=1)
    new.update(created_at="2026-02-01T00:00:00+00:00")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{}")

    assert main(["runs", "list", "--out", str(tmp_path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["run_id"] for row in listed] == [new.id, old.id, "broken"]
    assert listed[1] == {
        "created_at": old.record.created_at,
        "run_id": old.id,
        "status": "done",
        "samples": 4,
        "reference": old.record.config.reference,
        "problem": "",
    }
    assert listed[2]["status"] == "damaged"
    assert "another version" in listed[2]["problem"]

    assert main(["runs", "list", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["created_at", "2026-02-01T00:00:00+00:00"]
    assert len(lines) == 4


def test_no_runs_are_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", "--out", str(tmp_path / "none"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_run_is_shown_by_path_or_id_with_its_distribution(
    run: Run, runs_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "show", str(run.path), "--json"]) == 0
    by_path = json.loads(capsys.readouterr().out)
    assert main(["runs", "show", run.id, "--out", str(runs_root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == by_path

    means = run.scores().group_by("uid").agg(pl.col("mimic_score").cast(pl.Float64).mean())
    scores = sorted(means["mimic_score"])
    summary = by_path["summary"]
    assert by_path["run_id"] == run.id
    assert by_path["samples"] == 40
    assert sum(summary["skipped_by_reason"].values()) == by_path["skipped"] == 3
    assert summary["mean"] == pytest.approx(sum(scores) / 40, rel=1e-5)
    assert summary["quantiles"][0] == [0.0, pytest.approx(scores[0], rel=1e-5)]
    assert summary["quantiles"][3] == [0.5, pytest.approx((scores[19] + scores[20]) / 2, rel=1e-4)]
    assert summary["quantiles"][6] == [1.0, pytest.approx(scores[39], rel=1e-5)]

    assert main(["runs", "show", run.id, "--out", str(runs_root)]) == 0
    shown = capsys.readouterr().out
    assert "direction check" in shown
    assert "batch size" in shown


def test_an_unfinished_run_is_shown_without_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fake_run(tmp_path, n=4).update(status="running")
    assert main(["runs", "show", str(run.path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert (summary["mean"], summary["quantiles"]) == (None, None)


def test_an_unknown_run_is_an_error_that_names_the_known(
    runs_root: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "show", "nope", "--out", str(runs_root)]) == 1
    printed = capsys.readouterr()
    assert "got: 'nope'" in printed.err
    assert run.id in printed.err
    assert printed.out == ""


def test_without_a_recipe_everything_is_exported(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all.parquet"
    assert main(["export", str(run.path), "--format", "parquet", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}\n{out}.manifest.json\n"
    assert "kept 40 of 40 (100.0%)" in printed.err
    assert set(pl.read_parquet(out)["uid"]) == set(run.features.samples["uid"])


def test_a_recipe_decides_what_is_exported_and_overwriting_must_be_allowed(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "kept.csv"
    kept = sorted(run.features.samples["uid"])[:3]
    condition = {"kind": "uids", "uids": kept}
    named = {"conditions": [{"name": "chosen by hand", "condition": condition}]}
    recipe.write_text(json.dumps(named))  # JSON is YAML
    command = ["export", str(run.path), "--format", "csv", "--out", str(out)]
    assert main([*command, "--recipe", str(recipe)]) == 0
    assert "dropped by chosen by hand: 37" in capsys.readouterr().err
    assert sorted(pl.read_csv(out)["uid"]) == kept

    assert main(command) == 1
    assert "another file is already there" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert len(pl.read_csv(out)) == 40


def test_a_recipe_that_is_not_there_is_an_error(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none.yaml"
    out = ["--format", "csv", "--out", str(tmp_path / "o.csv")]
    assert main(["export", str(run.path), *out, "--recipe", str(missing)]) == 1
    assert f"got: {str(missing)!r}" in capsys.readouterr().err


def test_the_map_of_a_run_is_made_by_its_own_command(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(
        "mimic_core.runs.layout.ensure_map",
        lambda features, config, progress: made.append(features),
    )
    assert main(["layout", str(run.path)]) == 0
    assert made == [run.features]
    assert capsys.readouterr().out == f"{run.features.path / 'map.parquet'}\n"


def test_the_app_takes_over_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    monkeypatch.chdir(tmp_path)
    assert main(["app", "--port", "9000", "--runs", "mine", "--no-browser"]) == 0
    [(program, command, settings)] = started
    assert program == sys.executable
    assert command[1:4] == ["-m", "streamlit", "run"]
    assert Path(command[4]).is_file()
    assert {"--server.port=9000", "--server.headless=true"} < set(command)
    assert settings["MIMICSCOPE_RUNS"] == str(tmp_path / "mine")


def test_an_app_that_is_not_there_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mimic_core.jobs.processes.REPOSITORY", tmp_path)
    assert main(["app"]) == 1


# Real processes

SLOW_PIPELINE = '''
import multiprocessing, sys, time, types
from mimic_core.base.errors import Interrupted, ModelError

def read_images(parent):
    print("reading", flush=True)
    parent.poll(None)  # until the other end is closed

def score_pool(config, *, runs_root, progress, **options):
    """Endless, with an image reader as a spawned child that the same Ctrl-C reaches."""
    if config.reference == "wrong":
        raise ModelError("no such model", got="wrong", next_step="choose another")
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    reader = spawn.Process(target=read_images, args=(there,), daemon=True)
    reader.start()
    progress.phase("images", 10**9)
    try:
        while True:
            progress.check()
            progress.advance(1)
            time.sleep(0.01)
    except Interrupted:
        here.close()
        reader.join()  # by then it has printed what it should not
        raise

module = types.ModuleType("mimic_core.scoring.pipeline")
module.score_pool = score_pool
sys.modules["mimic_core.scoring.pipeline"] = module
'''


@pytest.fixture
def slow_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "site").mkdir()
    write_files(tmp_path / "pool", {"t.csv": "file_name,caption\n1.png,one\n"})
    (tmp_path / "site" / "sitecustomize.py").write_text(textwrap.dedent(SLOW_PIPELINE))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return [sys.executable, "-m", "mimic_core", "score", "pool", "--reference"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_ends_the_command_quietly_with_130(
    slow_command: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [*slow_command, "tiny"],
        env=environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "reading\n"
        os.killpg(command.pid, number)
        _, said = command.communicate(timeout=60)
    assert command.returncode == 130
    assert "run the same command to resume" in said
    assert ("press Ctrl-C again" in said) == (number == signal.SIGINT)
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said


def test_a_stated_error_exits_with_1_and_without_a_traceback(
    slow_command: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [*slow_command, "wrong"],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("error: no such model\n  got: 'wrong'\n  next step: choose another\n")


def test_help_imports_nothing_heavy() -> None:
    script = """
        import sys
        from mimic_core.__main__ import main
        for command in ([], ["score"], ["train"], ["prove"], ["export"]):
            assert main([*command, "--help"]) == 0
        print([name for name in ("torch", "polars", "numpy", "pyarrow") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
