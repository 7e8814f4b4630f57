"""Selections as files, each with a manifest from which the same selection can be made again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mimic_core.base import files
from mimic_core.base.errors import ExportError
from mimic_core.base.identity import uids_digest
from mimic_core.base.schema import SCHEMA_VERSION
from mimic_core.export.formats import CSV_NOTE, SUFFIXES, WRITERS, Format, holds_uids
from mimic_core.filters import uid_lists
from mimic_core.filters.recipe import Recipe, Selection, needed_columns
from mimic_core.filters.selections import select
from mimic_core.runs.run import Run, now, open_run
from mimic_core.runs.table import map_config
from mimic_core.sources.joining import joined_digest

MANIFEST_SUFFIX = ".manifest.json"
REMEDY = "export the selection again"


def _is_name(value: object) -> bool:
    """Whether a manifest may use it as the name of a file or folder beside it."""
    return isinstance(value, str) and value not in ("", "..") and Path(value).name == value


def _are_files(value: object) -> bool:
    if not isinstance(value, list):
        return False
    return all(
        isinstance(one, dict) and _is_name(one.get("name")) and isinstance(one.get("sha256"), str)
        for one in value
    )


def _are_joins(value: object) -> bool:
    if not isinstance(value, list):
        return False
    return all(
        isinstance(one, dict)
        and isinstance(one.get("name"), str)
        and isinstance(one.get("sha256"), str)
        and isinstance(one.get("columns"), list)
        and all(isinstance(name, str) for name in one["columns"])
        for one in value
    )


_FIELDS: dict[str, Callable[[object], bool]] = {
    "run_id": _is_name,
    "epochs_used": lambda value: value is None or isinstance(value, int),
    "recipe": lambda value: isinstance(value, dict),
    "uids_sha256": lambda value: isinstance(value, str),
    "files": _are_files,
    "joins": _are_joins,
    "total": lambda value: isinstance(value, int),
    "drops": lambda value: isinstance(value, dict),
}


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote: the data files, and the manifest beside them."""

    files: tuple[Path, ...]
    manifest: Path


def export(
    selection: Selection,
    table: pl.DataFrame,
    run: Run,
    *,
    format: Format,  # noqa: A002 - the word of the command line and of the manifest
    out: Path,
    overwrite: bool = False,
) -> ExportResult:
    """Write the kept samples to the file ``out`` and a manifest to ``<out>.manifest.json``.

    Exactly the selected uids are written, with all columns of ``table`` (DataComp's format holds
    uids only), in the order of the uids. A selection that keeps nothing gives a file without rows.
    Writing again what is there already changes nothing.

    Raises:
        ExportError: The pool's uids are not those of ``format``, or ``out`` has the wrong suffix,
            or another file is there and ``overwrite`` is not set, or the selection was made from
            another table.
    """
    _check_target(out, format)
    require_known_uids(run, table, format)
    data = export_bytes(selection, table, format=format)
    manifest = manifest_for(selection, run, format=format, name=out.name, data=data)
    place = out.with_name(out.name + MANIFEST_SUFFIX)
    if not overwrite:
        _refuse_other(out, same=files.holds(out, data))
        _refuse_other(place, same=place.is_file() and _undated(place) == _undated(manifest))
    if not out.exists() or overwrite:
        files.write_bytes(out, data)
    if not place.exists() or overwrite:
        files.write_json(place, manifest)
    return ExportResult((out,), place)


def require_known_uids(run: Run, table: pl.DataFrame, file_format: Format) -> None:
    """Refuse DataComp's format for a pool without uids: ours would be found in none of its shards.

    Raises:
        ExportError: With the column that has such uids, where there is one.
    """
    indexed = run.features.info.get("indexed", {})
    if file_format != "datacomp" or indexed.get("own_uids", 1):
        return
    texts = [name for name, dtype in table.schema.items() if dtype == pl.String and name != "uid"]
    fitting = [name for name in texts if len(table) and holds_uids(table[name])]
    raise ExportError(
        "the pool has no uids of its own, and those that Mimicscope makes are in no shard",
        got="uids made from keys and captions",
        allowed="a pool whose samples have a uid of 32 hexadecimal digits; or the formats parquet, "
        "csv, jsonl, with key and shard",
        next_step=f"score it again with --uid-column {fitting[0].removeprefix('source_')}"
        if fitting
        else "choose one of those formats; or name the column of such uids with --uid-column and "
        "score again",
    )


def export_bytes(
    selection: Selection,
    table: pl.DataFrame,
    *,
    format: Format,  # noqa: A002 - as in export
) -> bytes:
    """The bytes that ``export`` writes, for a download."""
    if format not in WRITERS:
        raise ExportError(
            "there is no such export format",
            got=format,
            allowed=", ".join(WRITERS),
            next_step="choose one of these formats",
        )
    return WRITERS[format](selected_rows(selection, table))


def selected_rows(selection: Selection, table: pl.DataFrame) -> pl.DataFrame:
    """The rows of the selected uids, joined by uid, in the order of the uids.

    Raises:
        ExportError: A selected uid is not exactly once in the table.
    """
    kept = selection.uids.alias("uid").to_frame()
    rows = table.join(kept, on="uid", how="semi").sort("uid")
    if not rows["uid"].equals(kept["uid"]):
        raise ExportError(
            f"the table holds {len(rows)} rows for {len(kept)} selected samples",
            next_step="apply the recipe to the table that is exported",
        )
    return rows


