"""Files that say something by uid: columns, such as other people's scores, and bare lists.

A uid is text; 32 hexadecimal digits in whatever case are those of a pool. Other programs also store
it as a whole number, as 16 bytes, or, as DataComp does, as a pair of 64-bit halves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from mimic_core.base import files
from mimic_core.base.errors import SourceError
from mimic_core.base.identity import all_unique
from mimic_core.sources.guess import Columns
from mimic_core.sources.limits import MAX_JOIN_BYTES, MAX_UID_FILE
from mimic_core.sources.source import Unusable
from mimic_core.sources.tables.arrow import FAILURES, class_names, parquet_schema, read_columns
from mimic_core.sources.tables.columns import OWN, column, column_dtype
from mimic_core.sources.tables.delimited import Delimited, load_csv
from mimic_core.sources.tables.jsonlines import json_columns, json_rows
from mimic_core.sources.tables.loading import own_columns, table_suffix, unread_columns
from mimic_core.sources.texts import cells

UID = "uid"
FORMS = (
    "Parquet, CSV, TSV or JSONL with a column of uids, .npy with the field uid, or .npy of numbers "
    "beside the uids of its rows (FILE.uids.npy or FILE.uids.txt)"
)
LIST_FORMS = (
    "Parquet, CSV, TSV or JSONL with a column uid, .npy of DataComp uids, or text with one uid per "
    "line"
)
_HEX = r"^[0-9a-fA-F]{32}$"


@dataclass(frozen=True, eq=False)
class UidTable:
    """Columns of a file by uid.

    Attributes:
        uids: (M,) text, each once.
        columns: By the names in the file, (M,) each; no number in them is NaN or infinite.
        emptied: How many numbers of a column were not finite, and are null now.
        unread: What of the file is not read, each with its type.
    """

    uids: pl.Series
    columns: dict[str, pl.Series]
    emptied: dict[str, int]
    unread: tuple[str, ...] = ()


def read_by_uid(
    path: Path,
    *,
    uid_column: str = UID,
    columns: Sequence[str] = (),
    uids: Path | None = None,
) -> UidTable:
    """The columns of a file, with the uid of each row.

    Args:
        path: The file (``FORMS``).
        uid_column: Where its uids are.
        columns: Those to read; empty for all.
        uids: A file with the uids of the rows in order, for ``.npy`` files without.

    Raises:
        SourceError: It cannot be read, has no such column, or a uid is missing or there twice.
    """
    require_file(path, MAX_JOIN_BYTES, FORMS)
    unread: tuple[str, ...] = ()
    try:
        if path.suffix.lower() == ".npy":
            found = _of_array(path, uid_column, uids)
        else:
            found, unread = _of_table(path, uid_column, columns)
    except (*FAILURES, EOFError, Unusable) as error:
        raise _unreadable(path, error, FORMS) from error
    names = [name for name in found if name != uid_column]
    for name in columns:
        _require_column(path, name, names)
    if not names:
        raise SourceError(
            f"{path.name} has no column beside its uids",
            got=str(path),
            allowed=FORMS,
            next_step="name a file with values; a list of uids is a condition of a recipe",
        )
    texts = uid_texts(found[uid_column], path)
    _require_each_once(texts, path)
    finite = {name: _finite(found[name]) for name in (columns or names)}
    emptied = {
        name: count
        for name, one in finite.items()
        if (count := one.null_count() - found[name].null_count())
    }
    return UidTable(texts, finite, emptied, unread)


def read_uids(path: Path) -> pl.Series:
    """The uids (K,) that a file lists (``LIST_FORMS``), each once, sorted.

    Raises:
        SourceError: The file cannot be read, or lists none.
    """
    require_list(path)
    try:
        uids = uid_texts(_listed(path), path)
    except (*FAILURES, EOFError, Unusable) as error:
        raise _unreadable(path, error, LIST_FORMS) from error
    uids = uids.drop_nulls().unique().sort()
    if uids.is_empty():
        raise SourceError(
            "the file of uids lists no uid",
            got=str(path),
            next_step="write one uid per line into it",
        )
    return uids


def require_list(path: Path) -> None:
    """Refuse what cannot be a list of uids: no file, or too large."""
    require_file(path, MAX_UID_FILE, LIST_FORMS)


def require_file(path: Path, limit: int, allowed: str) -> None:
    """Refuse what is no regular file of at most ``limit`` bytes, in words."""
    try:
        files.require_regular(path, limit)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error, allowed) from error


def uid_texts(uids: pl.Series, path: Path) -> pl.Series:
    """Uids (M,) of any kind as text; the hexadecimal ones in lower case.

    Raises:
        SourceError: They are fractions, lists of other lengths, or otherwise no uids.
    """
    dtype = uids.dtype
    if isinstance(dtype, pl.Struct) and len(dtype.fields) == 2:
        parts = uids.struct.unnest()
        return _halves(parts.to_series(0), parts.to_series(1), path)
    if isinstance(dtype, pl.List | pl.Array):
        pairs = uids.cast(pl.List(dtype.inner))
        if not (pairs.drop_nulls().list.len() == 2).all():
            raise _no_uids(path, str(dtype))
        return _halves(pairs.list.get(0), pairs.list.get(1), path)
    if isinstance(dtype, pl.Binary) and (uids.drop_nulls().bin.size() == 16).all():
        return uids.bin.encode("hex").alias(UID)
    if not (dtype.is_integer() or isinstance(dtype, pl.String | pl.Categorical | pl.Enum)):
        raise _no_uids(path, str(dtype))
    texts = uids.cast(pl.String).alias(UID)
    hexadecimal = texts.str.contains(_HEX).fill_null(value=False)
    return texts.zip_with(~hexadecimal, texts.str.to_lowercase())


def _halves(high: pl.Series, low: pl.Series, path: Path) -> pl.Series:
    """Uids from their 64-bit halves."""
    if not (high.dtype.is_integer() and low.dtype.is_integer()):
        raise _no_uids(path, f"pairs of {high.dtype} and {low.dtype}")
    there = (high.is_not_null() & low.is_not_null()).to_numpy()
    halves = [
        # A signed half is the same 64 bits: not every program knows unsigned numbers.
        one.fill_null(0).cast(pl.Int64 if one.dtype.is_signed_integer() else pl.UInt64).to_numpy()
        for one in (high, low)
    ]
    return hex_uids(*halves).set(pl.Series(~there), None)


def hex_uids(high: np.ndarray, low: np.ndarray) -> pl.Series:
    """Uids (M,) of 32 hexadecimal digits from their halves (M,), 64 bits each."""
    words = np.stack([np.asarray(half).astype(np.uint64, copy=False) for half in (high, low)], 1)
    digits = pa.py_buffer(words.astype(">u8").tobytes().hex().encode())
    cells = pa.Array.from_buffers(pa.binary(32), len(words), [None, digits])
    series = pl.from_arrow(cells.cast(pa.large_binary()).cast(pa.large_string()))
    assert isinstance(series, pl.Series)
    return series.alias(UID)


def _listed(path: Path) -> pl.Series:
    if path.suffix.lower() == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return _cells(array if array.dtype.names is None else _uid_field(array, UID))
    if table_suffix(path.name) is None:
        lines = path.read_text(encoding="utf-8").splitlines()
        return pl.Series([line.strip() for line in lines if line.strip()], dtype=pl.String)
    return _of_table(path, UID, (UID,))[0][UID]


def _of_table(
    path: Path, uid_column: str, columns: Sequence[str]
) -> tuple[dict[str, pl.Series], tuple[str, ...]]:
    """The uids and the chosen columns of a table, and what of it is not read."""
    suffix = table_suffix(path.name)
    if suffix == "parquet":
        return _of_parquet(path, uid_column, columns)
    if suffix in ("jsonl", "ndjson"):
        return _of_json(path, uid_column), ()
    if suffix is None:
        raise ValueError(f"no name of a table: {path.suffix or 'without a suffix'}")
    with path.open("rb") as file:
        _require_column(path, uid_column, Delimited(file, path.name).names)
        file.seek(0)
        frame = load_csv(file, path.name, Columns(uid_column, uid_column), "pairs")
    _refuse_problems(frame["problem"], path)
    empty = frame["image"] == ""
    named = {one.removeprefix(OWN): frame[one] for one in frame.columns if one.startswith(OWN)}
    return {uid_column: frame["image"].set(empty, None), **named}, ()


def _of_parquet(
    path: Path, uid_column: str, columns: Sequence[str]
) -> tuple[dict[str, pl.Series], tuple[str, ...]]:
    schema = parquet_schema(path, path.name)
    _require_column(path, uid_column, schema)
    own = own_columns(schema, [uid_column], class_names(path, path.name))
    for name in columns:
        if name != uid_column:
            _require_column(path, name, own)
    chosen = [name for name in own if not columns or name in columns]
    rows = read_columns(path, [uid_column, *chosen], path.name)
    _refuse_problems(rows.problems, path)
    frame = rows.frame.select(OWN + uid_column, *(own[name] for name in chosen))
    found = {name: frame[OWN + name] for name in (uid_column, *chosen)}
    return found, tuple(unread_columns(path, path.name, image=uid_column))


def _of_json(path: Path, uid_column: str) -> dict[str, pl.Series]:
    with path.open("rb") as file:
        names = json_columns(file, path.name)
        _require_column(path, uid_column, names)
        file.seek(0)
        rows: list[dict[str, Any]] = []
        for number, row in enumerate(json_rows(file, path.name), 1):
            if row.problem is not None:
                raise _broken(path, row.problem)
            uid = _json_uid(row.meta.get(uid_column), number)
            rows.append({**cells(row.meta, f"row {number}"), uid_column: uid})
    names = list(dict.fromkeys([*names, *(name for row in rows for name in row)]))
    values = {name: [row.get(name) for row in rows] for name in names}
    return {name: column(name, one, column_dtype(one)) for name, one in values.items()}


def _json_uid(value: Any, row: int) -> str | None:
    """A uid of JSON as text."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole or value is None or isinstance(value, str)):
        raise ValueError(f"row {row}: a uid is text or a whole number, not {value!r:.50}")
    return str(value) if whole else value


