"""What an export is: the request for one, and the manifest beside it, from which it replays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from mimic_core.base import files
from mimic_core.base.config import Frozen
from mimic_core.base.errors import ExportError
from mimic_core.base.identity import uids_digest
from mimic_core.base.remote import forget
from mimic_core.base.schema import SCHEMA_VERSION
from mimic_core.export.destination import Written, files_below
from mimic_core.export.formats import CSV_NOTE
from mimic_core.export.pictures import Account
from mimic_core.export.settings import ExportConfig
from mimic_core.filters import uid_lists
from mimic_core.filters.recipe import Recipe, Selection, needed_columns
from mimic_core.filters.selections import select
from mimic_core.runs.run import Run, now, open_run
from mimic_core.runs.table import map_config
from mimic_core.sources.joining import joined_digest

MANIFEST_SUFFIX = ".manifest.json"
REMEDY = "export the selection again"
LISTED = 10_000  # samples that are in no file and are named in the manifest, beside their counts


class ExportRequest(Frozen):
    """An export to be made in the background: the run's folder, the recipe, where to.

    ``read_roots`` are folders that no picture is read outside of; none, no limit.
    """

    run: str
    recipe: Recipe
    config: ExportConfig
    out: str
    overwrite: bool = False
    read_roots: tuple[str, ...] = ()


def _is_name(value: object) -> bool:
    """Whether a manifest may use it as the name of a file or folder beside it."""
    return isinstance(value, str) and value not in ("", "..") and Path(value).name == value


def _is_below(value: object) -> bool:
    """The same of a file in a folder beside it."""
    if not isinstance(value, str) or "\0" in value:
        return False
    parts = value.split("/")
    return all(_is_name(part) and part != "." for part in parts)


def _are_files(value: object) -> bool:
    if not isinstance(value, list):
        return False
    return all(
        isinstance(one, dict) and _is_below(one.get("name")) and isinstance(one.get("sha256"), str)
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


def _are_pictures(value: object) -> bool:
    if not isinstance(value, dict) or not _is_name(value.get("folder")):
        return False
    return all(isinstance(value.get(name), int) for name in ("count", "bytes"))


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
# Fields that say what was asked for: equal ones give equal files.
_REQUEST = (
    *("schema_version", "run_id", "epochs_used", "feature_set", "pool_fingerprint", "map", "joins"),
    *("recipe", "total", "uids_sha256", "format", "settings"),
)


def manifest_of(
    selection: Selection,
    run: Run,
    config: ExportConfig,
    *,
    written: list[Written],
    account: Account,
    pictures: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What a manifest says (``docs/formats.md``): how the files came about, and their digests."""
    features = run.features
    settings = config.model_dump(mode="json", exclude_defaults=True, exclude={"format"})
    left_out = account.left_out
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
        "format": config.format,
        **({"settings": settings} if settings else {}),
        **({"cells": CSV_NOTE} if config.format == "csv" else {}),
        "exported": selection.kept - len(left_out),
        "not_exported": account.reasons,
        **({"left_out": [one._asdict() for one in left_out[:LISTED]]} if left_out else {}),
        **({"remarks": dict(account.remarks)} if account.remarks else {}),
        "files": [one._asdict() for one in written],
        **({"pictures": pictures} if pictures else {}),
    }


def same_request(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two manifests are of the same export."""
    return all(one.get(name) == other.get(name) for name in _REQUEST)


def counted_pictures(
    there: Iterable[tuple[str, int]], folder: str, listed: set[str]
) -> dict[str, Any] | None:
    """How many files lie in ``folder`` beside those that are ``listed``, and their bytes; None for
    none.

    Args:
        there: Its files, with their sizes in bytes, named as in ``listed``.
    """
    names = [(name, size) for name, size in there if name not in listed]
    if not names:
        return None
    checksum = hashlib.sha256()
    for name, size in sorted(names):
        checksum.update(f"{size} {name}\n".encode("utf-8", "surrogateescape"))
    total = sum(size for _, size in names)
    return {
        "folder": folder, "count": len(names), "bytes": total, "sha256": checksum.hexdigest(),
    }  # fmt: skip


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest with all its fields.

    Raises:
        ExportError: It is none of this version.
        RunError: It cannot be read.
    """
    said = files.read_json(path, remedy=REMEDY)
    said.setdefault("joins", [])  # of manifests from before there were any
    wrong = [name for name, fits in _FIELDS.items() if name not in said or not fits(said[name])]
    if "pictures" in said and not _are_pictures(said["pictures"]):
        wrong.append("pictures")
    if wrong or said.get("schema_version") != SCHEMA_VERSION:
        raise ExportError(
            "this is not a manifest of this version of Mimicscope",
            got=f"{path}: {', '.join(wrong) or 'schema_version'}",
            allowed=f"schema version {SCHEMA_VERSION} with all its fields",
            next_step=REMEDY,
        )
    return said


def replay(manifest: Path, runs_root: Path) -> Selection:
    """Make the selection of a manifest again, from the run it names under ``runs_root``.

    Raises:
        ExportError: The recipe now keeps other uids, counts differ, or a file that lies beside
            the manifest is not the one that was written.
        RunError: The manifest is damaged, or the run is not there.
    """
    forget(manifest.with_name(manifest.name.removesuffix(MANIFEST_SUFFIX)))
    said = read_manifest(manifest)
    require_intact(manifest, said)
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


def require_intact(manifest: Path, said: dict[str, Any]) -> None:
    """Refuse where a file beside the manifest is another than was written, or a part is gone.

    Where nothing of the export is there, the manifest alone is enough.
    """
    for entry in said["files"]:
        path = manifest.parent / entry["name"]
        folder = manifest.parent / PurePosixPath(entry["name"]).parts[0]
        if not path.is_file():
            if path != folder and folder.is_dir():
                raise ExportError(
                    f"{entry['name']} is missing",
                    got=str(folder),
                    allowed="all files that were exported, or none of them",
                    next_step=REMEDY,
                )
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry["sha256"]:
            raise ExportError(
                f"{path.name} is not the file that was exported: its SHA-256 differs",
                got=found,
                allowed=entry["sha256"],
                next_step=REMEDY,
            )
    pictures = said.get("pictures")
    if pictures is not None and (manifest.parent / pictures["folder"]).is_dir():
        listed = {entry["name"] for entry in said["files"]}
        folder = pictures["folder"]
        there = counted_pictures(files_below(manifest.parent, folder), folder, listed)
        if there != pictures:
            count, size = (0, 0) if there is None else (there["count"], there["bytes"])
            raise ExportError(
                f"the pictures in {pictures['folder']} are not those that were exported",
                got=f"{count} files of {size} bytes",
                allowed=f"{pictures['count']} of {pictures['bytes']} bytes, under their names",
                next_step=REMEDY,
            )
