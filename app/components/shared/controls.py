"""Controls that several pages have: settings' fields, leaf forms, commands to copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from app.state import session
from mimic_core.base.config import Frozen
from mimic_core.base.fields import Setting, setting

Put = Callable[..., None]
_CHOICES = {
    "proj": "projection",
    "cos": "cosine",
    "cosine": "cosine, to zero",
    "adamw": "AdamW",
    "sgd": "SGD with momentum",
    "pairs": "captions",
    "layers": "the mimic layers only",
    "all": "all parameters",
}
_STEPS = {
    "learning_rate": 1e-4,
    "weight_decay": 1e-5,
    "temperature": 0.01,
    "momentum": 0.05,
    "clip_norm": 0.5,
    "held_out": 0.05,
    "held_out_share": 0.05,
    "margin": 0.005,
    "steps": 50,
}


def config_field(
    config: type[Frozen],
    name: str,
    *,
    key: str,
    place: Any = st,
    percent: bool = False,
    segmented: bool = False,
    **own: Any,
) -> Any:
    """The widget of a setting, with the label, the bounds and the help of its field.

    Args:
        config: Where the setting belongs.
        name: Its name there.
        key: The widget's.
        place: Where the widget stands.
        percent: Show a share in per cent.
        segmented: Show all choices side by side.
        **own: Arguments of the widget that are its own, such as another ``value``. One with a
            callback shows what its key is bound to; others keep what was typed for the session.

    Returns:
        What it holds, of the field's own kind; None for an emptied field that may be empty.
    """
    one = setting(config, name)
    help_text = one.description + (" Separated by commas." if one.kind is tuple else "")
    shown: dict[str, Any] = {"label": one.title, "key": key, "help": help_text}
    choices = bool(one.choices) or "options" in own
    if "on_change" not in own:
        shown |= {"persist_state": "session", **_start(one, choices=choices)}
    if choices:
        offered = own.pop("options", [None, *one.choices] if one.optional else one.choices)
        shown |= {"options": offered, "format_func": lambda name: _chosen(one, name)}
        if segmented:
            return place.segmented_control(**shown | own, required=True)
        if "default" in shown:
            shown["index"] = list(offered).index(shown.pop("default"))
        return place.selectbox(**shown | own)
    if one.kind is bool:
        return place.toggle(**shown | own)
    if one.kind in (int, float):
        return place.number_input(**shown | number_of(one, percent=percent) | own)
    typed = place.text_input(**shown | own) or ""
    if one.kind is tuple:
        return tuple(part.strip() for part in typed.split(",") if part.strip())
    return typed.strip() or None


def number_of(one: Setting, *, percent: bool = False) -> dict[str, Any]:
    """What a number field knows of its setting: bounds, step and format."""
    factor, label = (100, f"{one.title}, %") if percent else (1, one.title)
    least, most = (None if end is None else one.kind(end * factor) for end in (one.least, one.most))
    bounds = {"label": label, "min_value": least, "max_value": most}
    if one.kind is int:
        return {**bounds, "step": _STEPS.get(one.name, 1)}
    return {**bounds, "step": factor * _STEPS.get(one.name, 0.01), "format": "%.4g"}


def _start(one: Setting, *, choices: bool) -> dict[str, Any]:
    """What the widget shows before anyone has touched it."""
    if choices:
        return {"default": one.default}
    if one.kind in (bool, int, float) and one.default is not None:
        return {"value": one.default}
    empty = {"value": None} if one.kind in (int, float) else {}
    words = one.otherwise if empty or one.otherwise is None else f"empty: {one.otherwise}"
    return {**empty, "placeholder": words}


def _chosen(one: Setting, choice: str | None) -> str:
    return (one.otherwise or "") if choice is None else _CHOICES.get(choice, choice)


def bound(field: str, value: Any, put: Put, *, optional: bool = False) -> dict[str, Any]:
    """Key and callback of a control that shows ``value`` and changes ``field`` of the form.

    An emptied control changes nothing, unless the field is optional.
    """
    key = f"leaf_{field}"

    def store() -> None:
        found = session.value(key)
        if found is not None or optional:
            put(**{field: found})

    return {"key": session.bind(key, value), "on_change": store}


def command_code(text: str) -> None:
    """A command, with a button that copies it."""
    st.code(text, language="bash", wrap_lines=True)


def same_as_command(text: str) -> None:
    """A command that does the same as the page, folded away."""
    with st.expander("The same as a command", icon=":material/terminal:"):
        command_code(text)
