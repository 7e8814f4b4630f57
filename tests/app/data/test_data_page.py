"""Choosing a pool, settings, and the jobs that follow; no job is really started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.cache import served
from mimic_core.base.config import HeadConfig, ProbeConfig, RunConfig, SnapshotConfig, SourceConfig
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.record import Failure, Job, Report
from mimic_core.jobs.store import JOBS_FILE, JobStore
from mimic_core.runs.run import Run
from tests.app.conftest import OpenApp
from tests.app.explore.test_explore_page import metric, state, texts, tiles
from tests.core.sources_pools import image_bytes, write_files
from tests.fakes import fake_run

CONFIG = RunConfig(source=SourceConfig(path="/data/photos"), reference="ref", probe=ProbeConfig())
Started = list[tuple[RunConfig, JobOptions]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """What the page asked to start."""
    asked: Started = []

    def start(store: JobStore, config: RunConfig, options: JobOptions) -> str:
        asked.append((config, options))
        return store.enqueue(config, options, Path.cwd())[0].job_id

    monkeypatch.setattr("mimic_core.jobs.worker.start_job", start)
    monkeypatch.setattr("app.components.explore.tune.start_job", start)
    monkeypatch.setattr("app.components.explore.map.start_job", start)
    return asked


def open_pool(open_app: OpenApp, run: Run, root: Path) -> AppTest:
    """The data page with the fake run's pool chosen."""
    app = open_app(root, "data")
    app.segmented_control(key="pool_kind").set_value("On this machine").run()
    app.text_input(key="pool_path").set_value(run.record.config.source.path).run()
    return app


def test_a_pool_is_previewed(run: Run, open_app: OpenApp, tmp_path: Path) -> None:
    app = open_pool(open_app, run, tmp_path)
    assert "**130** samples · webdataset · 2 shards" in texts(app)
    assert len(tiles(app)) == 8
    assert all(served.picture_at(tile["uri"]).data for tile in tiles(app))


def test_what_of_a_pool_is_not_read_is_said(run: Run, open_app: OpenApp, tmp_path: Path) -> None:
    pool = write_files(tmp_path / "pool", {"a.png": image_bytes(), "a.txt": "x", "b.json": "{}"})
    app = open_app(tmp_path, "data")
    app.segmented_control(key="pool_kind").set_value("On this machine").run()
    app.text_input(key="pool_path").set_value(str(pool)).run()
    assert "Not read: 1 x .json" in texts(app).replace("\\", "")


def test_a_missing_pool_is_a_message(open_app: OpenApp, tmp_path: Path) -> None:
    app = open_app(tmp_path, "data")
    app.segmented_control(key="pool_kind").set_value("On this machine").run()
    app.text_input(key="pool_path").set_value("/nowhere").run()
    assert "no such file or folder" in app.error[0].value.replace("\\", "")
    assert not [button for button in app.button if button.key == "start"]


def test_starting_uses_the_settings_on_the_page(
    run: Run, open_app: OpenApp, tmp_path: Path, started: Started
) -> None:
    app = open_pool(open_app, run, tmp_path)
    app.selectbox(key="set_reference").set_value("Random weights").run()
    app.text_input(key="set_Random weights").set_value("ViT-B-32:random:0").run()
    app.number_input(key="set_sample").set_value(100).run()
    app.number_input(key="set_batch").set_value(50).run()
    app.number_input(key="set_seed").set_value(3).run()
    app.toggle(key="set_map").set_value(False).run()
    app.button(key="start").click().run()
    ((config, options),) = started
    path = run.record.config.source.path
    assert config.source == SourceConfig(path=path, sample=100, sample_seed=3)
    assert config.reference == "ViT-B-32:random:0"
    assert config.probe == ProbeConfig(batch_size=50, seed=3)
    assert options == JobOptions(map=False)
    assert "queued" in texts(app)


def test_snapshot_asks_for_model_and_mimic_layers(
    run: Run, open_app: OpenApp, tmp_path: Path, started: Started
) -> None:
    app = open_pool(open_app, run, tmp_path)
    app.radio(key="set_mode").set_value("snapshot").run()
    app.text_input(key="set_model").set_value("ViT-B-32:random:1").run()
    app.text_input(key="set_layers").set_value("visual.proj, text_projection").run()
    app.number_input(key="set_repeats").set_value(4).run()
    app.button(key="start").click().run()
    assert started[0][0].snapshot == SnapshotConfig(
        model="ViT-B-32:random:1", mimic_layers=("visual.proj", "text_projection"), repeats=4
    )


