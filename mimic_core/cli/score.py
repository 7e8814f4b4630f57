"""The command that scores a pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mimic_core.base.errors import ConfigError
from mimic_core.cli import options

if TYPE_CHECKING:
    from mimic_core.base.config import RunConfig
    from mimic_core.runs.run import Run

ScoreMode = Literal["probe", "snapshot"]
Side = Literal["image", "text"]

_PROBE = "Probe mode only"
_SNAPSHOT = "Snapshot mode only"
# Options of the scorer; those of no mode are left to the pool, the reference and its head.
_SCORER = (
    *("model", "mimic_layers", "repeats", "epochs", "learning_rate", "weight_decay", "side"),
    *("weighting", "batch_size", "temperature", "method", "seed"),
)


def score(
    source: options.Pool,
    reference: options.Reference,
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
        options.WeightingName | None,
        typer.Option(help="Weights of the update; default mimic.", rich_help_panel=_PROBE),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples in a batch; default 256.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Divisor of the scores in the mimic weight (1 for timm's models); default 0.05."
        ),
    ] = None,
    method: options.MethodOption = None,
    precision: options.PrecisionOption = None,
    preprocess: options.Preprocess = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Decides the sample, the batches and fresh weights; default 0."),
    ] = None,
    label_column: options.LabelColumn = None,
    trusted: options.Trusted = None,
    trusted_label_column: options.TrustedLabelColumn = None,
    score_trusted: options.ScoreTrusted = False,
    reference_head: options.ReferenceHead = None,
    prompt: options.Prompts = None,
    task: options.TaskOption = None,
    image_column: options.ImageColumn = None,
    caption_column: options.CaptionColumn = None,
    sample: options.SampleSize = None,
    device: options.Device = None,
    workers: options.Workers = None,
    sweep: Annotated[bool, typer.Option(help="Compare candidate mimic layers too.")] = False,
    with_map: Annotated[bool, typer.Option("--map/--no-map", help="Make the map too.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
) -> None:
    """Score a pool into a run directory, whose path is the last line on standard output.

    Stopped or killed, the same command resumes it.
    """
    config = run_config(mode, options.given(dict(locals())))
    run = _score(config, out, device=device, workers=workers, sweep=sweep, with_map=with_map)
    options.tell(run)


def run_config(mode: ScoreMode, given: dict[str, Any]) -> RunConfig:
    """The configuration that the options ``given`` ask for; the others take their defaults.

    Raises:
        ConfigError: A value is not allowed, or an option belongs to the other mode.
    """
    from mimic_core.base.config import ProbeConfig, RunConfig, SnapshotConfig, default_temperature

    config_of: dict[ScoreMode, type[ProbeConfig | SnapshotConfig]] = {
        "probe": ProbeConfig,
        "snapshot": SnapshotConfig,
    }
    scorer = {name: given[name] for name in _SCORER if name in given}
    if "mimic_layer" in given:
        scorer["mimic_layers"] = given["mimic_layer"]
    scorer.setdefault("temperature", default_temperature(given["reference"]))
    foreign = [name for name in scorer if name not in config_of[mode].model_fields]
    if foreign:
        other = "snapshot" if mode == "probe" else "probe"
        option = "--" + foreign[0].removesuffix("s" if foreign[0] == "mimic_layers" else "")
        raise ConfigError(
            f"{option.replace('_', '-')} belongs to --mode {other}",
            got=f"--mode {mode}",
            allowed=f"--mode {other}",
            next_step=f"leave that option out, or give --mode {other}",
        )
    config: RunConfig = RunConfig.parse(
        {
            **options.model_fields(given),
            "head": options.head_config(given),
            "source": options.source_config(given),
            mode: config_of[mode].parse(scorer),
        }
    )
    return config


def _score(
    config: RunConfig,
    out: Path,
    *,
    device: str | None,
    workers: int | None,
    sweep: bool,
    with_map: bool,
) -> Run:
    from mimic_core.cli.terminal import watched

    with watched() as progress:
        from mimic_core.scoring.pipeline import score_pool  # imports torch

        run = score_pool(
            config, runs_root=out, device=device, workers=workers, sweep=sweep, progress=progress
        )
        if with_map:
            from mimic_core.runs.layout import MapConfig, ensure_map

            ensure_map(run.features, MapConfig(), progress)
    return run
