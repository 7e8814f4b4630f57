"""The active conditions as chips, the menu that adds more, undo."""

from __future__ import annotations

import streamlit as st

from app.cache import tables
from app.choices import selecting
from app.components.shared.choosers import undo_button
from app.shown import Shown
from app.state import session
from app.text import count, plain, share
from mimic_core.filters.conditions import Category
from mimic_core.filters.recipe import Recipe


def condition_bar(shown: Shown, *, hint: str = "Drag on the histogram or the map.") -> None:
    """One line: a removable chip per condition, add, undo, clear; ``hint`` where there is none."""
    recipe = shown.recipe
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="conditions"):
        for name, text in selecting.chips(recipe):
            dropped = shown.selection.drops[name]
            st.button(
                plain(text),
                key=f"chip-{name}",
                icon=":material/close:",
                icon_position="right",
                help=f"Remove the condition {plain(name)}. It is the first to reject "
                f"{count(dropped)} samples.",
                on_click=lambda name=name: session.set_recipe(recipe.without(name)),
            )
        if not recipe.conditions:
            st.caption(f"No conditions: every sample is kept. {hint}")
        with st.popover("Add condition", icon=":material/add:", type="tertiary"):
            _add(shown)
        undo_button(type="tertiary")
        if len(recipe.conditions) > 1:
            st.button(
                "Clear",
                key="clear",
                icon=":material/filter_alt_off:",
                type="tertiary",
                on_click=lambda: session.set_recipe(Recipe()),
            )


def kept_metrics(shown: Shown) -> None:
    """How many the selection keeps, and which share that is."""
    st.metric("Kept", f"{count(shown.kept)} of {count(shown.total)}", width="content")
    st.metric("Retention rate", share(shown.kept, shown.total), width="content")


def _add(shown: Shown) -> None:
    """Conditions that no chart can show: text of the caption, values of a category column."""
    recipe = shown.recipe

    def by_text() -> None:
        words = session.value("add_text") or ""
        session.set_recipe(selecting.set_text(recipe, words, keep=session.value("add_text_keep")))

    if shown.table["caption"].null_count() < shown.total:  # labelled images have none
        st.text_input("Caption contains", key="add_text", on_change=by_text, placeholder="a word")
        st.toggle("Keep those captions", value=True, key="add_text_keep")
    columns = tables.categories(shown.key)
    if not columns:
        return
    column = st.selectbox("Category column", columns, key="add_column")
    values = tables.category_values(shown.key, column)

    def by_category() -> None:
        picked = session.value(f"add_values_{column}")
        session.set_recipe(selecting.set_categories(recipe, column, picked))

    now = selecting.condition_named(recipe, column)
    st.pills(
        "Keep only",
        values,
        selection_mode="multi",
        format_func=lambda value: plain(str(value)),
        key=session.bind(
            f"add_values_{column}",
            [v for v in now.values if v in values] if isinstance(now, Category) else [],
        ),
        on_change=by_category,
    )
