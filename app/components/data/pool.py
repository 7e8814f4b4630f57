"""Choosing a pool: the demo, a path on this machine, or an uploaded zip; and looking at it."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from app.cache.pools import Preview, preview
from app.components.shared.controls import config_field
from app.components.shared.tiles import Tile, tile_grid
from app.library import (
    DEMO_POOL,
    expanded,
    link_roots,
    require_allowed,
    runs_root,
    store_upload,
    tidy_path,
)
from app.state import session
from app.text import count, plain
from mimic_core.base.config import SourceConfig
from mimic_core.base.fields import setting
from mimic_core.base.schema import Sample

_Kind = Literal["Demo pool", "On this machine", "Upload a zip"]
_KINDS: tuple[_Kind, ...] = ("Demo pool", "On this machine", "Upload a zip")


def pool_chooser() -> SourceConfig | None:
    """The pool to be scored, with its columns; None until one is chosen."""
    kind = st.segmented_control(
        "Pool",
        _KINDS,
        required=True,
        default=_KINDS[0],
        key="pool_kind",
        persist_state="session",
        label_visibility="collapsed",
    )
    path = {_KINDS[0]: _demo, _KINDS[1]: _local, _KINDS[2]: _upload}[kind]()
    if path is None:
        return None
    with st.popover("Columns", icon=":material/view_column:"):
        st.caption("Left empty, they are guessed from the pool.")
        columns = {
            name: config_field(SourceConfig, name, key=name)
            for name in ("image_column", "caption_column", "label_column")
        }
        task = config_field(SourceConfig, "task", key="pool_task")
        also = config_field(SourceConfig, "also", key="pool_also")
    for one in also:
        require_allowed(expanded(one))
    paths = {"path": path, "also": also}
    return SourceConfig.parse({**paths, "task": task, "link_roots": link_roots(), **columns})


def _demo() -> str:
    st.caption(
        "Drawn pictures with captions, some of them wrong on purpose. It comes with the app."
    )
    return tidy_path(DEMO_POOL)


def _local() -> str | None:
    text = st.text_input(
        "Path",
        key="pool_path",
        placeholder="/data/shards, photos.zip, pairs.parquet, captions.csv",
        help=setting(SourceConfig, "path").description,
        persist_state="session",
    )
    path = (text or "").strip()
    if not path:
        return None
    require_allowed(expanded(path))  # here, so that it is a message and not a failed job
    return path


def _upload() -> str | None:
    file = st.file_uploader(
        "Zip of images with captions or labels",
        type="zip",
        key="pool_upload",
        help="Images with a text file of the same name beside each, with a table of captions or "
        "labels, or in class folders.",
    )
    stored = session.state().upload
    if file is not None and (stored is None or stored[0] != file.file_id):
        stored = (file.file_id, tidy_path(store_upload(file, file.name, runs_root())))
        session.change(upload=stored)
    if stored is None:
        return None
    st.caption(f"Stored as {plain(stored[1])}")
    return stored[1]


def pool_preview(source: SourceConfig) -> Preview:
    """Show the first samples, the columns in use and how many samples there are."""
    seen = preview(source.model_dump_json())
    more = "" if seen.complete else "more than "
    shards = "1 shard" if seen.shards == 1 else f"{count(seen.shards)} shards"
    facts = [f"**{more}{count(seen.samples)}** samples", seen.layout, shards]
    if seen.without_image:
        facts.insert(1, f"{more}{count(seen.without_image)} rows without an image")
    if seen.skipped:
        facts.insert(1, f"{more}{count(seen.skipped)} to be skipped")
    if seen.image_column:
        facts.append(f"images from {plain(seen.image_column)}")
    if seen.caption_column:
        facts.append(f"captions from {plain(seen.caption_column)}")
    if seen.label_column:
        facts.append(f"labels from {plain(seen.label_column)}")
    elif seen.task == "labels":
        facts.append("labels" if seen.layout == "webdataset" else "labels from the folders")
    st.markdown(" · ".join(facts))
    if seen.unread:
        st.caption(f"Not read: {plain(seen.unread)}")
    tiles = []
    for number, (one, uri) in enumerate(zip(seen.found, seen.pictures, strict=True)):
        if isinstance(one, Sample):
            text = one.caption or one.label or ""
            tiles.append(Tile(one.uid, uri, "", one.key, text))
        else:
            reason = one.reason.replace("_", " ")
            tiles.append(Tile(f"skip-{number}", None, reason, one.key, one.detail, "skipped"))
    tile_grid(tiles, key="preview_tiles", on_open=None)
    return seen