def manifest_for(
    selection: Selection,
    run: Run,
    *,
    format: Format,  # noqa: A002 - as in export
    name: str,
    data: bytes,
) -> dict[str, Any]:
    """What a manifest says (``docs/formats.md``): how the file came about, and its digests."""
    features = run.features
    return {
        "schema_version": SCHEMA_VERSION,
        "created_at": now(),
        "run_id": run.id,
        "epochs_used": run.record.epochs_used,
        "feature_set": features.id,
        "pool_fingerprint": features.info["fingerprint"],
        "map": map_config(features),
        "joins": [
            {"name": one.name, "columns": sorted(one.columns), "sha256": one.sha256}
            for one in run.record.joins
        ],
        "recipe": selection.recipe.with_leaves(uid_lists.pinned).model_dump(
            mode="json", exclude_none=True
        ),
        "total": selection.total,
        "kept": selection.kept,
        "retention_rate": selection.retention_rate,
        "drops": selection.drops,
        "uids_sha256": uids_digest(selection.uids),
        "format": format,
        **({"cells": CSV_NOTE} if format == "csv" else {}),
        "files": [{"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}],
    }


def replay(manifest: Path, runs_root: Path) -> Selection:
    """Make the selection of a manifest again, from the run it names under ``runs_root``.

    Raises:
        ExportError: The recipe now keeps other uids, counts differ, or a file that lies beside
            the manifest is not the one that was written.
        RunError: The manifest is damaged, or the run is not there.
    """
    said = files.read_json(manifest, remedy=REMEDY)
    said.setdefault("joins", [])  # of manifests from before there were any
    wrong = [name for name, fits in _FIELDS.items() if name not in said or not fits(said[name])]
    if wrong or said.get("schema_version") != SCHEMA_VERSION:
        raise ExportError(
            "this is not a manifest of this version of Mimicscope",
            got=f"{manifest}: {', '.join(wrong) or 'schema_version'}",
            allowed=f"schema version {SCHEMA_VERSION} with all its fields",
            next_step=REMEDY,
        )
    _check_files(manifest, said["files"])
    run = open_run(runs_root / said["run_id"]).using(said["epochs_used"])
    recipe = Recipe.from_tree(said["recipe"])
    _check_joins(run, recipe, said["joins"])
    selection = select(run, recipe)
    now_there: dict[str, Any] = {
        "total": selection.total,
        "drops": selection.drops,
        "uids_sha256": uids_digest(selection.uids),
    }
    for name, value in now_there.items():
        if value != said[name]:
            raise ExportError(
                f"the recipe does not keep the same samples any more: {name} differs",
                got=value,
                allowed=str(said[name]),
                next_step="see whether the run, or the map its lasso was drawn on, was made anew",
            )
    return selection


def _check_joins(run: Run, recipe: Recipe, joined: list[dict[str, Any]]) -> None:
    """Refuse columns of other files that are read by the recipe and are not those of the export."""
    asked = set(needed_columns(recipe))
    there = {one.name: one for one in run.record.joins}
    for one in joined:
        if not asked.intersection(one["columns"]):
            continue
        found = there.get(one["name"])
        sha256 = None if found is None else joined_digest(run, found)
        if sha256 != one["sha256"]:
            raise ExportError(
                f"the columns joined as {one['name']} are not those that were exported with",
                got="no such join" if sha256 is None else f"SHA-256 {sha256}",
                allowed=f"SHA-256 {one['sha256']}",
                next_step="join the same file again by that name (mimicscope join)",
            )


def _check_files(manifest: Path, written: list[dict[str, Any]]) -> None:
    for entry in written:
        path = manifest.with_name(entry["name"])
        if not path.is_file():
            continue  # a manifest alone is enough to replay
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry["sha256"]:
            raise ExportError(
                f"{path.name} is not the file that was exported: its SHA-256 differs",
                got=found,
                allowed=entry["sha256"],
                next_step="export the selection again",
            )


def _check_target(out: Path, file_format: Format) -> None:
    if not out.name:
        raise ExportError(
            "an export needs the name of a file",
            got=str(out),
            next_step=f"give --out a name ending in {SUFFIXES.get(file_format, 'its suffix')}",
        )
    expected = SUFFIXES.get(file_format)
    if expected is not None and out.suffix != expected:
        raise ExportError(
            f"a {file_format} file is named otherwise",
            got=out.name,
            allowed=f"a name ending in {expected}",
            next_step=f"write to {out.with_suffix(expected).name}",
        )
    if out.is_dir():
        raise ExportError(
            "there is a folder of that name", got=str(out), next_step="name a file inside it"
        )


def _refuse_other(path: Path, *, same: bool) -> None:
    if path.exists() and not same:
        raise ExportError(
            "another file is already there",
            got=str(path),
            next_step="choose another name, or allow overwriting",
        )


def _undated(manifest: Path | dict[str, Any]) -> dict[str, Any]:
    said = files.read_json(manifest, remedy=REMEDY) if isinstance(manifest, Path) else manifest
    return {name: value for name, value in said.items() if name != "created_at"}
