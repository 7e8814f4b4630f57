"""What a page has sent to our own components in the browser."""

from __future__ import annotations

import json
from typing import Any

from streamlit.testing.v1 import AppTest


def components(app: AppTest) -> list[dict[str, Any]]:
    """The data of every component of the page."""
    return [json.loads(one.proto.mixed.json or one.proto.json) for one in app.get("bidi_component")]


def tiles(app: AppTest) -> list[dict[str, Any]]:
    """The tiles of the page's one gallery."""
    (found,) = [sent["tiles"] for sent in components(app) if "tiles" in sent]
    return list(found)
