"""Selections as files, each with a manifest from which the same selection can be made again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mimic_core.base import files
from mimic_core.base.errors import ExportError, MimicError
from mimic_core.base.progress import Progress, Silent
from mimic_core.base.remote import RemotePath, as_place, forget
from mimic_core.export import folders, shards
from mimic_core.export.destination import Draft, written
from mimic_core.export.formats import WRITERS, datacomp_bytes, holds_uids
from mimic_core.export.original_table import keep_column
from mimic_core.export.pictures import Account, Pictures, Unexported, picture_bytes, pool_order
from mimic_core.export.record import (
    MANIFEST_SUFFIX,
    ExportRequest,
    counted_pictures,
    manifest_of,
    read_manifest,
    require_intact,
    same_request,
)
from mimic_core.export.repeats import repeats_of
from mimic_core.export.settings import FOLDERS, SUFFIXES, TABLES, ExportConfig, ExportFormat
from mimic_core.export.upload import BucketDraft, remove_unfinished
from mimic_core.export.work import Work
from mimic_core.filters.recipe import Selection
from mimic_core.filters.selections import select
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table

_PER_SAMPLE = 4096  # bytes beside the picture: caption, metadata, headers
_WITH_PICTURES: dict[ExportFormat, Callable[[Work], None]] = {
    "webdataset": shards.webdataset,
    "hf_parquet": shards.hf_parquet,
    "imagefolder": folders.imagefolder,
    "open_clip": folders.open_clip,
    "files": folders.file_list,
    "links": folders.links,
    "classes": folders.classes,
    "keep_column": keep_column,
}
_COPIED: tuple[ExportFormat, ...] = ("webdataset", "hf_parquet", "imagefolder")


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote: the files and folders with the samples, and the manifest beside them.

    ``not_exported`` counts the kept samples that are in no file, by reason.
    """

    files: tuple[Path, ...]
    manifest: Path
    not_exported: dict[str, int]


def export(
    selection: Selection,
    table: pl.DataFrame,
    run: Run,
    config: ExportConfig,
    *,
    out: Path,
    overwrite: bool = False,
    within: Collection[Path] = (),
    progress: Progress | None = None,
) -> ExportResult:
    """Write the kept samples to the file or folder ``out``, and a manifest to
    ``<out>.manifest.json``.

    Tables hold exactly the selected uids with all columns of ``table`` in the order of the uids.
    Formats with pictures hold those whose original bytes are still there, in the order of the pool,
    and the manifest says of each other one why it is missing. Either all files are there under
    their names, or none is. Writing again what is there already changes nothing.

    Args:
        selection: Made from ``table``.
        table: Of ``run`` (``mimic_core.runs.table``).
        run: A finished run.
        config: What is written.
        out: A file or, of formats that are many files, a folder; also in object storage.
        overwrite: Whether a file, or an earlier export, of that name is replaced.
        within: Folders that no picture is read outside of; none, no limit.
        progress: Told how far it is; None for nobody.

    Raises:
        ExportError: The format does not fit the pool, or ``out`` the format; something else is
            there and may not be replaced; the disk is full.
        RunError: The pool's pictures are needed and not where they were.
        RemoteError: Object storage takes no more; what was written there is removed.
        Interrupted: ``progress.check`` asked to stop; nothing is left.
    """
    forget(out)
    _check_target(out, config.format)
    rows = selected_rows(selection, table)
    require_known_uids(run, rows, config.format)
    account, place = Account(), out.with_name(out.name + MANIFEST_SUFFIX)
    asked = manifest_of(selection, run, config, written=[], account=account)
    if isinstance(out, RemotePath):
        remove_unfinished(out)
    if overwrite:
        _refuse_foreign_folders(out, place)
    elif (found := _already_there(out, place, asked)) is not None:
        return found
    progress = progress or Silent()
    with BucketDraft(out) if isinstance(out, RemotePath) else Draft(out) as draft:
        if config.format in TABLES:
            data = _table_bytes(rows, config, account)
            if not overwrite and _lies_at(out) and not files.holds(out, data):
                raise _taken(out)
            draft.write(out.name, data)
        else:
            kept = table.join(rows.select("uid"), on="uid", how="semi", maintain_order="left")
            draft.require_space(_needed(kept, config.format))
            progress.phase("export", len(kept))
            with Pictures(run, account, progress, within=within) as pictures:
                work = Work(run, pool_order(kept), config, draft, out.name, pictures, account)
                _WITH_PICTURES[config.format](work)
        said = manifest_of(
            selection,
            run,
            config,
            written=draft.files,
            account=account,
            pictures=draft.counted(counted_pictures),
        )
        names = draft.commit(place.name, said, replace=overwrite)
    return ExportResult(tuple(out.with_name(name) for name in names), place, said["not_exported"])


def carry_out(request: ExportRequest, progress: Progress) -> ExportResult:
    """The export that was asked for, from the run on disk. Raises as ``export``."""
    run = open_run(Path(request.run))
    return export(
        select(run, request.recipe),
        run_table(run),
        run,
        request.config,
        out=as_place(request.out),
        overwrite=request.overwrite,
        within=[Path(root) for root in request.read_roots],
        progress=progress,
    )


