"""Recipes applied to runs on disk: lazily, by the command line, and replayed from manifests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from mimic_core.__main__ import main
from mimic_core.base import files
from mimic_core.base.errors import ExportError, FilterError, RunError
from mimic_core.filters import selections
from mimic_core.filters.conditions import Absolute, EnsembleVote, Text
from mimic_core.filters.ensembles.ensemble import ensemble
from mimic_core.filters.recipe import Recipe, apply
from mimic_core.jobs.processes import environment
from mimic_core.runs.history import run_history
from mimic_core.runs.run import Run
from mimic_core.runs.table import MAP_COLUMNS, run_table, scan_run
from tests.fakes import fake_run

RECIPE = """\
version: 1
conditions:
  - name: votes
    condition: {kind: ensemble, binarise: {kind: gmm}, aggregate: {kind: label_model}}
  - name: complement
    condition:
      kind: minus
      keep: {kind: percentile, column: clip_score, lower: 30, by: topic}
      drop: {kind: percentile, column: mimic_score, upper: 15}
  - name: rated
    condition: {kind: absolute, column: aesthetic, min: 0}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fake_run(tmp_path_factory.mktemp("runs"), n=150, images=False)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


# The lazy table ----------------------------------------------------------------------------------


def test_the_lazy_table_is_the_table(run: Run) -> None:
    assert scan_run(run).collect().equals(run_table(run))
    some = ["map_y", "uid", "mimic_score_se", "caption", "loss", "topic"]
    assert scan_run(run, some).collect().equals(run_table(run).select(some))
    assert scan_run(run, ["topic"]).collect().equals(run_table(run).select("topic"))


def test_a_column_that_is_not_there_is_refused_with_what_is_alike(run: Run) -> None:
    with pytest.raises(FilterError, match="no such column; got 'clip_scor'; allowed: clip_score"):
        scan_run(run, ["uid", "clip_scor"])


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    """Everything else need not even be there; of score files the names of columns are looked at."""
    run = fake_run(tmp_path, n=20, images=False)
    expected = apply(Recipe().with_condition("a", Text(contains="a")), run_table(run))
    for path in (*run.epoch_files(), run.features.path / "map.parquet"):
        files.write_parquet(path, pl.DataFrame({"nothing": [0]}))
    found = selections.select(run, Recipe().with_condition("a", Text(contains="a")))
    assert (found.first_failed == expected.first_failed).all()
    with pytest.raises(Exception, match='unable to find column "loss"'):
        selections.select(run, Recipe().with_condition("a", Absolute(column="loss", min=0)))


@pytest.mark.parametrize("column", ["aesthetic", "clip_score"])
def test_a_number_that_is_not_finite_is_refused_lazily_too(tmp_path: Path, column: str) -> None:
    run = fake_run(tmp_path, n=20, images=False)
    path = run.features.path / "samples" / "00001.parquet"
    bad = pl.read_parquet(path).with_columns(pl.lit(float("inf")).alias(column))
    files.write_parquet(path, bad)
    with pytest.raises(RunError, match=f"column {column} holds a number that is not finite"):
        scan_run(run, ["uid", column])
    scan_run(run, ["uid", "loss", *MAP_COLUMNS])


def test_an_unfinished_run_is_not_scanned(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=10, images=False).update(status="running")
    with pytest.raises(RunError, match="not finished"):
        scan_run(run)


# Selections --------------------------------------------------------------------------------------


def test_a_selection_of_a_run_is_that_of_its_table_and_history(run: Run) -> None:
    recipe = Recipe.from_yaml(RECIPE)
    expected = apply(recipe, run_table(run), run_history(run))
    found = selections.select(run, recipe)
    assert (found.first_failed == expected.first_failed).all()
    assert found.uids.equals(expected.uids)
    votes = ensemble(run_history(run), recipe.conditions[0].condition.config)  # type: ignore[union-attr]
    assert found.drops["votes"] == 150 - votes.kept
    assert min(found.drops.values()) > 0
    assert 0 < found.kept < found.total


def test_files_hold_every_uid_once_with_its_reason(run: Run) -> None:
    found = selections.select(run, Recipe.from_yaml(RECIPE))
    kept, dropped = selections.kept_uids(found), selections.dropped_uids(found)
    table = run_table(run)
    assert pl.concat([kept["uid"], dropped["uid"]]).sort().equals(table["uid"].sort())
    mask = pl.Series(found.mask)
    assert kept["uid"].equals(table["uid"].filter(mask))
    assert dropped["uid"].equals(table["uid"].filter(~mask))
    counts = dict(dropped["reason"].value_counts().iter_rows())
    assert counts == {name: count for name, count in found.drops.items() if count}


