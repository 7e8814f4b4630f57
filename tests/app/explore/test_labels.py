"""Labelled images on the screen: preview, settings, tiles, drawer, live tuning."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mimic_core.base.config import HeadConfig, RunConfig, SourceConfig
from mimic_core.filters.conditions import Category
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from mimic_core.scoring.pipeline import score_pool
from tests.app.conftest import STATE, OpenApp
from tests.app.data.test_data_page import Started, started
from tests.app.explore.test_explore_page import state, texts, tiles
from tests.core.scoring_pool import CLASSES, write_class_folders

__all__ = ["started"]  # a fixture


@pytest.fixture(scope="module")
def labelled_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small run on trusted labels."""
    home = tmp_path_factory.mktemp("labelled")
    config: RunConfig = RunConfig.parse(
        {
            "source": {"path": str(write_class_folders(home / "pool"))},
            "reference": "timm:test_resnet:random:0",
            "head": {"trusted": "40%"},
            "probe": {"epochs": 2, "batch_size": 8, "temperature": 1.0},
        }
    )
    return score_pool(config, runs_root=home / "runs", device="cpu", workers=0)


def test_a_reference_that_agrees_with_too_few_labels_is_warned_of(
    labelled_run: Run, open_app: OpenApp, tmp_path: Path
) -> None:
    shutil.copytree(labelled_run.path.parent, tmp_path, dirs_exist_ok=True)
    file = tmp_path / labelled_run.id / "run.json"
    record = json.loads(file.read_text())
    assert record["reference_head"]["chance"] is not None
    for accuracy, warned in ((0.9, False), (0.34, True)):
        record["reference_head"] |= {"accuracy": accuracy, "chance": 0.33}
        file.write_text(json.dumps(record))
        app = open_app(tmp_path, "explore")
        said = [one.value.replace("\\", "") for one in app.warning]
        assert any("agrees with 34.0% of the labels" in text for text in said) is warned


def test_class_folders_are_previewed_with_their_labels(
    labelled_run: Run, open_app: OpenApp, tmp_path: Path
) -> None:
    app = open_app(tmp_path, "data")
    app.segmented_control(key="pool_kind").set_value("On this machine").run()
    app.text_input(key="pool_path").set_value(labelled_run.record.config.source.path).run()
    assert not app.exception
    assert "**37** samples · folder · 1 shard · labels from the folders" in texts(app)
    assert {tile["caption"] for tile in tiles(app)} == {"cat"}


def test_a_labelled_pool_starts_with_its_reference_head(
    labelled_run: Run, open_app: OpenApp, tmp_path: Path, started: Started
) -> None:
    path = labelled_run.record.config.source.path
    app = open_app(tmp_path, "data")
    app.segmented_control(key="pool_kind").set_value("On this machine").run()
    app.text_input(key="pool_path").set_value(path).run()
    app.selectbox(key="set_reference").set_value("timm (labels only)").run()
    app.text_input(key="set_timm (labels only)").set_value("timm:resnet18:random:0").run()
    app.selectbox(key="set_reference").set_value("Features of your own").run()
    app.text_input(key="set_Features of your own").set_value("/data/own.npy").run()
    assert app.segmented_control(key="head_kind_own").options == ["Trusted samples", "File"]
    app.selectbox(key="set_reference").set_value("timm (labels only)").run()
    app.segmented_control(key="head_kind").set_value("Trusted samples").run()
    assert "No samples are trusted yet" in app.info[0].value.replace("\\", "")
    assert app.button(key="start").disabled
    app.text_input(key="head_trusted").set_value("split=train").run()
    app.number_input(key="set_batch").set_value(8).run()
    app.button(key="start").click().run()
    ((config, options),) = started
    assert config.source == SourceConfig(path=path)
    assert config.head == HeadConfig(trusted="split=train")
    assert config.probe is not None
    assert (config.probe.weighting, config.probe.temperature) == ("mimic", 1.0)
    assert not options.sweep


def test_explore_shows_labels_and_the_reference_head(labelled_run: Run, open_app: OpenApp) -> None:
    app = open_app(labelled_run.path.parent)
    assert "trained on 14 trusted samples" in texts(app).replace("\\", "")
    assert {tile["caption"] for tile in tiles(app)} <= set(CLASSES)
    table = run_table(labelled_run)
    uid = tiles(app)[0]["uid"]
    app.session_state[STATE] = replace(state(app), opened=uid)
    app.run()
    assert not app.exception
    label = table.filter(table["uid"] == uid)["label"][0]
    assert label in [text.value for text in app.text]


def test_labelled_pools_offer_what_the_reference_head_says(
    labelled_run: Run, open_app: OpenApp
) -> None:
    app = open_app(labelled_run.path.parent, "filters")
    table = run_table(labelled_run)
    buttons = {button.label.replace("\\", ""): button for button in app.button}
    buttons["The reference head agrees with the label"].click().run()
    assert not app.exception
    assert not app.error
    assert state(app).recipe.conditions[0].condition == Category(
        column="reference_agrees", values=(True,)
    )
    kept = int(table["reference_agrees"].sum())
    assert any(f"keeps **{kept}** by itself" in one.value for one in app.caption)


def test_dynamics_shows_the_labels_of_single_samples(labelled_run: Run, open_app: OpenApp) -> None:
    app = open_app(labelled_run.path.parent, "dynamics")
    assert not app.error
    table = run_table(labelled_run)
    app.session_state[STATE] = replace(state(app), opened=table["uid"][0])
    app.run()
    assert not app.exception
    assert table["label"][0] in [text.value for text in app.text]


def test_a_labelled_probe_is_tuned_live(labelled_run: Run, open_app: OpenApp) -> None:
    app = open_app(labelled_run.path.parent)
    assert not [one for one in app.segmented_control if one.key == "tune_side"]
    app.number_input(key="tune_epochs").set_value(3).run()
    assert not app.exception
    assert state(app).tuned is not None
    assert state(app).tuned.epochs == 3
