"""The names of a classifier's outputs, as safetensors files carry them: a JSON list of text.

Names belong into the file of the weights: rows that are matched to classes by a guess are wrong
without looking wrong, because every order of the classes gives a classifier that loads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mimic_core.base.errors import ModelError

_KEY = "classes"


def names_metadata(names: Sequence[str]) -> dict[str, str]:
    """Metadata that says what the outputs stand for, in their order; empty without names."""
    return {_KEY: json.dumps(list(names), ensure_ascii=False)} if names else {}


def written_names(path: Path) -> tuple[str, ...]:
    """The names in the metadata of ``path``; empty where there are none.

    Raises:
        ModelError: What is written there is no list of names, or the file is damaged.
    """
    if path.suffix != ".safetensors":
        return ()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            written = (file.metadata() or {}).get(_KEY)
    except SafetensorError as error:
        raise ModelError(
            f"the checkpoint cannot be read ({' '.join(str(error).split())[:200]})",
            got=str(path),
            allowed="a safetensors file",
            next_step="check that the file is complete",
        ) from error
    try:
        names = [] if written is None else json.loads(written)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(
            "the classes in the file's metadata are not a JSON list of names",
            got=written,
            allowed="a JSON list of names",
            next_step="write them as a list, or leave them out",
        )
    return tuple(names)
