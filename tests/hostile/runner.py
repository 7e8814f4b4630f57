"""What every hostile case is held to: it ends, within bounds, with words, and writes nowhere else.

A case is one call of the command line, or of a function, on something that was made to break it.
``Hostile.command`` runs it in this process, because starting one costs a second, under

- a limit on private memory of ``MEMORY`` above what is held (``RLIMIT_DATA``: what is mapped and
  shared, as torch's libraries are, does not count), so that a bomb is a ``MemoryError`` here,
- an alarm after ``SECONDS``, which ends Python code; C code that holds it up ends the whole test
  process after twice that time, with the place on standard error,
- an audit of all files that Python opens for writing, renames or makes.

``Hostile.apart`` does the same in a process of its own that can be killed: for what holds C code up
or must not be trusted to end.
"""

from __future__ import annotations

import faulthandler
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mimic_core.__main__ import main
from mimic_core.base.errors import MimicError
from mimic_core.jobs.processes import environment

SECONDS = 60
MEMORY = 2 << 30  # bytes
TRACES = ("Traceback (most recent call last)", "panicked at", "Segmentation fault", "core dumped")
# Where libraries keep compiled code and locks, whoever imports them first.
_CACHES = re.compile(r"__pycache__|\.pyc|^/dev/|^/proc/|numba|matplotlib|fontconfig|torchinductor")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MADE = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """How a case ended: exit code, what it printed, how long it took, and what it wrote where."""

    code: int
    out: str
    err: str
    seconds: float
    written: tuple[Path, ...] = ()

    @property
    def said(self) -> str:
        return self.out + self.err


@dataclass
class _Audit:
    """Files that Python writes while ``watching``; a hook once added stays for the process."""

    watching: bool = False
    written: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path, mode, flags = arguments
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & _WRITING:
                self.written.append(os.fsdecode(path))
        elif event in ("os.remove", "os.rmdir") and arguments[1] >= 0:
            return  # below a folder that is open already, whose own removal is heard
        elif event in _MADE:
            places = arguments[:2] if event in ("os.rename", "os.link") else arguments[:1]
            self.written += [os.fsdecode(place) for place in places if not isinstance(place, int)]


_AUDIT = _Audit()
sys.addaudithook(_AUDIT)


class TooSlow(BaseException):
    """The alarm of a case; no ``except Exception`` may swallow it."""


