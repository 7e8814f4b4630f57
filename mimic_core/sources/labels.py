"""What a label is: the name of a class, as text, wherever it comes from."""

from __future__ import annotations

import math
from typing import Any

from mimic_core.base.schema import Task
from mimic_core.sources.source import Unusable
from mimic_core.sources.texts import cells, check_text, decode_text, parse_metadata, require_caption

LABEL_SUFFIXES = ("cls", "json")
DEFAULT_LABEL = ".cls"


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
    return label


def read_label(texts: dict[str, bytes], column: str | None) -> tuple[Any, dict[str, Any]]:
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
