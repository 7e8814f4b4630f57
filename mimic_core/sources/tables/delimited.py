"""Captions tables as CSV or TSV: each row of the file becomes a row or a problem, none is lost.

A cell in quotes may hold line breaks. Where a quote is opened and not closed, though, it would
swallow all rows up to the next quote; so a quoted cell ends before a line that is a row by itself,
and the row that it began in is a problem of its own. In tab-separated files, which are often
written without any quoting, such a row is read as it stands instead.

A first line that names an image or a URL and no column is a row by itself: there is no header then.
The columns are ``file_name`` or ``url``, and ``caption`` (``label`` where all of them are whole
numbers) if there is one more, else ``column_2`` and so on. Flickr's ``1.jpg#0`` is an image and the
number of its caption, ``caption_number``. Where ``|`` separates the cells, spaces around are none.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, NamedTuple

import polars as pl

from mimic_core.base.config import Task
from mimic_core.base.errors import SourceError
from mimic_core.sources.guess import Columns, is_url, known_names
from mimic_core.sources.limits import MAX_TEXT_BYTES
from mimic_core.sources.source import IMAGE_SUFFIXES, UNREAD_SUFFIXES, Unusable
from mimic_core.sources.tables.columns import CHUNK_ROWS, MAX_COLUMNS, OWN
from mimic_core.sources.tables.plain import unpacked_name
from mimic_core.sources.texts import check_text

_DELIMITERS = "\t,;|"
_QUOTED = re.compile(r'"([^"]*+(?:""[^"]*+)*+)"')
_INTEGER = r"^(?:0|-?[1-9][0-9]{0,17})$"  # no leading zeros: 007 is a name, not a number
# At most 15 digits before the point: a longer number is an id that a float would change.
_FLOAT = (
    r"^[+-]?(?:(?:(?:0|[1-9][0-9]{0,14})(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?"
    r"|nan|inf(?:inity)?)$"
)
_WHOLE = r"^(?:0|-?[1-9][0-9]{0,14})(?:\.0*)?$"
_RECORD_LINES = 256  # of one row; a caption with more line breaks is a problem
_PEEKED = 64 * 1024
_PEEKED_LINES = 50
_IMAGE_FILE = re.compile(
    rf"[^\n]+\.(?:{'|'.join((*IMAGE_SUFFIXES, *UNREAD_SUFFIXES))})(#\d+)?", re.IGNORECASE
)


class _Line(NamedTuple):
    """One line with its end; ``text`` is None where it is too long to be held."""

    number: int
    text: str | None


class _Row(NamedTuple):
    """One row: its cells, or its problem."""

    cells: list[str]
    problem: str | None = None


class Delimited:
    """A table that stands behind its header.

    Raises:
        SourceError: The header cannot be read.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        head = file.read(_PEEKED)
        file.seek(0)
        old_mac = b"\r" in head and b"\n" not in head
        self._lines = _mac_lines(file) if old_mac else _lines(file)
        first = next(self._lines, _Line(1, ""))
        if first.text is None:
            raise SourceError(
                f"the first line of {name} is longer than {MAX_TEXT_BYTES} bytes",
                next_step="check that it is a table with a header",
            )
        header = first.text.rstrip("\r\n")
        self._delimiter = _delimiter(header, unpacked_name(name).lower())
        cells = [
            cell.strip()
            for cell in _cells(header, self._delimiter) or header.split(self._delimiter)
        ]
        self._width = len(cells)
        self._waiting: deque[_Line] = deque()
        self._image = 0
        self._spaces = False
        self._suffixes: set[str] = set()
        self._numbered = False
        self.last_line = 1
        """the number of the last line of the row that was given last"""
        self.headed = not _is_row_of_data(cells)
        if self.headed:
            self.names = [cell or f"column_{place}" for place, cell in enumerate(cells, 1)]
        else:
            self._waiting.append(first)
            self.names = self._invented(cells)
        _check_names(self.names, name)

    def _invented(self, cells: list[str]) -> list[str]:
        """Names for the columns of a table without a header, whose first row is ``cells``."""
        files = [place for place, cell in enumerate(cells) if _IMAGE_FILE.fullmatch(cell)]
        urls = [place for place, cell in enumerate(cells) if is_url(cell)]
        names = [f"column_{place}" for place in range(1, len(cells) + 1)]
        if files and not is_url(cells[files[0]]):
            names[files[0]] = "file_name"
            self._numbered = "#" in cells[files[0]].rpartition(".")[2]
        if urls:
            names[urls[0]] = "url"
        others = [place for place, name in enumerate(names) if name.startswith("column_")]
        if len(others) == 1:
            names[others[0]] = "label" if self._all_whole(others[0]) else "caption"
        return [*names, "caption_number"] if self._numbered else names

    def _all_whole(self, place: int) -> bool:
        """Whether the first cells of a column are whole numbers."""
        self._waiting.extend(itertools.islice(self._lines, _PEEKED_LINES))
        rows = [one.text.rstrip("\r\n").split(self._delimiter) for one in self._waiting if one.text]
        return all(re.fullmatch(_INTEGER, row[place].strip()) for row in rows if len(row) > place)

    @property
    def delimiter(self) -> str:
        """What stands between two cells."""
        return self._delimiter

    def rows(self, image: str) -> Iterator[_Row]:
        """All rows; those that are none have empty cells and a problem.

        Args:
            image: The column of the images, by which a line is known to be a row.
        """
        self._image = self.names.index(image)
        while (line := self._line(0)) is not None:
            self._waiting.popleft()
            self.last_line = line.number
            if line.text is None:
                yield self._problem(line, f"longer than {MAX_TEXT_BYTES} bytes")
            elif line.text.strip("\r\n"):
                yield self._row(line, line.text)

    def _row(self, line: _Line, text: str) -> _Row:
        try:
            cells = _split(text.rstrip("\r\n"), self._delimiter) or self._joined(text)
            problem = "a quote is opened and not closed"
        except ValueError as error:
            cells, problem = None, str(error)
        if cells is not None and len(cells) != self._width:
            what = "header" if self.headed else "first line"
            problem = f"{len(cells)} fields, the {what} has {self._width}"
            cells = None
        if cells is None and self._delimiter == "\t":
            plain = text.rstrip("\r\n").split("\t")
            cells = plain if len(plain) == self._width else None
        if cells is None:
            return self._problem(line, problem)
        try:
            cells = [check_text(cell, "") for cell in cells]
        except Unusable:
            return self._problem(line, "not UTF-8")
        if self._delimiter == "|":
            cells = [cell.strip(" ") for cell in cells]
        if self._numbered:
            cells = _numbered(cells, self.names.index("file_name"))
        image = cells[self._image]
        self._spaces = self._spaces or " " in image
        self._suffixes.add(PurePosixPath(image).suffix.lower())
        return _Row(cells)

    def _problem(self, line: _Line, what: str) -> _Row:
        return _Row([""] * len(self.names), f"line {line.number}: {what}")

    def _joined(self, text: str) -> list[str] | None:
        """The cells of a row that goes on in the next lines; None where its quote is not closed."""
        quotes = text.count('"')
        for place in range(_RECORD_LINES):
            line = self._line(place)
            if line is None or line.text is None or self._is_row(line.text):
                return None
            text += line.text
            quotes += line.text.count('"')
            if len(text) > MAX_TEXT_BYTES:
                return None
            if '"' in line.text and quotes % 2 == 0:
                cells = _split(text.rstrip("\r\n"), self._delimiter)
                if cells is not None:
                    for _ in range(place + 1):
                        self.last_line = self._waiting.popleft().number
                    return cells
        return None

    def _is_row(self, text: str) -> bool:
        """Whether a line has all columns and names an image, as rows do."""
        cells = text.rstrip("\r\n").split(self._delimiter)
        if len(cells) < self._width or self._image >= self._width:
            return False
        image = cells[self._image].strip('"')
        if self._numbered:
            image = image.rpartition("#")[0]
        suffix = PurePosixPath(image).suffix.lower()
        known = suffix[1:] in (*IMAGE_SUFFIXES, *UNREAD_SUFFIXES) or suffix in self._suffixes
        return known and bool(image) and (self._spaces or " " not in image)

    def _line(self, place: int) -> _Line | None:
        """The line ``place`` lines ahead; None at the end."""
        while len(self._waiting) <= place:
            line = next(self._lines, None)
            if line is None:
                return None
            self._waiting.append(line)
        return self._waiting[place]


