"""Manifests of exports from anybody, and exports that are asked to go where they should not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base.errors import MimicError
from mimic_core.export.record import replay
from mimic_core.runs.run import Run
from tests.hostile.runner import Hostile


@pytest.fixture
def manifest(hostile: Hostile, run: Run) -> Path:
    """Of an export that has been made; the commands find its run by ``--runs``."""
    out = ("--format", "csv", "--out", "out/e.csv", "--runs", run.path.parent)
    hostile.survived("export", run.path, *out)
    return hostile.out / "e.csv.manifest.json"


def _replay(hostile: Hostile, run: Run, manifest: Path, says: str = "") -> None:
    hostile.refused("replay", manifest, "--runs", run.path.parent, says=says)


CHANGES: dict[str, dict[str, Any]] = {
    "another schema": {"schema_version": 1},
    "a run elsewhere": {"run_id": "../../../etc"},
    "an absolute run": {"run_id": "/etc"},
    "a run of another type": {"run_id": ["a"]},
    "no run": {"run_id": ""},
    "a run that is not there": {"run_id": "nobody"},
    "a zero byte in the run": {"run_id": "a\0b"},
    "a recipe of another type": {"recipe": []},
    "an unknown condition": {
        "recipe": {"conditions": [{"name": "a", "condition": {"kind": "magic"}}]}
    },
    "another recipe": {
        "recipe": {
            "conditions": [{"name": "a", "condition": {"kind": "top_k", "column": "loss", "k": 1}}]
        }
    },
    "files in no list": {"files": {"name": "e.csv"}},
    "a file of another type": {"files": [1]},
    "a file without a name": {"files": [{"sha256": "0"}]},
    "a file elsewhere": {"files": [{"name": "../../../etc/passwd", "sha256": "0"}]},
    "an absolute file": {"files": [{"name": "/etc/passwd", "sha256": "0"}]},
    "the folder above": {"files": [{"name": "..", "sha256": "0"}]},
    "another checksum": {"files": [{"name": "e.csv", "sha256": "0"}]},
    "uids of another type": {"uids_sha256": 3},
    "other uids": {"uids_sha256": "0" * 64},
    "another total": {"total": 1},
    "a total of another type": {"total": "24"},
    "drops of another type": {"drops": []},
    "epochs of another type": {"epochs_used": "2"},
    "no epochs": {"epochs_used": 0},
    "more epochs than there are": {"epochs_used": 10**30},
    "other drops": {"drops": {"a": 1}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_manifest(hostile: Hostile, run: Run, manifest: Path, name: str) -> None:
    said = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**said, **CHANGES[name]}))
    _replay(hostile, run, manifest)


@pytest.mark.parametrize(
    "field", ["run_id", "epochs_used", "recipe", "uids_sha256", "files", "total", "drops"]
)
def test_a_manifest_without_a_field(hostile: Hostile, run: Run, manifest: Path, field: str) -> None:
    said = json.loads(manifest.read_text())
    del said[field]
    manifest.write_text(json.dumps(said))
    _replay(hostile, run, manifest, says=field)


TEXTS = {
    "nothing": "",
    "null": "null",
    "a list": "[]",
    "a text": '"x"',
    "NaN": '{"total": NaN}',
    "infinity": '{"total": 1e999}',
    "deep": '{"recipe": ' + "[" * 100_000,
    "a bomb of digits": '{"total": ' + "9" * 5000 + "}",
    "half": '{"run_id": "',
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_manifest_that_is_none(hostile: Hostile, run: Run, name: str) -> None:
    file = hostile.root / "m.json"
    file.write_text(TEXTS[name])
    _replay(hostile, run, file)


NO_FILES: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: None,
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "noise": lambda path: path.write_bytes(b"\xff\xfe" * 100),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_a_manifest_file_that_is_none(hostile: Hostile, run: Run, name: str) -> None:
    file = hostile.root / "m.json"
    NO_FILES[name](file)
    _replay(hostile, run, file, says="m.json")


def test_an_export_that_has_been_changed(hostile: Hostile, run: Run, manifest: Path) -> None:
    data = hostile.out / "e.csv"
    data.write_bytes(data.read_bytes().replace(b"a", b"b", 1))
    _replay(hostile, run, manifest, says="SHA-256 differs")


OUTS = ["", ".", "..", "/", "out/", "e.csv/x.csv", "e", "e.parquet", "a\0.csv", "x" * 300 + ".csv"]


@pytest.mark.parametrize("out", OUTS)
def test_odd_places_for_an_export(hostile: Hostile, run: Run, out: str) -> None:
    (hostile.root / "e.csv").write_text("mine")
    tries = hostile.root / out if out == "e.csv/x.csv" else None  # to make a folder of the file
    hostile.refused("export", run.path, "--format", "csv", "--out", out, writes=tries)
    if out not in ("e.csv/x.csv", "e.parquet"):  # which are good names for a table of uids
        name = out.replace("csv", "parquet")
        hostile.refused("filter", _recipe(hostile), run.path, "--out", name)
    assert (hostile.root / "e.csv").read_text() == "mine"


@pytest.mark.parametrize("kind", ["folder", "pipe", "file", "link"])
def test_an_export_does_not_go_over_what_is_there(hostile: Hostile, run: Run, kind: str) -> None:
    hostile.out.mkdir()
    out = hostile.out / "e.csv"
    if kind == "folder":
        out.mkdir()
    if kind == "pipe":
        os.mkfifo(out)
    if kind == "file":
        out.write_text("mine")
    if kind == "link":
        (hostile.root / "theirs").write_text("theirs")
        out.symlink_to(hostile.root / "theirs")
    hostile.refused("export", run.path, "--format", "csv", "--out", out, says="there")
    if kind == "link":
        assert (hostile.root / "theirs").read_text() == "theirs"


def _recipe(hostile: Hostile) -> Path:
    file = hostile.root / "r.yaml"
    file.write_text("conditions: []\n")
    return file


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(changes=st.dictionaries(st.sampled_from(["run_id", "recipe", "files", "drops"]), plain))
def test_any_values_are_an_error(
    run: Run, tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    said = {"schema_version": 2, "run_id": run.id, "recipe": {}, "uids_sha256": "", "files": []}
    file = tmp_path_factory.mktemp("any") / "m.json"
    file.write_text(json.dumps({**said, "total": 24, "drops": {}, **changes}))
    with pytest.raises(MimicError):
        replay(file, run.path.parent)
