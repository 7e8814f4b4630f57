"""Parquet files with the image bytes in a column: binary, or Hugging Face's ``{bytes, path}``.

The index reads every column but the images; an image is later read with the 255 rows around it,
which the process keeps, since workers read consecutive rows. Polars reads a row group as a whole,
so files with row groups of a few hundred rows, as Hugging Face writes them, are the quick ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from mimic_core.errors import SourceError
from mimic_core.schema import Locator, Sample, Skip, SourceConfig
from mimic_core.sources.base import (
    FileState,
    Lean,
    Ordinals,
    Unusable,
    file_identity,
    given_uid,
    make_sample,
    pool_fingerprint,
    shard_names,
    shard_position,
)
from mimic_core.sources.guess import IMAGE_NAMES, guess_caption, guess_column
from mimic_core.sources.images import ImageError, check_image_size
from mimic_core.sources.sidecar import require_caption
from mimic_core.sources.table import row_meta
from mimic_core.sources.tables import is_text, own_columns, plain, require_text, table_schema

ROWS_PER_SHARD = 8192
BLOCK_ROWS = 256  # rows whose images are read together
_BLOCKS = 2
_PROBLEMS = (pl.exceptions.PolarsError, OSError, ValueError)


class _Piece(NamedTuple):
    """One virtual shard: rows of one file."""

    path: str
    start: int


@dataclass(frozen=True)
class ParquetSource(Lean):
    """The rows of the files ``paths``, relative to ``root``."""

    root: Path
    paths: tuple[str, ...]
    image_column: str
    caption_column: str
    layout: str = "parquet"

    @cached_property
    def _pieces(self) -> dict[str, _Piece]:
        pieces = {}
        for name, path in shard_names(self.paths).items():
            check_columns(self.root, path, self.image_column, self.caption_column)
            for start in range(0, max(1, _row_count(self.root / path)), ROWS_PER_SHARD):
                pieces[f"{name}-{start // ROWS_PER_SHARD:05d}"] = _Piece(path, start)
        return dict(sorted(pieces.items()))

    @property
    def shards(self) -> tuple[str, ...]:
        """One per 8,192 rows of each file."""
        return tuple(self._pieces)

    def fingerprint(self) -> str:
        """Over each file's name, size, head and tail."""
        content = [file_identity(self.root / path, path) for path in sorted(self.paths)]
        return pool_fingerprint(self, content)

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """The rows of one virtual shard, in the order of the file."""
        shard_position(self.shards, shard)
        piece = self._pieces[shard]
        ordinals = Ordinals()
        for row in self._read(piece).iter_rows(named=True):
            cell = row["caption"]
            for caption in (cell or [None]) if isinstance(cell, list) else [cell]:
                try:
                    yield self._sample(row, caption, shard, ordinals)
                except Unusable as error:
                    yield error.skip(_key(row), shard)

    def _read(self, piece: _Piece) -> pl.DataFrame:
        """The rows of a piece but for their images."""
        path = self.root / piece.path
        schema = parquet_schema(self.root, piece.path)
        caption = pl.col(plain(self.caption_column))
        text = pl.List(pl.String()) if _is_list(schema[self.caption_column]) else pl.String()
        columns = [
            caption.cast(text).alias("caption"),
            *own_columns(schema, (self.image_column, self.caption_column)),
        ]
        try:
            frame = pl.scan_parquet(path, glob=False).slice(piece.start, ROWS_PER_SHARD)
            read = frame.select(columns).collect()
        except _PROBLEMS as error:
            raise _unreadable(piece.path, error) from error
        return read.with_row_index("row", offset=piece.start)

    def _sample(
        self, row: dict[str, Any], caption: str | None, shard: str, ordinals: Ordinals
    ) -> Sample:
        caption = require_caption(caption, f"the column {self.caption_column}")
        path = self._pieces[shard].path
        meta = row_meta(row)
        return make_sample(
            uid=given_uid(meta) or ordinals.uid(path, str(row["row"]), caption),
            key=_key(row),
            shard=shard,
            caption=caption,
            image=Locator("parquet", path, row["row"], -1, self.image_column),
            meta=meta,
        )


