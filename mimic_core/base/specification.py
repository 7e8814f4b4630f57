"""What the specification of a model tells without the model being loaded."""

from __future__ import annotations

import re
from pathlib import Path

OWN_FEATURES = "features:"  # before the path of a file of features, in the place of a model
OWN_MODULE = re.compile(r"(?!timm:)(?P<file>.+\.py)(?::(?P<function>.*))?", re.DOTALL)
"""A torch module that a user's own file builds: ``MODULE.py:FUNCTION``."""


def default_temperature(reference: str) -> float:
    """The temperature that suits a reference model: mimic scores grow with the features' length.

    0.05 for CLIP models, whose features before the softmax are unit embeddings; 1, the authors' own
    for classifiers, for timm's models and features of one's own, which are as they come.
    """
    return 1.0 if reference.startswith(("timm:", OWN_FEATURES)) else 0.05


def fresh_weights(reference: str, seed: int) -> str | None:
    """The specification of ``reference``'s architecture with random weights of ``seed``.

    None where the architecture cannot be told from the name alone, as for ``hf-hub:``.
    """
    if reference.startswith(("hf-hub:", OWN_FEATURES)):
        return None
    folder = reference.removeprefix("local-dir:")
    if Path(folder).is_dir():
        return f"{folder.rstrip('/')}/open_clip_config.json:random:{seed}"
    library = "timm:" if reference.startswith("timm:") else ""
    arch, colon, _ = reference.removeprefix(library).partition(":")
    return f"{library}{arch}:random:{seed}" if colon and arch else None