def require_known_uids(run: Run, rows: pl.DataFrame, file_format: ExportFormat) -> None:
    """Refuse DataComp's format for samples without uids: ours would be found in none of the shards.

    Args:
        rows: The kept rows of the run's table; of several pools, those that they are from count.

    Raises:
        ExportError: With the column that has such uids, where there is one.
    """
    if file_format != "datacomp":
        return
    indexed = run.features.info.get("indexed", {})
    pools = indexed.get("pools") if "pool" in rows.columns else None
    if pools:
        bare = [
            name for name in rows["pool"].unique() if not pools.get(name, {}).get("own_uids", 1)
        ]
    else:
        bare = [] if indexed.get("own_uids", 1) else [""]
    if not bare:
        return
    texts = [name for name, dtype in rows.schema.items() if dtype == pl.String and name != "uid"]
    fitting = [name for name in texts if len(rows) and holds_uids(rows[name])]
    whose = f" of {', '.join(sorted(bare))}" if pools else ""
    raise ExportError(
        "the pool has no uids of its own, and those that Mimicscope makes are in no shard",
        got=f"uids made from keys and captions{whose}",
        allowed="a pool whose samples have a uid of 32 hexadecimal digits; or the formats parquet, "
        "csv, jsonl, with key and shard",
        next_step=f"score it again with --uid-column {fitting[0].removeprefix('source_')}"
        if fitting
        else "choose one of those formats; or name the column of such uids with --uid-column and "
        "score again",
    )


def export_bytes(selection: Selection, table: pl.DataFrame, config: ExportConfig) -> bytes:
    """The bytes that ``export`` writes, for a download of one of the ``TABLES``."""
    if config.format not in TABLES:
        raise ExportError(
            "the format is many files, or needs the pool's own",
            got=config.format,
            allowed=", ".join(TABLES),
            next_step="write it to a folder",
        )
    return _table_bytes(selected_rows(selection, table), config, Account())


def manifest_for(
    selection: Selection, table: pl.DataFrame, run: Run, config: ExportConfig, *, name: str
) -> dict[str, Any]:
    """The manifest of a download (``docs/formats.md``) under the file name ``name``."""
    account = Account()
    data = _table_bytes(selected_rows(selection, table), config, account)
    return manifest_of(selection, run, config, written=[written(name, data)], account=account)


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


def _table_bytes(rows: pl.DataFrame, config: ExportConfig, account: Account) -> bytes:
    if config.format != "datacomp":
        return WRITERS[config.format](rows)
    repeats = repeats_of(rows, config)
    if repeats is not None:
        for uid in rows["uid"].filter(pl.Series(repeats == 0)):
            account.left_out.append(Unexported(uid, "no_repeats", "it has no place"))
    return datacomp_bytes(rows, repeats)


def _needed(rows: pl.DataFrame, file_format: ExportFormat) -> int:
    """About how many bytes will be written."""
    stays = (rows["image_kind"] == "range") & (rows["image_offset"] == 0)
    if file_format in _COPIED:
        return picture_bytes(rows) + _PER_SAMPLE * len(rows)
    if file_format in ("links", "classes", "open_clip"):
        return picture_bytes(rows.filter(~stays))
    return 0


def _lies_at(path: Path) -> bool:
    """Whether anything is there, also a link to nothing."""
    try:
        path.lstat()
    except (OSError, ValueError):
        return False
    return True


def _check_target(out: Path, file_format: ExportFormat) -> None:
    suffix = SUFFIXES.get(file_format)
    if isinstance(out, RemotePath):
        out.require_writable()
        if file_format == "links":
            raise ExportError(
                "object storage has no links",
                got=str(out),
                allowed="webdataset, imagefolder, hf_parquet, open_clip, classes",
                next_step="choose one of these formats, or a folder of this machine",
            )
    if out.name in ("", "..") or "\0" in out.name:
        raise ExportError(
            "an export needs the name of a file" if suffix else "an export needs a name",
            got=str(out),
            next_step=f"give --out a name ending in {suffix}" if suffix else "give --out a name",
        )
    if suffix is not None and out.suffix != suffix:
        raise ExportError(
            f"a {file_format} file is named otherwise",
            got=out.name,
            allowed=f"a name ending in {suffix}",
            next_step=f"write to {out.with_suffix(suffix).name}",
        )
    if suffix is not None and out.is_dir():
        raise ExportError(
            "there is a folder of that name", got=str(out), next_step="name a file inside it"
        )
    if file_format in FOLDERS and _lies_at(out) and not out.is_dir():
        raise ExportError(
            "there is a file of that name, and the export is a folder",
            got=str(out),
            next_step="choose another name",
        )


def _already_there(out: Path, place: Path, asked: dict[str, Any]) -> ExportResult | None:
    """The same export where it is there, whole; None where nothing is in the way.

    Raises:
        ExportError: Something else is.
    """
    there = _lies_at(out)
    if _lies_at(place):
        try:
            said = read_manifest(place)
            same = same_request(said, asked)
            if same and there:
                require_intact(place, said)
        except MimicError as error:
            raise _taken(place) from error
        if not same:
            raise _taken(place)
        if there:
            named = dict.fromkeys(entry["name"].split("/")[0] for entry in said["files"])
            reasons = said.get("not_exported", {})
            return ExportResult(tuple(out.with_name(name) for name in named), place, reasons)
    if there and asked["format"] not in TABLES:
        raise _taken(out)
    return None


def _refuse_foreign_folders(out: Path, place: Path) -> None:
    """Refuse to replace a folder that is no export: somebody's pictures may lie there."""
    for folder in (out, out.with_name(out.name + folders.PICTURES)):
        if folder.is_dir() and not place.is_file():
            raise ExportError(
                "there is a folder of that name that is no export, and it is not replaced",
                got=str(folder),
                next_step="choose another name, or remove it yourself",
            )


def _taken(path: Path) -> ExportError:
    return ExportError(
        "another file is already there" if not path.is_dir() else "another folder is already there",
        got=str(path),
        next_step="choose another name, or allow overwriting",
    )
