"""Where a pool is; needs nothing heavy, so that a wrong path is said at once."""

from __future__ import annotations

from pathlib import Path

from mimic_core.base.config import SourceConfig
from mimic_core.base.errors import SourceError

ACCEPTED = (
    "a folder of .tar shards; a folder of images with a table of captions or labels (.csv, .tsv, "
    ".jsonl, .parquet), with .txt files beside the images, or in class folders; a .zip of such a "
    "folder; .parquet files with embedded images; or one such file"
)


def pool_path(config: SourceConfig) -> Path:
    """The file or folder of a pool, with the home folder filled in.

    Raises:
        SourceError: There is none.
    """
    path = Path(config.path).expanduser()
    if not path.exists():
        raise SourceError(
            "there is no such file or folder",
            got=config.path,
            allowed=ACCEPTED,
            next_step="check the path",
        )
    return path
