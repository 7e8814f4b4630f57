from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.base.errors import FilterError
from mimic_core.filters import library
from mimic_core.filters.conditions import Absolute, Percentile, Text
from mimic_core.filters.recipe import NamedCondition, Recipe, apply
from mimic_core.runs.table import run_table
from tests.fakes import fake_run

CLIP = Recipe().with_condition("clip", Percentile(column="clip_score", lower=70))
LOW = Recipe().with_condition("low", Absolute(column="mimic_score", max=0.5))


def loaded(root: Path, name: str) -> Recipe:
    saved = library.list_recipes(root).find(name)
    assert saved is not None
    return saved.recipe


def test_a_saved_recipe_comes_back_equal(tmp_path: Path) -> None:
    saved = library.save_recipe(tmp_path, "CLIP top 30 %", CLIP)
    assert saved == library.SavedRecipe("clip-top-30", tmp_path / "recipes/clip-top-30.yaml", CLIP)
    assert loaded(tmp_path, "clip-top-30") == CLIP
    assert saved.path.read_text("utf-8") == CLIP.to_yaml()
    assert library.list_recipes(tmp_path) == library.RecipeLibrary((saved,), ())


def test_no_folder_is_no_recipes(tmp_path: Path) -> None:
    assert library.list_recipes(tmp_path) == library.RecipeLibrary((), ())


