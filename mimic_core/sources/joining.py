"""Columns of other files joined to a run by uid: other people's scores become columns like ours.

Each join is a file of its own beside the run (``Run.joined``), written whole; ``run.json`` says
where its columns come from and how the file and the run met.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from mimic_core.base import files
from mimic_core.base.errors import RunError, SourceError
from mimic_core.base.identity import digest, rows_of, slug
from mimic_core.base.schema import named
from mimic_core.runs import imageless
from mimic_core.runs.lock import only_driver
from mimic_core.runs.record import JoinRecord
from mimic_core.runs.run import JOINS_DIR, Run, now, open_run
from mimic_core.runs.table import scan_run
from mimic_core.sources.by_uid import (
    FORMS,
    UID,
    UidTable,
    read_by_uid,
    require_file,
    uid_texts,
)
from mimic_core.sources.limits import MAX_JOIN_BYTES
from mimic_core.sources.tables.columns import stored_names
from mimic_core.sources.tables.loading import table_suffix

PREFIX = "joined_"  # before a name that the run has already


def join_columns(
    run: Run,
    path: Path,
    *,
    uid_column: str = UID,
    on: str = UID,
    columns: Sequence[str] = (),
    uids: Path | None = None,
    name: str | None = None,
    replace: bool = False,
) -> tuple[Run, JoinRecord]:
    """Join the columns of a file to the table of a finished run.

    A sample without a row in the file has null there. Joining the same file again changes nothing.

    Args:
        run: A finished run.
        path: The file (``mimic_core.sources.by_uid.FORMS``); each uid once.
        uid_column: Its column of uids.
        on: The column of the run that these are compared with. Where samples share a value of it,
            such as captions of one image, all get that row.
        columns: The columns to join; empty for all.
        uids: A file with the uids of its rows in order, for ``.npy`` files without.
        name: Of the join, by which it is removed; of the file by default.
        replace: Whether a join of that name is replaced.

    Returns:
        The run as it is then, and what has been joined.

    Raises:
        SourceError: The file cannot be read, or a uid is missing there or there twice.
        RunError: The run is unfinished, has another join of that name, or no sample has a row.
    """
    name = slug(name or path.name, limit=64)
    content = _content(path, uids)
    asked = {"source_sha256": content, "uid_column": uid_column, "on": on}
    place = f"{name}-{digest([asked, sorted(columns)])}.parquet"
    with only_driver(run.path.parent, run.id):
        run = open_run(run.path)
        run.epoch_files()  # refuses an unfinished run
        before = next((one for one in run.record.joins if one.name == name), None)
        if before is not None and before.file == place and run.join_file(before).is_file():
            return run, before
        if before is not None and before.file != place and not replace:
            raise _taken(before)
        others = tuple(one for one in run.record.joins if one.name != name)
        bare = Run(run.path, run.record.model_copy(update={"joins": others}))
        found = read_by_uid(path, uid_column=uid_column, columns=columns, uids=uids)
        taken = scan_run(bare).collect_schema().names()
        names = stored_names(list(found.columns), beside=taken, prefix=PREFIX)
        table, rows = _matched(bare, found, names, on, path)
        stored_at = run.path / JOINS_DIR / place
        files.write_parquet(stored_at, table)
        record = JoinRecord(
            name=name,
            file=place,
            sha256=_file_digest(stored_at),
            source=str(path),
            columns={new: old for old, new in names.items()},
            rows=len(found.uids),
            matched=int((rows >= 0).sum()),
            without=int((rows < 0).sum()),
            unused=len(found.uids) - len(np.unique(rows[rows >= 0])),
            emptied=found.emptied,
            joined_at=now(),
            **asked,
        )
        changed = bare.update(joins=(*others, record))
        if before is not None and before.file != place:
            run.join_file(before).unlink(missing_ok=True)
        return changed, record


def remove_join(run: Run, name: str) -> Run:
    """Take the columns of a join out of the run again; returns the run as it is then.

    Raises:
        RunError: There is no such join.
    """
    with only_driver(run.path.parent, run.id):
        run = open_run(run.path)
        gone = next((one for one in run.record.joins if one.name == name), None)
        if gone is None:
            raise RunError(
                "no columns are joined to the run by that name",
                got=name,
                allowed=", ".join(one.name for one in run.record.joins)
                or "none: nothing is joined",
                next_step="name one of its joins",
            )
        changed = run.update(joins=tuple(one for one in run.record.joins if one.name != name))
        run.join_file(gone).unlink(missing_ok=True)
        return changed


def require_joinable(path: Path) -> None:
    """Refuse, before a pool is scored, what is no file that could be joined to it afterwards.

    Raises:
        SourceError: It is not there, or not named as a file that is read.
    """
    require_file(path, MAX_JOIN_BYTES, FORMS)
    if path.suffix.lower() != ".npy" and table_suffix(path.name) is None:
        raise SourceError(
            "columns are not read from such a file",
            got=str(path),
            allowed=FORMS,
            next_step="name another file",
        )


def joined_digest(run: Run, join: JoinRecord) -> str | None:
    """SHA-256 of a join's file as it is now, which its record says too; None where it is gone."""
    path = run.join_file(join)
    return _file_digest(path) if path.is_file() else None


def _file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content(path: Path, uids: Path | None) -> str:
    """What the columns are made from: SHA-256 of the file, and of the one with its uids."""
    for one in (path, *([uids] if uids else [])):
        require_file(one, MAX_JOIN_BYTES, FORMS)
    own = _file_digest(path)
    return own if uids is None else hashlib.sha256((own + _file_digest(uids)).encode()).hexdigest()


def _matched(
    run: Run, found: UidTable, names: Mapping[str, str], on: str, path: Path
) -> tuple[pl.DataFrame, np.ndarray]:
    """The columns of all samples and rows without an image, and which row of the file each has.

    That is (N,) int64, -1 where it has none.

    Raises:
        RunError: The run has no such column, or no sample has a row.
    """
    samples, bare = run.features.scan(), imageless.scan(run.features)
    if bare is not None:
        samples = pl.concat([samples, bare], how="diagonal_relaxed")
    there = samples.collect_schema()
    if on not in there or not (there[on] == pl.String or there[on].is_integer()):
        fitting = [one for one, kind in there.items() if kind == pl.String or kind.is_integer()]
        raise RunError(
            "the run has no column of texts or whole numbers by that name to join on",
            got=on,
            allowed=", ".join(fitting),
            next_step="choose another column with --on",
        )
    own = samples.select("uid", *([named(on)] if on != UID else [])).collect()
    keys = uid_texts(own[on], run.path)
    rows = rows_of(found.uids, keys)
    if not (rows >= 0).any():
        raise RunError(
            f"no sample of the run has a row in {path.name}",
            got=f"{found.uids[0] if len(found.uids) else 'nothing'}, ... in the file; "
            f"{keys[0]}, ... in the run",
            allowed="uids as in the run's table: the pool's own where it has them",
            next_step="check that the file is of this pool, and name its column of uids with "
            "--uid-column and that of the run with --on",
        )
    picked = pl.Series(rows)
    picked = picked.set(picked < 0, None)
    values = [found.columns[old].gather(picked).alias(new) for old, new in names.items()]
    return pl.DataFrame([own["uid"], *values]), rows


def _taken(before: JoinRecord) -> RunError:
    return RunError(
        "other columns are joined by that name",
        got=f"{before.name}, from {before.source}",
        next_step=f"replace them (--replace), remove them (--remove {before.name}), or give these "
        "another --name",
    )
