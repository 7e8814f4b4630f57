"""Options are made from the fields of the settings: none is forgotten, each says its default."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import typer

from mimic_core.__main__ import app
from mimic_core.base.config import (
    Frozen,
    HeadConfig,
    Method,
    Precision,
    ProbeConfig,
    RunConfig,
    ScoreMode,
    Side,
    SnapshotConfig,
    SourceConfig,
    Task,
    TrainConfig,
    WeightingName,
)
from mimic_core.base.fields import setting
from mimic_core.cli import options
from mimic_core.export.settings import ExportConfig
from mimic_core.jobs.options import JobOptions
from mimic_core.proofs.settings import ProveConfig

TAKEN: dict[str, tuple[type[Frozen], ...]] = {
    "score": (RunConfig, SourceConfig, HeadConfig, ProbeConfig, SnapshotConfig, JobOptions),
    "train": (RunConfig, SourceConfig, HeadConfig, TrainConfig),
    "prove": (ProveConfig,),
    "export": (ExportConfig,),
}
EVERY = [(command, config) for command, configs in TAKEN.items() for config in configs]


def options_of(command: str) -> dict[str, Any]:
    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    return {one.name: one for one in parameters}


@pytest.mark.parametrize(("command", "config"), EVERY)
def test_every_setting_is_an_option_unless_a_reason_is_listed(
    command: str, config: type[Frozen]
) -> None:
    offered = {options.parameter(field) for field in options.optional_fields(config)}
    assert offered - set(options_of(command)) == set()


@pytest.mark.parametrize("config", options.NO_OPTION)
def test_what_is_listed_as_no_option_is_a_setting_and_has_a_reason(config: type[Frozen]) -> None:
    listed = options.NO_OPTION[config]
    assert set(listed) <= set(config.model_fields)
    assert all(listed.values())


@pytest.mark.parametrize(("command", "config"), EVERY)
def test_every_option_says_what_it_is_and_its_default(command: str, config: type[Frozen]) -> None:
    """Where two settings share an option, as in both modes of ``score``, they say the same."""
    made = options_of(command)
    for field in options.optional_fields(config):
        one, option = setting(config, field), made[options.parameter(field)]
        assert one.description, field
        assert option.help == options.help_of(one), field
        instead = (command, field) == ("score", "reference")  # of which --features takes the place
        assert option.required == (one.required and not instead), field
        if not one.required and one.kind is not bool and one.default not in (None, ()):
            assert option.help.endswith(f"Default: {one.otherwise or one.default}."), field


def parsed(*typed: str) -> dict[str, Any]:
    command: Any = typer.main.get_command(app).commands["score"]  # type: ignore[attr-defined]
    return options.given(command.make_context("score", ["pool", "--reference", "r", *typed]).params)


def test_values_are_read_as_the_kinds_of_the_settings() -> None:
    typed = {
        "--epochs": 3, "--temperature": 0.5, "--model": "m", "--sweep": True,
        "--prompt": ("a {}",), "--mimic-layer": ("x",), "--reference-head": "h",
    }  # fmt: skip
    for option, value in typed.items():
        words = [option] if value is True else [option, str(value).strip("(',)")]
        found = parsed(*words)[option.removeprefix("--").replace("-", "_")]
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("option", "choices"),
    [("--method", Method), ("--precision", Precision), ("--side", Side), ("--task", Task),
     ("--weighting", WeightingName), ("--mode", ScoreMode)],
)  # fmt: skip
def test_choices_are_those_of_the_settings(option: str, choices: Any) -> None:
    for choice in get_args(choices):
        assert parsed(option, choice)[option.removeprefix("--")] == choice
    with pytest.raises(Exception, match="is not one of") as refused:
        parsed(option, "another")
    assert all(repr(choice) in str(refused.value) for choice in get_args(choices))


def test_help_says_the_default_in_words_where_a_setting_has_some() -> None:
    assert options.help_of(setting(SourceConfig, "sample")) == (
        "Use only this many samples, drawn at random by the seed. Default: all samples."
    )
    assert options.help_of(setting(HeadConfig, "prompts")).endswith(
        "May be repeated. Default: a photo of a {}."
    )
    assert options.help_of(setting(ProbeConfig, "learning_rate")) == (
        "AdamW's learning rate. Default: 0.001."
    )
    assert "Default" not in options.help_of(setting(TrainConfig, "flip"))
    assert "Default" not in options.help_of(setting(TrainConfig, "model"))


def test_options_stand_under_the_headings_of_the_command() -> None:
    panels = {
        name: getattr(one, "rich_help_panel", None) for name, one in options_of("score").items()
    }
    assert panels["repeats"] == "Snapshot mode only"
    assert panels["epochs"] == "Probe mode only"
    assert panels["preprocess"] == panels["task"] == "The pool and its images"
    assert panels["trusted"] == panels["prompt"] == "Labelled images only"
    assert panels["batch_size"] is None


def test_an_option_that_is_zero_counts_as_given() -> None:
    given = options.given({"seed": 0, "held_out": 0.0, "prompt": ["a", "b"], "task": None})
    assert given == {"seed": 0, "held_out": 0.0, "prompt": ("a", "b")}
    assert options.given({"score_trusted": False, "mimic_layer": []}) == {}
