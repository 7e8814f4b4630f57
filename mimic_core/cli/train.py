"""The command that trains a model on a pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mimic_core.cli import options

if TYPE_CHECKING:
    from mimic_core.base.config import RunConfig
    from mimic_core.runs.run import Run

# The choices of mimic_core.base.config, as in mimic_core.cli.options;
# tests/core/cli/test_train.py holds them, and the defaults in the help texts, to be equal.
Reweight = Literal["layers", "all"]
Optimiser = Literal["adamw", "sgd"]
Schedule = Literal["constant", "cosine"]

_WEIGHTS = "Weights of the samples"
_UPDATE = "The optimiser"
_HELD = "Held-out and clean samples"


def train(
    source: options.Pool,
    model: Annotated[str, typer.Option(help="The model that training starts from.")],
    reference: options.Reference,
    mimic_layer: Annotated[
        list[str] | None,
        typer.Option(
            help="A mimic layer; may be repeated. Without: the head, or the last image MLP.",
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    weighting: Annotated[
        options.WeightingName | None,
        typer.Option(help="What weighs the samples; default mimic.", rich_help_panel=_WEIGHTS),
    ] = None,
    reweight: Annotated[
        Reweight | None,
        typer.Option(
            help="Re-weight the gradient of the mimic layers or of all; default layers.",
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Divisor in the softmax. Without: 0.05, with timm's models 1.",
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    method: options.MethodOption = None,
    epochs: Annotated[int | None, typer.Option(help="Visits of each sample; default 5.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Samples in a batch, over all processes; default 32.")
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(help="Batches that make one update; default 1.", rich_help_panel=_UPDATE),
    ] = None,
    optimiser: Annotated[
        Optimiser | None, typer.Option(help="Which; default adamw.", rich_help_panel=_UPDATE)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Its peak; default 0.0001.", rich_help_panel=_UPDATE)
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Of matrices; default 1e-05.", rich_help_panel=_UPDATE)
    ] = None,
    momentum: Annotated[
        float | None, typer.Option(help="Of sgd; default 0.9.", rich_help_panel=_UPDATE)
    ] = None,
    schedule: Annotated[
        Schedule | None,
        typer.Option(help="Of the learning rate; default constant.", rich_help_panel=_UPDATE),
    ] = None,
    warmup_steps: Annotated[
        int | None, typer.Option(help="Updates of warm-up; default 0.", rich_help_panel=_UPDATE)
    ] = None,
    clip_norm: Annotated[
        float | None,
        typer.Option(help="Limit of the gradient's norm.", rich_help_panel=_UPDATE),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            help="Share of the images never trained on; default 0.0.", rich_help_panel=_HELD
        ),
    ] = None,
    held_out_column: Annotated[
        str | None,
        typer.Option(
            help="Samples never trained on: COLUMN or COLUMN=VALUE.", rich_help_panel=_HELD
        ),
    ] = None,
    held_out_label_column: Annotated[
        str | None,
        typer.Option(
            help="Column with the labels that judge held-out images. Without: the pool's label.",
            rich_help_panel=_HELD,
        ),
    ] = None,
    clean_column: Annotated[
        str | None,
        typer.Option(
            help="Clean samples, for influence: COLUMN or COLUMN=VALUE.", rich_help_panel=_HELD
        ),
    ] = None,
    clean_per_class: Annotated[
        int | None,
        typer.Option(help="Clean samples of each class; default 10.", rich_help_panel=_HELD),
    ] = None,
    evaluate_every: Annotated[
        int | None,
        typer.Option(help="Evaluate after so many updates too.", rich_help_panel=_HELD),
    ] = None,
    flip: Annotated[
        bool,
        typer.Option(help="Mirror half of the images.", rich_help_panel=options.POOL_PANEL),
    ] = False,
    image_column: options.ImageColumn = None,
    caption_column: options.CaptionColumn = None,
    sample: options.SampleSize = None,
    preprocess: options.Preprocess = None,
    task: options.TaskOption = None,
    label_column: options.LabelColumn = None,
    trusted: options.Trusted = None,
    trusted_label_column: options.TrustedLabelColumn = None,
    score_trusted: options.ScoreTrusted = False,
    reference_head: options.ReferenceHead = None,
    prompt: options.Prompts = None,
    precision: options.PrecisionOption = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides sample, split and batches; default 0.")
    ] = None,
    compile: Annotated[bool, typer.Option(help="Use torch.compile.")] = False,  # noqa: A002
    device: options.Device = None,
    workers: options.Workers = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
) -> None:
    """Train a model by Grad-Mimic into a run directory, whose path is the last line printed.

    Stopped or killed, the same command resumes it. torchrun -m mimic_core train ... shares every
    batch among several processes.
    """
    config = run_config(options.given(dict(locals())))
    run = _train(config, out, device=device, workers=workers)
    if run is not None:
        options.tell(run)


def run_config(given: dict[str, Any]) -> RunConfig:
    """The configuration that the options ``given`` ask for; the others take their defaults.

    Raises:
        ConfigError: A value is not allowed.
    """
    from mimic_core.base.config import RunConfig, TrainConfig

    training = {name: given[name] for name in TrainConfig.model_fields if name in given}
    if "mimic_layer" in given:
        training["mimic_layers"] = given["mimic_layer"]
    config: RunConfig = RunConfig.parse(
        {
            **options.model_fields(given),
            "head": options.head_config(given),
            "source": options.source_config(given),
            "training": TrainConfig.parse(training),
        }
    )
    return config


def _train(config: RunConfig, out: Path, *, device: str | None, workers: int | None) -> Run | None:
    """The finished run; None in all processes but the first."""
    from mimic_core.cli.terminal import watched

    with watched() as progress:
        from mimic_core.scoring.training.distributed import first_process
        from mimic_core.scoring.training.train import train_pool  # imports torch

        run = train_pool(config, runs_root=out, device=device, workers=workers, progress=progress)
        return run if first_process() else None
