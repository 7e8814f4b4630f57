"""A recipe as a YAML file: shown, taken away, brought back."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.cache import tables
from app.shown import Shown
from app.state import session
from app.text import count
from mimic_core.filters import yaml_text
from mimic_core.filters.recipe import Recipe

LINES_SHOWN = 200  # a recipe of many uids is as long as the pool


def recipe_code(text: str, *, height: int) -> None:
    """The recipe on the screen; of a long one the beginning, the file holds all of it."""
    lines = text.splitlines()
    shown = "\n".join(lines[:LINES_SHOWN])
    st.code(shown, language="yaml", height=height if len(lines) > 10 else "content")
    if len(lines) > LINES_SHOWN:
        st.caption(f"{count(len(lines) - LINES_SHOWN)} more lines are in the file.")


def recipe_download(text: str, name: str, *, label: str, **look: Any) -> None:
    """The recipe to this computer."""
    st.download_button(
        label,
        data=text,
        file_name=name,
        mime="application/yaml",
        key="download_recipe",
        icon=":material/download:",
        on_click="ignore",
        **look,
    )


def recipe_upload(shown: Shown, label: str) -> None:
    """Select by a recipe from a file, once it has been tried on this run."""
    file = st.file_uploader(label, type=["yaml", "yml"], key="load_recipe")
    if file is None or file.file_id == session.state().loaded:
        return
    recipe = Recipe.from_yaml(yaml_text.decoded(file.getvalue(), file.name))
    recipe = recipe.with_leaves(tables.local)
    tables.selection(shown.key, recipe.to_yaml())  # raises if the run lacks a column
    session.change(loaded=file.file_id)
    use_recipe(recipe, None)


def use_recipe(recipe: Recipe, name: str | None) -> None:
    """Make a recipe the selection of all pages; ``name`` is the one it was saved under."""
    session.set_recipe(recipe)
    session.change_filters(saved_as=name, editor=None, renaming=None)
    st.rerun()
