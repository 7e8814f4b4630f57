"""A pool's own table as it stands, with one column more: whether each row is kept.

Rows, their order, columns and types stay; of text files the lines themselves stay, to the byte, and
get one more cell. A row is kept if a sample of it is, so a row with several captions may be kept
for one of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mimic_core.base.errors import ExportError
from mimic_core.base.files import require_regular
from mimic_core.base.schema import Sample
from mimic_core.export.destination import Sink
from mimic_core.export.pictures import pool_of
from mimic_core.export.settings import ExportConfig
from mimic_core.export.work import Work
from mimic_core.runs.run import Run
from mimic_core.sources.layouts.embedded import EmbeddedSource
from mimic_core.sources.layouts.table import TableSource
from mimic_core.sources.tables.delimited import Delimited
from mimic_core.sources.tables.loading import table_suffix

KEEP = "keep"
UID = "uid"
_MAX_TABLE = 1 << 50
_PACKED = (b"\x1f\x8b", b"\xff\xfe", b"\xfe\xff", b"PK\x03\x04")  # gzip, UTF-16, zip
_OPEN = Callable[[], IO[bytes]]


def keep_column(work: Work) -> None:
    """The table of the pool, or ``config.table``, with the column ``keep``.

    Of a pool of several Parquet files it is a folder of them under their own names.

    Raises:
        ExportError: There is no such table, it has a column ``keep``, or is not as it was scored.
    """
    if work.config.table is not None:
        _marked_by_uid(work, Path(work.config.table).expanduser())
        return
    source, as_scored = pool_of(work.run)
    if isinstance(source, TableSource):
        _mark_tables(work, source)
    elif isinstance(source, EmbeddedSource) and source.layout == "parquet":
        if not as_scored:
            raise ExportError(
                "the pool's files have changed since they were scored, and rows go by number",
                got=str(source.root),
                next_step="score the pool again, or give a table with uids: --table FILE",
            )
        _mark_parquet_files(work, source)
    else:
        raise _no_table(work.run)


def table_name(run: Run, config: ExportConfig) -> str | None:
    """The name of the table that ``keep_column`` repeats; None of several files.

    Raises:
        ExportError: There is none.
    """
    if config.table is not None:
        return Path(config.table).name
    source, _ = pool_of(run)
    if isinstance(source, TableSource):
        names = source.tables
    elif isinstance(source, EmbeddedSource) and source.layout == "parquet":
        names = source.paths
    else:
        raise _no_table(run)
    return PurePosixPath(names[0]).name if len(names) == 1 else None


def _no_table(run: Run) -> ExportError:
    return ExportError(
        "the pool has no table of its own",
        got=run.record.config.source.path,
        allowed="a pool that is a table of images, or --table FILE with a column uid",
        next_step="give the table, such as DataComp's metadata, with --table",
    )


def _require_suffix(work: Work, table: str) -> None:
    suffix = PurePosixPath(table).suffix
    if PurePosixPath(work.name).suffix.lower() != suffix.lower():
        raise ExportError(
            f"the table is a {suffix} file, and its copy is another",
            got=work.name,
            allowed=f"a name ending in {suffix}",
            next_step=f"write to {PurePosixPath(work.name).stem}{suffix}",
        )


def _mark_parquet_files(work: Work, source: EmbeddedSource) -> None:
    if len(source.paths) == 1:
        _require_suffix(work, source.paths[0])
    for path in source.paths:
        here = work.rows.filter(pl.col("image_path") == path)
        keep = np.zeros(pq.read_metadata(source.root / path).num_rows, bool)
        keep[here["image_offset"].to_numpy()] = True
        name = work.name if len(source.paths) == 1 else f"{work.name}/{path}"
        with (source.root / path).open("rb") as file, work.draft.open(name) as sink:
            _mark_parquet(file, path, keep, sink)


def _marked_by_uid(work: Work, table: Path) -> None:
    """The rows whose uid is kept; a kept uid that has no row is left out."""
    try:
        require_regular(table, _MAX_TABLE)
        kind = table_suffix(table.name)
        with table.open("rb") as file:
            uids = {} if kind is None else dict(enumerate(_uids(file, table.name)))
    except OSError as error:
        raise ExportError(
            f"the table cannot be read: {error.strerror or error}",
            got=str(table),
            next_step="check the path given as --table",
        ) from error
    if kind is None:
        raise ExportError(
            "the table is of no known format",
            got=table.name,
            allowed=".parquet, .csv, .tsv, .jsonl",
            next_step="give a table of one of these",
        )
    _require_suffix(work, table.name)
    kept = set(work.rows[UID])
    keep = np.array([uid in kept for uid in uids.values()], bool)
    _leave_out_lost(work, kept.difference(uids.values()), table.name)
    _write(work, work.name, table.name, lambda: table.open("rb"), UID, keep)


def _leave_out_lost(work: Work, lost: set[Any], table: str) -> None:
    for uid in sorted(lost):
        work.pictures.leave_out({UID: uid}, "no_row", f"{table} has no row of it")


def _uids(file: IO[bytes], name: str) -> Iterator[str | None]:
    """The uid of each row, in lower case; None where a row has none."""
    kind = table_suffix(name)
    if kind == "parquet":
        opened = pq.ParquetFile(file)
        _require_uid(name, opened.schema_arrow.names)
        for batch in opened.iter_batches(columns=[UID]):
            yield from (
                str(one).lower() if one is not None else None for one in batch[0].to_pylist()
            )
    elif kind in ("jsonl", "ndjson"):
        for line in file:
            if line.strip():
                uid = _object(line).get(UID)
                yield str(uid).lower() if uid is not None else None
    else:
        table = Delimited(file, name)
        _require_uid(name, table.names)
        place = table.names.index(UID)
        yield from (row.cells[place].lower() for row in table.rows(UID))


def _require_uid(name: str, columns: list[str]) -> None:
    if UID not in columns:
        raise ExportError(
            f"{name} has no column uid, by which its rows are known",
            got=columns,
            next_step="give a table that has one, such as the metadata of DataComp",
        )


def _mark_tables(work: Work, source: TableSource) -> None:
    """Mark the rows whose samples are kept: the pool's index is made again."""
    several = len(source.tables) > 1
    if not several:
        _require_suffix(work, source.tables[0])
    kept = set(work.rows[UID])
    keep = {table: np.zeros(source.rows(table), bool) for table in source.tables}
    for shard in source.shards:
        for one, (table, row) in zip(source.index(shard), source.places(shard), strict=True):
            if isinstance(one, Sample) and one.uid in kept:
                keep[table][row] = True
                kept.discard(one.uid)  # later ones of it were skipped
    _leave_out_lost(work, kept, source.tables[0])
    for table, rows in keep.items():
        name = f"{work.name}/{table}" if several else work.name
        opener = partial(source.files.open, table)
        _write(work, name, table, opener, source.image_column or "", rows)


