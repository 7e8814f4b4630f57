"""One JSON document that holds a whole table: its rows, whichever of these shapes it has.

- a list of objects, as LLaVA's and many others: each is a row;
- COCO's captions, ``{"images": [...], "annotations": [...]}``: each annotation is a row, with the
  fields of its image; an image without any is a row without a caption;
- Karpathy's splits, ``{"images": [{"filename", "sentences": [{"raw"}]}]}``: each image is a row
  with a list of captions; its ``filepath`` is the folder in front of the name;
- an object with a single list of objects: each of them is a row;
- an object of names of images, ``{"a.jpg": "a caption"}``: each is a row.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any

from mimic_core.base.errors import SourceError
from mimic_core.sources.limits import MAX_FIELDS, MAX_TABLE_BYTES
from mimic_core.sources.source import IMAGE_SUFFIXES, UNREAD_SUFFIXES

_IMAGES = (*IMAGE_SUFFIXES, *UNREAD_SUFFIXES)
_COCO = {"images", "annotations"}


class SeveralDocumentsError(Exception):
    """The file holds more than one document, as JSON Lines do."""


def document_rows(file: IO[bytes], name: str) -> Iterator[dict[str, Any] | str]:
    """The rows of a document; text is the problem of one that is none.

    Raises:
        SeveralDocumentsError: It goes on behind the document.
        SourceError: It is no JSON, none of these shapes, or too large to be held.
    """
    data = file.read(MAX_TABLE_BYTES + 1)
    if len(data) > MAX_TABLE_BYTES:
        raise SourceError(
            f"{name} is too large to be read as one JSON document",
            got=f"more than {MAX_TABLE_BYTES} bytes",
            next_step="store it as JSON Lines: one object per line, suffix .jsonl",
        )
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise SeveralDocumentsError from error
        raise _refusal(name, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _refusal(name, str(error)) from error
    rows = _rows(document)
    if rows is None and _is_names(document):
        rows = _named_rows(json.loads(data.decode("utf-8-sig"), object_pairs_hook=_Pairs))
    if rows is None:
        raise _refusal(name, "it is neither a list of objects nor a table of captions")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            yield f"entry {number} is not a JSON object but {type(row).__name__}"
        elif len(row) > MAX_FIELDS:
            yield f"entry {number} has {len(row)} fields, the limit is {MAX_FIELDS}"
        else:
            yield row


def _refusal(name: str, why: str) -> SourceError:
    return SourceError(
        f"{name} is no table as JSON: {why}",
        got=name,
        allowed="a list of objects with an image and a caption, COCO's captions, or JSON Lines",
        next_step="correct that file, or store it as JSON Lines",
    )


def _rows(document: Any) -> list[Any] | None:
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        return None
    if document.keys() >= _COCO and all(isinstance(document[one], list) for one in _COCO):
        return _coco(document["images"], document["annotations"])
    lists = [value for value in document.values() if _holds_objects(value)]
    if len(lists) == 1:
        return [_karpathy(row) for row in lists[0]]
    return None


class _Pairs(dict[str, Any]):
    """An object that also knows its names and values in order, with names that come back."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _is_names(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and bool(document)
        and all(PurePosixPath(one).suffix.lower()[1:] in _IMAGES for one in document)
    )


def _named_rows(document: _Pairs) -> list[Any]:
    """A row for each name, also for one that is there twice, of which a dict keeps the last."""
    return [
        {**value, "file_name": one}
        if isinstance(value, dict)
        else {"file_name": one, "caption": value}
        for one, value in document.pairs
    ]


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _coco(images: list[Any], annotations: list[Any]) -> list[Any]:
    """Each annotation with the fields of its image; ``id`` is the annotation's."""
    by_id = {number: one for one in images if (number := _number(one, "id")) is not None}
    met = set()
    rows: list[Any] = []
    for one in annotations:
        number = _number(one, "image_id")
        if number is None:
            rows.append(one)
        else:
            met.add(number)
            rows.append({**by_id.get(number, {}), **one})
    # An image whose number comes back is a row too, whatever its annotations are joined to.
    joined = {id(by_id[number]) for number in met if number in by_id}
    return [*rows, *(one for one in images if id(one) not in joined)]


def _number(one: Any, name: str) -> int | str | None:
    """The number of an image; None of what has none that could be referred to."""
    number = one.get(name) if isinstance(one, dict) else None
    return number if isinstance(number, int | str) else None


def _karpathy(row: Any) -> Any:
    """A row whose captions are objects with ``raw``, as a row with a list of captions."""
    sentences: Any = row.get("sentences") if isinstance(row, dict) else None
    if not _holds_objects(sentences) or not all(
        isinstance(one, dict) and "raw" in one for one in sentences
    ):
        return row
    own = {name: value for name, value in row.items() if name not in ("sentences", "filepath")}
    folder, name = row.get("filepath"), row.get("filename")
    if isinstance(folder, str) and isinstance(name, str):
        own["filename"] = posixpath.join(folder, name)
    return {**own, "sentences": [one["raw"] for one in sentences]}
