"""The texts that lie beside an image under the same key: ``.txt`` caption, ``.json`` metadata.

Used by every layout that groups files by key: tar shards and loose files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from mimic_core.base.config import Task
from mimic_core.sources.limits import MAX_CAPTION_BYTES, MAX_FIELDS
from mimic_core.sources.source import Unusable

LABEL_SUFFIXES = ("cls", "json")
DEFAULT_LABEL = ".cls"

CAPTION_FIELDS = ("caption", "text")
CAPTION_SUFFIXES = ("txt", "caption")
TEXT_SUFFIXES = (*CAPTION_SUFFIXES, "json")
DEFAULT_CAPTION = ".txt or .caption, else the field caption or text of .json"


def split_key(name: str) -> tuple[str, str] | None:
    """Key and suffix of a member name as webdataset reads them; None for hidden or plain names.

    The key is the path up to the first dot of the base name, so ``a.b/1.seg.png`` has the key
    ``a.b/1`` and the suffix ``seg.png`` (lower case).
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, suffix = base.partition(".")
    if not stem or not dot or folder.startswith("__MACOSX"):
        return None
    return f"{folder}{slash}{stem}", suffix.lower()


def printable(name: str) -> str:
    """``name`` as text that can be stored: bytes that are not UTF-8 are written as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def decode_text(data: bytes, what: str) -> str:
    """UTF-8 text with or without a byte order mark; anything else is a ``Unusable``."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable(
            "bad_metadata",
            f"{what} is not UTF-8: byte 0x{data[error.start]:02x} at position {error.start}",
        ) from error


def parse_metadata(data: bytes | str, what: str) -> dict[str, Any]:
    """A sample's metadata from one JSON object, as it stands there (``cells`` makes it storable).

    Raises:
        Unusable: It is not an object, or not JSON, or has too many fields.
    """
    text = data if isinstance(data, str) else decode_text(data, what)
    try:
        values = json.loads(text)
    except RecursionError as error:
        raise Unusable("bad_metadata", f"{what} is nested too deeply") from error
    except ValueError as error:
        raise Unusable("bad_metadata", f"{what} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise Unusable("bad_metadata", f"{what} is not a JSON object but {type(values).__name__}")
    if len(values) > MAX_FIELDS:
        raise Unusable(
            "bad_metadata", f"{what} has {len(values)} fields, the limit is {MAX_FIELDS}"
        )
    return values


def cells(values: dict[str, Any], what: str) -> dict[str, Any]:
    """All ``values`` as table cells (``cell``)."""
    return {check_text(name, what): cell(value, what) for name, value in values.items()}


def cell(value: Any, what: str) -> bool | int | float | str | None:
    """``value`` as a table cell: non-finite numbers become null, nested values JSON text."""
    if isinstance(value, str):
        return check_text(value, what)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    try:
        return json.dumps(value, default=str)
    except RecursionError as error:
        raise Unusable("bad_metadata", f"{what} is nested too deeply") from error


def check_text(text: str, what: str) -> str:
    """``text`` itself; half a surrogate pair, which no file can store, is a ``Unusable``."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable(
            "bad_metadata", f"{what} holds half a surrogate pair at {error.start}"
        ) from error
    return text


def caption_of(value: Any, what: str) -> str:
    """A caption from a JSON value: text as it is, numbers as written, null and NaN as empty.

    Raises:
        Unusable: It is a list or an object.
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, str):
        return check_text(value, what)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise Unusable("bad_metadata", f"{what} is not text but {type(value).__name__}")


def captions_of(value: Any, what: str) -> list[str]:
    """The captions of one image from a JSON value: each of a list, else the one that it is.

    Of a conversation, as LLaVA writes it, the first answer is the caption.
    """
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return [_first_answer(value, what)]
    return [
        caption_of(one, what) for one in (value or [None] if isinstance(value, list) else [value])
    ]


