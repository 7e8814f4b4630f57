"""Widgets are made from the fields of the settings: bounds, choices and words are theirs."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mimic_core.base.config import (
    Frozen,
    HeadConfig,
    ProbeConfig,
    RunConfig,
    SnapshotConfig,
    SourceConfig,
    TrainConfig,
)
from mimic_core.base.fields import INSIDE, setting
from mimic_core.jobs.options import JobOptions
from mimic_core.proofs.settings import ProveConfig
from mimic_core.runs.run import Run
from tests.app.conftest import OpenApp

CONFIGS: tuple[type[Frozen], ...] = (
    SourceConfig, ProbeConfig, SnapshotConfig, TrainConfig, HeadConfig, JobOptions, ProveConfig,
)  # fmt: skip


def draw(config: type, names: list[str], own: dict[str, object]) -> None:
    # Run by streamlit as a script, apart from this module.
    import streamlit as st

    from app.components.shared.controls import config_field

    for name in names:
        st.write(f"{name}: {config_field(config, name, key=name, **own)!r}")


def drawn(config: type[Frozen], *names: str, **own: Any) -> AppTest:
    app = AppTest.from_function(draw, args=(config, list(names or config.model_fields), own)).run()
    assert not app.exception
    return app


@pytest.mark.parametrize("config", CONFIGS)
def test_a_widget_has_the_words_and_bounds_of_its_field(config: type[Frozen]) -> None:
    app = drawn(config)
    for name in config.model_fields:
        one = setting(config, name)
        kinds = {bool: app.toggle, int: app.number_input, float: app.number_input}
        offered = app.selectbox if one.choices else kinds.get(one.kind, app.text_input)
        widget = offered(key=name)
        several = " Separated by commas." if one.kind is tuple else ""
        assert (widget.label, widget.help or "") == (one.title, one.description + several)
        if one.kind in (int, float):
            assert (widget.min, widget.max) == (one.least, one.most)
            assert widget.value == one.default
            assert widget.placeholder == (one.otherwise if one.default is None else "") or ""
        elif one.kind is bool or one.choices:
            assert widget.value == one.default
        elif one.otherwise is not None:
            assert widget.placeholder == f"empty: {one.otherwise}"


def test_bounds_of_the_fields_are_those_that_pydantic_keeps() -> None:
    """Each bound is taken, and what lies beyond it is not: asked of the configs themselves."""
    for config in CONFIGS:
        given = {name: "x" for name, field in config.model_fields.items() if field.is_required()}
        for name in config.model_fields:
            one = setting(config, name)
            step = 1 if one.kind is int else 2 * INSIDE
            for end, beyond in ((one.least, -step), (one.most, step)):
                if end is None:
                    continue
                config(**given | {name: end})
                with pytest.raises(ValueError, match="should be"):
                    config(**given | {name: end + beyond})


def test_untouched_widgets_hold_the_defaults() -> None:
    said = [one.value for one in drawn(TrainConfig, "epochs", "clip_norm", "optimiser").markdown]
    assert said == ["epochs: 5", "clip_norm: None", "optimiser: 'adamw'"]
    said = [one.value for one in drawn(SnapshotConfig, "model", "mimic_layers").markdown]
    assert said == ["model: None", "mimic_layers: ()"]


def test_what_is_typed_has_the_kind_of_the_field() -> None:
    app = drawn(SnapshotConfig, "model", "mimic_layers", "repeats", "temperature")
    app.text_input(key="model").set_value("  a b ")
    app.text_input(key="mimic_layers").set_value("x.weight, y ,")
    app.number_input(key="repeats").set_value(3)
    app.number_input(key="temperature").set_value(0.25)
    said = [one.value for one in app.run().markdown]
    assert said == [
        "model: 'a b'",
        "mimic_layers: ('x.weight', 'y')",
        "repeats: 3",
        "temperature: 0.25",
    ]


def test_choices_are_those_of_the_field_in_words() -> None:
    app = drawn(TrainConfig, "optimiser", "schedule", "method", "reweight")
    assert app.selectbox(key="optimiser").options == ["AdamW", "SGD with momentum"]
    assert app.selectbox(key="schedule").options == ["constant", "cosine, to zero"]
    assert app.selectbox(key="method").options == ["projection", "cosine"]
    tasks = drawn(SourceConfig, "task").selectbox(key="task")
    assert (tasks.options, tasks.value) == (["what the pool has", "captions", "labels"], None)
    given = drawn(RunConfig, "preprocess", options=[None, "openai"]).selectbox(key="preprocess")
    assert given.options == ["the checkpoint's own", "openai"]
    side = drawn(ProbeConfig, "side", segmented=True).segmented_control(key="side")
    assert (side.options, side.value) == (["image", "text"], "image")


def test_a_share_is_shown_in_per_cent() -> None:
    share = drawn(ProveConfig, "margin", percent=True, value=1.0).number_input(key="margin")
    assert (share.label, share.value) == ("Margin, %", 1.0)
    assert (share.min, share.max, share.step) == (100 * INSIDE, 100 * (1 - INSIDE), 0.5)


def test_the_settings_of_a_proof_have_the_bounds_and_steps_of_their_fields(
    run: Run, open_app: OpenApp
) -> None:
    app = open_app(run.path.parent, "prove")
    shown = {
        name: (one.label, one.min, one.max, one.step, one.value)
        for name in ("share", "seeds", "steps", "margin")
        for one in [app.number_input(key=f"prove_{name}")]
    }
    least, most = 100 * INSIDE, 100 * (1 - INSIDE)
    assert shown == {
        "share": ("Held-out share, %", least, most, 5.0, 25.0),
        "seeds": ("Seeds", 2, 1000, 1, 5),
        "steps": ("Steps", 1, 1_000_000, 50, 100),
        "margin": ("Margin, %", least, most, 0.5, 1.0),
    }


PAGES = {
    "data": [
        (SourceConfig, {"sample": "set_sample"}),
        (JobOptions, {"workers": "set_workers"}),
        (
            ProbeConfig,
            {
                "epochs": "set_epochs", "batch_size": "set_batch", "learning_rate": "set_rate",
                "weight_decay": "set_decay", "temperature": "set_temperature", "seed": "set_seed",
            },
        ),
    ],
    "train": [
        (
            TrainConfig,
            {
                "epochs": "train_epochs", "batch_size": "train_batch", "seed": "train_seed",
                "learning_rate": "train_rate_fresh", "temperature": "train_temperature",
                "held_out": "train_held_out", "warmup_steps": "train_warmup",
                "clip_norm": "train_clip", "weight_decay": "train_decay",
                "accumulate": "train_accumulate", "evaluate_every": "train_evaluate",
            },
        ),
    ],
    "explore": [
        (
            ProbeConfig,
            {
                name: f"tune_{name}" for name in ("temperature", "epochs", "batch_size", "seed")
            },
        ),
    ],
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_keep_label_help_and_bounds_of_the_fields(
    page: str, run: Run, open_app: OpenApp
) -> None:
    app = open_app(run.path.parent, page)
    for config, keys in PAGES[page]:
        for name, key in keys.items():
            one, widget = setting(config, name), app.number_input(key=key)
            assert (widget.label, widget.help) == (one.title, one.description), key
            assert (widget.min, widget.max) == (one.least, one.most), key
