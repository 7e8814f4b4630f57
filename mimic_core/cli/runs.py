"""The commands that read runs: list, show, map and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimic_core.base.errors import RunError, printable
from mimic_core.cli import options
from mimic_core.cli.options import Group, RunsFolder
from mimic_core.export.settings import ExportConfig

if TYPE_CHECKING:
    from mimic_core.filters.recipe import Selection
    from mimic_core.runs.run import Run

RunArgument = Annotated[str, typer.Argument(help="A run directory, or the id of a run.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_LISTED = ("created_at", "run_id", "status", "samples", "reference", "problem")

runs_app = typer.Typer(no_args_is_help=True, help="List runs, or show one.")


@runs_app.command("list")
def list_command(out: RunsFolder = Path("runs"), as_json: JsonOption = False) -> None:
    """List the runs, newest first. A damaged one is listed with what is wrong."""
    from mimic_core.base.remote import as_place
    from mimic_core.runs.report import aligned
    from mimic_core.runs.run import list_runs

    found = list_runs(as_place(str(out)))
    rows: list[dict[str, str | int]] = []
    for one in found.runs:
        row = {name: getattr(one.record, name, "") for name in _LISTED}
        rows.append({**row, "reference": one.record.config.reference})
    for path, error in reversed(found.damaged):
        row = dict.fromkeys(_LISTED, "")
        rows.append({**row, "run_id": path.name, "status": "damaged", "problem": error.problem})
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for line in aligned([_LISTED, *(tuple(str(row[name]) for name in _LISTED) for row in rows)]):
        typer.echo(printable(line.rstrip()))


@runs_app.command("show")
def show_command(
    run: RunArgument, out: RunsFolder = Path("runs"), as_json: JsonOption = False
) -> None:
    """Show a run: settings, counts, direction check, distribution of the score."""
    from mimic_core.runs import report

    found = find_run(run, out, reading=True)
    if as_json:
        typer.echo(json.dumps(report.as_json(found), indent=2, ensure_ascii=False))
        return
    for line in report.as_lines(found):
        typer.echo(printable(line))


@runs_app.command("use")
def use_command(
    run: RunArgument,
    epochs_used: Annotated[
        int | None,
        typer.Option(
            min=1, help="Use the first so many epochs alone; default all.", show_default=False
        ),
    ] = None,
    out: RunsFolder = Path("runs"),
) -> None:
    """Choose the epochs that means, votes, filters and exports of a run look at."""
    changed = find_run(run, out).use_epochs(epochs_used)
    record = changed.record
    used = record.epochs if record.epochs_used is None else record.epochs_used
    level = "" if record.direction_check is None else record.direction_check.level_of(epochs_used)
    typer.echo(f"{used} of {record.epochs} epochs are used{f': {level}' if level else ''}")


def layout(run: RunArgument, out: RunsFolder = Path("runs")) -> None:
    """Make the map of a run's pool. All runs on the same features share it."""
    from mimic_core.cli.terminal import watched

    found = find_run(run, out)
    with watched() as progress:
        from mimic_core.runs.layout import MapConfig, ensure_map

        ensure_map(found.features, MapConfig(), progress)
    typer.echo(found.features.path / "map.parquet")


@options.takes(
    Group(ExportConfig, ("format",)),
    Group(ExportConfig, ("shard_size",), "Shards: webdataset, hf_parquet"),
    Group(ExportConfig, ("split_column", "no_splits"), "Splits: imagefolder, hf_parquet, classes"),
    Group(ExportConfig, ("repeats", "repeats_total", "repeats_penalty"), "DataComp uids"),
    Group(ExportConfig, ("table",), "The keep column"),
)
def export(
    run: RunArgument,
    out: Annotated[
        str,
        typer.Option(
            help="The file to write; of formats that are many files, the folder; also in object "
            "storage, such as s3://bucket/name."
        ),
    ],
    *,
    recipe: Annotated[
        Path | None, typer.Option(help="A recipe in YAML; default all samples.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace a file, or an earlier export, that is there.")
    ] = False,
    runs: RunsFolder = Path("runs"),
    **given: Any,
) -> None:
    """Write the samples that a recipe keeps; what is written is named on standard output.

    Pictures are copied as they are. Stopped or killed, nothing is left.
    """
    from mimic_core.base.remote import as_place
    from mimic_core.cli.terminal import watched
    from mimic_core.export.export import export as write_export
    from mimic_core.filters.library import read_recipe
    from mimic_core.filters.recipe import Recipe
    from mimic_core.filters.selections import select
    from mimic_core.runs.table import run_table

    config = ExportConfig.parse(options.values(ExportConfig, options.given(given)))
    found = find_run(run, runs, reading=True)
    chosen = Recipe() if recipe is None else read_recipe(recipe)
    selection, table = select(found, chosen), run_table(found)
    with watched() as progress:
        result = write_export(
            selection, table, found, config,
            out=as_place(out), overwrite=overwrite, progress=progress,
        )  # fmt: skip
    print_counts(selection, err=True)
    for reason, count in result.not_exported.items():
        typer.echo(f"not exported, {reason}: {count:,} (the manifest names them)", err=True)
    for path in (*result.files, result.manifest):
        typer.echo(path)


def print_counts(selection: Selection, *, err: bool = False) -> None:
    """Print one line for each list of uids and each reason of a drop, then what is kept."""
    from mimic_core.filters.selections import lists_met

    for sentence in lists_met(selection):
        typer.echo(printable(sentence), err=err)
    for reason, count in selection.drops.items():
        typer.echo(f"dropped by {printable(reason)}: {count:,}", err=err)
    share = f"{selection.retention_rate:.1%}"
    typer.echo(f"kept {selection.kept:,} of {selection.total:,} ({share})", err=err)


def find_run(text: str, root: Path, *, reading: bool = False) -> Run:
    """The run whose directory is ``text``, or whose id under ``root`` it is.

    Args:
        reading: Whether nothing is added to it, so that it may lie in object storage.

    Raises:
        RunError: There is none, it is damaged, or it lies in object storage and is to be changed.
    """
    from mimic_core.base.remote import as_place, is_remote
    from mimic_core.runs.buckets import refuse_copy
    from mimic_core.runs.run import open_run

    if is_remote(text) or is_remote(str(root)):
        found = open_run(as_place(text) if is_remote(text) else as_place(str(root)) / text)
        if not reading:
            refuse_copy(found.path)
        return found
    for path in (Path(text), root / text):
        if (path / "run.json").is_file():
            return open_run(path)
    known = sorted(file.parent.name for file in root.glob("*/run.json"))
    raise RunError(
        "there is no such run",
        got=text,
        allowed=f"a run directory, or one of: {', '.join(known) or 'none'} (in {root})",
        next_step="see `python -m mimic_core runs list`",
    )