def test_the_list_is_in_the_order_of_the_names(tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        library.save_recipe(tmp_path, name, CLIP)
    assert library.list_recipes(tmp_path).names == ("a", "b", "c")


def test_another_recipe_is_replaced_only_when_that_is_said(tmp_path: Path) -> None:
    library.save_recipe(tmp_path, "mine", CLIP)
    library.save_recipe(tmp_path, "Mine", CLIP)  # the same again changes nothing
    with pytest.raises(FilterError, match="already saved under that name; got 'mine'"):
        library.save_recipe(tmp_path, "mine", LOW)
    assert loaded(tmp_path, "mine") == CLIP
    library.save_recipe(tmp_path, "mine", LOW, overwrite=True)
    assert loaded(tmp_path, "mine") == LOW
    assert [path.name for path in (tmp_path / "recipes").iterdir()] == ["mine.yaml"]


def test_renaming_keeps_the_recipe_and_refuses_a_name_that_is_taken(tmp_path: Path) -> None:
    library.save_recipe(tmp_path, "a", CLIP)
    library.save_recipe(tmp_path, "b", LOW)
    with pytest.raises(FilterError, match="got 'b'"):
        library.rename_recipe(tmp_path, "a", "B")
    assert library.rename_recipe(tmp_path, "a", "C d") == "c-d"
    assert library.rename_recipe(tmp_path, "c-d", "c d") == "c-d"
    assert library.list_recipes(tmp_path).names == ("b", "c-d")
    assert loaded(tmp_path, "c-d") == CLIP


def test_deleting_takes_one_recipe_away(tmp_path: Path) -> None:
    library.save_recipe(tmp_path, "a", CLIP)
    library.save_recipe(tmp_path, "b", LOW)
    library.delete_recipe(tmp_path, "a")
    assert library.list_recipes(tmp_path).names == ("b",)
    with pytest.raises(FilterError, match="no saved recipe of that name; got 'a'; allowed: b"):
        library.delete_recipe(tmp_path, "a")


def test_damaged_files_are_listed_with_what_is_wrong_and_can_be_deleted(tmp_path: Path) -> None:
    saved = library.save_recipe(tmp_path, "good", CLIP)
    folder = tmp_path / "recipes"
    (folder / "broken.yaml").write_text("conditions: [", "utf-8")
    (folder / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (folder / "other.yaml").write_text("conditions:\n- name: x\n", "utf-8")
    (folder / ".good.yaml.1.tmp").write_text("unfinished", "utf-8")
    (folder / "notes.txt").write_text("no recipe", "utf-8")
    (folder / "folder.yaml").mkdir()
    found = library.list_recipes(tmp_path)
    assert found.saved == (saved,)
    problems = {path.name: error.problem for path, error in found.damaged}
    assert list(problems) == ["broken.yaml", "bytes.yaml", "other.yaml"]
    assert "not valid YAML" in problems["broken.yaml"]
    assert "cannot be read" in problems["bytes.yaml"]
    assert "conditions.0.condition" in problems["other.yaml"]
    library.delete_recipe(tmp_path, "bytes")
    assert not (folder / "bytes.yaml").exists()


def test_a_file_that_a_person_put_there_keeps_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    file = tmp_path / "recipes" / "My Own.yaml"
    file.write_text(CLIP.to_yaml(), "utf-8")
    assert library.list_recipes(tmp_path).names == ("My Own",)
    assert loaded(tmp_path, "My Own") == CLIP
    library.save_recipe(tmp_path, "My Own", LOW, overwrite=True)
    assert loaded(tmp_path, "My Own") == LOW
    assert library.rename_recipe(tmp_path, "My Own", "My Own") == "my-own"
    assert library.list_recipes(tmp_path).names == ("my-own",)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "..", "a/b", "recipes/a"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    root = tmp_path / "runs"
    (tmp_path / "outside.yaml").write_text(CLIP.to_yaml(), "utf-8")
    with pytest.raises(FilterError, match="no saved recipe"):
        library.delete_recipe(root, name)
    assert (tmp_path / "outside.yaml").exists()


@pytest.mark.parametrize("name", ["", " ", "...", "//", "%", "-"])
def test_a_name_without_letters_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FilterError, match="needs a letter or a digit"):
        library.save_recipe(tmp_path, name, CLIP)
    assert not (tmp_path / "recipes").exists()


@given(st.text(max_size=300))
def test_every_name_becomes_one_file_inside_the_folder(text: str) -> None:
    root = Path("runs")
    try:
        name = library.safe_name(text)
    except FilterError:
        assert not any(letter.isalnum() and letter.isascii() for letter in text)
        return
    assert library.safe_name(name) == name
    path = root / library.FOLDER / f"{name}{library.SUFFIX}"
    assert path.parent.parent == root
    assert path.stem == name
    assert os.path.normpath(path) == str(path)
    assert len(os.fsencode(f".{path.name}.{2**22}.tmp")) <= 255
    assert name == name.lower()
    assert "\0" not in name


@settings(max_examples=30)  # each writes, flushes and deletes a file
@given(
    st.text(min_size=1).filter(lambda text: any(c.isalnum() for c in text[:9])),
    st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])),
)
def test_what_is_saved_is_listed_loaded_and_deleted(
    tmp_path_factory: pytest.TempPathFactory, name: str, words: str
) -> None:
    root = tmp_path_factory.mktemp("runs")
    recipe = Recipe(conditions=(NamedCondition(name=words, condition=Text(contains=words)),))
    saved = library.save_recipe(root, name, recipe)
    assert library.list_recipes(root).saved == (saved,)
    assert loaded(root, saved.name) == recipe
    library.delete_recipe(root, saved.name)
    assert library.list_recipes(root).names == ()


@pytest.mark.parametrize("name", ["con", "NUL", "Com1", "lpt9"])
def test_names_of_devices_are_given_another_ending(name: str) -> None:
    assert library.safe_name(name) == f"{name.lower()}-recipe"


def test_a_folder_that_cannot_be_written_to_is_an_error_to_act_on(tmp_path: Path) -> None:
    (tmp_path / "recipes").write_text("a file in the way", "utf-8")
    with pytest.raises(FilterError, match="cannot be written"):
        library.save_recipe(tmp_path, "a", CLIP)


def test_a_saved_recipe_applies_to_a_run(tmp_path: Path) -> None:
    table = run_table(fake_run(tmp_path, n=50))
    library.save_recipe(tmp_path, "clip", CLIP)
    assert apply(loaded(tmp_path, "clip"), table).kept == 15