def _of_array(path: Path, uid_column: str, uids: Path | None) -> dict[str, pl.Series]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    names = array.dtype.names
    if names is None:
        if array.ndim != 1 or array.dtype.kind not in "biuf":
            raise ValueError(f"{array.dtype} {array.shape}, where one number a row is read")
        return {uid_column: _beside(path, uids, len(array)), path.stem: _cells(array)}
    if uids is not None or uid_column not in names:
        if uids is None and _is_pair(array.dtype):
            return {uid_column: _cells(array)}
        own = {name: _cells(array[name]) for name in names}
        return {**own, uid_column: _beside(path, uids, len(array))}
    return {name: _cells(array[name]) for name in names}


def _beside(path: Path, uids: Path | None, rows: int) -> pl.Series:
    """The uids of the rows of an array, from the file that was named or lies beside it."""
    places = [uids] if uids else [path.with_suffix(f".uids.{end}") for end in ("npy", "txt")]
    place = next((one for one in places if one.is_file()), None)
    if place is None:
        raise SourceError(
            f"the uids of the rows of {path.name} are not there",
            got=", ".join(map(str, places)),
            allowed=FORMS,
            next_step="name the file of its uids, one for each row in order, with --uids",
        )
    require_list(place)
    found = uid_texts(_listed(place), place)
    if len(found) != rows:
        raise SourceError(
            f"{place.name} has not one uid for each row of {path.name}",
            got=f"{len(found):,} uids, {rows:,} rows",
            next_step="write the uids of its rows, in their order",
        )
    return found


