"""The command that trains a model on a pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimic_core.base.config import RunConfig, TrainConfig
from mimic_core.cli import options
from mimic_core.cli.options import Group
from mimic_core.jobs.options import JobOptions

if TYPE_CHECKING:
    from mimic_core.runs.run import Run

_WEIGHTS = ("mimic_layers", "weighting", "reweight", "temperature")
_UPDATE = (
    *("accumulate", "optimiser", "learning_rate", "weight_decay", "momentum", "schedule"),
    *("warmup_steps", "clip_norm"),
)
_HELD = (
    *("held_out", "held_out_column", "held_out_label_column", "clean_column", "clean_per_class"),
    "evaluate_every",
)


@options.takes(
    Group(TrainConfig, ("model",)),
    Group(RunConfig, ("reference",)),
    Group(TrainConfig, _WEIGHTS, "Weights of the samples"),
    Group(TrainConfig, ("method", "epochs", "batch_size")),
    Group(TrainConfig, _UPDATE, "The optimiser"),
    Group(TrainConfig, _HELD, "Held-out and clean samples"),
    options.FLIP,
    options.POOL,
    options.PREPROCESS,
    *options.LABELS,
    Group(RunConfig, ("precision",)),
    Group(TrainConfig, ("seed", "compile")),
    Group(JobOptions, ("device", "workers", "map", "join", "epochs_used", "cache_limit")),
)
def train(
    source: options.Pools,
    *,
    out: options.RunsFolder = Path("runs"),
    **given: Any,
) -> None:
    """Train a model by Grad-Mimic into a run directory, whose path is the last line printed.

    Stopped or killed, the same command resumes it. torchrun -m mimic_core train ... shares every
    batch among several processes.
    """
    asked = options.given({**given, "source": source})
    job = JobOptions.parse(options.values(JobOptions, asked))
    run = _train(options.run_config("training", asked), job, options.made_in(out))
    if run is not None:
        options.tell(run, out)


def _train(config: RunConfig, job: JobOptions, out: Path) -> Run | None:
    """The finished run; None in all processes but the first."""
    options.prepare(job)
    options.require_pool(config.source)
    options.require_joinable(job)
    from mimic_core.cli.terminal import watched

    with watched() as progress:
        from mimic_core.jobs.worker import finish
        from mimic_core.scoring.training.distributed import first_process
        from mimic_core.scoring.training.train import train_pool  # imports torch

        run = train_pool(
            config,
            runs_root=out,
            device=job.device,
            workers=job.workers,
            epochs_used=job.epochs_used,
            progress=progress,
        )
        if not first_process():
            return None
        return finish(run, job, progress)
