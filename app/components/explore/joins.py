"""Columns of other files beside a run's own: join a file, see how it met the run, take it out."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app.components.shared.controls import command_code
from app.components.shared.errors import errors_shown
from app.library import expanded, require_allowed, runs_root, store_upload, tidy_path
from app.text import count, plain
from mimic_core.cli.commands import written
from mimic_core.runs.record import JoinRecord
from mimic_core.runs.run import Run
from mimic_core.sources.joining import join_columns, remove_join

_TYPES = ["parquet", "csv", "tsv", "jsonl", "npy"]
_HELP = (
    "Other people's scores, or any columns, by uid: Parquet, CSV, TSV, JSONL or .npy. Samples "
    "without a row there have no value."
)


def join_panel(run: Run) -> None:
    """The joins of a run, and a form for another."""
    there = run.record.joins
    title = "Columns of other files" + (f" ({count(len(there))})" if there else "")
    with st.expander(title, icon=":material/join:"), errors_shown():
        for one in there:
            _joined(run, one)
        _form(run)


def _joined(run: Run, join: JoinRecord) -> None:
    st.markdown(f"**{plain(join.name)}**")
    for sentence in join.as_sentences():
        st.caption(f"{plain(sentence[:1].upper() + sentence[1:])}.")
    if st.button("Remove", key=f"join_remove_{join.name}", icon=":material/delete:"):
        remove_join(run, join.name)
        st.rerun()


def _form(run: Run) -> None:
    file = st.file_uploader("A file with uids", type=_TYPES, key="join_upload", help=_HELP)
    typed = st.text_input(
        "or its path on this machine", key="join_path", placeholder="/data/dfn_scores.parquet"
    ).strip()
    left, right = st.columns(2)
    uid_column = left.text_input("Its column of uids", value="uid", key="join_uid_column").strip()
    on = right.text_input("The run's column", value="uid", key="join_on").strip()
    if typed:
        path, name = require_allowed(expanded(typed)), None
    elif file is not None:
        path, name = store_upload(file, file.name, runs_root()), Path(file.name).stem
    else:
        return
    if st.button("Join", key="join_start", icon=":material/join:", type="primary"):
        join_columns(run, path, uid_column=uid_column, on=on, name=name)
        st.rerun()
    command = ["join", run.id, tidy_path(path)]
    command += [] if uid_column == "uid" else ["--uid-column", uid_column]
    command += [] if on == "uid" else ["--on", on]
    command += [] if name is None else ["--name", name]
    command_code(written([*command, "--runs", tidy_path(run.path.parent)]))