def _delimiter(header: str, name: str) -> str:
    """What separates the cells: of several candidates, the one that makes most columns."""
    default = "," if name.endswith(".csv") else "\t"
    if default == "\t" and "\t" in header:
        return default  # captions without quotes may hold any number of commas
    candidates: list[str] = [default, *_DELIMITERS]
    return max(candidates, key=lambda one: _width(header, one))


def _is_row_of_data(cells: list[str]) -> bool:
    """Whether a first line is no header: it names an image or a URL, and no column."""
    if len(cells) < 2 or any(cell.lower() in known_names() for cell in cells):
        return False
    return any(_IMAGE_FILE.fullmatch(cell) or is_url(cell) for cell in cells)


def _numbered(cells: list[str], place: int) -> list[str]:
    """A row of Flickr's: the number behind ``#`` becomes a cell of its own."""
    found = _IMAGE_FILE.fullmatch(cells[place])
    number = found[1] if found and found[1] else ""
    image = cells[place].removesuffix(number)
    return [*cells[:place], image, *cells[place + 1 :], number.removeprefix("#")]


def _check_names(names: list[str], name: str) -> None:
    """Refuse columns that could not be told apart or stored."""
    repeated = sorted(column for column, count in Counter(names).items() if count > 1)
    if repeated:
        raise SourceError(
            f"{name} names a column twice", got=repeated[:8], next_step="rename one of them"
        )
    if len(names) > MAX_COLUMNS:
        raise SourceError(
            f"{name} has too many columns",
            got=len(names),
            allowed=f"at most {MAX_COLUMNS}",
            next_step="check that its first line is a header, and leave out what is not needed",
        )
    try:
        for column in names:
            check_text(column, "its header")
    except Unusable as error:
        raise SourceError(f"{name} is not UTF-8", next_step="save it as UTF-8") from error


