"""Panels that rerun alone: a page of the gallery or another colour touches nothing around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec

import streamlit as st

from app.components.shared.errors import errors_shown
from app.shown import Shown
from app.state import session

P = ParamSpec("P")


def panel(draw: Callable[Concatenate[Shown, P], None]) -> Callable[Concatenate[Shown, P], None]:
    """A panel whose own widgets rerun it alone.

    What changes the selection concerns the whole page, which then runs again.
    """

    def alone(shown: Shown, /, *args: P.args, **kwargs: P.kwargs) -> None:
        current = session.state()
        if current.recipe != shown.recipe or current.run_id != shown.run.id:
            st.rerun()
        with errors_shown():
            draw(shown, *args, **kwargs)

    alone.__qualname__ = f"{draw.__module__}.{draw.__qualname__}"  # by which streamlit knows it
    alone.__name__ = draw.__name__
    fragment: Callable[Concatenate[Shown, P], None] = st.fragment(alone)
    return fragment