def _is_pair(dtype: np.dtype[Any]) -> bool:
    names = dtype.names or ()
    return len(names) == 2 and all(dtype[name].kind in "iu" for name in names)


def _uid_field(array: np.ndarray, name: str) -> np.ndarray:
    assert array.dtype.names is not None
    if name in array.dtype.names:
        return array[name]
    if not _is_pair(array.dtype):
        raise ValueError("no pairs of 64-bit halves, and no field uid")
    return array


def _cells(array: np.ndarray) -> pl.Series:
    """A one-dimensional array as a column; pairs of whole numbers as uids, bytes as text."""
    names = array.dtype.names
    if names is not None:
        if not _is_pair(array.dtype):
            raise ValueError(f"cells of {array.dtype} are not read")
        return hex_uids(array[names[0]], array[names[1]])
    if array.ndim == 2 and array.shape[1] == 2 and array.dtype.kind in "iu":
        return hex_uids(array[:, 0], array[:, 1])
    if array.ndim != 1 or array.dtype.kind not in "biufSU":
        raise ValueError(f"{array.dtype} {array.shape} holds no cells that are read")
    if array.dtype.kind in "SU":
        texts = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        return pl.Series(texts.tolist(), dtype=pl.String)
    if array.dtype == np.float16:
        array = array.astype(np.float32)  # a type that every reader of exports knows
    return pl.Series(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))