def _first_answer(turns: list[dict[str, Any]], what: str) -> str:
    """What the assistant says first, without marks for the image.

    Raises:
        Unusable: These are no turns of a conversation.
    """
    for speaker, text in (("from", "value"), ("role", "content")):
        if any(speaker in turn for turn in turns):
            for turn in turns:
                if str(turn.get(speaker)).lower() in ("gpt", "assistant"):
                    return caption_of(turn.get(text), what).replace("<image>", "").strip()
            return ""
    raise Unusable("bad_metadata", f"{what} is a list of objects, but no conversation")


def read_sidecar(
    texts: Mapping[str, bytes], caption_column: str | None
) -> tuple[list[str] | None, dict[str, Any]]:
    """Captions and metadata of one key from its members ``txt`` or ``caption`` and ``json``.

    The caption is ``caption_column``, a field of the JSON or a suffix; by default a text of its own
    if there is one, else the JSON's ``caption`` or ``text``, which may be a list. None where there
    is no such thing.

    Raises:
        Unusable: One of them cannot be used.
    """
    meta = parse_metadata(texts["json"], "the .json") if "json" in texts else {}
    own = CAPTION_SUFFIXES if caption_column is None else (caption_column,)
    for suffix in own:
        if suffix in CAPTION_SUFFIXES and suffix in texts:
            return [decode_text(texts[suffix], f"the .{suffix}")], cells(meta, "the .json")
    for name in CAPTION_FIELDS if caption_column is None else (caption_column,):
        if meta.get(name) is not None:
            return captions_of(meta[name], f"the field {name}"), cells(meta, "the .json")
    return None, {}


def require_caption(caption: str | None, wanted: str) -> str:
    """``caption`` itself; a missing, blank or overlong one is ``Unusable``."""
    if caption is None:
        raise Unusable("empty_caption", f"no caption; looked for {wanted}")
    if not caption.strip():
        raise Unusable("empty_caption", "the caption holds only white space")
    return _short("caption", caption)


def _short(what: str, text: str) -> str:
    """``text`` itself; one that would hold up a tokenizer is ``Unusable``."""
    size = len(text) if text.isascii() else len(text.encode())
    if size > MAX_CAPTION_BYTES:
        raise Unusable(
            "bad_metadata", f"the {what} has {size} bytes, the limit is {MAX_CAPTION_BYTES}"
        )
    return text


def label_of(value: Any, what: str) -> str | None:
    """A label from a cell or JSON value: text without outer white space, whole numbers as written.

    Numbers that were stored as floats because some are missing come back whole; null, NaN and
    blank text are no label.

    Raises:
        Unusable: It is a fraction, a list or an object.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return check_text(value.strip(), what) or None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if isinstance(value, float):
        raise Unusable("bad_metadata", f"{what} holds {value}, which names no class")
    raise Unusable("bad_metadata", f"{what} is not text but {type(value).__name__}")


def require_text_of(task: Task, value: Any, wanted: str) -> str:
    """The caption or the label that ``value`` holds; a missing or blank one is ``Unusable``."""
    if task == "pairs":
        return require_caption(value, wanted)
    label = label_of(value, wanted)
    if label is None:
        raise Unusable("empty_label", f"no label; looked for {wanted}")
    return _short("label", label)


def read_label(texts: Mapping[str, bytes], column: str | None) -> tuple[Any, dict[str, Any]]:
    """Label and metadata of one key from its members ``cls`` and ``json``.

    Args:
        column: A field of the JSON, or ``cls``, which is also the default.

    Raises:
        Unusable: One of them cannot be used.
    """
    meta = parse_metadata(texts["json"], "the .json") if "json" in texts else {}
    if column is not None and column != "cls":
        own = {name: value for name, value in meta.items() if name != column}
        return meta.get(column), cells(own, "the .json")
    label = decode_text(texts["cls"], "the .cls") if "cls" in texts else None
    return label, cells(meta, "the .json")
