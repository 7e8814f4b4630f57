"""Makes the repository's packages importable from the scripts here, which are run as files.

``python bench/<script>.py`` puts this folder on the search path; ``mimic_core`` is one level up.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
