"""Taking the selection away: formats, downloads, folders, the same thing as a command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import streamlit as st

from app.cache import tables
from app.components.shared.conditions import kept_metrics
from app.components.shared.controls import command_code, config_field
from app.components.shared.errors import errors_shown
from app.components.shared.jobs import POLL_SECONDS, show_job
from app.components.shared.recipe_file import recipe_code, recipe_download, recipe_upload
from app.library import expanded, link_roots, require_allowed, runs_root, tidy_path
from app.shown import Shown
from app.text import count, plain
from mimic_core.base.identity import slug
from mimic_core.cli.commands import export_command
from mimic_core.export.export import (
    export,
    export_bytes,
    manifest_for,
    require_known_uids,
    selected_rows,
)
from mimic_core.export.record import ExportRequest
from mimic_core.export.settings import (
    FORMATS,
    SUFFIXES,
    TABLES,
    USED_BY,
    ExportConfig,
    ExportFormat,
)
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.record import Job
from mimic_core.jobs.store import JOBS_FILE, JobStore
from mimic_core.jobs.worker import start_job

_WORDS: dict[ExportFormat, tuple[str, str]] = {
    "parquet": ("Parquet table", "All columns, compressed."),
    "csv": ("CSV table", "All columns, as text."),
    "jsonl": ("JSONL table", "All columns, one JSON object per line."),
    "datacomp": (
        "DataComp uids",
        "A sorted .npy of uids, as DataComp's resharder reads it; with repeats on request.",
    ),
    "webdataset": (
        "webdataset shards",
        "Tars with the original pictures, captions or classes, and all columns.",
    ),
    "imagefolder": (
        "Hugging Face imagefolder",
        "The original pictures in folders, and a metadata file with all columns.",
    ),
    "hf_parquet": (
        "Hugging Face Parquet",
        "The original pictures inside of Parquet files; load_dataset shows them.",
    ),
    "open_clip": (
        "open_clip table",
        "Paths and captions for open_clip's CsvDataset; what lies inside of tars is unpacked.",
    ),
    "files": ("List of files", "The path of each picture, one a line."),
    "links": ("Folder of pictures", "Hard links where that can be, else copies, and samples.csv."),
    "classes": ("Class folders", "<class>/<picture>, as torchvision's ImageFolder reads them."),
    "keep_column": (
        "Your table with a keep column",
        "The pool's own table, untouched, with one more column.",
    ),
}
_MIMES: dict[ExportFormat, str] = {
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv",
    "jsonl": "application/jsonl",
    "datacomp": "application/octet-stream",
}
RECIPE_NAME = "recipe.yaml"


def counts(shown: Shown) -> None:
    """How many are kept, and which condition drops how many."""
    selection = shown.selection
    with st.container(horizontal=True, gap="large"):
        kept_metrics(shown)
        st.metric("Dropped", count(selection.total - selection.kept), width="content")
    if not selection.recipe.conditions:
        st.caption("No conditions: every sample of the run is exported.")
        return
    st.dataframe(
        pl.DataFrame(
            [
                {
                    "condition": named.name,
                    "keeps": named.condition.describe(),
                    "dropped": selection.drops[named.name],
                }
                for named in selection.recipe.conditions
            ]
        ),
        hide_index=True,
        width="stretch",
    )
    st.caption("A dropped sample counts for the first condition that rejects it.")


def downloads(shown: Shown) -> None:
    """Choose a format; download a table, or have it written to a folder of this machine."""
    chosen: ExportFormat = st.selectbox(
        "Format",
        FORMATS,
        format_func=lambda name: _WORDS[name][0],
        key="export_format",
        persist_state="session",
    )
    st.caption(plain(_WORDS[chosen][1]))
    with errors_shown():
        if chosen == "datacomp":
            kept = selected_rows(shown.selection, shown.table)
            require_known_uids(shown.run, kept, chosen)
        config = _settings(shown, chosen)
        suffix = SUFFIXES.get(chosen, "")
        if chosen == "keep_column":
            suffix = tables.table_suffix(shown.key, config.table)
        stem = st.text_input("Name", value=_stem(shown), key="export_name", persist_state="session")
        name = f"{slug(stem, limit=80)}{suffix}"
        if chosen in TABLES:
            _buttons(shown, config, name=name)
        _on_disk(shown, config, name)
        st.markdown("**The same as a command**")
        runs = tidy_path(shown.run.path.parent)
        command_code(export_command(config, shown.run, runs=runs, out=name, recipe=RECIPE_NAME))


def _settings(shown: Shown, chosen: ExportFormat) -> ExportConfig:
    """The fields of the settings that the format has."""
    offered: dict[str, Any] = {
        "repeats": lambda: [None, *tables.numbers(shown.key)],
        "split_column": lambda: [None, *tables.categories(shown.key)],
    }
    given: dict[str, Any] = {}
    for field in (name for name, formats in USED_BY.items() if chosen in formats):
        if field.startswith("repeats_") and given.get("repeats") is None:
            continue  # only a score needs a total
        if field == "no_splits" and given["split_column"] is not None:
            continue
        own = {"options": offered[field]()} if field in offered else {}
        found = config_field(ExportConfig, field, key=f"export_{field}", **own)
        given[field] = found
    if given.get("table") is not None:
        given["table"] = str(require_allowed(expanded(given["table"])))
    values = {name: value for name, value in given.items() if value is not None}
    return ExportConfig.parse({"format": chosen, **values})


def _buttons(shown: Shown, config: ExportConfig, *, name: str) -> None:
    """Download buttons whose bytes are made when they are clicked."""

    def data() -> bytes:
        return export_bytes(shown.selection, shown.table, config)

    def manifest() -> bytes:
        said = manifest_for(shown.selection, shown.table, shown.run, config, name=name)
        return json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    with st.container(horizontal=True):
        st.download_button(
            f"Download {count(shown.kept)} samples",
            data=data,
            file_name=name,
            mime=_MIMES[config.format],
            key="download_data",
            type="primary",
            icon=":material/download:",
            on_click="ignore",
        )
        st.download_button(
            "Manifest",
            data=manifest,
            file_name=f"{name}.manifest.json",
            mime="application/json",
            key="download_manifest",
            icon=":material/fact_check:",
            help="Recipe, counts, run and hashes: the same selection can be made again from it.",
            on_click="ignore",
        )


def _stem(shown: Shown) -> str:
    return f"{shown.run.id.rsplit('-', 2)[0]}-selection"


def _on_disk(shown: Shown, config: ExportConfig, name: str) -> None:
    """Write to a folder of this machine or a bucket: a table at once, pictures by a job."""
    at_once = config.format in TABLES
    with st.expander(
        "Write to a folder on this machine, or to a bucket",
        icon=":material/folder:",
        expanded=not at_once,
    ):
        folder = st.text_input(
            "Folder", key="export_folder", placeholder="/data/exports or s3://bucket/exports"
        )
        overwrite = st.toggle("Replace an export that is there", key="export_overwrite")
        if st.button("Write", key="export_write", disabled=not folder.strip()):
            out = require_allowed(expanded(folder.strip())) / name
            if at_once:
                result = export(
                    shown.selection, shown.table, shown.run, config, out=out, overwrite=overwrite
                )
                paths = [*result.files, result.manifest]
                st.success("Written: " + ", ".join(plain(str(path)) for path in paths))
            else:
                _start(shown, config, out, overwrite=overwrite)
        _progress(shown)


def _start(shown: Shown, config: ExportConfig, out: Path, *, overwrite: bool) -> None:
    request = ExportRequest(
        run=str(shown.run.path.resolve()),
        recipe=shown.recipe,
        config=config,
        out=str(out.resolve()),
        overwrite=overwrite,
        read_roots=link_roots(),
    )
    start_job(JobStore(runs_root() / JOBS_FILE), request, JobOptions())
    st.rerun()


def _jobs(store: JobStore, shown: Shown) -> list[Job]:
    """The exports of this run, the one last heard of first."""
    found = [
        job
        for job in store.jobs()
        if isinstance(job.config, ExportRequest)
        and Path(job.config.run) == shown.run.path.resolve()
    ]
    return sorted(found, key=lambda job: job.heartbeat, reverse=True)


def _progress(shown: Shown) -> None:
    """Exports under way, refreshed every second, and how the last one has ended."""
    store = JobStore(runs_root() / JOBS_FILE)
    found = _jobs(store, shown)
    if any(job.active for job in found):
        st.fragment(run_every=POLL_SECONDS)(_poll)(store, shown)
    elif found:
        _card(store, found[0])


def _poll(store: JobStore, shown: Shown) -> None:
    with errors_shown():  # a fragment runs outside of the page's own
        active = [job for job in _jobs(store, shown) if job.active]
        if not active:
            st.rerun()  # the whole page, which then shows how it has ended
        for job in active:
            _card(store, job)


def _card(store: JobStore, job: Job) -> None:
    with st.container(border=True, key=f"export-{job.job_id}"), errors_shown():
        show_job(store, job, notes=4)


def recipe_text(shown: Shown) -> None:
    """The recipe as the file that the command reads."""
    text = shown.recipe.to_yaml()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("Recipe", anchor=False, width="content")
        st.space("stretch")
        with st.popover("Load", icon=":material/upload_file:", type="tertiary"), errors_shown():
            recipe_upload(shown, "Recipe")
        recipe_download(text, RECIPE_NAME, label=RECIPE_NAME, type="tertiary")
    recipe_code(text, height=260)
