"""What a form still lacks. Collected while it is drawn, so that all of it stays on the screen."""

from __future__ import annotations

import streamlit as st

from app.text import plain
from mimic_core.base.errors import ConfigError

Missing = list[ConfigError]
"""What is not filled in yet, in the order of the form."""


def missing_hint(missing: Missing) -> None:
    """What to fill in next: a hint and no error, since nobody has done anything wrong yet."""
    first = missing[0]
    st.info(
        f"{plain(first.problem[:1].upper() + first.problem[1:])}: {plain(first.next_step)}.",
        icon=":material/edit:",
    )
