"""The command that scores a pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimic_core.base.config import (
    ProbeConfig,
    RunConfig,
    ScoreMode,
    SnapshotConfig,
)
from mimic_core.base.errors import ConfigError
from mimic_core.base.specification import OWN_FEATURES
from mimic_core.cli import options
from mimic_core.cli.options import Group
from mimic_core.jobs.options import JobOptions

if TYPE_CHECKING:
    from mimic_core.runs.run import Run

_PROBED = ("epochs", "learning_rate", "weight_decay", "side", "weighting")


@options.takes(
    Group(RunConfig, ("reference",), needed=False),
    Group(SnapshotConfig, ("model", "mimic_layers", "repeats"), "Snapshot mode only"),
    Group(ProbeConfig, _PROBED, "Probe mode only"),
    Group(ProbeConfig, ("batch_size", "temperature", "method")),
    Group(RunConfig, ("precision",)),
    options.PREPROCESS,
    Group(ProbeConfig, ("seed",)),
    *options.LABELS,
    options.POOL,
    Group(JobOptions, ("device", "workers", "sweep", "map", "join", "epochs_used", "cache_limit")),
)
def score(
    source: options.Pools,
    mode: Annotated[ScoreMode, typer.Option(help="How to score.")] = "probe",
    *,
    features: Annotated[
        str | None,
        typer.Option(
            help="Features of your own in the place of a reference model: Parquet with the columns "
            "uid and image_features, or FILE.npy beside FILE.uids.txt. For captions, Parquet with "
            "text_features too, and --reference-head with the projection to them."
        ),
    ] = None,
    out: options.RunsFolder = Path("runs"),
    **given: Any,
) -> None:
    """Score a pool into a run directory, whose path is the last line on standard output.

    Stopped or killed, the same command resumes it.
    """
    asked = options.given({**given, "source": source})
    asked["reference"] = _reference(asked.get("reference"), features)
    _require_mode(mode, "snapshot" if mode == "probe" else "probe", asked)
    job = JobOptions.parse(options.values(JobOptions, asked))
    options.tell(_score(options.run_config(mode, asked), job, options.made_in(out)), out)


def _reference(model: str | None, features: str | None) -> str:
    """The model that is named, or the features in its place."""
    if (model is None) == (features is None):
        raise ConfigError(
            "give a reference model or features of your own, and not both",
            got="neither" if model is None else f"--reference {model} --features {features}",
            allowed="--reference MODEL, or --features FILE",
            next_step="add one of these options" if model is None else "leave one of them out",
        )
    return model if model is not None else f"{OWN_FEATURES}{features}"


def _require_mode(mode: ScoreMode, other: ScoreMode, asked: dict[str, Any]) -> None:
    """Refuse an option of the mode ``other`` that ``mode`` does not have."""
    for field in options.values(options.SCORERS[other], asked):
        if field not in options.SCORERS[mode].model_fields:
            raise ConfigError(
                f"{options.flag(field)} belongs to --mode {other}",
                got=f"--mode {mode}",
                allowed=f"--mode {other}",
                next_step=f"leave that option out, or give --mode {other}",
            )


def _score(config: RunConfig, job: JobOptions, out: Path) -> Run:
    options.prepare(job)
    options.require_pool(config.source)
    options.require_joinable(job)
    from mimic_core.cli.terminal import watched

    with watched() as progress:
        from mimic_core.jobs.worker import finish
        from mimic_core.scoring.pipeline import score_pool  # imports torch

        run = score_pool(
            config,
            runs_root=out,
            device=job.device,
            workers=job.workers,
            sweep=job.sweep,
            epochs_used=job.epochs_used,
            progress=progress,
        )
        return finish(run, job, progress)
