"""The Export page: every format has its settings, its command and its job."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mimic_core.export.record import ExportRequest
from mimic_core.export.settings import FORMATS, TABLES, USED_BY, ExportFormat
from mimic_core.jobs import worker
from mimic_core.jobs.store import JobStore
from mimic_core.runs.run import Run
from tests.core.buckets import Bucket, bucket, s3_server
from tests.fakes import fake_run

__all__ = ["bucket", "s3_server"]  # fixtures

OpenApp = Callable[..., AppTest]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ExportRequest]:
    """The requests whose workers would have been started."""
    found: list[ExportRequest] = []

    def launch(store: JobStore, job: worker.Job) -> None:
        assert isinstance(job.config, ExportRequest)
        found.append(job.config)
        assert worker.work(store, job.job_id) in ("done", "failed")

    monkeypatch.setattr("mimic_core.jobs.worker._launch", launch)
    return found


@pytest.fixture
def page(tmp_path: Path, open_app: OpenApp) -> AppTest:
    fake_run(tmp_path / "runs", n=12)
    return open_app(tmp_path / "runs", "export")


def choose(app: AppTest, file_format: ExportFormat) -> AppTest:
    return app.selectbox(key="export_format").set_value(file_format).run()


def keys(app: AppTest) -> set[str]:
    found = [*app.number_input, *app.selectbox, *app.toggle, *app.text_input]
    return {str(one.key).removeprefix("export_") for one in found}


def test_each_format_shows_its_settings_and_its_command(page: AppTest, run: Run) -> None:
    del run
    for file_format in FORMATS:
        app = choose(page, file_format)
        assert not app.exception
        expected = {name for name, formats in USED_BY.items() if file_format in formats}
        expected -= {"repeats_total", "repeats_penalty"}  # until there is a column
        assert keys(app) & USED_BY.keys() == expected, file_format
        if file_format == "keep_column":
            assert "no table of its own" in app.error[0].value
        else:
            assert f"--format {file_format}" in app.code[-1].value
        downloads = {one.key for one in app.get("download_button")}
        assert ("download_data" in downloads) == (file_format in TABLES)


def test_shards_are_written_by_a_job_whose_end_is_shown(
    page: AppTest, tmp_path: Path, started: list[ExportRequest]
) -> None:
    app = choose(page, "webdataset")
    app.number_input(key="export_shard_size").set_value(5).run()
    app.text_input(key="export_folder").set_value(str(tmp_path / "out")).run()
    app.button(key="export_write").click().run()
    assert not app.exception
    (request,) = started
    assert (request.config.format, request.config.shard_size) == ("webdataset", 5)
    said = json.loads((tmp_path / "out" / "fake-0-selection.manifest.json").read_text())
    assert (said["exported"], said["settings"]) == (12, {"shard_size": 5})
    shown = "\n".join(str(one.value) for one in [*app.markdown, *app.caption])
    assert "export as webdataset" in shown
    assert "manifest" in shown


def test_a_place_outside_of_the_folders_of_the_app_is_refused(
    page: AppTest, tmp_path: Path, started: list[ExportRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIMICSCOPE_ROOTS", str(tmp_path / "allowed"))
    app = choose(page, "imagefolder")
    app.text_input(key="export_folder").set_value(str(tmp_path / "out")).run()
    app.button(key="export_write").click().run()
    assert "outside of the folders" in app.error[0].value
    assert started == []
    app.text_input(key="export_folder").set_value(str(tmp_path / "allowed")).run()
    (tmp_path / "allowed").mkdir()
    app.button(key="export_write").click().run()
    (request,) = started
    assert str(tmp_path / "allowed") in request.read_roots


def test_a_bucket_is_written_to_unless_the_app_has_folders_of_its_own(
    page: AppTest,
    bucket: Bucket,
    tmp_path: Path,
    started: list[ExportRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(file_format: ExportFormat) -> AppTest:
        app = choose(page, file_format)
        app.text_input(key="export_folder").set_value("s3://pools/out").run()
        return app.button(key="export_write").click().run()

    for file_format in (*TABLES[1:2], "webdataset"):
        assert not write(file_format).exception
    assert [request.out for request in started] == ["s3://pools/out/fake-0-selection"]
    assert {"out/fake-0-selection.csv", "out/fake-0-selection.manifest.json"} < set(bucket.names())
    monkeypatch.setenv("MIMICSCOPE_ROOTS", str(tmp_path))
    before = bucket.versions()
    assert "outside of the folders" in write("imagefolder").error[0].value
    assert (len(started), bucket.versions()) == (1, before)


def test_a_soft_cap_asks_for_total_and_penalty(page: AppTest) -> None:
    app = choose(page, "datacomp")
    app.selectbox(key="export_repeats").set_value("mimic_score").run()
    app.number_input(key="export_repeats_total").set_value(30).run()
    assert "a soft cap needs all three" in app.error[0].value
    app.number_input(key="export_repeats_penalty").set_value(0.5).run()
    assert not app.error
    command: Any = app.code[-1].value
    assert "--repeats mimic_score" in command
    assert "--repeats-total 30" in command
