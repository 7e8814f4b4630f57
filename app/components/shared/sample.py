"""One sample whole: image, caption, all values; previous and next by button or arrow key."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import streamlit as st

from app.cache import tables
from app.components.shared.choosers import stepper
from app.components.shared.errors import errors_shown
from app.components.shared.tiles import picture_alone
from app.drawing import pictures
from app.shown import Shown
from app.state import session
from app.text import count, number, plain, spoken, text_of
from mimic_core.base.schema import IMAGE_COLUMNS

_MEASURES = ("mimic_score", "mimic_score_se", "mimic_weight", "loss", "clip_score")
_HIDDEN = {"uid", "caption", "label", *IMAGE_COLUMNS}  # which stand above


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
        uri, reason = tables.shown_picture(shown.run, row, side=pictures.FULL_SIDE)
        if uri is None:
            st.warning(f"No image: {plain(reason)}", icon=":material/broken_image:")
        else:
            picture_alone(uri)
        with st.container(border=True, key="full_caption"):
            st.text(text_of(row), width="stretch")
        with st.container(horizontal=True):
            if kept:
                st.badge("kept", icon=":material/check:", color="green")
            else:
                st.badge("dropped", icon=":material/filter_alt:", color="gray")
            st.badge(f"mimic score {number(row['mimic_score'])}", color="blue")
        st.code(uid, language=None)  # with a button that copies it
        _values(row)


def _steps(shown: Shown, rows: np.ndarray, row_number: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        uids = shown.table["uid"]
        position = stepper(
            "sample", rows, row_number, lambda place: session.change(opened=uids[int(rows[place])])
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