@contextmanager
def bounded(*, seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Run the body under a time and a memory limit."""
    status = Path("/proc/self/status").read_text()
    held = int(re.search(r"VmData:\s+(\d+) kB", status)[1]) << 10  # type: ignore[index]
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)

    def ring(*_: object) -> None:
        raise TooSlow(f"it has not ended after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_DATA, (held + memory, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        signal.signal(signal.SIGALRM, before)


class Hostile:
    """Runs hostile cases; ``tests/hostile/conftest.py`` gives one to a test as ``hostile``.

    Args:
        root: The test's own folder. Commands run with it as working directory.
        read: What was printed since it was asked last, as standard output and error.
    """

    def __init__(self, root: Path, read: Callable[[], tuple[str, str]]) -> None:
        self.root = root
        self._read = read
        self.out = root / "out"
        """The one folder that a case may write to, unless it is told otherwise."""

    def command(self, *arguments: str | Path, writes: Path | None = None) -> Outcome:
        """Run a command line in this process.

        Args:
            writes: The only file or folder that it may write to; ``self.out`` by default.
        """
        self._read()
        start = time.monotonic()
        with self._watched() as written, bounded():
            code = main([os.fspath(one) for one in arguments])
        seconds = time.monotonic() - start
        outcome = Outcome(code, *self._read(), seconds, tuple(written))
        self._hold(outcome, writes or self.out)
        return outcome

    def refused(
        self, *arguments: str | Path, says: str = "", writes: Path | None = None
    ) -> Outcome:
        """``command``, which must end with exit code 1, an error and a next step."""
        outcome = self.command(*arguments, writes=writes)
        assert outcome.code == 1, outcome.said
        assert "error: " in outcome.err or "Error" in outcome.err, outcome.said
        assert "next step: " in outcome.err or "Usage: " in outcome.err, outcome.said
        assert says.lower() in outcome.err.lower(), outcome.err
        return outcome

    def survived(
        self, *arguments: str | Path, says: str = "", writes: Path | None = None
    ) -> Outcome:
        """``command``, which must end well."""
        outcome = self.command(*arguments, writes=writes)
        assert outcome.code == 0, outcome.said
        assert says.lower() in outcome.said.lower(), outcome.said
        return outcome

    def call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """A function's own result, or its ``MimicError``, under the same bounds."""
        with self._watched() as written, bounded():
            found = function(*arguments, **named)
        self._hold_writes(tuple(written), self.out)
        return found

    def error(
        self, function: Callable[..., Any], *arguments: Any, says: str = "", **named: Any
    ) -> MimicError:
        """The ``MimicError`` that a function must end with, under the same bounds."""
        with pytest.raises(MimicError) as caught:
            self.call(function, *arguments, **named)
        assert says.lower() in str(caught.value).lower(), str(caught.value)
        assert caught.value.next_step
        return caught.value

    def apart(
        self,
        *arguments: str | Path,
        seconds: float = SECONDS,
        memory: int = MEMORY,
        extra: dict[str, str] | None = None,
    ) -> Outcome:
        """Run a command line in a process of its own, killed when it is out of bounds."""
        command = [sys.executable, "-m", "mimic_core", *map(os.fspath, arguments)]
        start = time.monotonic()
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(
                command, cwd=self.root, env=environment(**(extra or {})), stdout=out, stderr=err
            )
            used = _waited(process, seconds)
            out.seek(0)
            err.seek(0)
            outcome = Outcome(process.returncode, out.read(), err.read(), time.monotonic() - start)
        assert used <= memory, f"it has held {used >> 20} MiB"
        self._hold(outcome, self.out)
        return outcome

    @contextmanager
    def _watched(self) -> Iterator[list[str]]:
        """What Python writes in the body; a panic of a library is a failure like any other."""
        before = Path.cwd()
        os.chdir(self.root)
        _AUDIT.written = written = []
        _AUDIT.watching = True
        try:
            yield written
        except (Exception, KeyboardInterrupt, SystemExit, pytest.fail.Exception):
            raise
        except BaseException as error:  # noqa: BLE001 - TooSlow, and pyo3's PanicException
            pytest.fail(f"it ended with {type(error).__name__}: {error}")
        finally:
            _AUDIT.watching = False
            os.chdir(before)

    def _hold(self, outcome: Outcome, writes: Path) -> None:
        for trace in TRACES:
            assert trace not in outcome.said, outcome.said[-5000:]
        assert outcome.seconds <= SECONDS
        self._hold_writes(outcome.written, writes)

    def _hold_writes(self, written: tuple[Any, ...], writes: Path) -> None:
        allowed = writes.resolve() if writes.is_absolute() else (self.root / writes).resolve()
        for name in written:
            path = (self.root / name).parent.resolve() / Path(name).name
            inside = path == allowed or allowed in path.parents or path in allowed.parents
            if inside or _CACHES.search(str(path)):
                continue
            beside = path.parent == allowed.parent and allowed.name in path.name
            assert beside, f"it has written to {path}, outside of {allowed}"


def _waited(process: subprocess.Popen[Any], seconds: float) -> int:
    """Wait for the end of a process, or end it; the most memory that it has held, in bytes.

    ``ru_maxrss`` would also count this process, as it was when it made a copy of itself to start.
    """
    end, most = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        if process.poll() is not None:
            return most
        with suppress(OSError):
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            most = max(most, int(found[1]) << 10 if found else 0)
        time.sleep(0.02)
    process.kill()
    process.wait()
    pytest.fail(f"it has not ended after {seconds} s")
