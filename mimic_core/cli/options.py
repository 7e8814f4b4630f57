"""Options of the commands, made from the fields of the settings, and the settings they make.

A command lists the fields that it takes as ``Group``s. ``takes`` makes options of them, with the
words of ``mimic_core.base.fields``, and ``run_config`` makes the settings of what was given;
``mimic_core.cli.commands`` writes the settings as a command again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from mimic_core.base.blocks import limit_cache
from mimic_core.base.config import (
    Frozen,
    HeadConfig,
    Mode,
    ProbeConfig,
    RunConfig,
    SnapshotConfig,
    SourceConfig,
    TrainConfig,
)
from mimic_core.base.errors import printable
from mimic_core.base.fields import Setting, setting
from mimic_core.base.remote import RemotePath, as_place
from mimic_core.base.specification import default_temperature
from mimic_core.jobs.options import JobOptions
from mimic_core.proofs.settings import ProveConfig

if TYPE_CHECKING:
    from mimic_core.runs.run import Run

Command = TypeVar("Command", bound=Callable[..., None])


@dataclass(frozen=True, slots=True)
class Group:
    """Fields of a config that a command takes as options, under one heading of its help."""

    config: type[Frozen]
    fields: tuple[str, ...]
    panel: str | None = None
    needed: bool = True
    """Whether a field without a default must be given; else the command sees to it."""


SCORERS: dict[Mode, type[ProbeConfig | SnapshotConfig | TrainConfig]] = {
    "probe": ProbeConfig,
    "snapshot": SnapshotConfig,
    "training": TrainConfig,
}
# Fields that no command takes as an option, and why.
NO_OPTION: dict[type[Frozen], dict[str, str]] = {
    SourceConfig: {
        "path": "the argument SOURCE",
        "also": "the argument SOURCE, given several times",
        "sample_seed": "--seed draws the sample too",
        "link_roots": "for programs that are open to others",
    },
    HeadConfig: {"weight_decay": "for Python; --weight-decay is that of the probe or training"},
    RunConfig: {
        "source": "the options of SourceConfig",
        "head": "the options of HeadConfig",
        "probe": "--mode probe",
        "snapshot": "--mode snapshot",
        "training": "the command train",
    },
    JobOptions: {"map_of": "the command layout"},
    ProveConfig: {
        **dict.fromkeys(("side", "learning_rate", "weight_decay"), "those of the run"),
        "held_out_limit": "for Python; a file given by --held-out may list more",
        "level": "for Python; every report is at 0.05",
        "resamples": "for Python",
    },
}
_NAMES = {"file": "reference_head", "prompts": "prompt", "mimic_layers": "mimic_layer"}

_POOL, _LABELS = "The pool and its images", "Labelled images only"
POOL = Group(
    SourceConfig,
    (
        *("task", "image_column", "caption_column", "uid_column"),
        *("image_root", "no_follow_links", "sample"),
    ),
    _POOL,
)
PREPROCESS = Group(RunConfig, ("preprocess",), _POOL)
FLIP = Group(TrainConfig, ("flip",), _POOL)
LABELS = (
    Group(SourceConfig, ("label_column",), _LABELS),
    Group(
        HeadConfig,
        ("trusted", "trusted_label_column", "score_trusted", "file", "prompts"),
        _LABELS,
    ),
)
RunsFolder = Annotated[
    Path, typer.Option(help="Folder of the runs, on this machine or at s3://, gs:// or az://.")
]
Pools = Annotated[
    list[str],
    typer.Argument(
        help=f"{setting(SourceConfig, 'path').description} Several are scored as one.",
        metavar="SOURCE...",
    ),
]


def parameter(field: str) -> str:
    """The name of the option for a field, with underscores."""
    return _NAMES.get(field, field)


def flag(field: str) -> str:
    """The option for a field as it is typed."""
    return "--" + parameter(field).replace("_", "-")


def takes(*groups: Group) -> Callable[[Command], Command]:
    """Make a command take these fields as options, in place of its ``**given``.

    Options that the command has words for itself stand before them, or behind them if they are
    keyword-only.
    """

    def decorate(command: Command) -> Command:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[:-1]
        first = [one for one in own if one.kind is not one.KEYWORD_ONLY]
        made = [_parameter(group, field) for group in groups for field in group.fields]
        signature = inspect.Signature([*first, *made, *(one for one in own if one not in first)])
        command.__signature__ = signature  # type: ignore[attr-defined]  # typer reads it
        return command

    return decorate


def _parameter(group: Group, field: str) -> inspect.Parameter:
    one = setting(group.config, field)
    default: Any = inspect.Parameter.empty if one.required and group.needed else None
    annotation: Any = Literal[one.choices] if one.choices else one.kind
    if one.kind is bool:
        default = False
    else:
        annotation = (list[str] if one.kind is tuple else annotation) | None
    names = [flag(field)] if field.startswith("no_") else []  # else there were a --no-no-...
    option = typer.Option(*names, help=help_of(one), rich_help_panel=group.panel)
    return inspect.Parameter(
        parameter(field),
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[annotation, option],
    )


def help_of(one: Setting) -> str:
    """What the command line says of a setting: its description, and what it is by default."""
    words = [one.description]
    if one.kind is tuple:
        words.append("May be repeated.")
    default = one.otherwise or (None if one.kind is bool or one.required else one.default)
    if default is not None:
        words.append(f"Default: {default}.")
    return " ".join(words)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that have been given; the settings know the defaults of the others."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in options.items()
        if value is not None and value is not False and value not in ([], ())
    }


def optional_fields(config: type[Frozen]) -> Iterator[str]:
    """The fields of a config that are options of a command."""
    yield from (name for name in config.model_fields if name not in NO_OPTION.get(config, {}))


def values(config: type[Frozen], options: dict[str, Any]) -> dict[str, Any]:
    """What the options ``given`` say about the fields of a config."""
    fields = {field: parameter(field) for field in optional_fields(config)}
    return {field: options[name] for field, name in fields.items() if name in options}


def run_config(mode: Mode, options: dict[str, Any]) -> RunConfig:
    """The configuration that the options ``given`` ask for; the others take their defaults.

    Raises:
        ConfigError: A value is not allowed.
    """
    scorer, head = values(SCORERS[mode], options), values(HeadConfig, options)
    if mode != "training":  # which settles it itself, by the model
        scorer.setdefault("temperature", default_temperature(options["reference"]))
    pool = {"paths": options["source"], "sample_seed": options.get("seed", 0)}
    config: RunConfig = RunConfig.parse(
        {
            **values(RunConfig, options),
            "head": HeadConfig.parse(head) if head else None,
            "source": SourceConfig.parse(values(SourceConfig, options) | pool),
            mode: SCORERS[mode].parse(scorer),
        }
    )
    return config


def require_pool(source: SourceConfig) -> None:
    """Refuse a pool that cannot be read before torch is loaded, and a wrong path at once.

    Raises:
        SourceError: Says what is there and what is accepted.
    """
    from mimic_core.sources.path import require_pools

    require_pools(source)
    from mimic_core.sources import opening  # imports polars and pyarrow

    opening.open_source(source)


def made_in(out: Path) -> Path:
    """The folder in which runs are made that go to ``out``, perhaps in object storage.

    Raises:
        RemoteError: Nothing can be written there.
    """
    place = as_place(str(out))
    if not isinstance(place, RemotePath):
        return place
    from mimic_core.runs.buckets import working_folder

    (place / "run.json").require_writable()
    return working_folder(place)


def tell(run: Run, out: Path) -> None:
    """The summary of a finished run on standard error, its directory on standard output, where it
    is sent first if that is in object storage.
    """
    from mimic_core.runs.report import as_lines

    for line in as_lines(run):
        typer.echo(printable(line), err=True)
    place = as_place(str(out))
    if isinstance(place, RemotePath):
        from mimic_core.runs.buckets import send_run

        typer.echo(send_run(run.path, run.record, place))
    else:
        typer.echo(run.path)


def prepare(job: JobOptions) -> None:
    """Set what the whole process goes by."""
    if job.cache_limit is not None:
        limit_cache(job.cache_limit)


def require_joinable(job: JobOptions) -> None:
    """Refuse a file that could not be joined, before hours of scoring."""
    if not job.join:
        return
    from mimic_core.sources import joining  # imports polars

    for path in job.join:
        joining.require_joinable(Path(path))
