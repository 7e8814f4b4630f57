"""What a page does, as a command to copy."""

from __future__ import annotations

import streamlit as st


def command_code(text: str) -> None:
    """A command, with a button that copies it."""
    st.code(text, language="bash", wrap_lines=True)


def same_as_command(text: str) -> None:
    """A command that does the same as the page, folded away."""
    with st.expander("The same as a command", icon=":material/terminal:"):
        command_code(text)
