"""The command line: ``python -m mimic_core``, or ``mimicscope`` once installed.

Exit codes: 0 done, 1 an error of the user's, 130 stopped by the user. Heavy modules are imported
by the command that needs them, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mimic_core.base.errors import ConfigError, Interrupted, MimicError, file_remedy, printable
from mimic_core.cli import join, prove, recipes, runs, score, train

app = typer.Typer(
    name="mimicscope",
    help="Score image-text data by how far each sample pulls a model towards a better one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("score")(score.score)
app.command("train")(train.train)
app.add_typer(runs.runs_app, name="runs")
app.command("join")(join.join)
app.command("layout")(runs.layout)
app.command("filter")(recipes.filter_run)
app.command("export")(runs.export)
app.command("replay")(recipes.replay)
app.command("prove")(prove.prove)


_OWN_ADDRESSES = ("127.0.0.1", "localhost", "::1")


@app.command("app")
def open_app(
    port: Annotated[int, typer.Option(help="Port of the local web server.")] = 8501,
    runs: Annotated[
        Path, typer.Option(help="Folder of the runs.", envvar="MIMICSCOPE_RUNS")
    ] = Path("runs"),
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. The default can be reached from this machine alone. "
            "Without sign-in (README) whoever reaches the port can read files below the roots and "
            "start jobs; an SSH tunnel is safer."
        ),
    ] = "127.0.0.1",
    root: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder that the app may read and write, links resolved; may be repeated. "
            "Default: all that you may, or the working folder alone where --host lets others in."
        ),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
) -> None:
    """Open the app in a browser."""
    from mimic_core.jobs.processes import REPOSITORY, environment

    script = REPOSITORY / "app" / "serve.py"
    if not script.is_file():
        raise ConfigError("the app is not installed", got=str(script), next_step="clone it whole")
    command = [sys.executable, "-m", "streamlit", "run", str(script)]
    flags = {
        "server.address": host,
        "server.port": str(port),
        "server.headless": "false" if browser else "true",
        "server.showEmailPrompt": "false",
        # Its greeting comes with advertisements, in the terminal and over the page.
        "logger.hideWelcomeMessage": "true",
        "browser.gatherUsageStats": "false",
    }
    command += [f"--{name}={value}" for name, value in flags.items()]
    roots = [Path()] if not root and host not in _OWN_ADDRESSES else root or []
    settings = environment(
        MIMICSCOPE_RUNS=str(runs.resolve()),
        MIMICSCOPE_ROOTS=os.pathsep.join(str(path.resolve()) for path in roots),
    )
    typer.echo(f"Mimicscope: http://{host}:{port} (Ctrl-C stops it)", err=True)
    os.execve(sys.executable, command, settings)  # noqa: S606 - the app takes this process over


@app.command("work", hidden=True)
def carry_out_job(database: Path, job_id: str) -> None:
    """Carry out a queued job; ``mimic_core.jobs.worker`` starts it in a process of its own."""
    from mimic_core.cli.terminal import stop_on_signals
    from mimic_core.jobs.store import JobStore
    from mimic_core.jobs.worker import work

    with stop_on_signals() as stop:
        typer.echo(f"job {job_id}: {work(JobStore(database), job_id, stopped=lambda: bool(stop))}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. ``arguments`` default to those of the process."""
    try:
        app(args=arguments)
    except SystemExit as end:
        return 1 if end.code else 0  # click says 2 for a command line that it cannot read
    except MimicError as error:
        print_error(error)
        return 1
    except OSError as error:  # no permission, no space left, no such folder
        typer.echo(f"error: {printable(str(error))}", err=True)
        typer.echo(f"  next step: {file_remedy(error)}", err=True)
        return 1
    except RuntimeError as error:
        if "home directory" not in str(error):  # pathlib has no class of its own for ~nobody
            raise
        typer.echo(f"error: a path begins with ~ and a name without home folder: {error}", err=True)
        typer.echo("  next step: check the name, or give the whole path", err=True)
        return 1
    except Interrupted:
        typer.echo("stopped; run the same command to resume: finished work is kept", err=True)
        return 130
    return 0


def print_error(error: MimicError) -> None:
    """Print the parts of ``error`` on standard error, one per line."""
    typer.echo(f"error: {printable(error.problem)}", err=True)
    if error.got is not None:
        typer.echo(f"  got: {printable(error.got)}", err=True)
    if error.allowed is not None:
        typer.echo(f"  allowed: {printable(error.allowed)}", err=True)
    typer.echo(f"  next step: {printable(error.next_step)}", err=True)


if __name__ == "__main__":
    sys.exit(main())
