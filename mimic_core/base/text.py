"""Foreign text on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""``text`` in one line that a terminal only shows: a control character would be obeyed.

    Names of columns, conditions and files come from anybody. What cannot be printed is written as
    Python writes it, such as ``\x1b``.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
