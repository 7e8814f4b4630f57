"""Run directories that are damaged, of another kind, or made by somebody else.

Every reader says which file is wrong and what makes it again, and one damaged run hides no other.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base import files
from mimic_core.base.errors import MimicError
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table
from tests.hostile.runner import Hostile

RECIPE = "conditions: [{name: a, condition: {kind: absolute, column: mimic_score, min: 0}}]"


@pytest.fixture
def broken(hostile: Hostile, run: Run) -> Run:
    """A copy of the run to be damaged, beside a good one; read by the commands in ``runs``."""
    shutil.copytree(run.path.parent, hostile.root / "runs")
    good = hostile.root / "runs" / "good"
    shutil.copytree(run.path, good)
    record = json.loads((good / "run.json").read_text())
    (good / "run.json").write_text(json.dumps({**record, "run_id": "good"}))
    (hostile.root / "recipe.yaml").write_text(RECIPE)
    return open_run(hostile.root / "runs" / run.path.name)


Damage = Callable[[Path], Any]


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(2000))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _zeros_inside(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8:200] = bytes(192)
    path.write_bytes(data)


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


DAMAGES: dict[str, Damage] = {
    "gone": Path.unlink,
    "empty": _empty,
    "half": _half,
    "noise": _noise,
    "a folder": _folder,
    "a link to itself": _loop,
}


# --- run.json ---

RECORDS: dict[str, str] = {
    "null": "null",
    "a list": "[]",
    "a number": "1",
    "a text": '"run"',
    "an empty object": "{}",
    "no schema": '{"run_id": "x"}',
    "another schema": '{"schema_version": 99}',
    "schema of another type": '{"schema_version": {"a": 1}}',
    "NaN": '{"schema_version": NaN}',
    "a huge number": '{"schema_version": 1e999}',
    "thousands of digits": '{"schema_version": ' + "9" * 5000 + "}",
    "deep": "[" * 100_000,
    "two objects": "{} {}",
    "a BOM and noise": "\ufeff{",
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_run_json_of_another_kind(hostile: Hostile, broken: Run, name: str) -> None:
    (broken.path / "run.json").write_text(RECORDS[name])
    _refused_by_all(hostile, broken, "run")
    listed = hostile.survived("runs", "list", says="damaged")
    assert "good" in listed.out


@pytest.mark.parametrize("damage", [*DAMAGES, "a pipe"])
def test_a_damaged_run_json(hostile: Hostile, broken: Run, damage: str) -> None:
    {**DAMAGES, "a pipe": _fifo}[damage](broken.path / "run.json")
    hostile.refused("runs", "show", broken.path)
    assert "good" in hostile.survived("runs", "list").out


FIELDS = {
    "status": "finished",
    "config": {},
    "feature_set": 3,
    "samples": "many",
    "epochs": None,
    "mimic_layers": "visual.proj",
    "direction_check": {"segment": [1]},
    "timings": {"a": "b"},
    "extra": 1,
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_run_json_of_another_type(hostile: Hostile, broken: Run, field: str) -> None:
    record = json.loads((broken.path / "run.json").read_text())
    (broken.path / "run.json").write_text(json.dumps({**record, field: FIELDS[field]}))
    hostile.refused("runs", "show", broken.path, says="run.json is damaged")
    assert "good" in hostile.survived("runs", "list").out


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "..", "", "a/b", "nobody", "a\0b"])
def test_a_feature_set_that_leads_elsewhere(hostile: Hostile, broken: Run, name: str) -> None:
    record = json.loads((broken.path / "run.json").read_text())
    (broken.path / "run.json").write_text(json.dumps({**record, "feature_set": name}))
    hostile.refused("runs", "show", broken.path)


# --- tables ---

TABLES = {
    "scores": lambda run: run.path / "scores" / "epoch-00001.parquet",
    "samples": lambda run: run.features.path / "samples" / "00001.parquet",
    "map": lambda run: run.features.path / "map.parquet",
}


@pytest.mark.parametrize("damage", [*DAMAGES, "zeros inside"])
@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_table(hostile: Hostile, broken: Run, table: str, damage: str) -> None:
    if table == "map" and damage in ("gone", "a link to itself"):
        pytest.skip("a run needs no map")
    path = TABLES[table](broken)
    {**DAMAGES, "zeros inside": _zeros_inside}[damage](path)
    out = ("--format", "parquet", "--out", "out/e.parquet")
    outcome = hostile.refused("export", broken.path, *out)
    if damage not in (
        "gone",
        "a link to itself",
    ):  # then the count of files is wrong, or the shard unfinished
        assert path.name in outcome.err
        assert str(path.parent) in outcome.err
    assert not hostile.out.exists()
    if table != "map":
        hostile.refused("filter", "recipe.yaml", broken.path)
    assert "good" in hostile.survived("runs", "list").out


@pytest.mark.parametrize("table", TABLES)
def test_a_table_without_a_column(hostile: Hostile, broken: Run, table: str) -> None:
    path = TABLES[table](broken)
    frame = pl.read_parquet(path)
    for name in frame.columns:
        if name in ("aesthetic", "topic", "is_noisy", "noise_kind"):
            continue  # the user's own
        frame.drop(name).write_parquet(path)
        says = f"column {name} is not there"
        hostile.refused("export", broken.path, "--format", "csv", "--out", "out/e.csv", says=says)


@pytest.mark.parametrize("table", TABLES)
def test_a_column_of_another_type(hostile: Hostile, broken: Run, table: str) -> None:
    path = TABLES[table](broken)
    frame = pl.read_parquet(path)
    frame.with_columns(uid=pl.lit(3)).write_parquet(path)
    says = "column uid is of type"
    hostile.refused("export", broken.path, "--format", "csv", "--out", "out/e.csv", says=says)


def test_scores_that_are_not_finite(hostile: Hostile, broken: Run) -> None:
    path = TABLES["scores"](broken)
    frame = pl.read_parquet(path)
    frame.with_columns(mimic_score=pl.lit(float("nan"), pl.Float32)).write_parquet(path)
    hostile.refused("runs", "show", broken.path, says="not finite")


def test_scores_of_no_rows(hostile: Hostile, broken: Run) -> None:
    path = TABLES["scores"](broken)
    pl.read_parquet(path).clear().write_parquet(path)
    hostile.refused("runs", "show", broken.path, says="epoch")


def test_scores_of_other_samples(hostile: Hostile, broken: Run) -> None:
    path = TABLES["scores"](broken)
    frame = pl.read_parquet(path)
    frame.with_columns(uid=pl.col("uid").str.reverse()).write_parquet(path)
    hostile.refused("filter", "recipe.yaml", broken.path, says="exactly once")


def test_a_csv_in_the_place_of_a_table(hostile: Hostile, broken: Run) -> None:
    path = TABLES["samples"](broken)
    pl.read_parquet(path).write_csv(path)
    hostile.refused("filter", "recipe.yaml", broken.path, says="00001.parquet is damaged")


def test_skipped_samples_of_another_kind(hostile: Hostile, broken: Run) -> None:
    path = broken.features.path / "skipped" / "00000.parquet"
    pl.DataFrame({"reason": [1]}).write_parquet(path)
    hostile.refused("runs", "show", broken.path, says="column key is not there")


@pytest.mark.parametrize("damage", [_empty, _noise, _folder])
def test_a_damaged_map_json(hostile: Hostile, broken: Run, damage: Damage) -> None:
    damage(broken.features.path / "map.json")
    arguments = ("export", broken.path, "--format", "csv", "--out", "out/e.csv")
    hostile.refused(*arguments, says="map.json")


# --- features.json and arrays ---

INFOS: dict[str, dict[str, Any]] = {
    "no shards": {"shards": {}},
    "shards in a list": {"shards": ["00000"]},
    "a shard elsewhere": {"shards": {"../../../etc/passwd": 1}},
    "an absolute shard": {"shards": {"/etc/passwd": 1}},
    "a zero byte": {"shards": {"a\0b": 1}},
    "arrays of numbers": {"arrays": [1]},
    "an array elsewhere": {"arrays": ["../../x"]},
    "no place": {"location": None},
    "a place of another type": {"location": {"relative": 3}},
    "another schema": {"schema_version": 0},
}


@pytest.mark.parametrize("name", INFOS)
def test_a_features_json_of_another_kind(hostile: Hostile, broken: Run, name: str) -> None:
    path = broken.features.path / "features.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, **INFOS[name]}))
    hostile.refused("filter", "recipe.yaml", broken.path)
    assert "good" in hostile.survived("runs", "list").out


ARRAYS: dict[str, Damage] = {
    **DAMAGES,
    "a pickle": lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True),
    "other rows": lambda path: np.save(path, np.zeros((3, 4), np.float16)),
    "no rows": lambda path: np.save(path, np.float16(1)),
    "texts": lambda path: np.save(path, np.array(["a"] * 12)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_a_damaged_array(hostile: Hostile, broken: Run, name: str) -> None:
    path = broken.features.array_file("00001", "image_embedding")
    ARRAYS[name](path)
    error = hostile.error(open_run(broken.path).features.array, "image_embedding")
    assert path.name in str(error)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_head_of_the_reference(hostile: Hostile, broken: Run, damage: str) -> None:
    from mimic_core.features.stored import read_ends

    DAMAGES[damage](broken.features.path / "head.safetensors")
    hostile.error(read_ends, broken.features, says="towers")


def test_an_unfinished_run(hostile: Hostile, broken: Run) -> None:
    broken.update(status="running")
    hostile.survived("runs", "show", broken.path, says="running")
    hostile.refused("filter", "recipe.yaml", broken.path, says="not finished")


def test_a_runs_root_that_is_a_file(hostile: Hostile, broken: Run) -> None:
    (hostile.root / "file").write_text("x")
    hostile.survived("runs", "list", "--out", "file")
    hostile.refused("runs", "show", "x", "--out", "file", says="no such run")


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b", "x" * 5000, "\udcff", "*", "[", "good/.."])
def test_odd_names_of_runs(hostile: Hostile, broken: Run, name: str) -> None:
    hostile.refused("runs", "show", name)


@given(place=st.integers(0, 10**9), byte=st.integers(0, 255), file=st.integers(0, 10**9))
def test_a_changed_byte_is_an_error_or_nothing(
    run: Run, tmp_path_factory: pytest.TempPathFactory, place: int, byte: int, file: int
) -> None:
    root = tmp_path_factory.mktemp("byte") / "runs"
    shutil.copytree(run.path.parent, root)
    every = sorted(path for path in root.rglob("*") if path.suffix in (".parquet", ".json"))
    path = every[file % len(every)]
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data)
    try:
        run_table(open_run(root / run.path.name))
    except MimicError as error:
        assert error.next_step  # noqa: PT017 - an error is one of two ways to end


def _refused_by_all(hostile: Hostile, broken: Run, says: str) -> None:
    (hostile.root / "m.json").write_text(_manifest(broken))
    for command in (
        ("runs", "show", broken.path),
        ("filter", "recipe.yaml", broken.path),
        ("export", broken.path, "--format", "csv", "--out", "out/e.csv"),
        ("prove", broken.path, "--recipe", "recipe.yaml"),
        ("layout", broken.path),
        ("replay", "m.json"),
    ):
        hostile.refused(*command, says=says)


def _manifest(run: Run) -> str:
    said = {"schema_version": 2, "run_id": run.path.name, "recipe": {}, "uids_sha256": ""}
    said["epochs_used"] = None
    return json.dumps({**said, "files": [], "total": 0, "drops": {}})


def test_a_proof_of_another_kind_is_named(hostile: Hostile, broken: Run) -> None:
    from mimic_core.proofs.record import stored_proofs

    for number, text in enumerate(("[]", "{}", "null", "NaN", "")):
        files.write_bytes(broken.path / "proofs" / f"{number}.json", text.encode())
    proofs, damaged = hostile.call(stored_proofs, broken.path)
    assert (proofs, len(damaged)) == ([], 5)
