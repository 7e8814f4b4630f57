"""Blocks of files that lie elsewhere, kept on this machine's disk up to a limit.

Any number of processes may share them: a block is written under another name and renamed, and one
that is gone is asked for again. Those that were not used for longest go first.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from mimic_core.base.errors import ConfigError

CACHE_GIB = 20
CACHE_VARIABLE, LIMIT_VARIABLE = "MIMICSCOPE_CACHE", "MIMICSCOPE_CACHE_LIMIT"
_SWEEP_SHARE = 20  # the cache is looked through after each 20th of its limit is written
_AFTER_SWEEP = 0.9
_TOUCH_SECONDS = 60.0


class BlockCache:
    """Blocks of files on disk, at most ``limit`` bytes of them; those used last stay.

    Args:
        root: Its folder, which nothing else may lie in.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._unswept = limit  # so that the first block looks at what others have left
        self._lock = threading.Lock()

    def get(self, key: str, number: int, length: int) -> bytes | None:
        """A block of just that length, if it is there."""
        path = self._path(key, number)
        try:
            data = path.read_bytes()
            if time.time() - path.stat().st_mtime > _TOUCH_SECONDS:
                os.utime(path)
        except OSError:
            return None
        return data if len(data) == length else None

    def has(self, key: str, number: int) -> bool:
        """Whether there is such a block, of whatever length."""
        return self._path(key, number).exists()

    def put(self, key: str, number: int, data: bytes) -> None:
        """Keep a block. A cache that cannot be written keeps none, and all is read as before."""
        path = self._path(key, number)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(data)
            Path(file.name).replace(path)
        with self._lock:
            self._unswept += len(data)
            due = self._unswept * _SWEEP_SHARE > self._limit
            self._unswept = 0 if due else self._unswept
        if due:
            self.sweep()

    def sweep(self) -> None:
        """Remove what was not used for longest, where there is too much."""
        found = sorted(_files(self._root))
        total = sum(size for _, size, _ in found)
        if total <= self._limit:
            return
        for _, size, path in found:
            path.unlink(missing_ok=True)  # another process may have been quicker
            total -= size
            if total <= self._limit * _AFTER_SWEEP:
                return

    def _path(self, key: str, number: int) -> Path:
        return self._root / key[:2] / key / str(number)


def _files(root: Path) -> Iterable[tuple[float, int, Path]]:
    """When each file below was used last, its size, and where it is."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            with suppress(OSError):
                status = path.stat()
                yield status.st_mtime, status.st_size, path


def kept_here() -> BlockCache:
    """The cache of this machine's user, with the limit that is set now."""
    return _opened_cache(str(_root()), _limit_bytes())


def beside_cache(name: str) -> Path:
    """A folder beside the cache, for files on their way to or from object storage."""
    root = _root()
    return root.with_name(f"{root.name}.{name}")


def _root() -> Path:
    root = os.environ.get(CACHE_VARIABLE)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(root) if root else base / "mimicscope" / "remote"


@lru_cache(maxsize=4)
def _opened_cache(root: str, limit: int) -> BlockCache:
    return BlockCache(Path(root), limit)


def _limit_bytes() -> int:
    text = os.environ.get(LIMIT_VARIABLE, str(CACHE_GIB))
    try:
        return max(1, int(float(text) * (1 << 30)))
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            "the limit of the cache is no number",
            got=f"{LIMIT_VARIABLE}={text}",
            allowed=f"GiB, such as {CACHE_GIB}",
            next_step="correct or unset that variable",
        ) from error


def limit_cache(gib: float) -> None:
    """Set the limit of the cache for this process and those that it starts."""
    os.environ[LIMIT_VARIABLE] = str(gib)
