"""The bytes of one image, wherever its locator says that they are."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mimic_core.base.remote import RemotePath
from mimic_core.base.schema import Locator
from mimic_core.sources.archive import read_member
from mimic_core.sources.images import (
    ImageError,
    check_image_size,
    regular_size,
    require_within,
    safe_relative,
)
from mimic_core.sources.packed import read_packed
from mimic_core.sources.path import Presence, away, raise_away, system_error
from mimic_core.sources.tables.arrow import read_cell
from mimic_core.sources.tables.lancefiles import read_lance_cell
from mimic_core.sources.tarmembers import DamageError


def read_image(root: Path, locator: Locator, *, within: Collection[Path] = ()) -> bytes:
    """The bytes of one image.

    Args:
        root: The source's root.
        locator: As it stands in the index, which has refused links that were not to be followed.
        within: Folders that nothing is read outside of, whatever links lead there; none, no limit.

    Raises:
        ImageError: ``missing_image``, ``corrupt_image`` or ``oversized_image``.
        RemoteError: It is in object storage, which does not answer or no longer holds it.
    """
    if locator.kind == "none":
        raise ImageError("missing_image", "the row has no image in this pool")
    if locator.kind == "lance":  # a folder
        return read_lance_cell(_allowed(root, locator, within), locator.member, locator.offset)
    path, size = _file(root, locator, within)
    if locator.kind == "zip":
        return read_member(path, locator.member)
    if locator.kind == "parquet":
        return read_cell(path, locator.member, locator.offset)
    length = locator.length if locator.length >= 0 else size - locator.offset
    check_image_size(length, locator.path)
    if isinstance(path, RemotePath):
        return path.read_range(locator.offset, length)
    try:
        if locator.kind == "packed":
            data = read_packed(path, locator.offset, length)
        else:
            with path.open("rb") as file:
                file.seek(locator.offset)
                data = file.read(length)
    except DamageError as error:
        raise ImageError("corrupt_image", f"{locator.path}: {error}") from error
    except OSError as error:
        raise ImageError("missing_image", f"{locator.path}: {error.strerror}") from error
    return _whole(data, length, locator)


def _allowed(root: Path, locator: Locator, within: Collection[Path]) -> Path:
    """Where a locator leads, unless nothing may be read there."""
    path = root / safe_relative(locator.path)
    if isinstance(path, RemotePath):  # where there are no links
        if locator.kind not in ("range", "parquet"):
            os.fspath(path)  # refuses it: such files are read from this machine's disk alone
        return path
    if within and (why := require_within(path, within)):
        raise ImageError("missing_image", why)
    return path


def _file(root: Path, locator: Locator, within: Collection[Path]) -> tuple[Path, int]:
    """The regular file that a locator names, and its size."""
    path = _allowed(root, locator, within)
    if isinstance(path, RemotePath):
        return path, path.require_there()
    return path, regular_size(path)  # which also keeps open() from waiting for a pipe's other end


def _whole(data: bytes, length: int, locator: Locator) -> bytes:
    if len(data) != length:
        raise ImageError(
            "corrupt_image",
            f"{locator.path}: {len(data)} of {length} bytes at {locator.offset}",
        )
    return data


class ImageReader:
    """Reads many images of one pool; a file that holds several stays open while they follow.

    In the order of the pool, containers are read forwards and opened once.

    Args:
        root: The source's root.
        within: As for ``read_image``.
    """

    def __init__(self, root: Path, *, within: Collection[Path] = ()) -> None:
        self._root = root
        self._within = within
        self._path = ""
        self._file: BinaryIO | None = None

    def read(self, locator: Locator) -> bytes:
        """The bytes of one image. Raises as ``read_image``."""
        # A file that is one image is seldom asked for again, and the others keep their own state.
        if locator.kind != "range" or locator.length < 0 or locator.path != self._path:
            self.close()
            data = read_image(self._root, locator, within=self._within)
            if locator.kind == "range" and locator.offset > 0:
                self._file = (self._root / safe_relative(locator.path)).open("rb", buffering=0)
                self._path = locator.path
            return data
        check_image_size(locator.length, locator.path)
        assert self._file is not None  # kept open with its path
        try:
            self._file.seek(locator.offset)
            data = self._file.read(locator.length)
        except OSError as error:
            raise ImageError("missing_image", f"{locator.path}: {error.strerror}") from error
        return _whole(data, locator.length, locator)

    def find(self, locator: Locator) -> tuple[Path, int]:
        """The file that holds the image, and its size. Raises as ``read_image``."""
        return _file(self._root, locator, self._within)

    def close(self) -> None:
        """Close what is open."""
        if self._file is not None:
            self._file.close()
        self._file, self._path = None, ""


@dataclass
class PoolReader:
    """Reads the images below a folder, and tells an image that is lost from a pool that is away.

    Picklable; each process that reads has its own.
    """

    root: Path
    presences: tuple[Presence, ...]
    """of the pools whose images they are"""
    _witness: Locator | None = field(default=None, init=False)  # what could be read last

    def read(self, locator: Locator) -> bytes:
        """The bytes of one image.

        Raises:
            ImageError: This image cannot be read, and others can.
            SourceError: The pool is away (``mimic_core.sources.path``).
        """
        root = self.root
        try:
            data = read_image(root, locator)
        except ImageError as error:
            said = system_error(error)
            if said is None:
                raise
            raise_away(error, root)
            for presence in self.presences:
                presence.require()
            if said.errno == errno.EIO and not self._reads_others(locator):
                raise away(root, said) from error
            raise
        self._witness = locator
        return data

    def _reads_others(self, lost: Locator) -> bool:
        """Whether what could be read before can be read from the disk again: then the lost one is
        damaged, as by a bad sector, and else the disk is away.
        """
        witness = self._witness
        if witness is None or witness == lost:
            return False
        path = self.root / witness.path
        try:
            with path.open("rb") as file:
                if hasattr(os, "posix_fadvise"):  # not what the system remembers of it
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                file.seek(witness.offset if witness.kind == "range" else 0)
                file.read(1)
        except OSError:
            return False
        with suppress(ImageError):
            return bool(read_image(self.root, witness))
        return False
