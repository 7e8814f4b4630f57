"""A training run as the command that makes it: what a page has put together, for a terminal.

Only what differs from the defaults is said. ``mimic_core.cli.train.run_config`` reads it back to
an equal configuration; ``tests/core/cli/test_train_command.py`` holds the two together.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from mimic_core.base.config import HeadConfig, RunConfig, SourceConfig, TrainConfig
from mimic_core.base.errors import ConfigError
from mimic_core.jobs.record import JobOptions

_INDENT = " \\\n  "
_HEAD = {"file": "reference_head", "prompts": "prompt"}
_RENAMED = {"mimic_layers": "mimic_layer"}


def train_arguments(
    config: RunConfig, options: JobOptions | None = None, *, out: str = "runs"
) -> list[list[str]]:
    """The arguments of ``python -m mimic_core train``, grouped by option.

    Raises:
        ConfigError: It is no training run, or its sample is drawn by another seed than training's,
            which the command line cannot say.
    """
    training, source = config.training, config.source
    if training is None:
        raise ConfigError(
            "only a training run can be written as a train command",
            got=config.mode,
            next_step="use the score command",
        )
    if source.sample is not None and source.sample_seed != training.seed:
        raise ConfigError(
            "the command line draws the sample by the seed of the training",
            got=f"sample_seed {source.sample_seed}, seed {training.seed}",
            allowed="equal seeds",
            next_step="set the source's sample_seed to the training's seed",
        )
    groups = [["train", source.path], ["--model", training.model, "--reference", config.reference]]
    groups += _changed(source, SourceConfig(path=""), leave_out=("path", "sample_seed"))
    groups += _changed(training, TrainConfig(model=""), leave_out=("model",))
    if config.head is not None:
        groups += _changed(config.head, HeadConfig(), leave_out=("weight_decay",))
    if config.preprocess is not None:
        groups.append(["--preprocess", config.preprocess])
    if config.precision != "fp32":
        groups.append(["--precision", config.precision])
    asked = options or JobOptions()
    if asked.device is not None:
        groups.append(["--device", asked.device])
    if asked.workers is not None:
        groups.append(["--workers", str(asked.workers)])
    if Path(out) != Path("runs"):
        groups.append(["--out", out])
    return groups


def train_command(
    config: RunConfig, options: JobOptions | None = None, *, out: str = "runs"
) -> str:
    """The whole command for a shell, one option a line."""
    groups = train_arguments(config, options, out=out)
    return "python -m mimic_core " + _INDENT.join(shlex.join(group) for group in groups)


def _changed(
    config: SourceConfig | TrainConfig | HeadConfig,
    default: SourceConfig | TrainConfig | HeadConfig,
    *,
    leave_out: tuple[str, ...],
) -> list[list[str]]:
    """The options of the fields that differ from ``default``."""
    names = _HEAD if isinstance(config, HeadConfig) else _RENAMED
    groups: list[list[str]] = []
    for field in type(config).model_fields:
        value = getattr(config, field)
        if field not in leave_out and value != getattr(default, field):
            option = "--" + names.get(field, field).replace("_", "-")
            groups += _said(option, value)
    return groups


def _said(option: str, value: Any) -> list[list[str]]:
    if isinstance(value, bool):
        return [[option]]  # all flags are off by default
    if isinstance(value, tuple):
        return [[option, str(one)] for one in value]
    return [[option, str(value)]]
