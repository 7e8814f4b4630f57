"""What stands around charts and galleries: rows of options, columns, pages, zoom, steps, undo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import streamlit as st

from app.choices.ranking import Page
from app.state import session
from app.text import spoken


def drags(event: Any, shape: str) -> list[dict[str, Any]]:
    """The boxes or lassos of a chart's event; a redrawn chart sends an event without any."""
    if not event:
        return []
    found: list[dict[str, Any]] = event["selection"].get(shape) or []
    return found


def segments(
    label: str, names: Mapping[Any, str], *, key: str, value: Any, change: Callable[[], None]
) -> None:
    """A row of options by name, of which one is always chosen."""
    st.segmented_control(
        label,
        list(names),
        format_func=lambda option: names[option],
        required=True,
        key=session.bind(key, value),
        on_change=change,
        label_visibility="collapsed",
    )


def column_box(
    label: str,
    options: Sequence[str],
    *,
    key: str,
    value: str,
    change: Callable[[], None],
    words: Callable[[str], str] = spoken,
    width: int = 170,
    hint: str | None = None,
) -> None:
    """A column to choose, its label left out for want of room."""
    st.selectbox(
        label,
        options,
        key=session.bind(key, value),
        on_change=change,
        format_func=words,
        label_visibility="collapsed",
        width=width,
        help=hint,
    )


def page_turner(page: Page, name: str, turn: Callable[[int], None]) -> None:
    """The pages of a ranking, where there are several."""
    if page.pages > 1:
        key = f"{name}-{page.number}-{page.pages}"
        st.pagination(
            page.pages,
            default=page.number,
            max_visible_pages=5,
            key=key,
            on_change=lambda: turn(session.value(key)),
        )


def zoom_buttons(
    prefix: str, zoom: Callable[..., None], *, zoomed: bool, possible: bool, words: tuple[str, str]
) -> None:
    """Zoom in, and out by ``zoom(out=True)``; ``words`` say to what each shows."""
    st.button(
        ":material/zoom_in:",
        key=f"{prefix}zoom_in",
        help=f"Zoom to the {words[0]}",
        disabled=not possible,
        on_click=zoom,
    )
    if zoomed:
        st.button(
            ":material/zoom_out_map:",
            key=f"{prefix}zoom_out",
            help=f"Show {words[1]}",
            on_click=zoom,
            kwargs={"out": True},
        )


def stepper(
    prefix: str,
    rows: np.ndarray,
    row: int | None,
    go: Callable[[int], None],
    *,
    icons: bool = False,
) -> int | None:
    """Previous and next in a ranking, by button or by arrow key; ``icons`` leave the words out.

    Args:
        prefix: Of the buttons' keys.
        rows: The ranking (M,).
        row: The one that is shown.
        go: Called with the place in the ranking to go to.

    Returns:
        The place of ``row``; None where it is not in the ranking.
    """
    here = np.flatnonzero(rows == (-1 if row is None else row))
    position = int(here[0]) if len(here) else None
    for word, side, step, end in (
        ("Previous", "left", -1, 0),
        ("Next", "right", 1, len(rows) - 1),
    ):
        arrow = f":material/chevron_{side}:"
        st.button(
            arrow if icons else word,
            key=f"{prefix}_{word.lower()}",
            icon=None if icons else arrow,
            icon_position="right" if side == "right" else "left",
            help=f"{word} in the gallery" if icons else None,
            shortcut=side.capitalize(),
            disabled=position is None or position == end,
            on_click=go,
            args=(-1 if position is None else position + step,),
        )
    return position


def undo_button(**look: Any) -> None:
    """Go back to the recipe before the last change."""
    st.button(
        "Undo",
        key="undo",
        icon=":material/undo:",
        disabled=not session.state().past,
        on_click=session.undo,
        **look,
    )
