"""Real images with real label noise: what the Train page asks for is trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from mimic_core.base.config import HeadConfig
from mimic_core.scoring.training.train import train_pool
from tests.app.conftest import OpenApp
from tests.app.explore.test_explore_page import texts
from tests.app.train.test_train_page import Started, read_back, started
from tests.app.train.test_train_page import command as command_of
from tests.places import CIFAR

__all__ = ["started"]  # a fixture

SAMPLES = 200

pytestmark = pytest.mark.skipif(not CIFAR.is_file(), reason=f"no pool at {CIFAR}")


def test_the_page_trains_on_noisy_labels(
    open_app: OpenApp, tmp_path: Path, started: Started
) -> None:
    app = open_app(tmp_path, "train")
    app.segmented_control(key="pool_kind").set_value("On this machine").run()
    app.text_input(key="pool_path").set_value(str(CIFAR)).run()
    app.text_input(key="label_column").set_value("noisy_worse").run()
    assert "labels from noisy\\_worse" in texts(app)
    app.selectbox(key="set_reference").set_value("timm (labels only)").run()
    app.text_input(key="set_timm (labels only)").set_value("timm:test_vit:random:0").run()
    app.segmented_control(key="head_kind").set_value("Trusted samples").run()
    app.text_input(key="head_trusted").set_value("20%").run()
    app.text_input(key="head_trusted_labels").set_value("label").run()
    app.selectbox(key="set_preprocess").set_value("imagenet")
    for key, value in {"epochs": 1, "sample": SAMPLES, "model_seed": 1}.items():
        app.number_input(key=f"train_{key}").set_value(value)
    app.run()
    assert not app.error
    said = command_of(app)
    app.button(key="train_go").click().run()
    ((config, _),) = started
    assert read_back(said) == config
    assert config.source.label_column == "noisy_worse"
    assert config.head == HeadConfig(trusted="20%", trusted_label_column="label")
    run = train_pool(config, runs_root=tmp_path / "runs", device="cpu", workers=0)
    assert run.done
    assert len(run.features.samples) == SAMPLES
    assert run.record.samples + run.record.held_out == SAMPLES
    assert run.metrics()["accuracy"].null_count() == 0
