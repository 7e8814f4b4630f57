"""Names of models with fresh weights, found without loading anything."""

from __future__ import annotations

from pathlib import Path


def fresh_weights(reference: str, seed: int) -> str | None:
    """The specification of ``reference``'s architecture with random weights of ``seed``.

    None where the architecture cannot be told from the name alone, as for ``hf-hub:``.
    """
    if reference.startswith("hf-hub:"):
        return None
    folder = reference.removeprefix("local-dir:")
    if Path(folder).is_dir():
        return f"{folder.rstrip('/')}/open_clip_config.json:random:{seed}"
    library = "timm:" if reference.startswith("timm:") else ""
    arch, colon, _ = reference.removeprefix(library).partition(":")
    return f"{library}{arch}:random:{seed}" if colon and arch else None
