"""The files below a folder, and what is never part of a pool.

Left out are hidden files, what macOS and notebooks leave behind, and what Mimicscope itself has
written there: runs, feature sets and exports, so that a pool that holds its own runs is scored as
before. Links are followed unless the settings say otherwise; a link into a folder that is being
walked already ends there. Only regular files are ever opened: a pipe or a device could never end.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Locator
from mimic_core.sources.images import ImageError, regular_size, require_within, safe_relative
from mimic_core.sources.path import raise_away
from mimic_core.sources.source import IMAGE_SUFFIXES, Lean, Listing, Unusable, check_size
from mimic_core.sources.texts import TEXT_SUFFIXES, printable

LEFTOVERS = ("__MACOSX", "__pycache__")
_FEATURES = "features"
RECORDS = ("run.json", "features.json")
# Beside the runs in a folder of runs.
_OWN_NAMES = (_FEATURES, "jobs", "jobs.sqlite", "recipes", "uploads")
MANIFEST = ".manifest.json"
_SAMPLE_SUFFIXES = (*IMAGE_SUFFIXES, *TEXT_SUFFIXES)
_MAX_DEPTH = 100
_MAX_MEETINGS = 8  # of one folder through links, which could multiply without end


@dataclass(frozen=True)
class FolderFiles(Lean):
    """The files below ``root``; ``link_roots`` are where links may lead, none given, anywhere."""

    root: Path
    follow: bool = True
    link_roots: tuple[str, ...] = ()
    layout: str = "folder"

    @cached_property
    def _inside(self) -> dict[str, None]:
        """Folders below the root that may be read; one check serves all their files."""
        return {}

    @cached_property
    def listing(self) -> Listing:
        """All files below the root but for those that are never part of a pool."""
        walk = _Walk(self)
        names = sorted(walk.files(self.root, "", ()))
        return Listing(tuple(names), dict(walk.left_out), tuple(sorted(walk.unnamed)))

    def open(self, name: str) -> IO[bytes]:
        """One file, seekable."""
        try:
            clean, _ = self._find(name)
            return (self.root / clean).open("rb")
        except (Unusable, OSError) as error:
            detail = error.detail if isinstance(error, Unusable) else f"{name}: {error.strerror}"
            raise SourceError(
                "a file of the pool cannot be read",
                got=detail,
                next_step="check that it is a regular file and that it may be read",
            ) from error

    def read_text(self, name: str) -> bytes:
        """A caption or metadata file."""
        clean, size = self._find(name)
        check_size(size, name)
        try:
            return (self.root / clean).read_bytes()
        except OSError as error:
            raise_away(error, self.root)
            raise Unusable("bad_metadata", f"{name}: {error.strerror}") from error

    def locate(self, name: str) -> Locator:
        """The image file ``name``, relative to the root."""
        clean, size = self._find(name)
        return Locator("range", clean, 0, size)

    def name_of(self, image: Locator) -> str:
        """Its path."""
        return image.path

    def identity(self, name: str) -> list[Any]:
        """The size in bytes."""
        return [self._find(name)[1]]

    def may_follow(self, path: Path) -> bool:
        """Whether ``path``, once its links are followed, lies where the pool may be read."""
        if self.follow and not self.link_roots:
            return True
        return require_within(path, (self.root, *(self.link_roots if self.follow else ()))) is None

    def _find(self, name: str) -> tuple[str, int]:
        clean = safe_relative(name)
        path = self.root / clean
        folder = posixpath.dirname(clean)
        try:
            status = path.lstat()
        except (OSError, ValueError) as error:
            raise_away(error, self.root)
            raise ImageError("missing_image", f"{name}: {_reason(error)}") from error
        if folder not in self._inside or stat.S_ISLNK(status.st_mode):
            if not self.may_follow(path):
                raise ImageError(
                    "missing_image", f"{name} is a link that leads out of the pool's folder"
                )
            self._inside[folder] = None
        if stat.S_ISREG(status.st_mode):
            return clean, status.st_size
        return clean, regular_size(path)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class _Walk:
    """One walk over a folder; counts what it leaves out."""

    def __init__(self, files: FolderFiles) -> None:
        self._files = files
        self._met: Counter[tuple[int, int]] = Counter()
        self.left_out: Counter[str] = Counter()
        self.unnamed: list[str] = []

    def files(self, folder: Path, base: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
        """The files of ``folder``, whose name relative to the root is ``base`` (ending in /)."""
        try:
            entries = {entry.name: entry for entry in os.scandir(folder)}
            status = folder.stat()
        except OSError as error:
            self.left_out[f"folder that cannot be read ({error.strerror})"] += 1
            return
        place = status.st_dev, status.st_ino
        self._met[place] += 1
        if place in above or self._met[place] > _MAX_MEETINGS:
            self.left_out["link to a folder that is part of the pool already"] += 1
            return
        if len(above) > _MAX_DEPTH:
            self.left_out[f"folder more than {_MAX_DEPTH} below the pool's"] += 1
            return
        folders = {name for name, entry in entries.items() if _is_folder(entry)}
        own = _own_names(folder, entries, folders, root=not base)
        for name in sorted(entries.keys() - own):
            entry = entries[name]
            if name.startswith(".") or name in LEFTOVERS:
                continue
            if printable(name) != name:
                self._unnamed(base + printable(name))
            elif name not in folders:
                if self._is_read(entry):
                    yield base + name
            elif not entry.is_symlink() or self._files.may_follow(folder / name):
                yield from self.files(folder / name, f"{base}{name}/", (*above, place))
            else:
                self.left_out["linked folder that is not followed"] += 1

    def _is_read(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry is a file, or is to be a skip: an image or text that is none."""
        if _suffix(entry.name) in _SAMPLE_SUFFIXES:
            return True
        if not _is_regular(entry):
            self.left_out["link to nothing" if entry.is_symlink() else "special file"] += 1
        elif entry.is_symlink() and not self._files.may_follow(Path(entry.path)):
            self.left_out["linked file that is not followed"] += 1
        else:
            return True
        return False

    def _unnamed(self, shown: str) -> None:
        if _suffix(shown) in IMAGE_SUFFIXES:
            self.unnamed.append(shown)
        self.left_out["name that is not UTF-8"] += 1


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _own_names(
    folder: Path, names: Collection[str], folders: Collection[str], *, root: bool
) -> set[str]:
    """The files and folders of ``folder`` that Mimicscope has written.

    A folder of runs other than the pool's own root is left out whole.
    """
    exports = {name.removesuffix(MANIFEST) for name in names if name.endswith(MANIFEST)}
    own = {name for name in names if name.removesuffix(MANIFEST) in exports}
    if _FEATURES in folders and any(map(is_run, _folders(folder / _FEATURES))):
        own |= set(_OWN_NAMES).intersection(names) if root else set(names)
    return own | {name for name in folders if is_run(folder / name)}


def _folders(path: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(path) if _is_folder(entry)]
    except OSError:
        return []


def is_run(folder: Path) -> bool:
    """Whether a folder is a run or a feature set of Mimicscope, be it an unfinished one."""
    for name in RECORDS:
        record = folder / name
        try:
            if record.is_file():
                with record.open("rb") as file:
                    return b'"schema_version"' in file.read(4096)
        except OSError:
            return False
    index = folder / "index"
    return folder.parent.name == _FEATURES and any(index.glob("*.skipped.parquet"))
