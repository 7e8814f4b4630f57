"""What comes after a recipe: the same as a command, and the pages that go on from here."""

from __future__ import annotations

import streamlit as st

from app.cache import filters
from app.components.shared.controls import command_code
from app.library import runs_root, tidy_path
from app.shown import Shown
from app.text import plain
from mimic_core.cli.commands import written


def take_away(shown: Shown) -> None:
    """Commands to copy, links to follow."""
    with st.container(border=True, key="panel_command"):
        with st.container(horizontal=True, vertical_alignment="center", key="goes_on"):
            st.subheader("Take it on", anchor=False, width="content")
            st.space("stretch")
            st.page_link("views/explore.py", label="Explore", icon=":material/scatter_plot:")
            st.page_link("views/prove.py", label="Prove", icon=":material/balance:")
            st.page_link("views/export.py", label="Export", icon=":material/download:")
        if shown.key.tuned is not None:
            st.caption(
                "These scores are tuned and not saved: save them as a run on Explore first, so "
                "that a command can read them."
            )
            return
        command_code("\n".join(_commands(shown)))
        if _saved(shown) is None:
            st.caption(f"Save the recipe, or download it as {plain('recipe.yaml')}, first.")


def _commands(shown: Shown) -> list[str]:
    file = _saved(shown) or "recipe.yaml"
    runs = ["--runs", tidy_path(shown.run.path.parent)]
    export = ["--format", "parquet", "--out", "subset.parquet", "--recipe", file]
    return [
        written(["filter", file, shown.run.id, *runs]),
        written(["export", shown.run.id, *export, *runs]),
    ]


def _saved(shown: Shown) -> str | None:
    """The file of a saved recipe that is just the present one."""
    for one in filters.recipes(runs_root()).saved:
        if one.recipe == shown.recipe:
            return tidy_path(one.path)
    return None
