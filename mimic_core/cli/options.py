"""Options that more than one command has, each worded once, and what they set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from mimic_core.base.config import HeadConfig, SourceConfig
    from mimic_core.runs.run import Run

# The choices of mimic_core.base.config; tests/core/cli/test_cli.py holds them, and the defaults in
# the help texts, to be equal.
WeightingName = Literal[
    "uniform",
    "mimic",
    "grand",
    "agra",
    "grad_match",
    "grad_match_single",
    "rho",
    "rho_attached",
    "influence",
]
Method = Literal["proj", "cos"]
Precision = Literal["fp32", "bf16", "fp16"]
Task = Literal["pairs", "labels"]

POOL_PANEL = "The pool and its images"
_LABELS = "Labelled images only"

Pool = Annotated[str, typer.Argument(help="The pool: a folder, shards, a zip or parquet.")]
Reference = Annotated[str, typer.Option(help="The reference model.")]
MethodOption = Annotated[Method | None, typer.Option(help="Projection or cosine; default proj.")]
PrecisionOption = Annotated[
    Precision | None, typer.Option(help="Of the forward pass; default fp32.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")]
Workers = Annotated[int | None, typer.Option(help="Processes that read images.")]

TaskOption = Annotated[
    Task | None,
    typer.Option(
        help="Captions or labels; without it, what the pool has.", rich_help_panel=POOL_PANEL
    ),
]
ImageColumn = Annotated[
    str | None, typer.Option(help="Column with the images.", rich_help_panel=POOL_PANEL)
]
CaptionColumn = Annotated[
    str | None, typer.Option(help="Column with the captions.", rich_help_panel=POOL_PANEL)
]
SampleSize = Annotated[
    int | None, typer.Option(help="Use this many samples only.", rich_help_panel=POOL_PANEL)
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        help="Preprocessing of the images; default the reference's own.", rich_help_panel=POOL_PANEL
    ),
]

LabelColumn = Annotated[
    str | None, typer.Option(help="Column with the labels.", rich_help_panel=_LABELS)
]
Trusted = Annotated[
    str | None,
    typer.Option(
        help="Samples to train the reference head on: COLUMN (true or false), COLUMN=VALUE, "
        "or a share such as 20%. The run leaves them out.",
        rich_help_panel=_LABELS,
    ),
]
TrustedLabelColumn = Annotated[
    str | None,
    typer.Option(
        help="Column with their right labels; alone, it trusts the samples that have one.",
        rich_help_panel=_LABELS,
    ),
]
ScoreTrusted = Annotated[
    bool,
    typer.Option(help="Do not leave the trusted samples out.", rich_help_panel=_LABELS),
]
ReferenceHead = Annotated[
    str | None,
    typer.Option(help="File with a trained head for the features.", rich_help_panel=_LABELS),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        help="Words for a class, with {} for its name; may be repeated. "
        "CLIP models only; without it, 'a photo of a {}'.",
        rich_help_panel=_LABELS,
    ),
]

_SOURCE_FIELDS = ("task", "image_column", "caption_column", "label_column", "sample")
_HEAD_FIELDS = {
    "reference_head": "file",
    "trusted": "trusted",
    "trusted_label_column": "trusted_label_column",
    "score_trusted": "score_trusted",
    "prompt": "prompts",
}
_MODEL_FIELDS = ("reference", "preprocess", "precision")


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that have been given; the settings know the defaults of the others."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in options.items()
        if value is not None and value is not False and value not in ([], ())
    }


def source_config(options: dict[str, Any]) -> SourceConfig:
    """The pool that the options ``given`` name."""
    from mimic_core.base.config import SourceConfig

    fields = {name: options[name] for name in _SOURCE_FIELDS if name in options}
    config: SourceConfig = SourceConfig.parse(
        {**fields, "path": options["source"], "sample_seed": options.get("seed", 0)}
    )
    return config


def head_config(options: dict[str, Any]) -> HeadConfig | None:
    """The reference head that the options ``given`` ask for; None without any of them."""
    from mimic_core.base.config import HeadConfig

    fields = {field: options[name] for name, field in _HEAD_FIELDS.items() if name in options}
    return HeadConfig.parse(fields) if fields else None


def model_fields(options: dict[str, Any]) -> dict[str, Any]:
    """How the reference is used, of the options ``given``."""
    return {name: options[name] for name in _MODEL_FIELDS if name in options}


def tell(run: Run) -> None:
    """The summary of a finished run on standard error, its directory on standard output."""
    from mimic_core.runs.report import as_lines

    for line in as_lines(run):
        typer.echo(line, err=True)
    typer.echo(run.path)
