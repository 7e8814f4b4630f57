"""The recipe as cards, one per condition: what it says, what it keeps and drops, how to change it.

A sample is kept when every card keeps it, and counts for the first card that drops it.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from app.cache import filters
from app.choices import editing, leafform
from app.choices.editing import Line
from app.components.filters import leaf_editor
from app.components.shared.errors import errors_shown
from app.shown import Shown
from app.state import session
from app.state.filters import Editor
from app.text import count, plain, share
from mimic_core.base.schema import JUDGED_COLUMNS
from mimic_core.filters.conditions import Category, Condition, EnsembleVote, Minus, Percentile
from mimic_core.filters.recipe import NamedCondition, Recipe

_EXAMPLES: dict[str, tuple[str, Condition]] = {
    "CLIP score top 30 % minus mimic score lowest 15 %": (
        ":material/content_cut:",
        Minus(
            keep=Percentile(column="clip_score", lower=70),
            drop=Percentile(column="mimic_score", upper=15),
        ),
    ),
    "Mimic score: top 70 %": (
        ":material/vertical_align_top:",
        Percentile(column="mimic_score", lower=30),
    ),
    "What most epochs keep, by k-means": (":material/how_to_vote:", EnsembleVote()),
}
# Of labelled pools: what the reference head makes of each label.
_LABEL_EXAMPLES: dict[str, tuple[str, Condition]] = {
    "The reference head agrees with the label": (
        ":material/handshake:",
        Category(column="reference_agrees", values=(True,)),
    ),
    "No label issue, by confident learning": (
        ":material/fact_check:",
        Category(column="label_issue", values=(False,)),
    ),
    "Reference loss: lowest 70 %": (
        ":material/vertical_align_bottom:",
        Percentile(column="reference_loss", upper=70),
    ),
}
_MINUS = "Drop what another condition keeps, and what has no value to judge by"
_OR = "Keep also what another condition keeps"
_NOT = "Keep what this rejects, and the other way round; missing values are never kept"
_MORE = {"rename": "Rename", "up": "Move up", "down": "Move down", "copy": "Duplicate"}


def recipe_cards(shown: Shown) -> None:
    """All cards, the button that adds one, and its editor."""
    editor = leaf_editor.present_editor(shown.recipe)
    for place, named in enumerate(shown.recipe.conditions):
        if place:
            st.caption("and", text_alignment="center")
        mine = editor if editor is not None and editor.card == named.name else None
        with st.container(border=True, key=f"card-{place}", gap="small"):
            _card(shown, place, named, mine)
    if editor is not None and editor.task == "add":
        leaf_editor.leaf_editor(shown, editor)
    else:
        st.button(
            "Add condition",
            key="add_condition",
            icon=":material/add:",
            type="secondary" if shown.recipe.conditions else "primary",
            on_click=leaf_editor.start,
            args=("add",),
        )
    if not shown.recipe.conditions and editor is None:
        _examples(_offered(shown))


def _offered(shown: Shown) -> dict[str, tuple[str, Condition]]:
    """The examples that the run has columns for."""
    judged = set(JUDGED_COLUMNS) <= set(shown.table.columns)
    return _EXAMPLES | _LABEL_EXAMPLES if judged else _EXAMPLES


def _examples(offered: dict[str, tuple[str, Condition]]) -> None:
    st.caption("No conditions yet: every sample is kept. Add one, or start from an example:")
    for place, (label, (icon, condition)) in enumerate(offered.items()):
        st.button(
            plain(label),
            key=f"example-{place}",
            icon=icon,
            type="tertiary",
            on_click=_set,
            args=(editing.added, condition),
        )


def _set(change: Callable[..., Recipe], *args: object) -> None:
    """Change the present recipe."""
    session.set_recipe(change(session.state().recipe, *args))


def _card(shown: Shown, place: int, named: NamedCondition, editor: Editor | None) -> None:
    _name(place, named.name)
    open_at = editor.path if editor is not None and editor.task == "edit" else None
    for line in editing.lines(named.condition):
        _line(shown.recipe, place, named, line)
        if line.path == open_at and editor is not None:
            leaf_editor.leaf_editor(shown, editor)
    _counts(shown, named)
    if editor is not None and editor.task != "edit":
        leaf_editor.leaf_editor(shown, editor)
    else:
        _actions(place, named)


def _name(place: int, name: str) -> None:
    """The name of the card; an input while it is renamed."""
    if session.state().filters.renaming != name:
        st.caption(plain(name))
        return
    key = f"name-{place}"

    def store() -> None:
        session.change_filters(renaming=None)
        typed = session.value(key) or name
        recipe = session.state().recipe
        if typed != name and name in recipe.names:
            session.set_recipe(
                editing.renamed(recipe, name, editing.free_name(typed, recipe.names))
            )

    st.text_input("Name", key=session.bind(key, name), on_change=store, max_chars=200)


def _line(recipe: Recipe, place: int, named: NamedCondition, line: Line) -> None:
    """One leaf: the words around it, what it says (a click edits it), and what takes it out."""
    spot = f"{place}-{'-'.join(map(str, line.path))}"
    with st.container(
        horizontal=True, vertical_alignment="center", gap="xsmall", key=f"line-{spot}"
    ):
        if line.depth:
            st.space(16 * line.depth)
        if line.before:
            st.markdown(f"**{plain(line.before)}**", width="content")
        editable = leafform.form_of(line.leaf) is not None
        st.button(
            plain(line.leaf.describe()),
            key=f"leaf-{spot}",
            type="tertiary",
            icon=":material/edit:" if editable else ":material/lock:",
            icon_position="right",
            disabled=not editable,
            help=None if editable else "Drawn or chosen on Explore; it cannot be typed here.",
            on_click=leaf_editor.edit,
            args=(recipe, named.name, line.path),
        )
        if line.after:
            st.markdown(f"**{plain(line.after)}**", width="content")
        if line.removable:
            st.button(
                "",
                key=f"cut-{spot}",
                type="tertiary",
                icon=":material/close:",
                help="Take this part out",
                on_click=_cut,
                args=(named, line),
            )


def _cut(named: NamedCondition, line: Line) -> None:
    _put(named, editing.without_part(named.condition, line.path))


def _counts(shown: Shown, named: NamedCondition) -> None:
    """What the condition keeps by itself, and for how many it is the reason of the drop."""
    with errors_shown():
        alone = filters.kept_alone(shown.key, named.condition)
        first = shown.selection.drops[named.name]
        total = max(shown.total, 1)
        st.html(
            '<div class="share"><i class="kept" style="width:'
            f'{100 * alone / total:.2f}%"></i><i class="cut" style="width:'
            f'{100 * first / total:.2f}%"></i></div>'
        )
        st.caption(
            f"keeps **{count(alone)}** by itself ({plain(share(alone, shown.total))}), "
            f"first to drop **{count(first)}**"
        )


def _actions(place: int, named: NamedCondition) -> None:
    name = named.name
    with st.container(horizontal=True, gap="xsmall", key=f"actions-{place}"):
        actions: list[tuple[str, str, str, Callable[..., None], tuple[object, ...]]] = [
            ("Minus", "content_cut", _MINUS, leaf_editor.start, ("minus", name)),
            ("Or", "call_split", _OR, leaf_editor.start, ("or", name)),
            ("Not", "contrast", _NOT, _invert, (named,)),
        ]
        for label, icon, text, act, args in actions:
            st.button(
                label,
                key=f"{label.lower()}-{place}",
                icon=f":material/{icon}:",
                type="tertiary",
                help=text,
                on_click=act,
                args=args,
            )
        st.menu_button(
            "More",
            list(_MORE),
            key=f"more-{place}",
            format_func=lambda action: _MORE[action],
            type="tertiary",
            on_click=_more,
            args=(place, named),
        )
        st.button(
            "Remove",
            key=f"remove-{place}",
            icon=":material/delete:",
            type="tertiary",
            on_click=_remove,
            args=(name,),
        )


def _invert(named: NamedCondition) -> None:
    _put(named, editing.inverted(named.condition))


def _put(named: NamedCondition, condition: Condition) -> None:
    """Put another condition in the place of one."""
    leaf_editor.close()
    session.set_recipe(editing.changed(session.state().recipe, named.name, condition)[0])


def _remove(name: str) -> None:
    leaf_editor.close()
    session.set_recipe(session.state().recipe.without(name))


def _more(place: int, named: NamedCondition) -> None:
    match session.value(f"more-{place}"):
        case "rename":
            session.change_filters(renaming=named.name, editor=None)
        case "up":
            _set(editing.moved, named.name, -1)
        case "down":
            _set(editing.moved, named.name, 1)
        case "copy":
            _set(editing.added, named.condition)
