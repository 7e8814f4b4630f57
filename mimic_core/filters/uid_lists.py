"""Lists of uids in files of their own, as a condition of recipes.

A file may be another one tomorrow. So what has to be repeated names its content too (``pinned``),
and then no other content is read.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import polars as pl

from mimic_core.base.errors import FilterError
from mimic_core.filters.conditions import Leaf, UidList
from mimic_core.sources.by_uid import read_uids, require_list
from mimic_core.sources.source import FileState


def listed_rows(leaf: UidList, uids: pl.Series) -> pl.Series:
    """Which of the uids (N) of a table the condition keeps, boolean (N,).

    Raises:
        SourceError: The file cannot be read, or lists no uid.
        FilterError: It is not the file that the recipe was made with, or lists none of these.
    """
    found = uids.is_in(_listed(leaf).implode())
    if not found.any() and len(uids):
        raise FilterError(
            f"no sample of this table is listed in {Path(leaf.file).name}",
            got=f"{_listed(leaf)[0]}, ... in the file; {uids[0]}, ... in the table",
            allowed="uids as in the run's table: the pool's own where it has them",
            next_step="choose a list of samples of this pool",
        )
    return found if leaf.listed == "keep" else ~found


def met(leaf: UidList, uids: pl.Series) -> str:
    """How a list and the uids (N) of a table have met, in a sentence. Raises as ``listed_rows``."""
    listed = _listed(leaf)
    common = int(uids.is_in(listed.implode()).sum())
    return (
        f"{Path(leaf.file).name} lists {len(listed):,} uids: {common:,} of the run's "
        f"{len(uids):,} samples, and {len(listed) - common:,} others"
    )


def pinned(leaf: Leaf) -> Leaf:
    """The same with the digest of its file, where it is a list that has none yet.

    Raises:
        SourceError: The file cannot be read.
    """
    if not isinstance(leaf, UidList) or leaf.sha256 is not None:
        return leaf
    return leaf.model_copy(update={"sha256": _digest(_state(leaf))})


def beside(leaf: Leaf, folder: Path) -> Leaf:
    """The same with a relative path of a list as one from ``folder``."""
    if not isinstance(leaf, UidList):
        return leaf
    return leaf.model_copy(update={"file": str(folder / Path(leaf.file))})


def _listed(leaf: UidList) -> pl.Series:
    state = _state(leaf)
    found = _digest(state)
    if leaf.sha256 not in (None, found):
        raise FilterError(
            f"{Path(leaf.file).name} is not the list that the recipe was made with",
            got=f"SHA-256 {found}",
            allowed=f"SHA-256 {leaf.sha256}",
            next_step="bring that file back, or take sha256 out of the recipe to use this one",
        )
    return _read(state)


def _state(leaf: UidList) -> FileState:
    require_list(Path(leaf.file))
    return FileState.of(Path(leaf.file))


@lru_cache(maxsize=64)
def _digest(state: FileState) -> str:
    with Path(state.path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=4)
def _read(state: FileState) -> pl.Series:
    return read_uids(Path(state.path))
