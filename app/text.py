"""Numbers and foreign text for the screen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SPOKEN = {"clip_score": "CLIP score", "mimic_score_se": "mimic score, standard error"}
PARTING = "\u2060"  # Unicode's word joiner
# The places inside of :material/home:, :streamlit:, ->, <=, http://, www. and name@place.
_FOUND_LATER = re.compile(
    r"(?<=:)(?=material/|streamlit:)|(?<=[-<>~=])(?=[-<>~=])|(?<=[hH][tT][tT][pP])(?=[sS]?:)"
    r"|(?<=[wW]{3})(?=\.)|(?<=@)"
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])")


def plain(text: str) -> str:
    """``text`` so that markdown shows it letter by letter: no markup, HTML, icons or links.

    Backslashes keep markdown away. Streamlit looks for icons, arrows and addresses once more in
    what markdown has made of the text, backslashes gone, so these are parted by a character that
    has no width.
    """
    parted = _FOUND_LATER.sub(PARTING, text)
    return _MARKDOWN.sub(r"\\\1", parted).replace("\n", " ")


def spoken(column: str) -> str:
    """A column's name as people say it."""
    return _SPOKEN.get(column, column.replace("_", " "))


def count(number: int) -> str:
    """A count with thousands separators."""
    return f"{number:,}"


def share(part: int, whole: int) -> str:
    """``part`` of ``whole`` in per cent; a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def number(value: Any) -> str:
    """A cell of a table, short: four significant digits, a dash for a missing value."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def duration(seconds: float) -> str:
    """A time span in its two largest units, such as ``3 min 20 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def per_second(rate: float) -> str:
    """A rate with as many digits as say something."""
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


def text_of(row: Mapping[str, Any]) -> str:
    """What stands below a sample's image: its caption, or its label."""
    return str(row["label"] if row["caption"] is None else row["caption"])
