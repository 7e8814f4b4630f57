"""Where a pool is, and whether it is still there; needs nothing heavy, so that it is said at once.

A file that cannot be read is a skip. A disk or network share that is away is none: its samples
would be lost for good, since a skip is stored as a finding about the pool. So what the system says
about the place, and not about the file, ends the work with a message; the same command goes on
later.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mimic_core.base.config import SourceConfig
from mimic_core.base.errors import SourceError
from mimic_core.base.remote import as_place, is_remote

ACCEPTED = (
    "a folder of .tar shards; a folder of images with a table of captions or labels (.csv, .tsv, "
    ".json, .jsonl, .parquet), with .txt files beside the images, or in class folders; a .zip of "
    "such a folder; .parquet, .arrow or .mds files with embedded images; a .lance table; one such "
    "file; or a pattern of files ({000..099}, *)"
)

MAX_FILES = 1_000_000  # that a pattern may name
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
MARKS = re.compile(r"[*?\[{]")
_AWAY = {
    getattr(errno, name)
    for name in (
        *("ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN"),
        *("ENETUNREACH", "ENETRESET", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EREMOTEIO"),
        *("ENODEV", "ENXIO", "ENOLINK", "ECOMM", "EMFILE", "ENFILE", "ENOMEM"),
    )
    if hasattr(errno, name)  # not every system has them all
}
_SPECIAL = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def require_pools(config: SourceConfig) -> None:
    """Refuse a wrong path, of whichever pool. Raises like ``pool_path``."""
    for one in config.each():
        pool_path(one)


def pool_path(config: SourceConfig) -> Path:
    """The file or folder of one pool, with the home folder filled in.

    Raises:
        SourceError: There is none, or something that could be read without end.
    """
    path = as_place(config.path).expanduser()
    if is_pattern(config.path):
        path = pattern_root(config.path)[0]
    kind = stat.S_IFMT(_mode(path, config.path))
    if kind not in (stat.S_IFDIR, stat.S_IFREG):
        raise SourceError(
            f"the path is no file or folder but {_SPECIAL.get(kind, 'a device')}",
            got=config.path,
            allowed=ACCEPTED,
            next_step="give a file or folder",
        )
    for root in (config.image_root, *config.link_roots):
        if root is not None and not as_place(root).expanduser().is_dir():
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


def is_pattern(path: str) -> bool:
    """Whether a path is a pattern and no file or folder of that very name."""
    if is_remote(path):
        return False
    if MARKS.search(path) is None:
        return False
    return not os.path.exists(Path(path).expanduser())  # noqa: PTH110 - also of impossible names


def pattern_root(path: str) -> tuple[Path, str]:
    """The folder that all files of a pattern lie below, and the pattern relative to it.

    Raises:
        SourceError: A part of it could lead out of that folder.
    """
    parts = Path(path).expanduser().parts
    first = next(place for place, part in enumerate(parts) if MARKS.search(part))
    left = "/".join(parts[first:])
    if "\0" in path:
        raise SourceError(
            "a pattern holds a NUL, which no name does", got=path, next_step="leave it out"
        )
    if any(".." in PurePosixPath(one).parts or one.startswith("/") for one in spelt_out(left)):
        raise SourceError(
            "a pattern leads out of its folder",
            got=path,
            allowed="no .. and no absolute path behind the first of * ? [ {",
            next_step="write the folder in front of the pattern",
        )
    return Path(*parts[:first]), left


def spelt_out(pattern: str) -> Iterator[str]:
    """``pattern`` without braces: once for each of what they hold.

    Raises:
        SourceError: That is more than ``MAX_FILES``.
    """
    _require_few(pattern, math.prod(len(_parts(one)) for one in _BRACES.findall(pattern)))
    waiting, count = [pattern], 0
    while waiting:
        one = waiting.pop()
        found = _BRACES.search(one)
        if found is None:
            count += 1
            yield one
            continue
        inside = [f"{one[: found.start()]}{part}{one[found.end() :]}" for part in _parts(found[1])]
        _require_few(pattern, count + len(waiting) + len(inside))
        waiting += reversed(inside)


def _require_few(pattern: str, count: int) -> None:
    if count > MAX_FILES:
        raise SourceError(
            "a pattern names too many files",
            got=pattern,
            allowed=f"at most {MAX_FILES}",
            next_step="split it",
        )


def _parts(inside: str) -> list[str]:
    """What stands between two braces: a range of numbers, zeros in front kept, or alternatives."""
    found = _RANGE.fullmatch(inside)
    if found is None:
        return inside.split(",")
    first, last = int(found[1]), int(found[2])
    _require_few(f"{{{inside}}}", abs(last - first) + 1)
    step = 1 if last >= first else -1
    width = len(found[1]) if found[1].startswith("0") or len(found[1]) == len(found[2]) else 0
    return [str(number).zfill(width) for number in range(first, last + step, step)]


@dataclass(frozen=True, slots=True)
class Presence:
    """The folder of a pool as it was when the pool was opened: file system and number in it.

    A share that is gone leaves another folder in its place, mostly an empty one.
    """

    root: Path
    place: tuple[int, int]

    @classmethod
    def of(cls, root: Path) -> Presence:
        """The folder as it is now; raises ``SourceError`` where it is not there."""
        try:
            status = root.stat()
        except OSError as error:
            raise away(root, error) from error
        return cls(root, (status.st_dev, status.st_ino))

    def require(self) -> None:
        """Refuse to go on where the folder is not the one it was.

        Raises:
            SourceError: It is gone, or another one is in its place.
        """
        if Presence.of(self.root).place != self.place:
            raise away(self.root, OSError(errno.ENODEV, "another folder is in its place"))


def system_error(error: BaseException | None) -> OSError | None:
    """What the system said, where that is at the bottom of ``error``."""
    while error is not None and not (isinstance(error, OSError) and error.errno is not None):
        error = error.__cause__
    return error


def raise_away(error: BaseException, root: Path) -> None:
    """Refuse to go on where ``error`` speaks of the place of the pool, and not of a file in it.

    Raises:
        SourceError: It does.
    """
    said = system_error(error)
    if said is not None and said.errno in _AWAY:
        raise away(root, said) from error


def away(root: Path, said: OSError) -> SourceError:
    """The refusal of a pool that cannot be read just now."""
    return SourceError(
        f"the pool cannot be read any more: {said.strerror or said}",
        got=str(said.filename or root),
        next_step="see that its disk or network share is there, and run the same command again: "
        "it goes on from what is finished",
    )
