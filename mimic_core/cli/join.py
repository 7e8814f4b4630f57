"""The command that joins columns of other files to a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimic_core.base.errors import ConfigError, printable
from mimic_core.cli.options import RunsFolder
from mimic_core.cli.runs import RunArgument, find_run

if TYPE_CHECKING:
    from mimic_core.runs.record import JoinRecord


def join(
    run: RunArgument,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Parquet, CSV, TSV, JSONL or .npy with a row for each uid; without, the joins of "
            "the run are listed.",
            show_default=False,
        ),
    ] = None,
    uid_column: Annotated[str, typer.Option(help="The file's column of uids.")] = "uid",
    on: Annotated[str, typer.Option(help="The run's column that these are compared with.")] = "uid",
    column: Annotated[
        list[str] | None, typer.Option(help="Join this column. May be repeated. Default: all.")
    ] = None,
    uids: Annotated[
        Path | None,
        typer.Option(
            help="For a .npy without uids: a file with those of its rows, in order. Default: "
            "FILE.uids.npy or FILE.uids.txt beside it.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the join. Default: that of the file.", show_default=False),
    ] = None,
    replace: Annotated[bool, typer.Option(help="Replace the join of that name.")] = False,
    remove: Annotated[
        str | None,
        typer.Option(help="Take the join of that name out again.", show_default=False),
    ] = None,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Join columns of a file to a run by uid: they are filtered and exported like its own."""
    from mimic_core.sources.joining import join_columns, remove_join

    found = find_run(run, runs)
    if file is not None and remove is not None:
        raise ConfigError(
            "a file is joined or a join is removed, not both at once",
            got=f"{file} --remove {remove}",
            next_step="leave one of them out",
        )
    if remove is not None:
        left = remove_join(found, remove).record.joins
        typer.echo(f"removed {printable(remove)}; {len(left)} joins are left")
    elif file is None:
        for one in found.record.joins:
            _tell(one)
    else:
        _, joined = join_columns(
            found,
            file,
            uid_column=uid_column,
            on=on,
            columns=tuple(column or ()),
            uids=uids,
            name=name,
            replace=replace,
        )
        _tell(joined)


def _tell(join: JoinRecord) -> None:
    for number, sentence in enumerate(join.as_sentences()):
        typer.echo(printable(f"  {sentence}" if number else f"{join.name}: {sentence}"))
