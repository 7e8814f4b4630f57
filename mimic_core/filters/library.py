"""Saved recipes: one YAML file per recipe in the folder ``recipes`` of a runs root.

The same files are read by the app and, as ``--recipe`` files, by the command line. A recipe's name
is its file's name without the suffix; a name that is asked for is only ever compared with those in
the folder, or turned into a safe one first, so it cannot lead out of the folder.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from mimic_core.base import files
from mimic_core.base.errors import FilterError, file_remedy
from mimic_core.filters import uid_lists, yaml_text
from mimic_core.filters.recipe import Recipe

FOLDER = "recipes"
SUFFIX = ".yaml"
NAME_LENGTH = 48  # of up to four bytes each: file systems allow 255 bytes, suffixes included
# Windows opens a device in place of a file of these names, whatever the suffix.
_DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
}


@dataclass(frozen=True, slots=True)
class SavedRecipe:
    """A recipe that is on disk."""

    name: str
    path: Path
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class RecipeLibrary:
    """The recipes of a runs root by name, and the files that hold none, with what is wrong."""

    saved: tuple[SavedRecipe, ...]
    damaged: tuple[tuple[Path, FilterError], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the recipes that can be loaded."""
        return tuple(one.name for one in self.saved)

    def find(self, name: str | None) -> SavedRecipe | None:
        """The recipe of that name."""
        return next((one for one in self.saved if one.name == name), None)


def safe_name(text: str) -> str:
    """The name under which a recipe called ``text`` is saved: letters, digits and single dashes.

    Letters of any script stay; capitals become small ones, because some file systems do not tell
    them apart. The name of a name is that name.

    Raises:
        FilterError: Nothing is left of the text.
    """
    flat = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(letter if letter.isalnum() else "-" for letter in flat)
    name = "-".join(part for part in kept.split("-") if part)[:NAME_LENGTH].strip("-")
    if not name:
        raise FilterError(
            "a recipe's name needs a letter or a digit",
            got=text,
            next_step="give the recipe another name",
        )
    return f"{name}-recipe" if name in _DEVICES else name


def recipe_file(root: Path, name: str) -> Path:
    """Where under the runs root a recipe of that name is, or would be, saved."""
    found = (path for path in _files(root) if path.stem == name)
    return next(found, root / FOLDER / f"{safe_name(name)}{SUFFIX}")


def list_recipes(root: Path) -> RecipeLibrary:
    """All recipes under the runs root by name, and those files that cannot be read."""
    saved, damaged = [], []
    for path in _files(root):
        try:
            saved.append(SavedRecipe(path.stem, path, read_recipe(path)))
        except FilterError as error:
            damaged.append((path, error))
    return RecipeLibrary(tuple(saved), tuple(damaged))


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file; the lists of uids that it names are looked for beside it.

    Raises:
        FilterError: The file cannot be read, or holds no recipe.
    """
    recipe = Recipe.from_yaml(yaml_text.read(path))
    return recipe.with_leaves(lambda leaf: uid_lists.beside(leaf, path.absolute().parent))


def save_recipe(root: Path, name: str, recipe: Recipe, *, overwrite: bool = False) -> SavedRecipe:
    """Save ``recipe`` under ``safe_name(name)``, whole or not at all.

    Raises:
        FilterError: Another recipe has that name and ``overwrite`` is not set, the name is empty,
            or the folder cannot be written to.
    """
    path = recipe_file(root, name)
    data = recipe.to_yaml().encode()
    if path.exists() and not overwrite:
        if path.read_bytes() == data:
            return SavedRecipe(path.stem, path, recipe)
        raise _name_taken(path.stem)
    try:
        files.write_bytes(path, data)
    except OSError as error:
        raise _not_written(path, error) from error
    return SavedRecipe(path.stem, path, recipe)


def rename_recipe(root: Path, old: str, new: str) -> str:
    """Give a saved recipe another name; returns the name it has then.

    Raises:
        FilterError: There is no such recipe, or the new name is taken or empty.
    """
    path, name = _existing(root, old), safe_name(new)
    if name == path.stem:
        return name
    target = recipe_file(root, name)
    if target.exists():
        raise _name_taken(name)
    try:
        path.rename(target)
    except OSError as error:
        raise _not_written(target, error) from error
    return name


def delete_recipe(root: Path, name: str) -> None:
    """Delete a saved recipe, or a damaged file of that name.

    Raises:
        FilterError: There is none.
    """
    path = _existing(root, name)
    try:
        path.unlink()
    except OSError as error:
        raise _not_written(path, error) from error


def _files(root: Path) -> list[Path]:
    """Recipe files in the order of their names; hidden ones are unfinished."""
    folder = root / FOLDER
    found = [path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _existing(root: Path, name: str) -> Path:
    paths = {path.stem: path for path in _files(root)}
    if name not in paths:
        raise FilterError(
            "there is no saved recipe of that name",
            got=name,
            allowed=", ".join(paths) or f"none: {root / FOLDER} holds no recipe",
            next_step="choose one of the saved recipes, or save it first",
        )
    return paths[name]


def _name_taken(name: str) -> FilterError:
    return FilterError(
        "another recipe is already saved under that name",
        got=name,
        next_step="choose another name, or say that it may be replaced",
    )


def _not_written(path: Path, error: OSError) -> FilterError:
    return FilterError(
        f"the recipe cannot be written ({error.strerror or error})",
        got=str(path),
        next_step=file_remedy(error),
    )
