"""How an error looks. ``errors_shown`` is the only place where the app catches a ``MimicError``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from app.text import plain
from mimic_core.errors import MimicError


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show a ``MimicError`` from inside the block as a message; everything else passes."""
    try:
        yield
    except MimicError as error:
        show_failure(error.problem, got=error.got, allowed=error.allowed, next_step=error.next_step)


def show_failure(problem: str, *, got: str | None, allowed: str | None, next_step: str) -> None:
    """The four parts of an error: what is wrong, the value, what is allowed, what to do."""
    lines = [f"**{plain(problem[:1].upper() + problem[1:])}**"]
    if got is not None:
        lines.append(f"Got: {plain(got)}")
    if allowed is not None:
        lines.append(f"Allowed: {plain(allowed)}")
    lines.append(f"**Next step:** {plain(next_step)}")
    st.error("\n\n".join(lines), icon=":material/error:")


def empty_state(title: str, body: str, *, icon: str) -> None:
    """What a view shows when there is nothing to show: why, and how to get something."""
    with st.container(border=True, horizontal_alignment="center", key=f"empty-{title}"):
        st.markdown(f"#### {icon} {plain(title)}", text_alignment="center")
        st.markdown(plain(body), text_alignment="center")
