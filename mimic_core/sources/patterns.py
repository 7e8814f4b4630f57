"""A pool as a pattern: braces as webdataset writes them, and the shell's ``*``, ``?``, ``[]``.

``shards/{00000..00099}.tar`` names a hundred files, whether they are there or not: one that is not
is a shard that cannot be read. ``data/*.tar`` names what is there; ``**`` goes through folders.
"""

from __future__ import annotations

import glob
import os
import posixpath
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from mimic_core.base.errors import SourceError
from mimic_core.sources.folder import FolderFiles
from mimic_core.sources.path import MARKS, spelt_out
from mimic_core.sources.source import Listing

_MOST_SEARCHES = 1_000  # of braces beside *; a pattern of braces alone names its files itself


@dataclass(frozen=True)
class PatternFiles(FolderFiles):
    """The files below ``root`` that ``pattern`` names."""

    pattern: str = ""

    @cached_property
    def listing(self) -> Listing:
        """Those, in the order of their names; what a brace names is there in any case."""
        names: set[str] = set()
        spelt = list(spelt_out(self.pattern))
        searches = sum(bool(MARKS.search(one)) for one in spelt)
        if searches > _MOST_SEARCHES:
            raise SourceError(
                "the braces of the pattern spell too many searches",
                got=f"{searches:,} patterns with *, ? or [",
                allowed=f"{_MOST_SEARCHES:,}, each of which walks the folder",
                next_step="put * in the place of the braces, or braces in the place of *",
            )
        for one in spelt:
            if MARKS.search(one):
                found = glob.iglob(one, root_dir=self.root, recursive=True)  # noqa: PTH207 - relative names
                names.update(PurePosixPath(name).as_posix() for name in found)
            else:
                names.add(posixpath.normpath(one))
        # os.path, since a name may be longer than any file's.
        there = {name for name in names if not os.path.isdir(self.root / name)}  # noqa: PTH112
        inside = {name for name in there if self.may_follow(self.root / name)}
        away = len(there) - len(inside)
        left_out = {"linked file that is not followed": away} if away else {}
        return Listing(tuple(sorted(inside)), left_out)

    def require_files(self, said: str) -> None:
        """Refuse a pattern of which no file is there.

        Raises:
            SourceError: With the first that were looked for.
        """
        names = self.listing.names
        if not any(os.path.isfile(self.root / name) for name in names):  # noqa: PTH113
            raise SourceError(
                "no file fits the pattern",
                got=said,
                allowed="for example shards/{00000..00099}.tar, or data/*.tar in quotes",
                next_step=f"check it against the files in {self.root}"
                + (f"; the first that it names is {names[0]}" if names else ""),
            )
