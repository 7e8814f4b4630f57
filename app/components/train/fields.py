"""The fields that the training form is made of."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.cache.pools import Preview
from app.components.shared.controls import config_field
from app.components.shared.errors import Missing
from mimic_core.base.config import TrainConfig
from mimic_core.base.errors import ConfigError
from mimic_core.base.fields import setting
from mimic_core.base.schema import Sample

_SEEN_VALUES = 4
Columns = dict[str, tuple[str, ...]]
"""The pool's columns, with some of their values."""


def training_field(name: str, *, key: str | None = None, **own: Any) -> Any:
    """The widget of a setting of training; its key ends with its name, unless another is given."""
    return config_field(TrainConfig, name, key=f"train_{key or name}", **own)


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


def condition_field(name: str, key: str, columns: Columns, missing: Missing) -> str | None:
    """``COLUMN=VALUE`` for a setting of training, or None where no column is chosen."""
    one, two = st.columns(2)
    asked = setting(TrainConfig, name)
    column = one.selectbox(
        asked.title,
        list(columns),
        index=None,
        placeholder="no column",
        accept_new_options=True,
        key=f"train_{key}_column",
        help=asked.description,
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
                next_step=f"choose or type it beside {asked.title}",
            )
        )
    return f"{column}={value}"
