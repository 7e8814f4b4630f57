"""What the Prove page compares: recipes by name, trusted samples, settings. Plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.text import spoken
from mimic_core.base.identity import slug
from mimic_core.filters.conditions import Percentile
from mimic_core.filters.recipe import Recipe
from mimic_core.proofs.record import ProofRequest
from mimic_core.proofs.settings import ProveConfig
from mimic_core.runs.run import Run

PRESENT = "present selection"
MAX_RECIPES = 6
RESTORED = "held-out.txt"  # the file of an earlier proof, whose own name is not stored
# Columns that pools name the truth by: only these are trusted without a person choosing them.
KNOWN_TRUTH = ("is_noisy=false", "noise_kind=clean")
DEFAULTS = ProveConfig()


@dataclass(frozen=True, slots=True)
class ProveForm:
    """The page's settings for one tab.

    Attributes:
        compared: (name, YAML) of recipes brought along; None until the page is first seen.
        left_out: Names of offered recipes that are not to be proved.
        trusted: As the command line takes it; None until one is chosen (``preselected``).
        file: Name and uids of a held-out file, which then takes the place of ``trusted``.
        share, seeds, steps, margin, detect: See ``ProveConfig``; share and margin in per cent, the
            share being the held-out one.
        shown: Id of the proof on show; None for the newest.
        taken: Ids of uploaded files that are in ``compared`` or ``file`` already.
    """

    compared: tuple[tuple[str, str], ...] | None = None
    left_out: tuple[str, ...] = ()
    trusted: str | None = None
    file: tuple[str, tuple[str, ...]] | None = None
    share: float = 100 * DEFAULTS.held_out_share
    seeds: int = DEFAULTS.seeds
    steps: int = DEFAULTS.steps
    margin: float = 100 * DEFAULTS.margin
    detect: float | None = DEFAULTS.detect
    shown: str | None = None
    taken: tuple[str, ...] = ()


def preselected(candidates: Sequence[str], chosen: str | None) -> str | None:
    """The mark of good samples to begin with: the chosen one, else one known to mean the truth.

    Any boolean column is a candidate; to trust one is a person's decision.
    """
    wanted = (chosen, *KNOWN_TRUTH)
    return next((one for one in wanted if one is not None and one in candidates), None)


def offered(form: ProveForm, present: Recipe) -> dict[str, Recipe]:
    """Recipes that can be proved, by name: the selection of all views, then those brought along."""
    found = {PRESENT: present} if present.conditions else {}
    return found | {name: Recipe.from_yaml(text) for name, text in form.compared or ()}


def with_recipe(
    compared: Sequence[tuple[str, str]] | None, name: str, recipe: Recipe
) -> tuple[tuple[str, str], ...]:
    """The recipes with one more; one of the same name is replaced."""
    rest = [(other, text) for other, text in compared or () if other != name]
    return (*rest, (name, recipe.to_yaml()))


def top_share(column: str, percent: int) -> tuple[str, Recipe]:
    """A recipe that keeps the highest ``percent`` of a column, and its name."""
    condition = Percentile(column=column, lower=100 - percent)
    name = f"{spoken(column)} top {percent} %"
    return name, Recipe().with_condition(name, condition)


def request_of(
    form: ProveForm, recipes: Mapping[str, Recipe], run: Run, trusted: str | None
) -> ProofRequest:
    """The proof that the form asks for."""
    changes: dict[str, Any] = {
        "held_out_share": round(form.share / 100, 6),
        "seeds": form.seeds,
        "steps": form.steps,
        "margin": round(form.margin / 100, 8),
        "detect": form.detect,
        "trusted": None if form.file else trusted,
    }
    return ProofRequest(
        run=str(run.path),
        recipes=tuple(recipes.items()),
        config=ProveConfig.for_run(run.record.config, **changes),
        held_out=form.file[1] if form.file else None,
    )


def recipe_file(name: str) -> str:
    """The file name of a recipe; the dot keeps what follows a dot in its name."""
    return f"{slug(name + '.', limit=60)}.yaml"


def from_request(request: ProofRequest) -> dict[str, Any]:
    """Fields of the form as a proof was asked for, so that a refreshed page goes on from it.

    A held-out file comes back too, by another name: without it a column would judge the next proof.
    """
    recipes = [(name, recipe.to_yaml()) for name, recipe in request.recipes if name != PRESENT]
    return {
        "compared": tuple(recipes),
        "trusted": request.config.trusted,
        "file": None if request.held_out is None else (RESTORED, request.held_out),
        "share": 100 * request.config.held_out_share,
        "seeds": request.config.seeds,
        "steps": request.config.steps,
        "margin": 100 * request.config.margin,
        "detect": request.config.detect,
    }


def uids_from(name: str, data: bytes, folder: Path) -> tuple[str, ...]:
    """The uids of an uploaded file."""
    from mimic_core.sources.by_uid import read_uids

    suffix = Path(name).suffix  # all that the reader looks at; the rest may be anything
    path = folder / f"uids{suffix if suffix[1:].isalnum() else ''}"
    path.write_bytes(data)
    return tuple(read_uids(path))
