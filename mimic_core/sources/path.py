"""Where a pool is; needs nothing heavy, so that a wrong path is said at once."""

from __future__ import annotations

import stat
from pathlib import Path

from mimic_core.base.config import SourceConfig
from mimic_core.base.errors import SourceError

ACCEPTED = (
    "a folder of .tar shards; a folder of images with a table of captions or labels (.csv, .tsv, "
    ".jsonl, .parquet), with .txt files beside the images, or in class folders; a .zip of such a "
    "folder; .parquet files with embedded images; or one such file"
)


_SPECIAL = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def pool_path(config: SourceConfig) -> Path:
    """The file or folder of a pool, with the home folder filled in.

    Raises:
        SourceError: There is none, or something that could be read without end.
    """
    path = Path(config.path).expanduser()
    kind = stat.S_IFMT(_mode(path, config.path))
    if kind not in (stat.S_IFDIR, stat.S_IFREG):
        raise SourceError(
            f"the path is no file or folder but {_SPECIAL.get(kind, 'a device')}",
            got=config.path,
            allowed=ACCEPTED,
            next_step="give a file or folder",
        )
    for root in (config.image_root, *config.link_roots):
        if root is not None and not Path(root).expanduser().is_dir():
            raise SourceError("there is no such folder", got=root, next_step="check --image-root")
    return path


def _mode(path: Path, said: str) -> int:
    try:
        return path.stat().st_mode
    except (OSError, ValueError) as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError | ValueError)
        raise SourceError(
            "there is no such file or folder" if absent else f"the path cannot be read: {error}",
            got=said,
            allowed=ACCEPTED,
            next_step="check the path",
        ) from error
