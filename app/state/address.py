"""The selection in the page's address: a refresh keeps it, a link carries it.

A recipe is written as compressed JSON in URL-safe base64. One that would be too long for an address
(thousands of chosen uids) is left out, and then lives in the tab alone, which the sidebar says.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib

from mimic_core.base.errors import FilterError
from mimic_core.filters.recipe import Recipe

MAX_LETTERS = 6000  # servers and chat programs cut addresses off at 8,000 or so
_MAX_BYTES = 1 << 20  # an address that unpacks to more is not ours


def pack(recipe: Recipe) -> str:
    """The recipe as letters for the address; empty for no conditions, or for too long a recipe."""
    if not recipe.conditions:
        return ""
    tree = recipe.model_dump(mode="json", exclude_none=True)
    text = json.dumps(tree, separators=(",", ":"), ensure_ascii=False)
    letters = base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")
    return letters if len(letters) <= MAX_LETTERS else ""


def unpack(letters: str) -> Recipe:
    """The recipe that ``pack`` wrote.

    Raises:
        FilterError: The letters are damaged, or are no recipe.
    """
    if not letters:
        return Recipe()
    try:
        packed = base64.b64decode(
            letters + "=" * (-len(letters) % 4), altchars=b"-_", validate=True
        )
        opened = zlib.decompressobj()
        text = opened.decompress(packed, _MAX_BYTES).decode()
        if not opened.eof:
            raise ValueError("cut off")
        tree = json.loads(text)
    except (binascii.Error, zlib.error, ValueError, RecursionError) as error:
        raise FilterError(
            "the selection in the address cannot be read",
            got=letters[:40],
            next_step="copy the whole address again, or select anew: nothing is selected now",
        ) from error
    return Recipe.from_tree(tree)
