"""One driver for one run: a second one is told who is at work, and since when.

The lock is a file ``.locks/<run id>.json`` of the runs root. On one machine the system keeps it and
drops it with the process that held it, however that ended. Machines that share a disk may not see
each other's locks, so the file also names its host, and its holder touches it from time to time:
one that has not been touched for ``STALE_SECONDS`` is nobody's. Ages are taken from the disk's own
clock, so that a machine whose clock jumps, or is wrong, neither steals nor keeps a lock.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mimic_core.base.errors import RunError

FOLDER = ".locks"
BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0


@contextmanager
def only_driver(runs_root: Path, run_id: str) -> Iterator[None]:
    """Hold the lock of a run inside.

    Raises:
        RunError: Another process holds it; names the process.
    """
    path = runs_root / FOLDER / f"{run_id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, run_id)
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(path, ended), name="run-lock", daemon=True)
    try:
        said = {"pid": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(said).encode(), 0)
        beats.start()
        yield
    finally:
        ended.set()
        path.unlink(missing_ok=True)  # while it is held, so that it is nobody else's
        os.close(descriptor)
        with suppress(OSError):  # others may have locks there
            path.parent.rmdir()


def _acquire(path: Path, run_id: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not _lock(descriptor) or _held_elsewhere(path, descriptor):
                raise _taken(descriptor, run_id)
            if os.fstat(descriptor).st_ino == _inode(path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has removed it just now: there may be another


def _lock(descriptor: int) -> bool:
    """Whether the system gives the lock to this process."""
    try:
        import fcntl
    except ImportError:  # Windows: the touched file alone tells
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _held_elsewhere(path: Path, descriptor: int) -> bool:
    """Whether a process of another machine has touched the file lately."""
    said = _said(descriptor)
    if not said or said.get("host") == socket.gethostname():
        return False
    with tempfile.NamedTemporaryFile(dir=path.parent) as fresh:
        age = os.fstat(fresh.fileno()).st_mtime - os.fstat(descriptor).st_mtime
    return age < STALE_SECONDS


def _said(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _taken(descriptor: int, run_id: str) -> RunError:
    said = _said(descriptor)
    return RunError(
        "another process is working on this run",
        got=f"{run_id}: process {said.get('pid', 'unknown')} on {said.get('host', 'this machine')}",
        next_step="wait for its end, or stop it, and run the same command again: it goes on from "
        "what is finished",
    )


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with suppress(OSError):  # a disk that is away for a moment is no reason to stop
            os.utime(path)
