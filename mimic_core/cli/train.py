"""The command that trains a model on a pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mimic_core.errors import Interrupted

if TYPE_CHECKING:
    from mimic_core.runs import Run
    from mimic_core.schema import RunConfig

# The choices of mimic_core.training.config, which is too slow to import for a mere --help;
# tests/core/test_cli_train.py holds them, and the defaults in the help texts, to be equal.
WeightingName = Literal["uniform", "mimic", "grand", "agra", "grad_match", "rho", "influence"]
Reweight = Literal["layers", "all"]
Optimiser = Literal["adamw", "sgd"]
Schedule = Literal["constant", "cosine"]
Method = Literal["proj", "cos"]
Precision = Literal["fp32", "bf16", "fp16"]
Task = Literal["pairs", "labels"]

_WEIGHTS = "Weights of the samples"
_UPDATE = "The optimiser"
_HELD = "Held-out and clean samples"
_POOL = "The pool and its images"
_LABELS = "Labelled images only"

# Options that are no part of the training settings.
_SOURCE = ("task", "image_column", "caption_column", "label_column", "sample")
_HEAD = {
    "reference_head": "file",
    "trusted": "trusted",
    "trusted_label_column": "trusted_label_column",
    "score_trusted": "score_trusted",
    "prompt": "prompts",
}
_MODEL = ("reference", "preprocess", "precision")


def train(
    source: Annotated[str, typer.Argument(help="The pool: a folder, shards, a zip or parquet.")],
    model: Annotated[str, typer.Option(help="The model that training starts from.")],
    reference: Annotated[str, typer.Option(help="The reference model.")],
    mimic_layer: Annotated[
        list[str] | None,
        typer.Option(
            help="A mimic layer; may be repeated. Without: the head, or the last image MLP.",
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    weighting: Annotated[
        WeightingName | None,
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
    method: Annotated[
        Method | None,
        typer.Option(help="Projection or cosine; default proj.", rich_help_panel=_WEIGHTS),
    ] = None,
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
        typer.Option(help="Share never trained on; default 0.0.", rich_help_panel=_HELD),
    ] = None,
    held_out_column: Annotated[
        str | None,
        typer.Option(help="COLUMN=VALUE of samples never trained on.", rich_help_panel=_HELD),
    ] = None,
    clean_column: Annotated[
        str | None,
        typer.Option(help="COLUMN=VALUE of clean samples, for influence.", rich_help_panel=_HELD),
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
        bool, typer.Option(help="Mirror half of the images.", rich_help_panel=_POOL)
    ] = False,
    image_column: Annotated[
        str | None, typer.Option(help="Column with the images.", rich_help_panel=_POOL)
    ] = None,
    caption_column: Annotated[
        str | None, typer.Option(help="Column with the captions.", rich_help_panel=_POOL)
    ] = None,
    sample: Annotated[
        int | None, typer.Option(help="Use this many samples only.", rich_help_panel=_POOL)
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(help="Of the images. Without: the reference's own.", rich_help_panel=_POOL),
    ] = None,
    task: Annotated[
        Task | None,
        typer.Option(help="Captions or labels; default what the pool has.", rich_help_panel=_POOL),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column with the labels.", rich_help_panel=_LABELS)
    ] = None,
    trusted: Annotated[
        str | None,
        typer.Option(
            help="Samples to train the reference head on: COLUMN (true or false), COLUMN=VALUE, "
            "or a share such as 20%. They are not trained on.",
            rich_help_panel=_LABELS,
        ),
    ] = None,
    trusted_label_column: Annotated[
        str | None,
        typer.Option(
            help="Column with their right labels; alone, it trusts the samples that have one.",
            rich_help_panel=_LABELS,
        ),
    ] = None,
    score_trusted: Annotated[
        bool, typer.Option(help="Train on the trusted samples too.", rich_help_panel=_LABELS)
    ] = False,
    reference_head: Annotated[
        str | None,
        typer.Option(help="File with a trained head for the features.", rich_help_panel=_LABELS),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="Words for a class, with {} for its name; may be repeated. "
            "CLIP models only; default 'a photo of a {}'.",
            rich_help_panel=_LABELS,
        ),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Of the forward pass; default fp32.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides sample, split and batches; default 0.")
    ] = None,
    compile: Annotated[bool, typer.Option(help="Use torch.compile.")] = False,  # noqa: A002
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read images.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
) -> None:
    """Train a model by Grad-Mimic into a run directory, whose path is the last line printed.

    Stopped or killed, the same command resumes it. torchrun -m mimic_core train ... shares every
    batch among several processes.
    """
    config = run_config(dict(locals()))
    run = _train(config, out, device=device, workers=workers)
    if run is not None:
        typer.echo(run.path)


def run_config(options: dict[str, Any]) -> RunConfig:
    """The configuration that the options ask for; an option not given (None) takes its default.

    Raises:
        ConfigError: A value is not allowed.
    """
    from mimic_core.schema import HeadConfig, RunConfig, SourceConfig, TrainConfig

    given = {name: value for name, value in options.items() if value is not None}
    layers = given.pop("mimic_layer", None)
    if layers:
        given["mimic_layers"] = tuple(layers)
    pool = {name: given[name] for name in _SOURCE if name in given}
    pool |= {"path": given["source"], "sample_seed": given.get("seed", 0)}
    training = {name: value for name, value in given.items() if name in TrainConfig.model_fields}
    head = {field: given[name] for name, field in _HEAD.items() if given.get(name)}
    if "prompts" in head:
        head["prompts"] = tuple(head["prompts"])
    config: RunConfig = RunConfig.parse(
        {
            "head": HeadConfig.parse(head) if head else None,
            **{name: given[name] for name in _MODEL if name in given},
            "source": SourceConfig.parse(pool),
            "training": TrainConfig.parse(training),
        }
    )
    return config


def _train(config: RunConfig, out: Path, *, device: str | None, workers: int | None) -> Run | None:
    """The finished run; None in all processes but the first."""
    from mimic_core.cli.terminal import stop_on_signals, terminal_progress
    from mimic_core.summary import as_lines

    with stop_on_signals() as stop:
        from mimic_core.train import train_pool  # imports torch
        from mimic_core.training.distributed import first_process

        try:
            with terminal_progress(stop) as progress:
                run = train_pool(
                    config, runs_root=out, device=device, workers=workers, progress=progress
                )
        except RuntimeError as error:
            if stop:  # the signal has reached the image readers first, which is no defect
                raise Interrupted("an image reader was stopped") from error
            raise
    if not first_process():
        return None
    for line in as_lines(run):
        typer.echo(line, err=True)
    return run