def test_the_command_prints_counts_and_writes_the_same_bytes_again(
    run: Run, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, drops = tmp_path / "kept.parquet", tmp_path / "dropped.parquet"
    command = ["filter", str(recipe), run.id, "--runs", str(run.path.parent)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    found = selections.select(run, Recipe.from_yaml(RECIPE))
    lines = [f"dropped by {name}: {count}" for name, count in found.drops.items()]
    share = f"{found.kept / 150:.1%}"
    assert printed.splitlines() == [*lines, f"kept {found.kept} of 150 ({share})"]

    assert main([*command, "--out", str(out), "--drops", str(drops)]) == 0
    assert capsys.readouterr().out == printed
    assert pl.read_parquet(out).equals(selections.kept_uids(found))
    assert pl.read_parquet(drops).equals(selections.dropped_uids(found))
    before = [(path.read_bytes(), path.stat().st_ino) for path in (out, drops)]
    assert main([*command, "--out", str(out), "--drops", str(drops)]) == 0
    assert [(path.read_bytes(), path.stat().st_ino) for path in (out, drops)] == before


def test_another_process_writes_the_same_bytes(run: Run, recipe: Path, tmp_path: Path) -> None:
    data = []
    for number in range(2):
        out = tmp_path / f"{number}.parquet"
        command = [sys.executable, "-m", "mimic_core", "filter", str(recipe), str(run.path)]
        subprocess.run([*command, "--out", str(out)], check=True, env=environment())
        data.append(out.read_bytes())
    assert data[0] == data[1]


def test_other_files_are_not_overwritten_unless_asked(
    run: Run, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kept.parquet"
    out.write_text("mine")
    command = ["filter", str(recipe), str(run.path), "--out", str(out)]
    assert main(command) == 1
    assert "something else is already there" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([*command, "--overwrite"]) == 0
    assert pl.read_parquet(out).columns == ["uid"]
    assert main(["filter", str(recipe), str(run.path), "--out", str(tmp_path / "a.csv")]) == 1
    assert "next step: write to a.parquet" in capsys.readouterr().err


def test_a_wrong_recipe_is_an_error_of_the_command(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("conditions: [{name: a, condition: {kind: text, column: nope, contains: a}}]")
    assert main(["filter", str(path), str(run.path)]) == 1
    assert "error: the table has no such column\n  got: 'nope'" in capsys.readouterr().err


@pytest.mark.parametrize("file_format", ["csv", "datacomp"])
def test_an_export_with_an_ensemble_replays_from_the_command_line(
    run: Run,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file_format: str,
) -> None:
    out = tmp_path / ("kept.csv" if file_format == "csv" else "kept.npy")
    target = ["--format", file_format, "--out", str(out), "--recipe", str(recipe)]
    assert main(["export", str(run.path), *target]) == 0
    manifest = tmp_path / f"{out.name}.manifest.json"
    capsys.readouterr()
    command = ["replay", str(manifest), "--runs", str(run.path.parent)]
    assert main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    said = json.loads(manifest.read_bytes())
    assert printed[-2].startswith(f"kept {said['kept']} of 150")
    assert printed[-1] == "the same samples as when it was exported"
    assert printed[0] == f"dropped by votes: {said['drops']['votes']}"

    said["uids_sha256"] = "0" * 64
    files.write_json(manifest, said)
    assert main(command) == 1
    assert "does not keep the same samples any more: uids_sha256" in capsys.readouterr().err


def test_replay_notices_scores_that_have_changed(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fake_run(tmp_path / "runs", n=60, images=False)
    target = ["--format", "jsonl", "--out", str(tmp_path / "a.jsonl"), "--recipe", str(recipe)]
    assert main(["export", str(run.path), *target]) == 0
    for path in run.epoch_files():
        turned = pl.read_parquet(path).with_columns(-pl.col("mimic_score"))
        files.write_parquet(path, turned)
    manifest = tmp_path / "a.jsonl.manifest.json"
    assert main(["replay", str(manifest), "--runs", str(tmp_path / "runs")]) == 1
    assert "does not keep the same samples any more" in capsys.readouterr().err


def test_an_ensemble_of_too_few_epochs_is_an_error_with_what_to_use(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=10, epochs=1, images=False)
    recipe = Recipe.from_yaml(RECIPE)
    with pytest.raises(Exception, match="at least 3 steps"):
        selections.select(run, recipe)
    one = Recipe().with_condition("votes", EnsembleVote())
    assert 0 < selections.select(run, one).kept < 10


def test_rows_are_written_as_parquet_alone(tmp_path: Path) -> None:
    frame = pl.DataFrame({"uid": ["b", "a"]})
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(ExportError, match="something else is already there"):
        selections.write_rows(frame, tmp_path / "folder.parquet")
    selections.write_rows(frame, tmp_path / "new" / "kept.parquet")
    assert pl.read_parquet(tmp_path / "new" / "kept.parquet").equals(frame)
