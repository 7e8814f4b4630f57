"""A folder of image files with a captions table at its root, or with a ``.txt`` beside each image.

Nothing outside the folder is read: absolute paths, ``..`` and links that lead out are refused.
"""

from __future__ import annotations

import os
import posixpath
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Locator
from mimic_core.sources.images import ImageError, regular_size, require_inside, safe_relative
from mimic_core.sources.source import Lean, check_size


@dataclass(frozen=True)
class FolderFiles(Lean):
    """The files below ``root``."""

    root: Path
    layout: str = "folder"

    @cached_property
    def _inside(self) -> dict[str, None]:
        """Folders below the root that are known to lie in it; one check serves all their files."""
        return {}

    def names(self) -> list[str]:
        """All files below the root, sorted; hidden ones and linked folders are left out."""
        found = []
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            base = Path(folder).relative_to(self.root)
            found += [(base / name).as_posix() for name in files if not name.startswith(".")]
        for name in found:
            require_utf8(name)
        return sorted(found)

    def open(self, name: str) -> IO[bytes]:
        """One file, seekable."""
        return (self.root / name).open("rb")

    def read_text(self, name: str) -> bytes:
        """A caption or metadata file."""
        clean, size = self._find(name)
        check_size(size, name)
        return (self.root / clean).read_bytes()

    def locate(self, name: str) -> Locator:
        """The image file ``name``, relative to the root."""
        clean, size = self._find(name)
        return Locator("range", clean, 0, size)

    def identity(self, name: str) -> list[Any]:
        """The size in bytes."""
        return [self._find(name)[1]]

    def _find(self, name: str) -> tuple[str, int]:
        clean = safe_relative(name)
        path = self.root / clean
        folder = posixpath.dirname(clean)
        try:
            status = path.lstat()
        except OSError as error:
            raise ImageError("missing_image", f"{name}: {error.strerror}") from error
        if folder not in self._inside or stat.S_ISLNK(status.st_mode):
            require_inside(self.root, path)
            self._inside[folder] = None
        if stat.S_ISREG(status.st_mode):
            return clean, status.st_size
        return clean, regular_size(path)


def require_utf8(name: str) -> None:
    """Refuse a file name that no table can hold."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SourceError(
            "a file name of the pool is not UTF-8",
            got=name,
            next_step="rename that file",
        ) from error
