"""The fields that the training form is made of."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.cache.pools import Preview
from app.components.shared.errors import Missing
from mimic_core.base.errors import ConfigError
from mimic_core.base.schema import Sample

_SEEN_VALUES = 4
Columns = dict[str, tuple[str, ...]]
"""The pool's columns, with some of their values."""


def number(
    label: str,
    key: str,
    default: Any,
    *,
    least: Any = 0,
    most: Any = None,
    step: Any = None,
    form: str | None = None,
    placeholder: str | None = None,
    help_text: str | None = None,
) -> Any:
    """A number that a switch of pages does not lose; None where the field may be empty."""
    return st.number_input(
        label,
        value=default,
        min_value=least,
        max_value=most,
        step=step,
        format=form,
        placeholder=placeholder,
        key=f"train_{key}",
        help=help_text,
        persist_state="session",
    )


def text(label: str, key: str, *, placeholder: str, help_text: str) -> str:
    """A line of text, without white space around it."""
    typed = st.text_input(
        label,
        key=f"train_{key}",
        placeholder=placeholder,
        help=help_text,
        persist_state="session",
    )
    return (typed or "").strip()


def switch(label: str, key: str, *, help_text: str) -> bool:
    """Something that is off by default."""
    return st.toggle(label, key=f"train_{key}", help=help_text, persist_state="session")


def columns_of(seen: Preview) -> Columns:
    """The pool's own columns, as far as its first samples have them, with some of their values."""
    values: dict[str, dict[str, None]] = {}
    for one in seen.found:
        if isinstance(one, Sample):
            for name, value in one.meta.items():
                values.setdefault(name, {})[_as_text(value)] = None
    return {name: tuple(sorted(found))[:_SEEN_VALUES] for name, found in sorted(values.items())}


def _as_text(value: object) -> str:
    """As it is said in COLUMN=VALUE."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def condition_field(
    label: str, key: str, columns: Columns, missing: Missing, *, help_text: str
) -> str | None:
    """``COLUMN=VALUE``, or None where no column is chosen."""
    one, two = st.columns(2)
    column = one.selectbox(
        label,
        list(columns),
        index=None,
        placeholder="no column",
        accept_new_options=True,
        key=f"train_{key}_column",
        help=help_text,
        persist_state="session",
    )
    if not column:
        return None
    seen = columns.get(column, ())
    value = two.selectbox(
        "where it is",
        list(seen),
        index=None,
        placeholder="a value",
        accept_new_options=True,
        key=f"train_{key}_value",
        help="Values not listed can be typed.",
        persist_state="session",
    )
    if not value:
        missing.append(
            ConfigError(
                f"no value of column {column} is chosen yet",
                allowed=f"such as {', '.join(seen)}" if seen else None,
                next_step=f"choose or type it beside {label}",
            )
        )
    return f"{column}={value}"
