"""TODO app/components/shared/controls.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.state import session

Put = Callable[..., None]


def drags(event: Any, shape: str) -> list[dict[str, Any]]:
    """The boxes or lassos of a chart's event; a redrawn chart sends an event without any."""
    if not event:
        return []
    found: list[dict[str, Any]] = event["selection"].get(shape) or []
    return found


def bound(field: str, value: Any, put: Put, *, optional: bool = False) -> dict[str, Any]:
    """Key and callback of a control that shows ``value`` and changes ``field`` of the form.

    An emptied control changes nothing, unless the field is optional.
    """
    key = f"leaf_{field}"

    def store() -> None:
        found = session.value(key)
        if found is not None or optional:
            put(**{field: found})

    return {"key": session.bind(key, value), "on_change": store}
