"""What a page has put together as the command that does the same, for a terminal.

Only what differs from the defaults is said. The command reads back to an equal configuration
(``mimic_core.cli.options``); ``tests/core/cli/test_commands.py`` holds the two together.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mimic_core.base.config import Frozen, RunConfig
from mimic_core.base.errors import ConfigError
from mimic_core.base.specification import default_temperature
from mimic_core.cli.options import flag, optional_fields
from mimic_core.export.settings import ExportConfig
from mimic_core.jobs.options import JobOptions
from mimic_core.proofs.record import ProofRequest
from mimic_core.proofs.settings import ProveConfig
from mimic_core.runs.run import Run

_INDENT = " \\\n  "


def written(*groups: Sequence[str]) -> str:
    """A whole command of ``mimic_core`` for a shell, one group of its arguments a line."""
    return "python -m mimic_core " + _INDENT.join(shlex.join(group) for group in groups)


def run_arguments(
    config: RunConfig, options: JobOptions | None = None, *, out: str = "runs"
) -> list[list[str]]:
    """The arguments of ``score`` or ``train`` for a run, grouped by option.

    Raises:
        ConfigError: Its sample is drawn by another seed than its own, which the command line cannot
            say.
    """
    scorer, source, mode = config.scorer, config.source, config.mode
    if source.sample is not None and source.sample_seed != scorer.seed:
        raise ConfigError(
            "the command line draws the sample by the seed of the run",
            got=f"sample_seed {source.sample_seed}, seed {scorer.seed}",
            allowed="equal seeds",
            next_step="set the source's sample_seed to the run's seed",
        )
    groups = [["train" if mode == "training" else "score", *source.paths]]
    defaults: dict[str, Any] = {}
    if mode != "training":
        defaults["temperature"] = default_temperature(config.reference)
        groups += [["--mode", mode]] if mode == "snapshot" else []
    groups += [*_changed(config), *_changed(scorer, **defaults), *_changed(source)]
    if config.head is not None:
        groups += _changed(config.head)
    groups += _changed(options or JobOptions())
    if Path(out) != Path("runs"):
        groups.append(["--out", out])
    return groups


def run_command(config: RunConfig, options: JobOptions | None = None, *, out: str = "runs") -> str:
    """The command that makes a run, one option a line."""
    return written(*run_arguments(config, options, out=out))


def prove_command(
    request: ProofRequest,
    run: Run,
    *,
    runs: str,
    recipes: Sequence[str],
    held_out: str | None = None,
) -> str:
    """The command that makes a proof of a run under ``runs``, one option a line.

    Args:
        request: The proof.
        run: What it is about.
        runs: The folder of the runs.
        recipes: The files of its recipes.
        held_out: The file of the uids that judge, if there is one.
    """
    own = ProveConfig.for_run(run.record.config).model_dump()
    return written(
        ["prove", run.id, "--runs", runs],
        *(["--recipe", recipe] for recipe in recipes),
        *([] if held_out is None else [["--held-out", held_out]]),
        *_changed(request.config, **own),
    )


def export_command(config: ExportConfig, run: Run, *, runs: str, out: str, recipe: str) -> str:
    """The command that writes what the recipe file keeps of a run under ``runs``."""
    return written(
        ["export", run.id, "--format", config.format],
        ["--out", out, "--recipe", recipe, "--runs", runs],
        *_changed(config, format=config.format),
    )


def _changed(config: Frozen, **defaults: Any) -> list[list[str]]:
    """The options of the fields that are not as by default."""
    groups: list[list[str]] = []
    for field in optional_fields(type(config)):
        value = getattr(config, field)
        if value == defaults.get(field, type(config).model_fields[field].default):
            continue
        if isinstance(value, bool):
            groups.append([flag(field)])  # all flags are off by default
        else:
            several = value if isinstance(value, tuple) else (value,)
            groups += [[flag(field), str(one)] for one in several]
    return groups
