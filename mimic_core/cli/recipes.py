"""The commands that apply recipes without a screen: filter a run, replay a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimic_core.base.errors import ExportError
from mimic_core.cli.options import RunsFolder
from mimic_core.cli.runs import find_run, print_counts


def filter_run(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML.")],
    run: Annotated[str, typer.Argument(help="A run directory, or the id of a run.")],
    out: Annotated[Path | None, typer.Option(help="Write the kept uids to this Parquet.")] = None,
    drops: Annotated[
        Path | None, typer.Option(help="Write every dropped uid and its reason to this Parquet.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace files that are there.")] = False,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Count what a recipe keeps and drops, and write the uids. Reads only what the recipe needs."""
    from mimic_core.filters import selections
    from mimic_core.filters.library import read_recipe

    if out is not None and drops is not None and out.resolve() == drops.resolve():
        raise ExportError(
            "kept and dropped uids cannot go to the same file",
            got=str(drops),
            next_step="give --drops another name than --out",
        )
    selection = selections.select(find_run(run, runs, reading=True), read_recipe(recipe))
    if out is not None:
        selections.write_rows(selections.kept_uids(selection), out, overwrite=overwrite)
    if drops is not None:
        selections.write_rows(selections.dropped_uids(selection), drops, overwrite=overwrite)
    print_counts(selection)


def replay(
    manifest: Annotated[
        str, typer.Argument(help="The .manifest.json beside an export, also in object storage.")
    ],
    runs: RunsFolder = Path("runs"),
) -> None:
    """Make an exported selection again and compare it with its manifest; exit 1 if it differs."""
    from mimic_core.base.remote import as_place
    from mimic_core.export.record import replay as replay_export

    selection = replay_export(as_place(manifest), as_place(str(runs)))
    print_counts(selection)
    typer.echo("the same samples as when it was exported")