def _finite(series: pl.Series) -> pl.Series:
    """The same without NaN and infinity, which mean that there is no value."""
    return series.set(~series.is_finite(), None) if series.dtype.is_float() else series


def _require_each_once(uids: pl.Series, path: Path) -> None:
    if uids.has_nulls():
        row = int(np.flatnonzero(uids.is_null().to_numpy())[0]) + 1
        raise SourceError(
            f"{path.name} has rows without a uid",
            got=f"{uids.null_count():,} rows, first row {row:,}",
            next_step="leave those rows out, or choose another column of uids with --uid-column",
        )
    if not all_unique(uids):
        twice = uids.filter(uids.is_duplicated())
        raise SourceError(
            f"{path.name} has more than one row for a uid, so none of them could be chosen",
            got=f"{twice.n_unique():,} such uids, first {twice[0]}",
            next_step="keep one row for each uid, such as the mean",
        )


def _refuse_problems(problems: pl.Series, path: Path) -> None:
    """Refuse a table with a row that cannot be read: whose it is nobody knows."""
    there = problems.drop_nulls()
    if len(there):
        raise _broken(path, f"{there[0]} ({len(there):,} such rows)")


def _broken(path: Path, problem: str) -> SourceError:
    return SourceError(
        f"{path.name} has a row that cannot be read: {problem}",
        got=str(path),
        next_step="correct or leave out that row",
    )


def _require_column(path: Path, name: str, there: Iterable[str]) -> None:
    there = list(there)
    if name not in there:
        raise _no_column(path, name, there)


def _no_column(path: Path, name: str, there: Sequence[str]) -> SourceError:
    shown = ", ".join(there[:20]) + (", ..." if len(there) > 20 else "")
    return SourceError(
        f"{path.name} has no column of that name",
        got=name,
        allowed=shown or "it has none",
        next_step="name the column of the uids with --uid-column, those to be read with --column",
    )


def _no_uids(path: Path, dtype: str) -> SourceError:
    return SourceError(
        f"the uids of {path.name} are none",
        got=dtype,
        allowed="text, whole numbers, 16 bytes, or pairs of 64-bit halves",
        next_step="name another column with --uid-column",
    )


def _unreadable(path: Path, error: BaseException, allowed: str) -> SourceError:
    words = " ".join(str(error).split())[:200] or type(error).__name__
    return SourceError(
        f"{path.name or path} cannot be read ({words})",
        got=str(path),
        allowed=allowed,
        next_step="check the path and the format",
    )