def _lines(file: IO[bytes]) -> Iterator[_Line]:
    """Lines with their ends; bytes that are not UTF-8 survive, so that only their rows are lost."""
    number = 0
    while data := file.readline(MAX_TEXT_BYTES + 1):
        number += 1
        if len(data) > MAX_TEXT_BYTES:
            while data and not data.endswith(b"\n"):
                data = file.readline(MAX_TEXT_BYTES)
            yield _Line(number, None)
        else:
            yield _Line(number, _decoded(data, number))


def _mac_lines(file: IO[bytes]) -> Iterator[_Line]:
    """The same where lines end as on old Macs."""
    number, rest, skipping = 0, b"", False
    while chunk := file.read(_PEEKED):
        *lines, rest = (rest + chunk).split(b"\r")
        for data in lines:
            number += 1
            yield _Line(number, None if skipping else _decoded(data, number))
            skipping = False
        if len(rest) > MAX_TEXT_BYTES:
            rest, skipping = b"", True
    if rest or skipping:
        yield _Line(number + 1, None if skipping else _decoded(rest, number + 1))


def _decoded(data: bytes, number: int) -> str:
    text = data.removeprefix(codecs.BOM_UTF8) if number == 1 else data
    return text.decode("utf-8", "surrogateescape")


def _split(text: str, delimiter: str) -> list[str] | None:
    """The cells of a row; None where a quote is still open at its end.

    Raises:
        ValueError: Something follows a closed quote.
    """
    if '"' not in text:
        return text.split(delimiter)
    cells, place = [], 0
    while True:
        if text.startswith('"', place):
            match = _QUOTED.match(text, place)
            if match is None:
                return None
            cells.append(match[1].replace('""', '"'))
            place = match.end()
            if place == len(text):
                return cells
            if text[place] != delimiter:
                raise ValueError(f"'{delimiter}' expected after '\"'")
        else:
            stop = text.find(delimiter, place)
            if stop < 0:
                return [*cells, text[place:]]
            cells.append(text[place:stop])
            place = stop
        place += 1


def _width(header: str, delimiter: str) -> int:
    """Into how many columns a separator splits the header."""
    return len(_cells(header, delimiter) or ())


def _cells(header: str, delimiter: str) -> list[str] | None:
    """The cells of a header; None where its quotes do not fit together."""
    try:
        return _split(header, delimiter)
    except ValueError:
        return None


def load_csv(file: IO[bytes], name: str, columns: Columns, task: Task) -> pl.DataFrame:
    """The whole table (``loading``)."""
    table = Delimited(file, name)
    chunks = [_text_chunk(table.names, [])]
    rows: list[_Row] = []
    for row in table.rows(columns.image):
        rows.append(row)
        if len(rows) == CHUNK_ROWS:
            chunks.append(_text_chunk(table.names, rows))
            rows = []
    frame = pl.concat([*chunks, _text_chunk(table.names, rows)])
    own = [
        typed(frame[OWN + column]).alias(OWN + column)
        for column in table.names
        if column not in columns
    ]
    text = frame[OWN + columns.text]
    return frame.select(
        frame[OWN + columns.image].alias("image"),
        (_whole(text) if task == "labels" else text).alias("text"),
        "problem",
        *own,
    )


def _text_chunk(names: list[str], rows: list[_Row]) -> pl.DataFrame:
    cells = zip(*(row.cells for row in rows), strict=True) if rows else [()] * len(names)
    data = {OWN + name: list(column) for name, column in zip(names, cells, strict=True)}
    schema = dict.fromkeys([*data, "problem"], pl.String())
    return pl.DataFrame({**data, "problem": [row.problem for row in rows]}, schema=schema)


def _whole(labels: pl.Series) -> pl.Series:
    """Labels that are whole numbers written with a point, as 1.0, as numbers; others as text."""
    there = labels.filter(labels.str.strip_chars() != "")
    point = there.str.contains(".", literal=True).any()
    if not point or not there.str.contains(_WHOLE).all():
        return labels
    return labels.set(labels.str.strip_chars() == "", None).cast(pl.Float64)


def typed(texts: pl.Series) -> pl.Series:
    """A text column as boolean, integer or float if every non-empty cell is one; empty = null."""
    cells = texts.set(texts == "", None)
    there = cells.drop_nulls()
    if there.is_empty():
        return cells
    lower = there.str.to_lowercase()
    if lower.is_in(["true", "false"]).all():
        return cells.str.to_lowercase() == "true"
    if there.str.contains(_INTEGER).all():
        return cells.cast(pl.Int64)
    if lower.str.contains(_FLOAT).all():
        return cells.cast(pl.Float64)
    return cells
