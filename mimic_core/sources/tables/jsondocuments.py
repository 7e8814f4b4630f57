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
    if document and all(PurePosixPath(one).suffix.lower()[1:] in _IMAGES for one in document):
        return [
            {**value, "file_name": one}
            if isinstance(value, dict)
            else {"file_name": one, "caption": value}
            for one, value in document.items()
        ]
    return None


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _coco(images: list[Any], annotations: list[Any]) -> list[Any]:
    """Each annotation with the fields of its image; ``id`` is the annotation's."""
    by_id = {one.get("id"): one for one in images if isinstance(one, dict)}
    met = set()
    rows: list[Any] = []
    for one in annotations:
        if isinstance(one, dict) and isinstance(one.get("image_id"), int | str):
            met.add(one["image_id"])
            rows.append({**by_id.get(one["image_id"], {}), **one})
        else:
            rows.append(one)
    bare = [one for number, one in by_id.items() if number not in met]
    return [*rows, *bare, *(one for one in images if not isinstance(one, dict))]


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
