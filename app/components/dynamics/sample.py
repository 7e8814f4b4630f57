"""One sample over the epochs: its scores before the pool's bands, its votes, image and caption."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app.cache import dynamics, tables
from app.components.dynamics.gallery import PAGE_SIZE
from app.components.shared.choosers import stepper
from app.components.shared.errors import empty_state
from app.components.shared.shell import theme
from app.components.shared.tiles import picture_alone
from app.drawing import history, pictures
from app.drawing.history import Track
from app.shown import Dynamics
from app.state import session
from app.text import count, number, plain, text_of
from mimic_core.runs.history import HISTORY_COLUMNS

MIN_PREFIX = 4  # letters of a uid that are enough to look for


def sample_row(view: Dynamics, rows: np.ndarray) -> int | None:
    """Row of the table whose trajectory is shown: the chosen one, else the gallery's first."""
    chosen = view.state.sample
    if chosen is not None:
        found = view.shown.table["uid"].index_of(chosen)
        if found is not None and found < view.history.samples:
            return int(found)
    start = (view.state.page - 1) * PAGE_SIZE
    return int(rows[start if start < len(rows) else 0]) if len(rows) else None


def sample_panel(view: Dynamics, rows: np.ndarray, row: int | None) -> None:
    """The trajectory of the table's ``row``; ``rows`` (M,) is the gallery that steps go through."""
    _steps(view, rows, row)
    if view.state.missed is not None:
        st.warning(
            f"There is no sample {plain(view.state.missed)}. Enter a rank from 1 to "
            f"{count(len(view.rows))}, or a uid or its beginning ({MIN_PREFIX} letters or more).",
            icon=":material/search_off:",
        )
    if row is None:
        empty_state("No sample", "Choose a tile, or enter a uid.", icon=":material/timeline:")
        return
    _what(view, row)
    tones, key = theme(), view.shown.key
    cut = view.state.ensemble.binarise.column
    tracks = [
        Track(
            column,
            view.history.values(column)[:, row],
            dynamics.bands(key, column),
            dynamics.logarithmic(key, column),
            view.ensemble.cutoffs if column == cut else None,
            view.ensemble.votes[:, row] if column == cut else None,
        )
        for column in HISTORY_COLUMNS
    ]
    st.plotly_chart(
        history.trajectory_figure(
            tracks,
            labels=view.labels,
            unit=view.unit,
            neutral=1 / view.history.batch_size,
            theme=tones,
        ),
        key="dyn_trajectory",
        config={"displayModeBar": False},
        alt=_spoken_trajectory(view, row),
    )


def _spoken_trajectory(view: Dynamics, row: int) -> str:
    scores = ", ".join(number(float(v)) for v in view.history.mimic_score[:, row])
    kept = int(view.ensemble.votes[:, row].sum())
    return (
        f"Mimic scores of the sample over the {view.unit}s: {scores}; "
        f"{kept} of {view.history.steps} votes to keep it"
    )


def _steps(view: Dynamics, rows: np.ndarray, row: int | None) -> None:
    def go(place: int) -> None:
        session.change_dynamics(
            sample=view.shown.table["uid"][int(rows[place])],
            page=place // PAGE_SIZE + 1,
            missed=None,
        )

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        position = stepper("dyn", rows, row, go, icons=True)
        st.markdown(
            "not in the gallery"
            if position is None
            else f"**{count(position + 1)}** of {count(len(rows))} in the gallery",
            width="content",
        )
        st.space("stretch")
        _search(view)


def _search(view: Dynamics) -> None:
    def find() -> None:
        text = (session.value("dyn_find") or "").strip()
        found = found_row(view, text) if text else None
        if found is not None:
            session.change_dynamics(sample=view.shown.table["uid"][found], missed=None)
        elif text:
            session.change_dynamics(missed=text)

    st.text_input(
        "Find a sample",
        key=session.bind("dyn_find", ""),
        placeholder="uid or rank",
        on_change=find,
        label_visibility="collapsed",
        width=120,
    )


def found_row(view: Dynamics, text: str) -> int | None:
    """Row of the table that ``text`` names: a rank of the heat map, a uid or its beginning."""
    uids = view.shown.table["uid"].head(view.history.samples)
    exact = uids.index_of(text)
    if exact is not None:
        return int(exact)
    digits = text.replace(",", "")
    if digits.isdecimal() and 1 <= int(digits) <= len(view.rows):
        return int(view.rows[int(digits) - 1])
    if len(text) < MIN_PREFIX:
        return None
    fitting = uids.str.starts_with(text.lower()).arg_true()
    return int(fitting[0]) if len(fitting) == 1 else None


def _what(view: Dynamics, row: int) -> None:
    """Image, caption, and what the ensemble decides."""
    record = view.shown.table.row(row, named=True)
    kept = bool(view.ensemble.keep[row])
    votes = int(view.ensemble.votes[:, row].sum())
    changes = int(dynamics.flips(view.shown.key, view.state.ensemble)[row])
    left, right = st.columns([1, 2], vertical_alignment="top", gap="small")
    with left:
        uri, reason = tables.shown_picture(view.shown.run, record, side=pictures.THUMB_SIDE)
        if uri is None:
            st.caption(f":material/broken_image: {plain(reason)}")
        else:
            picture_alone(uri)
    with right:
        st.text(text_of(record), width="stretch")
        with st.container(horizontal=True, gap="xsmall"):
            icon, colour = ("check", "green") if kept else ("filter_alt", "orange")
            st.badge(
                f"ensemble {'keeps' if kept else 'drops'} it",
                icon=f":material/{icon}:",
                color=colour,  # type: ignore[arg-type]  # one of the two above
            )
            st.badge(f"confidence {view.ensemble.confidence[row]:.2f}", color="blue")
            st.badge(f"{votes} of {view.history.steps} votes to keep", color="gray")
            st.badge("1 flip" if changes == 1 else f"{changes} flips", color="gray")
            if not view.shown.selected[row]:
                st.badge("not in the selection", color="gray")
        st.caption(f"uid {record['uid']} · mimic score {number(record['mimic_score'])}")
