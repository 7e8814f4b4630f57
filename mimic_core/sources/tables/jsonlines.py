"""Captions tables as JSON: one object per line, of which a broken one is skipped, or one document.

What a file begins with decides, not its suffix: JSON Lines are also written as ``.json``, and lists
as ``.jsonl``.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

import polars as pl

from mimic_core.base.config import Task
from mimic_core.sources.guess import Columns
from mimic_core.sources.limits import MAX_TEXT_BYTES
from mimic_core.sources.source import Unusable
from mimic_core.sources.tables.columns import CHUNK_ROWS
from mimic_core.sources.tables.jsondocuments import SeveralDocumentsError, document_rows
from mimic_core.sources.tables.plain import unpacked_name
from mimic_core.sources.texts import captions_of, cells, check_text, label_of, parse_metadata

_PEEKED = 4096
_HEADER_ROWS = 100  # rows whose fields count as the table's columns


def json_columns(file: IO[bytes], name: str) -> list[str]:
    """The fields of the first hundred rows, in the order of their first appearance."""
    fields: dict[str, None] = {}
    for _, row in zip(range(_HEADER_ROWS), json_rows(file, name), strict=False):
        fields.update(dict.fromkeys(row.meta))
    return list(fields)


@dataclass(frozen=True, slots=True)
class JsonRow:
    """One line: its fields, or its problem."""

    meta: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


def json_rows(file: IO[bytes], name: str) -> Iterator[JsonRow]:
    """The rows of a file in order; those that are none have a problem. Blank lines are no rows."""
    lines = unpacked_name(name).lower().endswith(("jsonl", "ndjson"))
    if lines:
        start = file.read(_PEEKED).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        file.seek(0)
        lines = start != b"["
    if not lines:
        try:
            for row in document_rows(file, name):
                yield JsonRow(problem=row) if isinstance(row, str) else JsonRow(row)
        except SeveralDocumentsError:
            file.seek(0)
        else:
            return
    yield from _lines(file)


def _lines(file: IO[bytes]) -> Iterator[JsonRow]:
    number = 0
    while line := file.readline(MAX_TEXT_BYTES + 1):
        number += 1
        if len(line) > MAX_TEXT_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_TEXT_BYTES)
            yield JsonRow(problem=f"line {number}: longer than {MAX_TEXT_BYTES} bytes")
        elif line.strip():
            try:
                yield JsonRow(parse_metadata(line, f"line {number}"))
            except Unusable as error:
                yield JsonRow(problem=error.detail)


def load_json(file: IO[bytes], name: str, columns: Columns, task: Task) -> pl.DataFrame:
    """The whole table (``loading``); a row's other fields stay together as its JSON.

    A row with a list of captions becomes one row for each of them.
    """
    schema = {
        **dict.fromkeys(["image", "text", "problem", "json"], pl.String()),
        "several": pl.Boolean(),
        "place": pl.Int64(),
    }
    chunks = [pl.DataFrame(schema=schema)]
    rows: list[_Cells] = []
    for place, row in enumerate(json_rows(file, name)):
        rows += (one._replace(place=place) for one in _json_cells(row, columns, task))
        if len(rows) >= CHUNK_ROWS:
            chunks.append(pl.DataFrame(rows, schema=schema, orient="row"))
            rows = []
    return pl.concat([*chunks, pl.DataFrame(rows, schema=schema, orient="row")])


class _Cells(NamedTuple):
    """Image, caption or label, problem, the other fields as JSON, whether there are more, and the
    number of the row.
    """

    image: str | None
    text: str | None
    problem: str | None
    json: str
    several: bool = False
    place: int = 0


def _json_cells(row: JsonRow, columns: Columns, task: Task) -> list[_Cells]:
    """The row once for each of its captions."""
    image = row.meta.get(columns.image)
    try:
        if row.problem is not None:
            raise Unusable("bad_metadata", row.problem)
        if image is not None and not isinstance(image, str):
            raise Unusable("bad_metadata", f"the field {columns.image} is not text")
        image = None if image is None else check_text(image, f"the field {columns.image}")
        value, what = row.meta.get(columns.text), f"the field {columns.text}"
        texts = captions_of(value, what) if task == "pairs" else [label_of(value, what)]
        own = {name: value for name, value in row.meta.items() if name not in columns}
        text = json.dumps(cells(own, "the row"))
    except Unusable as error:
        return [_Cells(None, None, error.detail, "{}")]
    return [_Cells(image, one, None, text, len(texts) > 1) for one in texts]
