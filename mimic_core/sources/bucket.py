"""The files of a pool in object storage: what ``folder`` is for a folder of this machine.

All are listed at once. Hidden files, leftovers and what Mimicscope has written are left out, as in
a folder. A name that is listed and then does not answer is no missing image: the run ends
(``mimic_core.base.remote``).
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import IO, Any

from mimic_core.base.errors import SourceError
from mimic_core.base.remote import RemotePath
from mimic_core.base.schema import Locator
from mimic_core.sources.folder import LEFTOVERS, MANIFEST, RECORDS
from mimic_core.sources.images import ImageError, safe_relative
from mimic_core.sources.source import Lean, Listing, check_size
from mimic_core.sources.texts import printable


@dataclass(frozen=True)
class BucketFiles(Lean):
    """The objects below ``root``; of a single object, its folder, in which it stands ``alone``."""

    root: RemotePath
    alone: str | None = None
    layout: str = "folder"

    @cached_property
    def sizes(self) -> dict[str, int]:
        """All objects that can be part of a pool, with their sizes in bytes."""
        if self.alone is not None:
            return {self.alone: (self.root / self.alone).stat().st_size}
        found = self.root.listing()
        exports = {name.removesuffix(MANIFEST) for name in found if name.endswith(MANIFEST)}
        own = {
            name.rpartition("/")[0]
            for name, size in found.items()
            if name.rpartition("/")[2] in RECORDS and self._is_ours(name, size)
        }
        return {
            name: size
            for name, size in found.items()
            if name.removesuffix(MANIFEST) not in exports and not _is_left_out(name, own)
        }

    @cached_property
    def listing(self) -> Listing:
        """Their names; those that no table could hold are counted."""
        named = sorted(name for name in self.sizes if printable(name) == name)
        others = len(self.sizes) - len(named)
        return Listing(tuple(named), {"name that is not UTF-8": others} if others else {})

    def open(self, name: str) -> IO[bytes]:
        """One object, seekable."""
        if name not in self.sizes:
            raise SourceError(
                "a file of the pool cannot be read",
                got=f"{name}: not there",
                next_step="check that it is there and that it may be read",
            )
        opened: IO[bytes] = (self.root / name).open("rb")
        return opened

    def read_text(self, name: str) -> bytes:
        """A caption or metadata file."""
        clean, size = self._find(name)
        check_size(size, name)
        data: bytes = (self.root / clean).read_range(0, size)
        return data

    def locate(self, name: str) -> Locator:
        """The image ``name``, relative to the root."""
        clean, size = self._find(name)
        return Locator("range", clean, 0, size)

    def name_of(self, image: Locator) -> str:
        """Its path."""
        return image.path

    def identity(self, name: str) -> list[Any]:
        """The size in bytes, as of a file in a folder."""
        return [self._find(name)[1]]

    def _is_ours(self, name: str, size: int) -> bool:
        """Whether a record is one of Mimicscope's own."""
        return b'"schema_version"' in (self.root / name).read_range(0, min(size, 4096))

    def _find(self, name: str) -> tuple[str, int]:
        clean = safe_relative(name)
        if clean not in self.sizes:
            raise ImageError("missing_image", f"{name}: {os.strerror(errno.ENOENT)}")
        return clean, self.sizes[clean]


def _is_left_out(name: str, own: set[str]) -> bool:
    """Whether an object is hidden, a leftover, or lies in a folder of our ``own``."""
    path = PurePosixPath(name)
    if any(part.startswith(".") or part in LEFTOVERS for part in path.parts):
        return True
    return any(parent.as_posix() in own for parent in path.parents if parent.parts)