def test_a_reference_that_is_not_named_is_asked_for_calmly(
    run: Run, open_app: OpenApp, tmp_path: Path
) -> None:
    app = open_pool(open_app, run, tmp_path)
    app.selectbox(key="set_reference").set_value("open_clip").run()
    assert not app.error
    assert "No reference model is named yet: type it" in app.info[0].value
    assert app.number_input(key="set_epochs")  # the other settings stay
    assert app.button(key="start").disabled
    app.text_input(key="set_open_clip").set_value("ViT-B-32:laion2b_s34b_b79k").run()
    assert not app.info
    assert not app.button(key="start").disabled


def test_features_of_ones_own_take_the_place_of_a_model(
    run: Run, open_app: OpenApp, tmp_path: Path, started: Started
) -> None:
    """Of captions, with the projection to their embeddings; there is no other mode than probe."""
    app = open_pool(open_app, run, tmp_path)
    app.selectbox(key="set_reference").set_value("Features of your own").run()
    assert "No reference model is named yet" in app.info[0].value
    app.text_input(key="set_Features of your own").set_value("/data/own.parquet").run()
    assert "No projection is named yet" in app.info[0].value
    assert not [one for one in app.radio if one.key == "set_mode"]
    app.text_input(key="head_projection").set_value("/data/to_text.safetensors").run()
    assert "--reference features:/data/own.parquet" in app.code[0].value
    app.button(key="start").click().run()
    assert not app.exception
    config, _ = started[0]
    assert config.reference == "features:/data/own.parquet"
    assert config.head == HeadConfig(file="/data/to_text.safetensors")
    assert config.probe is not None


def test_a_module_of_ones_own_is_left_to_the_command_line(
    run: Run, open_app: OpenApp, tmp_path: Path
) -> None:
    app = open_pool(open_app, run, tmp_path)
    app.selectbox(key="set_reference").set_value("Folder or checkpoint").run()
    app.text_input(key="set_Folder or checkpoint").set_value("mine.py:build").run()
    said = app.info[0].value.replace("\\", "")
    assert "A module of your own runs its code, which this page does not" in said
    assert "reference mine.py:build on the command line" in said
    assert app.button(key="start").disabled


def test_a_batch_larger_than_the_pool_is_said_to_be_one_batch(
    run: Run, open_app: OpenApp, tmp_path: Path
) -> None:
    app = open_pool(open_app, run, tmp_path)
    assert "all 130 are scored as one batch" in texts(app)
    assert not app.warning
    app.number_input(key="set_sample").set_value(40).run()
    assert "all 40 are scored as one batch" in texts(app)
    app.number_input(key="set_batch").set_value(40).run()
    assert "one batch" not in texts(app)


def test_device_and_workers_are_chosen(
    run: Run, open_app: OpenApp, tmp_path: Path, started: Started
) -> None:
    app = open_pool(open_app, run, tmp_path)
    app.selectbox(key="set_device").set_value("cpu").run()
    app.number_input(key="set_workers").set_value(0).run()
    app.number_input(key="set_epochs_used").set_value(9).run()
    assert "no such epochs" in app.error[0].value
    app.number_input(key="set_epochs_used").set_value(2).run()
    app.button(key="start").click().run()
    asked = JobOptions(map=True, device="cpu", workers=0, epochs_used=2)
    assert [options for _, options in started] == [asked]


def test_settings_survive_a_switch_of_pages(run: Run, open_app: OpenApp, tmp_path: Path) -> None:
    app = open_pool(open_app, run, tmp_path)
    app.number_input(key="set_epochs").set_value(9).run()
    app.switch_page("views/export.py").run()
    app.switch_page("views/data.py").run()
    assert app.number_input(key="set_epochs").value == 9
    assert app.text_input(key="pool_path").value == run.record.config.source.path


def test_an_uploaded_zip_is_written_out_at_once(open_app: OpenApp, tmp_path: Path) -> None:
    app = open_app(tmp_path, "data")
    app.segmented_control(key="pool_kind").set_value("Upload a zip").run()
    assert not app.error
    app.file_uploader(key="pool_upload").set_value([("Mine.zip", b"no zip", "application/zip")])
    app.run()
    (stored,) = (tmp_path / "uploads").iterdir()
    assert stored.read_bytes() == b"no zip"
    assert app.error  # it is no zip


