"""The Train page: what its controls ask for, and what it shows of the runs; nothing is trained."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from streamlit.testing.v1 import AppTest

from app.components.train.form import FRESH_RATE, WEIGHTINGS
from app.components.train.update import BATCH, HELD_OUT
from mimic_core.__main__ import app as command_line
from mimic_core.base.config import HeadConfig, RunConfig, SourceConfig, TrainConfig, WeightingName
from mimic_core.cli.options import given, run_config
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.record import Job, Report
from mimic_core.jobs.store import JOBS_FILE, JobStore
from mimic_core.runs.run import Run
from tests.app.conftest import OpenApp
from tests.app.explore.test_explore_page import state, texts
from tests.core.sources_pools import image_bytes, write_files
from tests.fakes import fake_training

Started = list[tuple[RunConfig, JobOptions]]
FRESH = "ViT-B-32:random:0"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """What the page asked to start."""
    asked: Started = []

    def start(store: JobStore, config: RunConfig, options: JobOptions) -> str:
        asked.append((config, options))
        return store.enqueue(config, options, Path.cwd())[0].job_id

    monkeypatch.setattr("app.components.train.start.start_job", start)
    return asked


def open_pool(open_app: OpenApp, pool: str, root: Path) -> AppTest:
    """The page with a pool on this machine and a reference by its open_clip name."""
    app = open_app(root, "train")
    app.segmented_control(key="pool_kind").set_value("On this machine").run()
    app.text_input(key="pool_path").set_value(pool).run()
    app.selectbox(key="set_reference").set_value("open_clip").run()
    app.text_input(key="set_open_clip").set_value("ViT-B-32:openai").run()
    return app


def open_fake(open_app: OpenApp, run: Run, root: Path) -> AppTest:
    return open_pool(open_app, run.record.config.source.path, root)


def command(app: AppTest) -> str:
    (found,) = [code.value for code in app.code if "mimic_core train" in code.value]
    return str(found)


def read_back(text: str) -> RunConfig:
    words = shlex.split(text.replace("\\\n", " "))
    train: Any = typer.main.get_command(command_line).commands["train"]  # type: ignore[attr-defined]
    return run_config("training", given(train.make_context("train", words[4:]).params))


def test_the_defaults_train_fresh_weights_of_the_reference(
    run: Run, open_app: OpenApp, tmp_path: Path, started: Started
) -> None:
    app = open_fake(open_app, run, tmp_path)
    assert not app.error
    app.button(key="train_go").click().run()
    ((config, options),) = started
    assert config == RunConfig(
        source=SourceConfig(path=run.record.config.source.path),
        reference="ViT-B-32:openai",
        training=TrainConfig(
            model=FRESH, batch_size=BATCH, learning_rate=FRESH_RATE, held_out=HELD_OUT
        ),
    )
    assert options == JobOptions()
    assert "queued" in texts(app)
    assert "training, mimic" in texts(app)
    assert app.segmented_control(key="train_view").value == "Learning curves"


def test_every_control_arrives_and_the_command_says_the_same(
    run: Run, open_app: OpenApp, tmp_path: Path, started: Started
) -> None:
    app = open_fake(open_app, run, tmp_path)
    app.segmented_control(key="train_start").set_value("A model of your own").run()
    app.text_input(key="train_model").set_value("ViT-B-32:random:7").run()
    app.text_input(key="train_layers").set_value("a.weight, b.weight").run()
    app.radio(key="train_weighting").set_value("influence").run()
    app.selectbox(key="train_clean_column").set_value("topic").run()
    topic, other = app.selectbox(key="train_clean_value").options[:2]
    app.selectbox(key="train_clean_value").set_value(topic).run()
    app.segmented_control(key="train_reweight").set_value("all").run()
    app.selectbox(key="train_optimiser").set_value("sgd").run()
    numbers = {
        "clean_count": 3, "temperature": 0.5, "epochs": 2, "batch": 16, "rate": 0.01, "seed": 9,
        "held_out": 0.25, "warmup": 7, "clip": 1.5, "decay": 0.1, "accumulate": 4,
        "evaluate": 100, "momentum": 0.5, "sample": 50, "epochs_used": 1,
    }  # fmt: skip
    for key, value in numbers.items():
        app.number_input(key=f"train_{key}").set_value(value)
    choices = {"train_method": "cos", "train_schedule": "cosine", "train_device": "cpu"}
    choices |= {"set_preprocess": "openai", "set_precision": "bf16"}
    for key, choice in choices.items():
        app.selectbox(key=key).set_value(choice)
    for key in ("flip", "compile", "map"):
        app.toggle(key=f"train_{key}").set_value(True)
    app.run()
    app.selectbox(key="train_held_column").set_value("topic").run()
    app.selectbox(key="train_held_value").set_value(other).run()
    said = command(app)
    app.button(key="train_go").click().run()
    ((config, options),) = started
    assert config == RunConfig(
        source=SourceConfig(path=run.record.config.source.path, sample=50, sample_seed=9),
        reference="ViT-B-32:openai",
        preprocess="openai",
        precision="bf16",
        training=TrainConfig(
            model="ViT-B-32:random:7", mimic_layers=("a.weight", "b.weight"),
            weighting="influence", reweight="all", temperature=0.5, method="cos", epochs=2,
            batch_size=16, accumulate=4, optimiser="sgd", learning_rate=0.01, weight_decay=0.1,
            momentum=0.5, schedule="cosine", warmup_steps=7, clip_norm=1.5, held_out=0.25,
            held_out_column=f"topic={other}", clean_column=f"topic={topic}", clean_per_class=3,
            evaluate_every=100, flip=True, compile=True, seed=9,
        ),
    )  # fmt: skip
    assert options == JobOptions(device="cpu", map=True, epochs_used=1)
    assert read_back(said) == config
    assert "--device cpu" in said
    assert "--out ." in said  # the runs root is the working directory here


def test_what_does_not_apply_is_not_asked(run: Run, open_app: OpenApp, tmp_path: Path) -> None:
    app = open_fake(open_app, run, tmp_path)
    number_inputs = {one.key for one in app.number_input}
    assert "train_momentum" not in number_inputs
    assert "train_clean_count" not in number_inputs
    app.radio(key="train_weighting").set_value("uniform").run()
    assert not [one for one in app.segmented_control if one.key == "train_reweight"]
    assert "temperature and score shape the logs only" in texts(app)
    app.number_input(key="train_held_out").set_value(0.0).run()
    assert "Nothing is held out" in texts(app)


def test_every_weighting_is_offered_with_a_line_of_its_own() -> None:
    assert set(WEIGHTINGS) == set(WeightingName.__args__)  # type: ignore[attr-defined]
    assert len({line for _, line in WEIGHTINGS.values()}) == len(WEIGHTINGS)


@pytest.mark.parametrize(
    ("key", "choice", "problem"),
    [
        ("train_start", "A model of your own", "no model to train is named yet"),
        ("train_weighting", "influence", "influence needs samples known to be clean"),
        ("train_held_column", "topic", "no value of column topic is chosen yet"),
        ("set_reference", "open_clip", "no reference model is named yet"),
        ("set_reference", "Features of your own", "training runs a model on the images"),
    ],
)
def test_what_is_missing_is_a_message(
    run: Run, open_app: OpenApp, tmp_path: Path, key: str, choice: str, problem: str
) -> None:
    app = open_fake(open_app, run, tmp_path)
    if key == "set_reference":
        app.text_input(key="set_open_clip").set_value("").run()
    kinds = {"train_start": app.segmented_control, "train_weighting": app.radio}
    kinds.get(key, app.selectbox)(key=key).set_value(choice).run()
    assert problem in app.error[0].value.lower().replace("\\", "")
    assert not [button for button in app.button if button.key == "train_go"]
    if key != "set_reference":  # the rest of the form stays
        assert app.selectbox(key="train_device")
        assert app.number_input(key="train_epochs")


def test_a_reference_without_an_architecture_in_its_name_needs_a_model(
    run: Run, open_app: OpenApp, tmp_path: Path
) -> None:
    app = open_fake(open_app, run, tmp_path)
    app.text_input(key="set_open_clip").set_value("hf-hub:timm/ViT-B-16-SigLIP").run()
    assert "does not tell its architecture" in app.error[0].value


def test_labelled_pools_ask_where_the_reference_head_comes_from(
    open_app: OpenApp, tmp_path: Path, started: Started
) -> None:
    images = {
        f"{name}/{n}.png": image_bytes((n, 9, 9)) for name in ("cat", "dog") for n in range(3)
    }
    pool = write_files(tmp_path / "classes", images)
    app = open_pool(open_app, str(pool), tmp_path)
    assert "labels from" in texts(app)
    app.segmented_control(key="head_kind").set_value("Trusted samples").run()
    assert "no samples are trusted yet" in app.error[0].value.lower()
    app.text_input(key="head_trusted").set_value("30%").run()
    app.toggle(key="head_score_trusted").set_value(True).run()
    app.text_input(key="train_held_labels").set_value("checked").run()
    said = command(app)
    app.button(key="train_go").click().run()
    assert read_back(said) == started[0][0]
    assert started[0][0].head == HeadConfig(trusted="30%", score_trusted=True)
    assert started[0][0].training is not None
    assert started[0][0].training.held_out_label_column == "checked"


def test_influence_takes_the_trusted_samples_as_the_command_does(
    open_app: OpenApp, tmp_path: Path, started: Started
) -> None:
    images = {
        f"{name}/{n}.png": image_bytes((n, 9, 9)) for name in ("cat", "dog") for n in range(3)
    }
    pool = write_files(tmp_path / "classes", images)
    app = open_pool(open_app, str(pool), tmp_path)
    app.radio(key="train_weighting").set_value("influence").run()
    assert "or trusted samples for the reference head" in app.error[0].value
    app.segmented_control(key="head_kind").set_value("Trusted samples").run()
    app.text_input(key="head_trusted").set_value("30%").run()
    assert not app.error
    assert "the trusted samples of the reference head" in texts(app)
    app.button(key="train_go").click().run()
    ((config, _),) = started
    assert config.head == HeadConfig(trusted="30%")
    assert config.training is not None
    assert (config.training.weighting, config.training.clean_column) == ("influence", None)


def running(store: JobStore, job: Job) -> None:
    claimed = store.claim(job.job_id)
    assert claimed is not None
    report = Report(phase="training", unit="samples", done=60, total=80, rate=20.0, remaining=1.0)
    store.beat(claimed, report)


def test_an_active_job_begins_with_progress_and_curves(open_app: OpenApp, tmp_path: Path) -> None:
    run = fake_training(tmp_path, done=False)
    store = JobStore(tmp_path / JOBS_FILE)
    job, _ = store.enqueue(run.record.config, JobOptions(), tmp_path)
    running(store, job)
    app = open_app(tmp_path, "train")
    (bar,) = app.get("progress")
    assert bar.proto.text == "training · 60 of 80 samples · 20/s · 1 s left"
    assert len(app.get("plotly_chart")) == 4
    assert app.dataframe[0].value["state"].to_list() == ["not finished"]


def test_jobs_of_other_modes_are_left_to_their_page(run: Run, open_app: OpenApp) -> None:
    root = Path.cwd()
    store = JobStore(root / JOBS_FILE)
    store.enqueue(run.record.config, JobOptions(), root)
    assert not open_app(root, "train").get("progress")


def test_without_runs_the_curves_say_so(open_app: OpenApp, tmp_path: Path) -> None:
    app = open_app(tmp_path, "train")
    app.segmented_control(key="train_view").set_value("Learning curves").run()
    assert "No learning curves yet" in texts(app)


def test_runs_are_laid_side_by_side_and_opened(open_app: OpenApp, tmp_path: Path) -> None:
    plain = fake_training(tmp_path, weighting="uniform", created_at="2026-03-03T00:00:00+00:00")
    mimic = fake_training(tmp_path)
    app = open_app(tmp_path, "train")
    app.segmented_control(key="train_view").set_value("Learning curves").run()
    (chosen,) = app.multiselect
    assert chosen.value == [plain.id, mimic.id]
    assert app.dataframe[0].value["run"].to_list() == ["uniform", "mimic"]
    assert not app.warning
    app.multiselect[0].set_value([mimic.id]).run()
    assert app.dataframe[0].value["run"].to_list() == ["mimic"]
    app.button(key=f"explore-{mimic.id}").click().run()
    assert state(app).run_id == mimic.id
    assert "weighting mimic on the mimic layers" in texts(app)
    assert "10 held out" in texts(app)


def test_held_out_samples_that_differ_are_warned_of(open_app: OpenApp, tmp_path: Path) -> None:
    fake_training(tmp_path, held_out=0.2)
    fake_training(tmp_path, held_out=0.1)
    app = open_app(tmp_path, "train")
    app.segmented_control(key="train_view").set_value("Learning curves").run()
    assert "hold out different samples" in app.warning[0].value