def _key(row: dict[str, Any]) -> str:
    """img2dataset's own key, else the number of the row."""
    key = row.get("own.key")
    return key if isinstance(key, str) and key else f"{row['row']:09d}"


def parquet_schema(root: Path, path: str) -> dict[str, pl.DataType]:
    """The columns of one file."""
    with (root / path).open("rb") as file:
        return table_schema(file, path)


def image_columns(schema: dict[str, pl.DataType]) -> list[str]:
    """The columns that hold bytes: binary, or a struct with a binary field ``bytes``."""
    return [name for name, dtype in schema.items() if _holds_image(dtype)]


def _holds_image(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(field.name == "bytes" and field.dtype == pl.Binary for field in dtype.fields)
    return isinstance(dtype, pl.Binary)


def _is_list(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.List | pl.Array)


def open_parquet(root: Path, paths: tuple[str, ...], config: SourceConfig) -> ParquetSource:
    """Files with embedded images; the first one decides the columns.

    Raises:
        SourceError: The columns cannot be guessed, or hold neither bytes nor text.
    """
    schema = parquet_schema(root, paths[0])
    embedded = image_columns(schema)
    if config.image_column is None and len(embedded) == 1:
        image = embedded[0]
    else:
        image = guess_column(
            embedded, IMAGE_NAMES, config.image_column, "--image-column", f"{paths[0]} (bytes)"
        )
    text = [name for name, dtype in schema.items() if is_text(dtype) or _is_list(dtype)]
    chosen = config.caption_column
    if chosen in schema and chosen not in text:
        require_text(schema, str(chosen), "--caption-column", paths[0])
    caption = guess_caption(text, chosen, f"{paths[0]} (text columns)")
    check_columns(root, paths[0], image, caption)
    return ParquetSource(root, paths, image, caption)


def check_columns(root: Path, path: str, image: str, caption: str) -> None:
    """Refuse a file without the two columns, or with columns of another kind."""
    schema = parquet_schema(root, path)
    if image not in image_columns(schema):
        raise SourceError(
            f"{path} has no image bytes in the column {image}",
            got=", ".join(f"{name}: {dtype}" for name, dtype in schema.items()),
            next_step="move files of another kind away, or choose with --image-column",
        )
    dtype = schema.get(caption)
    inner = getattr(dtype, "inner", None) if dtype is not None and _is_list(dtype) else dtype
    if inner is None or not is_text(inner):
        raise SourceError(
            f"{path} has no text in the column {caption}",
            got=", ".join(f"{name}: {dtype}" for name, dtype in schema.items()),
            next_step="move files of another kind away, or choose with --caption-column",
        )


def _row_count(path: Path) -> int:
    try:
        return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
    except _PROBLEMS as error:
        raise _unreadable(path.name, error) from error


def _unreadable(name: str, error: Exception) -> SourceError:
    return SourceError(
        f"{name} cannot be read as Parquet: {error}", next_step="check or re-create that file"
    )


def read_cell(path: Path, column: str, row: int) -> bytes:
    """The image bytes in row ``row`` of ``column``.

    Raises:
        ImageError: There is no such file, row or column, or the cell is null.
    """
    try:
        block = _read_block(FileState.of(path), column, max(row, 0) // BLOCK_ROWS)
    except _PROBLEMS as error:
        raise ImageError("missing_image", f"{path.name}: {error}") from error
    place = row % BLOCK_ROWS
    data = block[place] if row >= 0 and place < len(block) else None
    if not isinstance(data, bytes):
        raise ImageError("missing_image", f"{path.name}: row {row} has no bytes in {column}")
    check_image_size(len(data), f"{path.name} row {row}")
    return data


@lru_cache(maxsize=_BLOCKS)
def _read_block(state: FileState, column: str, block: int) -> pl.Series:
    """The bytes of ``BLOCK_ROWS`` rows."""
    frame = pl.scan_parquet(state.path, glob=False).select(pl.col(plain(column)))
    cells = frame.slice(block * BLOCK_ROWS, BLOCK_ROWS).collect().to_series()
    return cells.struct.field("bytes") if isinstance(cells.dtype, pl.Struct) else cells
