"""Recipes brought to a proof: a cutoff, a saved one, a file."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app.cache import tables
from app.cache.filters import recipes
from app.components.shared.errors import errors_shown
from app.library import runs_root
from app.shown import Shown
from app.state import session
from app.state.prove import PRESENT, top_share, with_recipe
from app.text import plain, spoken
from mimic_core.filters import yaml_text
from mimic_core.filters.recipe import Recipe


def add_cutoff(shown: Shown) -> None:
    """The top share of a column."""
    columns = tables.numbers(shown.key)
    column = st.selectbox("Column", columns, key="prove_column", format_func=spoken)
    percent = st.number_input("Keep the top, %", 1, 99, 70, key="prove_percent")

    def add() -> None:
        name, recipe = top_share(column, int(percent))
        compared = session.state().proving.compared
        session.set_proving(compared=with_recipe(compared, name, recipe))

    st.button("Add", key="prove_add", on_click=add, type="primary")


def add_saved() -> None:
    """Recipes saved on the Filters page, one button each."""
    saved = recipes(runs_root()).saved
    if not saved:
        st.caption("There are none yet: save one on the Filters page.")
    for one in saved:

        def add(name: str = one.name, recipe: Recipe = one.recipe) -> None:
            compared = session.state().proving.compared
            session.set_proving(compared=with_recipe(compared, name, recipe))

        st.button(
            plain(one.name),
            key=f"prove_saved_{one.name}",
            icon=":material/add:",
            type="tertiary",
            on_click=add,
        )


def upload(shown: Shown) -> None:
    """Recipes from files, once each, after they have been tried on this run."""
    found = st.file_uploader(
        "Recipes in YAML", type=["yaml", "yml"], accept_multiple_files=True, key="prove_upload"
    )
    form = session.state().proving
    fresh = [file for file in found if file.file_id not in form.taken]
    for file in fresh:
        with errors_shown():
            name = Path(file.name).stem
            recipe = Recipe.from_yaml(yaml_text.decoded(file.getvalue(), file.name))
            recipe = recipe.with_leaves(tables.local)
            tables.selection(shown.key, recipe.to_yaml())  # raises if the run lacks a column
            name = f"{name} (file)" if name == PRESENT else name
            now = session.state().proving
            session.set_proving(
                compared=with_recipe(now.compared, name, recipe),
                taken=(*now.taken, file.file_id),
            )
    if session.state().proving.taken != form.taken:
        st.rerun()
