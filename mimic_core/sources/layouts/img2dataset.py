"""What img2dataset writes beside its shards: a table of every row, downloaded or not.

``00000.parquet`` lies beside ``00000.tar`` or the folder ``00000``; it names each row's key, its
status and the error of those that could not be downloaded, which are in no shard.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Skip
from mimic_core.sources.source import Files, Unusable
from mimic_core.sources.tables.arrow import column_batches, parquet_schema
from mimic_core.sources.tables.columns import OWN

_COLUMNS = ("key", "status", "error_message", "uid")
SUCCESS = "success"


def beside(path: str) -> tuple[str, str]:
    """The files of the shard ``path``: the table and the statistics."""
    stem = _stem(path)
    return f"{stem}.parquet", f"{stem}_stats.json"


def table(files: Files, path: str) -> str | None:
    """The table of the shard ``path`` where there is one with a status for each row."""
    name = beside(path)[0]
    try:
        with files.open(name) as file:
            columns = parquet_schema(file, name)
    except SourceError:
        return None
    return name if {"key", "status"} <= columns.keys() else None


def failed(
    files: Files,
    path: str,
    shard: str,
    there: Collection[str],
    known: Callable[[str], bool] = lambda _: False,
) -> Iterator[Skip]:
    """A skip for each row of the shard ``path`` that was not downloaded, or is not ``there``.

    Args:
        there: The keys of the shard, as the table has them.
        known: Whether the row of that uid is told elsewhere.
    """
    name = table(files, path)
    if name is None:
        return
    with files.open(name) as file:
        columns = [column for column in _COLUMNS if column in parquet_schema(file, name)]
        file.seek(0)
        try:
            for rows in column_batches(file, columns, name):
                for row in rows.rename(lambda column: column.removeprefix(OWN)).iter_rows(
                    named=True
                ):
                    key = str(row["key"])
                    skip = failure(row)
                    if skip is None and key not in there:
                        skip = Unusable("missing_image", f"{name} has it as downloaded")
                    if skip is not None and not known(str(row.get("uid")).lower()):
                        yield skip.skip(key, shard)
        except SourceError as error:
            yield Skip("", shard, "unreadable_shard", f"{name}: {error.problem}")


def failure(row: dict[str, Any]) -> Unusable | None:
    """Why the row was not downloaded; None where it was."""
    status = row.get("status")
    if not isinstance(status, str) or status == SUCCESS:
        return None
    message = row.get("error_message")
    return Unusable("failed_download", f"{status}: {message}" if message else status)


def _stem(path: str) -> str:
    folder, slash, base = path.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"
