"""The command that scores a pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mimic_core.errors import ConfigError, Interrupted

if TYPE_CHECKING:
    from mimic_core.runs import Run
    from mimic_core.schema import HeadConfig, RunConfig

# The choices of mimic_core.schema, which is too slow to import for a mere --help (it brings numpy
# and polars); tests/core/test_cli.py holds them, and the defaults in the help texts, to be equal.
ScoreMode = Literal["probe", "snapshot"]
Method = Literal["proj", "cos"]
Side = Literal["image", "text"]
Precision = Literal["fp32", "bf16", "fp16"]
Task = Literal["pairs", "labels"]
WeightingName = Literal["uniform", "mimic", "grand", "agra", "grad_match", "rho", "influence"]

_LABELS = "Labelled images only"
_PROBE = "Probe mode only"
_SNAPSHOT = "Snapshot mode only"


def score(
    source: Annotated[str, typer.Argument(help="The pool: a folder, shards, a zip or parquet.")],
    reference: Annotated[str, typer.Option(help="The reference model.")],
    mode: Annotated[ScoreMode, typer.Option(help="How to score.")] = "probe",
    model: Annotated[
        str | None,
        typer.Option(
            help="The model to score; default the reference, re-initialised.",
            rich_help_panel=_SNAPSHOT,
        ),
    ] = None,
    mimic_layer: Annotated[
        list[str] | None,
        typer.Option(help="A mimic layer; may be repeated.", rich_help_panel=_SNAPSHOT),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(help="Times to redraw the batches; default 1.", rich_help_panel=_SNAPSHOT),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of Grad-Mimic; default 5.", rich_help_panel=_PROBE)
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="AdamW's learning rate; default 0.001.", rich_help_panel=_PROBE),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(help="AdamW's weight decay; default 1e-05.", rich_help_panel=_PROBE),
    ] = None,
    side: Annotated[
        Side | None,
        typer.Option(help="The tower that is probed; default image.", rich_help_panel=_PROBE),
    ] = None,
    weighting: Annotated[
        WeightingName | None,
        typer.Option(help="Weights of the update; default mimic.", rich_help_panel=_PROBE),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples in a batch; default 256.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Divisor of the scores in the mimic weight (1 for timm's models); default 0.05."
        ),
    ] = None,
    method: Annotated[
        Method | None, typer.Option(help="Projection or cosine; default proj.")
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Of the forward pass; default fp32.")
    ] = None,
    preprocess: Annotated[
        str | None, typer.Option(help="Preprocessing of the images; default the reference's own.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Decides the sample, the batches and fresh weights; default 0."),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column with the labels.", rich_help_panel=_LABELS)
    ] = None,
    trusted: Annotated[
        str | None,
        typer.Option(
            help="Samples to train the reference head on: COLUMN (true or false), COLUMN=VALUE, "
            "or a share such as 20%. They are not scored.",
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
        bool, typer.Option(help="Score the trusted samples too.", rich_help_panel=_LABELS)
    ] = False,
    reference_head: Annotated[
        str | None,
        typer.Option(help="File with a trained head for the features.", rich_help_panel=_LABELS),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="Words for a class, with {} for its name; may be repeated. "
            "CLIP models only; without it, 'a photo of a {}'.",
            rich_help_panel=_LABELS,
        ),
    ] = None,
    task: Annotated[
        Task | None, typer.Option(help="Captions or labels; without it, what the pool has.")
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Column with the images.")] = None,
    caption_column: Annotated[str | None, typer.Option(help="Column with the captions.")] = None,
    sample: Annotated[int | None, typer.Option(help="Score this many samples only.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read images.")] = None,
    sweep: Annotated[bool, typer.Option(help="Compare candidate mimic layers too.")] = False,
    with_map: Annotated[bool, typer.Option("--map/--no-map", help="Make the map too.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
) -> None:
    """Score a pool into a run directory, whose path is the last line on standard output.

    Stopped or killed, the same command resumes it.
    """
    scorer = {
        "model": model,
        "mimic_layers": tuple(mimic_layer) if mimic_layer else None,
        "repeats": repeats,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "side": side,
        "weighting": weighting,
        "batch_size": batch_size,
        "temperature": temperature,
        "method": method,
        "seed": seed,
    }
    pool = {
        "path": source,
        "task": task,
        "label_column": label_column,
        "image_column": image_column,
        "caption_column": caption_column,
        "sample": sample,
        "sample_seed": seed,
    }
    head = {
        "file": reference_head,
        "trusted": trusted,
        "trusted_label_column": trusted_label_column,
        "score_trusted": score_trusted or None,
        "prompts": tuple(prompt) if prompt else None,
    }
    model_use = {
        "reference": reference,
        "preprocess": preprocess,
        "precision": precision,
        "head": head_config(head),
    }
    config = run_config(mode, model_use, pool=pool, scorer=scorer)
    run = _score(config, out, device=device, workers=workers, sweep=sweep, with_map=with_map)
    typer.echo(run.path)


def run_config(
    mode: ScoreMode, settings: dict[str, Any], *, pool: dict[str, Any], scorer: dict[str, Any]
) -> RunConfig:
    """The configuration that the options ask for; an option not given (None) takes its default.

    Raises:
        ConfigError: A value is not allowed, or an option belongs to the other mode.
    """
    from mimic_core.schema import (
        ProbeConfig,
        RunConfig,
        SnapshotConfig,
        SourceConfig,
        default_temperature,
    )

    config_of: dict[ScoreMode, type[ProbeConfig | SnapshotConfig]] = {
        "probe": ProbeConfig,
        "snapshot": SnapshotConfig,
    }
    given = _given(scorer)
    given.setdefault("temperature", default_temperature(settings["reference"]))
    foreign = [name for name in given if name not in config_of[mode].model_fields]
    if foreign:
        other = "snapshot" if mode == "probe" else "probe"
        option = "--" + foreign[0].removesuffix("s" if foreign[0] == "mimic_layers" else "")
        raise ConfigError(
            f"{option.replace('_', '-')} belongs to --mode {other}",
            got=f"--mode {mode}",
            allowed=f"--mode {other}",
            next_step=f"leave that option out, or give --mode {other}",
        )
    values = {
        **_given(settings),
        "source": SourceConfig.parse(_given(pool)),
        mode: config_of[mode].parse(given),
    }
    config: RunConfig = RunConfig.parse(values)
    return config


def head_config(options: dict[str, Any]) -> HeadConfig | None:
    """The reference head that the options ask for; None without any of them."""
    from mimic_core.schema import HeadConfig

    given = _given(options)
    return HeadConfig.parse(given) if given else None


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _score(
    config: RunConfig,
    out: Path,
    *,
    device: str | None,
    workers: int | None,
    sweep: bool,
    with_map: bool,
) -> Run:
    from mimic_core.cli.terminal import stop_on_signals, terminal_progress
    from mimic_core.summary import as_lines

    with stop_on_signals() as stop:
        from mimic_core.pipeline import score_pool  # imports torch

        try:
            with terminal_progress(stop) as progress:
                run = score_pool(
                    config,
                    runs_root=out,
                    device=device,
                    workers=workers,
                    sweep=sweep,
                    progress=progress,
                )
                if with_map:
                    from mimic_core.layout import MapConfig, ensure_map

                    ensure_map(run.features, MapConfig(), progress)
        except RuntimeError as error:
            if stop:  # the signal has reached the image readers first, which is no defect
                raise Interrupted("an image reader was stopped") from error
            raise
    for line in as_lines(run):
        typer.echo(line, err=True)
    return run
