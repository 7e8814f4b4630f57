"""The gallery grid: one component for all tiles, which sends back the uid of the tile clicked.

Sixty thumbnails as sixty streamlit elements take 0.6 s and a growing amount of memory; as one
element, 0.2 s. Every tile is a real button, so it can be reached and opened by keyboard. Captions
are untrusted: they reach the page as text nodes only, never as markup.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from app.state import session

_HTML = '<div class="grid" role="list"></div>'

_HERE = Path(__file__).parent
_grid = st.components.v2.component(
    "mimicscope_tiles",
    html=_HTML,
    css=(_HERE / "tiles.css").read_text(encoding="utf-8"),
    js=(_HERE / "tiles.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True, slots=True)
class Tile:
    """What one tile of the gallery shows."""

    uid: str
    uri: str | None
    reason: str
    value: str
    caption: str
    state: str = ""


def picture_alone(uri: str) -> None:
    """One picture over the whole width."""
    st.html(f'<img class="picture" src="{escape(uri)}" alt="">')


@dataclass(frozen=True, slots=True)
class Following:
    """A cutoff in the hand that the tiles follow: whose it is, and what is told of it on a pause.

    ``scope`` and ``column`` are those of the chart; ``on_near`` takes the value in the hand.
    """

    scope: str
    column: str
    on_near: Callable[[float], None]


def tile_grid(
    tiles: list[Tile],
    *,
    key: str,
    on_open: Callable[[str], None] | None,
    following: Following | None = None,
) -> None:
    """Show ``tiles``; a click calls ``on_open`` with the uid of the tile before the page reruns."""

    def opened() -> None:
        uid = session.value(key).opened
        if uid is not None and on_open is not None:
            on_open(uid)

    def near() -> None:
        value = session.value(key).near
        if value is not None and following is not None:
            following.on_near(float(value))

    data: dict[str, Any] = {"tiles": [asdict(tile) for tile in tiles]}
    if following is not None:
        data["follow"] = {"scope": following.scope, "column": following.column}
    _grid(data=data, key=key, on_opened_change=opened, on_near_change=near)
