"""Taking the selection away: formats, downloads, the manifest, the same thing as a command."""

from __future__ import annotations

import json

import polars as pl
import streamlit as st

from app.components.shared.conditions import kept_metrics
from app.components.shared.controls import command_code
from app.components.shared.errors import errors_shown
from app.components.shared.recipe_file import recipe_code, recipe_download, recipe_upload
from app.library import expanded, require_allowed, tidy_path
from app.shown import Shown
from app.text import count, plain
from mimic_core.base.identity import slug
from mimic_core.cli.commands import written
from mimic_core.export.export import (
    export,
    export_bytes,
    manifest_for,
    require_known_uids,
)
from mimic_core.export.formats import SUFFIXES, Format

_FORMATS: dict[Format, tuple[str, str, str]] = {
    "parquet": ("Parquet", "All columns, compressed.", "application/vnd.apache.parquet"),
    "csv": ("CSV", "All columns, as text.", "text/csv"),
    "jsonl": ("JSONL", "All columns, one JSON object per line.", "application/jsonl"),
    "datacomp": (
        "DataComp uids",
        "A sorted .npy of uids, as DataComp's resharder reads it.",
        "application/octet-stream",
    ),
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
    """Choose a format; download the samples, the manifest and the recipe."""
    chosen: Format = st.segmented_control(
        "Format",
        list(_FORMATS),
        format_func=lambda name: _FORMATS[name][0],
        required=True,
        default="parquet",
        key="export_format",
        persist_state="session",
        label_visibility="collapsed",
    )
    _, description, mime = _FORMATS[chosen]
    st.caption(description)
    stem = st.text_input(
        "File name", value=_stem(shown), key="export_name", persist_state="session"
    )
    name = f"{slug(stem, limit=80)}{SUFFIXES[chosen]}"

    with errors_shown():
        require_known_uids(shown.run, shown.table, chosen)
        _buttons(shown, chosen, name=name, mime=mime)
    _on_disk(shown, chosen, name)
    st.markdown("**The same as a command**")
    command = ["export", shown.run.id, "--format", chosen]
    command += ["--out", name, "--recipe", RECIPE_NAME, "--runs", tidy_path(shown.run.path.parent)]
    command_code(written(command))


def _buttons(shown: Shown, chosen: Format, *, name: str, mime: str) -> None:
    """Download buttons whose bytes are made when they are clicked."""

    def data() -> bytes:
        return export_bytes(shown.selection, shown.table, format=chosen)

    def manifest() -> bytes:
        said = manifest_for(shown.selection, shown.run, format=chosen, name=name, data=data())
        return json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    with st.container(horizontal=True):
        st.download_button(
            f"Download {count(shown.kept)} samples",
            data=data,
            file_name=name,
            mime=mime,
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


def _on_disk(shown: Shown, chosen: Format, name: str) -> None:
    """Write to a folder of this machine: the way for selections too large for a download."""
    with st.expander("Write to a folder on this machine", icon=":material/folder:"), errors_shown():
        folder = st.text_input("Folder", key="export_folder", placeholder="/data/exports")
        overwrite = st.toggle("Replace files that are there", key="export_overwrite")
        if st.button("Write", key="export_write", disabled=not folder.strip()):
            result = export(
                shown.selection,
                shown.table,
                shown.run,
                format=chosen,
                out=require_allowed(expanded(folder.strip())) / name,
                overwrite=overwrite,
            )
            paths = [*result.files, result.manifest]
            st.success("Written: " + ", ".join(plain(str(path)) for path in paths))


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