def _object(line: bytes) -> dict[str, Any]:
    """The object of a line; an empty one where it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(work: Work, name: str, table: str, opener: _OPEN, column: str, keep: np.ndarray) -> None:
    """The table with ``keep`` (R,) bool beside its rows, known by ``column``."""
    kind = table_suffix(table)
    with closing(opener()) as file, work.draft.open(name) as sink:
        _refuse_packed(file, table)
        if kind == "parquet":
            _mark_parquet(file, table, keep, sink)
        elif kind in ("jsonl", "ndjson") or table.lower().endswith(".json"):
            _mark_json(file, table, keep, sink)
        else:
            with closing(opener()) as again:
                _mark_lines(file, Delimited(again, table), table, column, keep, sink)


def _refuse_packed(file: IO[bytes], table: str) -> None:
    if file.read(4).startswith(_PACKED):
        raise ExportError(
            f"{table} is compressed or UTF-16, so that nothing can be put behind its lines",
            got=table,
            next_step="store it as plain UTF-8, or export as csv",
        )
    file.seek(0)


def _refuse_taken(table: str) -> ExportError:
    return ExportError(
        f"{table} has a column {KEEP} already", got=KEEP, next_step="rename it in the table"
    )


def _mark_parquet(file: IO[bytes], table: str, keep: np.ndarray, sink: Sink) -> None:
    opened = pq.ParquetFile(file)
    schema = opened.schema_arrow
    if KEEP in schema.names:
        raise _refuse_taken(table)
    marked = schema.append(pa.field(KEEP, pa.bool_(), nullable=False))
    start = 0
    with pq.ParquetWriter(sink, marked, compression="zstd") as writer:
        for group in range(opened.num_row_groups):
            for batch in opened.iter_batches(row_groups=[group]):
                cells = pa.array(keep[start : start + len(batch)])
                start += len(batch)
                writer.write_batch(pa.record_batch([*batch.columns, cells], schema=marked))


def _mark_lines(
    file: IO[bytes], rows: Delimited, table: str, column: str, keep: np.ndarray, sink: Sink
) -> None:
    """Copy the lines; the last one of each row, and the header, get a cell more."""
    head = file.read(1 << 16)
    if KEEP in rows.names:
        raise _refuse_taken(table)
    file.seek(0)
    lines = _raw_lines(file, b"\r" if b"\r" in head and b"\n" not in head else b"\n")
    comma = rows.delimiter.encode()
    written = 0
    if rows.headed:
        sink.write(_with_cell(next(lines, b""), comma + KEEP.encode()))
        written = 1
    for kept, _ in zip(keep, rows.rows(column), strict=True):
        while written < rows.last_line - 1:
            sink.write(next(lines))
            written += 1
        sink.write(_with_cell(next(lines), comma + (b"true" if kept else b"false")))
        written += 1
    for line in lines:
        sink.write(line)


def _raw_lines(file: IO[bytes], end: bytes) -> Iterator[bytes]:
    """Lines with their ends."""
    if end == b"\n":
        yield from file
        return
    *lines, rest = file.read().split(end)
    yield from (line + end for line in lines)
    if rest:
        yield rest


def _with_cell(line: bytes, cell: bytes) -> bytes:
    text = line.rstrip(b"\r\n")
    return text + cell + line[len(text) :]


def _mark_json(file: IO[bytes], table: str, keep: np.ndarray, sink: Sink) -> None:
    """Each line's object gets the field behind its own; a line that is no object stays."""
    if table.lower().endswith(".json") or file.read(1) == b"[":
        raise ExportError(
            f"{table} is one document, so that no field can be put behind its lines",
            got=table,
            next_step="store it as JSON Lines, one object a line, or export as jsonl",
        )
    file.seek(0)
    number = 0
    for line in file:
        if not line.strip():
            sink.write(line)
            continue
        said, text = _object(line), line.rstrip()
        if KEEP in said:
            raise _refuse_taken(table)
        if said or text.lstrip(b" \t\xef\xbb\xbf") == b"{}":
            comma = b", " if said else b""
            cell = b"true" if keep[number] else b"false"
            sink.write(text[:-1].rstrip() + comma + b'"keep": ' + cell + b"}" + line[len(text) :])
        else:
            sink.write(line)
        number += 1
