"""The controls of a condition's settings: each shows one field of the form and changes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import streamlit as st

from app.cache import filters, tables
from app.choices.leafform import Kind, LeafForm, as_kind
from app.components.shared.controls import Put, bound
from app.library import runs_root, store_upload
from app.shown import Shown
from app.state import session
from app.text import plain, spoken

WHOLE_TABLE = ""  # no grouping; a column cannot be called so
_KINDS: dict[Kind, str] = {
    "percentile": "Percentile",
    "absolute": "Range",
    "top_k": "Top k",
    "ensemble": "Ensemble",
    "category": "Category",
    "text": "Text",
    "uid_list": "Uid list",
}
_SIDES = {"top": "Top", "lowest": "Lowest", "between": "Between"}


def kind_control(shown: Shown, form: LeafForm, put: Put) -> None:
    """Which kind of condition it is; a cutoff keeps its place when the kind changes."""
    key = "leaf_kind"

    def store() -> None:
        values = tables.sorted_values(shown.key, form.column)
        turned = as_kind(form, session.value(key), values)
        if turned.kind == "category" and turned.category is None:
            first = next(iter(tables.categories(shown.key)), None)
            put(kind=turned.kind, category=first)
        else:
            put(**{name: getattr(turned, name) for name in LeafForm.__slots__})

    st.pills(
        "Kind",
        list(_KINDS),
        required=True,
        format_func=lambda kind: _KINDS[kind],
        key=session.bind(key, form.kind),
        on_change=store,
        label_visibility="collapsed",
    )


def number_controls(shown: Shown, form: LeafForm, put: Put) -> None:
    """Column and cutoff of a percentile, a range or a top-k."""
    columns = tables.numbers(shown.key)
    known = columns if form.column in columns else [form.column, *columns]
    column, ends = st.columns([2, 3], vertical_alignment="bottom")
    column.selectbox("Column", known, format_func=spoken, **bound("column", form.column, put))
    values = tables.sorted_values(shown.key, form.column) if form.column in columns else None
    with ends:
        match form.kind:
            case "percentile":
                _percentile(form, put)
            case "top_k":
                _top_k(form, put)
            case _:
                _range(form, put, values)
    if form.kind != "absolute":
        _by(shown, form, put)


def _percentile(form: LeafForm, put: Put) -> None:
    side, *ends = st.columns([3, 2, 2] if form.side == "between" else [3, 2])
    side.selectbox(
        "Keep",
        list(_SIDES),
        format_func=lambda name: _SIDES[name],
        help="Percent of the samples that have a value. Equal values stay together.",
        **bound("side", form.side, put),
    )
    limits: dict[str, Any] = {"min_value": 0.0, "max_value": 100.0, "step": 1.0, "format": "%.4g"}
    if form.side == "between":
        for place, field, label in zip(ends, ("lower", "upper"), ("From %", "To %"), strict=True):
            place.number_input(label, **limits, **bound(field, getattr(form, field), put))
    else:
        ends[0].number_input("Percent", **limits, **bound("percent", form.percent, put))


def _range(form: LeafForm, put: Put, values: np.ndarray | None) -> None:
    low, high = st.columns(2)
    some = values is not None and len(values)
    step = float((values[-1] - values[0]) / 100) if values is not None and some else 0.0
    for place, field, label, end in [(low, "low", "From", 0), (high, "high", "To", -1)]:
        place.number_input(
            label,
            value=None,
            step=float(f"{step:.1g}") or 1.0,
            format="%.5g",
            placeholder=f"{values[end]:.4g}" if values is not None and some else "open",
            help="Both ends are kept; an empty one is open.",
            **bound(field, getattr(form, field), put, optional=True),
        )


def _top_k(form: LeafForm, put: Put) -> None:
    k, end = st.columns(2)
    k.number_input("Samples", min_value=1, step=1, **bound("k", form.k or 1, put))
    end.selectbox("Of the", ["largest", "smallest"], **bound("end", form.end, put))


def _by(shown: Shown, form: LeafForm, put: Put) -> None:
    """Groups: offered where the table has columns whose values come back."""
    columns = filters.groups(shown.key)
    if form.by is not None and form.by not in columns:
        columns = [form.by, *columns]
    if not columns:
        return
    key = "leaf_by"
    st.selectbox(
        "Counted in",
        [WHOLE_TABLE, *columns],
        format_func=lambda name: f"each {spoken(name)} by itself" if name else "the whole table",
        key=session.bind(key, form.by or WHOLE_TABLE),
        on_change=lambda: put(by=session.value(key) or None),
        help="In groups, every value of that column keeps its own share.",
    )


def category_controls(shown: Shown, form: LeafForm, put: Put) -> None:
    """A category column and those of its values that are kept."""
    columns = tables.categories(shown.key)
    if form.category is not None and form.category not in columns:
        st.caption(f"Column {plain(form.category)} has no short list of values in this run.")
        return
    if form.category is None:
        st.caption("This run has no column with few values.")
        return
    key = "leaf_category"
    st.selectbox(
        "Column",
        columns,
        format_func=spoken,
        key=session.bind(key, form.category),
        on_change=lambda: put(category=session.value(key), values=()),
    )
    known = filters.values(shown.key, form.category)
    picked = f"leaf_values_{form.category}"
    st.pills(
        "Keep",
        known,
        selection_mode="multi",
        format_func=lambda value: plain(str(value)),
        key=session.bind(picked, [value for value in form.values if value in known]),
        on_change=lambda: put(values=tuple(session.value(picked))),
    )
    gone = [value for value in form.values if value not in known]
    if gone:
        st.caption(f"Also kept, but not in this run: {plain(', '.join(map(str, gone)))}")


def list_controls(form: LeafForm, put: Put) -> None:
    """A file that lists uids, uploaded or on this machine, and what becomes of its samples."""
    key, uploaded = "leaf_file", "leaf_upload"

    def store(file: Path) -> None:
        put(file=str(file))

    file = st.file_uploader(
        "List of uids",
        type=["txt", "csv", "tsv", "parquet", "jsonl", "npy"],
        key=uploaded,
        on_change=lambda: _stored(session.value(uploaded), store),
        help="One uid per line, a table with a column uid, or DataComp's .npy.",
    )
    path, side = st.columns([3, 2])
    path.text_input(
        "or its path on this machine",
        key=session.bind(key, form.file),
        disabled=file is not None,
        on_change=lambda: put(file=session.value(key).strip()),
        placeholder="/data/subset.npy",
    )
    side.selectbox(
        "Listed samples are",
        ["keep", "drop"],
        format_func={"keep": "kept", "drop": "dropped"}.__getitem__,
        **bound("listed", form.listed, put),
    )


def _stored(file: BinaryIO | None, store: Callable[[Path], None]) -> None:
    if file is not None:
        store(store_upload(file, file.name, runs_root()))


def text_controls(shown: Shown, form: LeafForm, put: Put) -> None:
    """A text column, what to look for, and how exactly."""
    columns = filters.texts(shown.key)
    known = columns if form.text_column in columns else [form.text_column, *columns]
    column, contains = st.columns([2, 3])
    column.selectbox(
        "Column", known, format_func=spoken, **bound("text_column", form.text_column, put)
    )
    contains.text_input("Contains", placeholder="a word", **bound("contains", form.contains, put))
    st.toggle("Exact case", **bound("match_case", form.match_case, put))
