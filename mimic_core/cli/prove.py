"""The command that proves recipes by training on what they keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimic_core.base.errors import ConfigError
from mimic_core.cli import options
from mimic_core.cli.runs import RunArgument, find_run
from mimic_core.proofs.settings import ProveConfig

if TYPE_CHECKING:
    from mimic_core.filters.recipe import Recipe

RecipeOption = Annotated[
    list[Path] | None, typer.Option("--recipe", help="A recipe in YAML; give one or more.")
]
_SETTINGS = (
    *("held_out_share", "seeds", "seed", "steps", "batch_size", "margin", "duplicate_cosine"),
    *("caption_limit", "detect"),
)
_HELD_OUT_HELP = (
    "Instead of --trusted: a file of the uids that judge, as text, Parquet, CSV, JSONL or .npy."
)


@options.takes(
    options.Group(ProveConfig, ("trusted", "trusted_label_column")),
    options.Group(ProveConfig, _SETTINGS),
)
def prove(
    run: RunArgument,
    recipe: RecipeOption = None,
    *,
    held_out: Annotated[Path | None, typer.Option(help=_HELD_OUT_HELP)] = None,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu. Default: cpu.")] = None,
    runs: options.RunsFolder = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Also write the report here.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the proof as JSON here.")
    ] = None,
    **given: Any,
) -> None:
    """Does a recipe help? Train on what it keeps, on random subsets and on everything, compare."""
    from mimic_core.cli.terminal import watched

    found = find_run(run, runs)
    recipes = named_recipes(recipe or [])
    with watched() as progress:
        from mimic_core.base import files
        from mimic_core.models.devices import pick_device
        from mimic_core.proofs import words
        from mimic_core.proofs.prove import prove as prove_recipes
        from mimic_core.proofs.record import proof_file
        from mimic_core.sources.by_uid import read_uids

        config = ProveConfig.for_run(found.record.config, **options.given(given))
        proof = prove_recipes(
            found,
            recipes,
            config,
            held_out=None if held_out is None else read_uids(held_out),
            device=pick_device(device) if device else "cpu",
            progress=progress,
        )
    report = "\n".join(words.as_lines(proof)) + "\n"
    for path, text in ((out, report), (json_file, proof.to_json())):
        if path is not None:
            files.write_bytes(path, text.encode())
    typer.echo(report, nl=False)
    typer.echo(f"stored: {proof_file(found.path, proof.proof_id)}", err=True)


def named_recipes(paths: Sequence[Path]) -> dict[str, Recipe]:
    """The recipes of these files by the names of the files.

    Raises:
        ConfigError: There is none, or two files have one name.
        FilterError: A file is no recipe.
    """
    from mimic_core.filters.library import read_recipe

    if not paths:
        raise ConfigError(
            "there is no recipe to prove",
            allowed="one or more recipes",
            next_step="give a recipe with --recipe FILE",
        )
    names = [path.stem for path in paths]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(
            "two recipes have the same file name, which names them in the report",
            got=min(twice),
            allowed="recipes whose file names differ",
            next_step="rename one of the files",
        )
    return {path.stem: read_recipe(path) for path in paths}
