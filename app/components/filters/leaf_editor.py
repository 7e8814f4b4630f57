"""The editor of one condition: its kind, its settings, and what it keeps by itself.

A change of a condition that is there is applied at once; one that is still to be added waits for
its button. What cannot be applied (unfinished, or refused by the table) stays in the form, with a
note, and the recipe stays as it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from app.cache import filters, tables
from app.cache.tables import TableKey
from app.choices import editing, leafform, selecting
from app.choices.leafform import LeafForm
from app.components.filters import leaf_controls
from app.components.shared.ensemble_form import ensemble_controls
from app.shown import Shown
from app.state import session
from app.state.filters import Editor, Task
from app.text import count, plain, share
from mimic_core.base.errors import MimicError
from mimic_core.filters.conditions import Condition, with_leaves
from mimic_core.filters.recipe import Recipe

_HEADS: dict[Task, str] = {
    "add": "New condition",
    "or": "Or also keep",
    "minus": "Minus: drop what this keeps",
    "edit": "",
}
_BUTTONS: dict[Task, str] = {"add": "Add", "or": "Add alternative", "minus": "Subtract", "edit": ""}
# What a new part starts as, so that the most frequent one is a click away.
_STARTS: dict[Task, LeafForm] = {"minus": LeafForm(side="lowest", percent=15.0)}


def start(task: Task, card: str | None = None) -> None:
    """Open the editor for something new."""
    form = _STARTS.get(task, LeafForm())
    session.change_filters(editor=Editor(task, card, form=form), renaming=None)


def edit(recipe: Recipe, card: str, path: editing.Path) -> None:
    """Open the editor on a leaf that is there."""
    leaf = _leaf(recipe, card, path)
    form = None if leaf is None else leafform.form_of(leaf)
    if form is not None:
        session.change_filters(editor=Editor("edit", card, path, form, leaf), renaming=None)


def close() -> None:
    """Close the editor; what has been applied stays."""
    session.change_filters(editor=None)


def present_editor(recipe: Recipe) -> Editor | None:
    """The open editor as far as it fits the recipe, which undo or another page may have changed."""
    editor = session.state().filters.editor
    if (
        editor is None
        or editor.card is None
        or (editor.task != "edit" and editor.card in recipe.names)
    ):
        return editor
    leaf = _leaf(recipe, editor.card, editor.path)
    if leaf is not None and leaf == editor.base:
        return editor
    close()
    if leaf is not None:
        edit(recipe, editor.card, editor.path)
    return session.state().filters.editor


def _leaf(recipe: Recipe, card: str, path: editing.Path) -> Condition | None:
    """The leaf at a place of the recipe; None where there is none."""
    whole = selecting.condition_named(recipe, card)
    try:
        return None if whole is None else editing.part_at(whole, path)
    except MimicError:
        return None


def leaf_editor(shown: Shown, editor: Editor) -> None:
    """The controls of the open editor."""

    def put(**changes: Any) -> None:
        form = replace(editor.form, **changes)
        session.change_filters(editor=replace(editor, form=form))
        if editor.task == "edit":
            _apply(shown.key, shown.recipe, editor, form)

    with st.container(border=editor.task == "add", key="leaf_editor"):
        if _HEADS[editor.task]:
            st.markdown(f"**{_HEADS[editor.task]}**")
        leaf_controls.kind_control(shown, editor.form, put)
        match editor.form.kind:
            case "ensemble":
                steps = filters.steps(shown.key)
                ensemble_controls(editor.form, put, steps=steps)
            case "category":
                leaf_controls.category_controls(shown, editor.form, put)
            case "uid_list":
                leaf_controls.list_controls(editor.form, put)
            case "text":
                leaf_controls.text_controls(shown, editor.form, put)
            case _:
                leaf_controls.number_controls(shown, editor.form, put)
        found = _outcome(shown, editor.form)
        _buttons(shown.recipe, editor, found)


def _buttons(recipe: Recipe, editor: Editor, found: Condition | None) -> None:
    with st.container(horizontal=True):
        if editor.task == "edit":
            st.button("Done", key="edit_done", icon=":material/check:", on_click=close)
            return
        st.button(
            _BUTTONS[editor.task],
            key="edit_add",
            type="primary",
            icon=":material/remove:" if editor.task == "minus" else ":material/add:",
            disabled=found is None,
            on_click=_add,
            args=(recipe, editor, found),
        )
        st.button("Cancel", key="edit_cancel", type="tertiary", on_click=close)


def _apply(key: TableKey, recipe: Recipe, editor: Editor, form: LeafForm) -> None:
    """Put the form's condition in its place in the recipe, if the table takes it."""
    condition = _condition(form)
    if condition is None or editor.card is None:
        return
    whole = recipe.conditions[recipe.names.index(editor.card)].condition
    whole = editing.with_part(whole, editor.path, condition)
    try:
        tables.votes(key, whole)
    except MimicError:
        return  # the note below the form says why
    recipe, name = editing.changed(recipe, editor.card, whole)
    session.change_filters(editor=replace(editor, card=name, form=form, base=condition))
    session.set_recipe(recipe)


def _add(recipe: Recipe, editor: Editor, condition: Condition) -> None:
    if editor.card is None:
        session.set_recipe(editing.added(recipe, condition))
    else:
        whole = recipe.conditions[recipe.names.index(editor.card)].condition
        join = editing.or_else if editor.task == "or" else editing.minus
        session.set_recipe(editing.changed(recipe, editor.card, join(whole, condition))[0])
    close()


def _condition(form: LeafForm) -> Condition | None:
    try:
        return with_leaves(form.condition(), tables.local)
    except MimicError:
        return None


def _outcome(shown: Shown, form: LeafForm) -> Condition | None:
    """Say what the condition keeps by itself, or why it cannot be applied yet."""
    try:
        condition = with_leaves(form.condition(), tables.local)
        kept = filters.kept_alone(shown.key, condition)
    except MimicError as error:
        problem = error.problem[:1].upper() + error.problem[1:]
        st.caption(f":material/info: {plain(problem)}: {plain(error.next_step)}.")
        return None
    st.caption(
        f"{plain(condition.describe())}: keeps **{count(kept)}** of {count(shown.total)} "
        f"by itself, {plain(share(kept, shown.total))}"
    )
    return condition
