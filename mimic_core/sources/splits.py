"""The split that a sample's place says it is of: a folder ``train/``, or a file ``test-00000.tar``.

It is kept as the column ``split`` of every layout, unless the pool has a column of that name.
"""

from __future__ import annotations

import re

SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval")
_WORDS = "|".join(SPLITS)
_FOLDER = re.compile(rf"(?:{_WORDS})(?:[-_ ]?\d{{4}})?", re.IGNORECASE)  # also COCO's train2017
# As Hugging Face names the files of a split, or the way shards are numbered.
_FILE = re.compile(
    rf"({_WORDS})(?:[-_.]\d+(?:[-_]of[-_]\d+)?)?\.(?!txt$|caption$|json$)[a-z]\w*(?:\.\w+)?",
    re.IGNORECASE,
)


def is_split(folder: str) -> bool:
    """Whether a folder is named for a split."""
    return _FOLDER.fullmatch(folder) is not None


def split_of(path: str, *, container: bool) -> str | None:
    """The split of what lies at ``path``, relative to the pool; None where it says none.

    Args:
        container: Whether it holds many samples, so that its own name may be that of a split. An
            image of that name is only a picture of a train.
    """
    *folders, name = path.split("/")
    for folder in folders:
        if is_split(folder):
            return folder
    found = _FILE.fullmatch(name) if container else None
    return found[1] if found else None
