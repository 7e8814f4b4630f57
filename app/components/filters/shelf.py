"""Saved recipes: save, load, rename, delete; the same files as the command line reads."""

from __future__ import annotations

import streamlit as st

from app.cache import filters, tables
from app.components.shared.choosers import undo_button
from app.components.shared.errors import errors_shown
from app.components.shared.recipe_file import (
    recipe_code,
    recipe_download,
    recipe_upload,
    use_recipe,
)
from app.library import runs_root, tidy_path
from app.shown import Shown
from app.state import session
from app.text import plain
from mimic_core.base.errors import MimicError
from mimic_core.filters import library as recipe_library
from mimic_core.filters.library import RecipeLibrary, SavedRecipe
from mimic_core.filters.recipe import Recipe


def recipe_bar(shown: Shown) -> None:
    """The head of the page: where the recipe comes from, undo, clear, the shelf."""
    library = filters.recipes(runs_root())
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="recipe_bar"):
        st.title("Filters", anchor=False, width="content")
        _origin(shown.recipe, library)
        st.space("stretch")
        undo_button(type="tertiary")
        st.button(
            "Clear",
            key="clear",
            icon=":material/filter_alt_off:",
            type="tertiary",
            disabled=not shown.recipe.conditions,
            on_click=_clear,
        )
        _save(shown.recipe, library)
        with st.popover("Saved", icon=":material/bookmarks:", key="open_saved"):
            _shelf(shown, library)
        with st.popover("File", icon=":material/description:", key="open_file"):
            _file(shown)


def repair_bar() -> None:
    """What can be done about a recipe that this run cannot apply, such as one of a link."""
    st.caption("The recipe does not fit this run, so nothing can be counted.")
    with st.container(horizontal=True):
        undo_button()
        st.button("Clear", key="clear", icon=":material/filter_alt_off:", on_click=_clear)


def _clear() -> None:
    session.set_recipe(Recipe())
    session.change_filters(editor=None, saved_as=None)


def _origin(recipe: Recipe, library: RecipeLibrary) -> None:
    """The saved recipe that this one is, or was before it was changed."""
    saved = library.find(session.state().filters.saved_as)
    if saved is None:
        return
    if saved.recipe == recipe:
        st.badge(plain(saved.name), icon=":material/bookmark:", color="blue")
    else:
        st.badge(f"{plain(saved.name)}, changed", icon=":material/edit:", color="orange")


def _save(recipe: Recipe, library: RecipeLibrary) -> None:
    with (
        st.popover("Save", icon=":material/save:", key="open_save", disabled=not recipe.conditions),
        errors_shown(),
    ):
        typed = st.text_input(
            "Name",
            key="save_name",
            max_chars=100,
            placeholder=session.state().filters.saved_as or "such as CLIP minus mimic",
        )
        wanted = typed.strip() or session.state().filters.saved_as
        name = recipe_library.safe_name(wanted) if wanted else None
        there = library.find(name)
        label = "Save" if there is None or there.recipe == recipe else f"Replace {name}"
        if name is not None:
            file = tidy_path(recipe_library.recipe_file(runs_root(), name))
            st.caption(f"Saved as {plain(file)}")
        if (
            st.button(plain(label), key="save_recipe", type="primary", disabled=name is None)
            and name is not None
        ):
            saved = recipe_library.save_recipe(runs_root(), name, recipe, overwrite=True)
            session.change_filters(saved_as=saved.name)
            st.rerun()


def _shelf(shown: Shown, library: RecipeLibrary) -> None:
    """The saved recipes, what can be done with one, and files that hold none."""
    if not library.saved and not library.damaged:
        st.caption("No recipe has been saved yet.")
    if library.saved:
        names = library.names
        now = session.state().filters.saved_as
        name = st.selectbox(
            "Saved recipe", names, index=names.index(now) if now in names else 0, key="shelf_name"
        )
        saved = library.find(name)
        if saved is not None:
            with errors_shown():
                _chosen(shown, saved)
    for path, error in library.damaged:
        st.caption(f":material/warning: {plain(path.name)}: {plain(error.problem)}")
        if st.button("Delete the file", key=f"drop-{path.stem}", type="tertiary"):
            recipe_library.delete_recipe(runs_root(), path.stem)
            st.rerun()


def _chosen(shown: Shown, saved: SavedRecipe) -> None:
    said = [named.condition.describe() for named in saved.recipe.conditions]
    st.caption(plain(" and ".join(said)) or "Keeps every sample.")
    try:
        kept = tables.selection(shown.key, saved.recipe.to_yaml()).kept
    except MimicError as error:
        kept = None
        st.caption(f":material/warning: Does not fit this run: {plain(error.problem)}")
    with st.container(horizontal=True):
        if st.button(
            "Load" if kept is None else f"Load, keeps {kept:,}",
            key="load_saved",
            type="primary",
            disabled=kept is None,
        ):
            use_recipe(saved.recipe, saved.name)
        _delete(saved.name)
    new = st.text_input("New name", key="rename_to", max_chars=100, placeholder=saved.name)
    if st.button("Rename", key="rename_saved", type="tertiary", disabled=not new.strip()):
        found = recipe_library.rename_recipe(runs_root(), saved.name, new)
        if session.state().filters.saved_as == saved.name:
            session.change_filters(saved_as=found)
        st.rerun()


def _delete(name: str) -> None:
    """Delete a recipe, once it has been asked for twice: the file cannot be had back."""
    if session.state().filters.deleting != name:
        st.button(
            "Delete",
            key="delete_saved",
            icon=":material/delete:",
            type="tertiary",
            on_click=lambda: session.change_filters(deleting=name),
        )
    elif st.button("Delete for good", key="delete_really", icon=":material/delete_forever:"):
        session.change_filters(deleting=None)
        recipe_library.delete_recipe(runs_root(), name)
        st.rerun()


def _file(shown: Shown) -> None:
    """The recipe as a YAML file, to this computer and from it."""
    text = shown.recipe_yaml
    name = session.state().filters.saved_as or "recipe"
    recipe_download(text, f"{name}.yaml", label="Download YAML")
    with errors_shown():
        recipe_upload(shown, "Load a YAML file")
    recipe_code(text, height=220)
