from __future__ import annotations

import io
from pathlib import Path

import pytest

from app.library import (
    READ_VARIABLE,
    REPOSITORY,
    expanded,
    located,
    open_library,
    require_allowed,
    runs_root,
    store_upload,
    tidy_path,
)
from mimic_core.base.config import RunConfig
from mimic_core.base.errors import ConfigError
from mimic_core.runs.run import Run
from tests.fakes import fake_run


def test_object_storage_is_outside_of_all_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = expanded("s3://bucket/pool")
    assert require_allowed(pool) == pool
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(READ_VARIABLE, str(tmp_path))
    for url in ("s3://bucket/pool", "s3:/bucket/pool", "https://10.0.0.1/x.tar"):
        with pytest.raises(ConfigError, match="outside of the folders"):
            require_allowed(expanded(url))


def test_runs_are_listed_newest_first_with_the_bundled_ones_last(tmp_path: Path) -> None:
    own = fake_run(tmp_path / "own", n=4)
    newer = fake_run(tmp_path / "own", n=4, seed=1).update(created_at="2026-05-01T00:00:00+00:00")
    bundled = fake_run(tmp_path / "bundled", n=4, seed=2)
    found = open_library(tmp_path / "own", tmp_path / "bundled")
    assert [run.id for run in found.runs] == [newer.id, own.id, bundled.id]
    assert found.find(bundled.id) == bundled
    assert found.find("nobody") is None


def test_the_users_own_copy_comes_before_the_bundled_one(tmp_path: Path) -> None:
    own = fake_run(tmp_path / "own", n=4)
    fake_run(tmp_path / "bundled", n=4)
    assert [run.path for run in open_library(tmp_path / "own", tmp_path / "bundled").runs] == [
        own.path
    ]


def test_a_damaged_run_is_named_and_hides_no_other(tmp_path: Path) -> None:
    good = fake_run(tmp_path, n=4)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{", encoding="utf-8")
    found = open_library(tmp_path, tmp_path / "bundled")
    assert [run.id for run in found.runs] == [good.id]
    assert [path.name for path, _ in found.damaged] == ["broken"]


def test_runs_root_is_set_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runs_root() == tmp_path / "runs"
    monkeypatch.setenv("MIMICSCOPE_RUNS", str(tmp_path / "other"))
    assert runs_root() == tmp_path / "other"


def test_relative_paths_of_the_bundled_run_are_found_from_anywhere(run: Run) -> None:
    config = run.record.config
    pool = config.source.model_copy(update={"path": "app/views"})
    moved: RunConfig = located(config.model_copy(update={"source": pool}))
    assert moved.source.path == str(REPOSITORY / "app" / "views")
    assert moved.reference == config.reference
    assert located(config) == config


def test_an_upload_is_stored_by_content(tmp_path: Path) -> None:
    first = store_upload(io.BytesIO(b"zip bytes"), "My photos.zip", tmp_path)
    again = store_upload(io.BytesIO(b"zip bytes"), "My photos.zip", tmp_path)
    other = store_upload(io.BytesIO(b"other"), "My photos.zip", tmp_path)
    assert first == again != other
    assert first.read_bytes() == b"zip bytes"
    assert first.name.startswith("my-photos-")
    assert sorted(path.name for path in first.parent.iterdir()) == sorted({first.name, other.name})


def test_paths_inside_the_working_directory_are_shown_short(tmp_path: Path) -> None:
    assert tidy_path(tmp_path / "pool" / "shards") == "pool/shards"
    assert tidy_path(Path("/etc/hosts")) == "/etc/hosts"
