"""One sample whole: image, caption, all values; previous and next by button or arrow key."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import streamlit as st

from app.components.shared.errors import errors_shown
from app.components.shared.images import PLACE, picture_of, source_root
from app.drawing import pictures
from app.shown import Shown
from app.state import session
from app.text import count, number, plain, spoken, text_of

_MEASURES = ("mimic_score", "mimic_score_se", "mimic_weight", "loss", "clip_score")
_HIDDEN = {"caption", "label", *PLACE}


def sample_dialog(shown: Shown, rows: np.ndarray) -> None:
    """Open the sample of the session in a drawer; ``rows`` (M,) is the ranking it stands in."""
    uids = shown.table["uid"]
    found = uids.index_of(session.state().opened)
    if found is None:
        session.change(opened=None)
        return
    dialog = st.dialog(
        "Sample", width="medium", position="right", on_dismiss=lambda: session.change(opened=None)
    )
    dialog(_drawer)(shown, rows)


def _drawer(shown: Shown, rows: np.ndarray) -> None:
    with errors_shown():
        uid = session.state().opened
        row_number = shown.table["uid"].index_of(uid) if uid is not None else None
        if row_number is None:
            return
        row = shown.table.row(row_number, named=True)
        _steps(shown, rows, row_number)
        kept = bool(shown.selected[row_number])
        picture = picture_of(source_root(shown), row, side=pictures.FULL_SIDE)
        if picture.uri is None:
            st.warning(f"No image: {plain(picture.reason)}", icon=":material/broken_image:")
        else:
            st.image(picture.uri, width="stretch")
        with st.container(border=True, key="full_caption"):
            st.text(text_of(row), width="stretch")
        with st.container(horizontal=True):
            if kept:
                st.badge("kept", icon=":material/check:", color="green")
            else:
                st.badge("dropped", icon=":material/filter_alt:", color="gray")
            st.badge(f"mimic score {number(row['mimic_score'])}", color="blue")
        _values(row)


def _steps(shown: Shown, rows: np.ndarray, row_number: int) -> None:
    """Previous and next in the ranking, by button or by arrow key."""
    here = np.flatnonzero(rows == row_number)
    position = int(here[0]) if len(here) else None

    def go(step: int) -> None:
        assert position is not None  # the buttons are disabled without a position
        session.change(opened=shown.table["uid"][int(rows[position + step])])

    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Previous",
            key="sample_previous",
            icon=":material/chevron_left:",
            shortcut="Left",
            disabled=position is None or position == 0,
            on_click=go,
            args=(-1,),
        )
        st.button(
            "Next",
            key="sample_next",
            icon=":material/chevron_right:",
            icon_position="right",
            shortcut="Right",
            disabled=position is None or position == len(rows) - 1,
            on_click=go,
            args=(1,),
        )
        if position is not None:
            st.caption(f"rank {count(position + 1)} of {count(len(rows))}")
        else:
            st.caption("not in this ranking")


def _values(row: dict[str, Any]) -> None:
    names = [*_MEASURES, *(name for name in row if name not in _MEASURES and name not in _HIDDEN)]
    cells = "".join(
        f"<dt>{escape(spoken(name))}</dt><dd>{escape(number(row[name]))}</dd>" for name in names
    )
    st.html(f'<dl class="values">{cells}</dl>')