Prepare = Callable[[JobStore, Job], None]


def running(store: JobStore, job: Job) -> None:
    claimed = store.claim(job.job_id)
    assert claimed is not None
    report = Report(
        phase="images", unit="samples", done=30, total=120, skipped=2, rate=15.0, remaining=6.0
    )
    store.beat(claimed, report)


def failed(store: JobStore, job: Job) -> None:
    claimed = store.claim(job.job_id)
    assert claimed is not None
    store.finish(claimed, "failed", Failure(problem="no such <b>model</b>", next_step="name it"))


def cancelled(store: JobStore, job: Job) -> None:
    store.cancel(job.job_id)


def open_jobs(open_app: OpenApp, root: Path, prepare: Prepare) -> tuple[AppTest, JobStore, str]:
    store = JobStore(root / JOBS_FILE)
    job, _ = store.enqueue(CONFIG, JobOptions(), root)
    prepare(store, job)
    return open_app(root, "data"), store, job.job_id


def test_a_running_job_shows_how_far_it_is(open_app: OpenApp, tmp_path: Path) -> None:
    app, store, job_id = open_jobs(open_app, tmp_path, running)
    (bar,) = app.get("progress")
    assert bar.proto.value == 25
    assert bar.proto.text == "images · 30 of 120 samples · 15/s · 6 s left · 2 skipped"
    app.button(key=f"cancel-{job_id}").click().run()
    assert store.job(job_id).cancel_requested
    assert "stopping…" in texts(app)


def test_a_failed_job_says_why_and_can_be_resumed(
    open_app: OpenApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed: list[str] = []
    monkeypatch.setattr(
        "mimic_core.jobs.worker.resume", lambda _store, job_id: resumed.append(job_id)
    )
    app, _, job_id = open_jobs(open_app, tmp_path, failed)
    assert "No such \\<b\\>model\\</b\\>" in app.error[0].value
    app.button(key=f"resume-{job_id}").click().run()
    assert resumed == [job_id]


def test_a_cancelled_job_can_be_resumed(open_app: OpenApp, tmp_path: Path) -> None:
    app, _, job_id = open_jobs(open_app, tmp_path, cancelled)
    assert "cancelled" in texts(app)
    assert app.button(key=f"resume-{job_id}")


def test_a_finished_job_opens_its_run(open_app: OpenApp, tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=6)
    fake_run(tmp_path, n=5, seed=1).update(created_at="2026-05-01T00:00:00+00:00")

    def done(store: JobStore, job: Job) -> None:
        claimed = store.claim(job.job_id)
        assert claimed is not None
        store.set_run_dir(claimed, run.path)
        store.finish(claimed, "done")

    app, _, job_id = open_jobs(open_app, tmp_path, done)
    app.button(key=f"open-{job_id}").click().run()
    assert state(app).run_id == run.id
    assert metric(app, "Kept") == "6 of 6"


def test_saving_tuned_settings_starts_a_run_with_them(
    open_app: OpenApp, tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path, n=40)
    monkeypatch.setattr("mimic_core.scoring.tuning.tune", lambda _features, _config: run.scores())
    monkeypatch.setattr(
        "mimic_core.scoring.tuning.estimate_seconds", lambda _features, _config: 0.1
    )
    app = open_app(tmp_path)
    app.number_input(key="tune_temperature").set_value(0.7).run()
    app.button(key="tune_save").click().run()
    assert [config.probe for config, _ in started] == [
        ProbeConfig(epochs=3, batch_size=32, temperature=0.7)
    ]
    assert started[0][0].source == run.record.config.source


def test_making_the_map_starts_a_job_for_the_same_run(
    open_app: OpenApp, tmp_path: Path, started: Started
) -> None:
    run = fake_run(tmp_path, n=6, with_map=False)
    app = open_app(tmp_path)
    app.button(key="make_map").click().run()
    assert started == [(run.record.config, JobOptions(map_of=str(run.path)))]
    app.switch_page("views/data.py").run()
    assert "**fake\\-0** · map" in texts(app)


def test_skipped_samples_are_listed_with_their_reasons(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent)
    app.session_state["skipped"] = True  # opened
    reasons = app.run().dataframe[0].value
    assert sorted(reasons["reason"]) == ["corrupt_image", "empty_caption", "missing_image"]
    assert len(app.dataframe[1].value) == 3
