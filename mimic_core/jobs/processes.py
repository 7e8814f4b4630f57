"""What a Python process that this one starts needs to find the same code."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]  # the folder that holds mimic_core and app


def environment(**extra: str) -> dict[str, str]:
    """This process's environment with ``extra``, and with this copy of the code found first."""
    found = os.environ.get("PYTHONPATH")
    search_path = os.pathsep.join([str(REPOSITORY), found] if found else [str(REPOSITORY)])
    return {**os.environ, "PYTHONPATH": search_path, **extra}
