"""What a command says on the terminal: progress, notes and a summary, all on standard error.

Standard output carries results only, so that a script can read them.
"""

from __future__ import annotations

import multiprocessing.resource_tracker
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from mimic_core.base import progress as meter
from mimic_core.base.errors import Interrupted, printable
from mimic_core.base.progress import Meter, Progress, duration

STOPPING = b"\nstopping at the next safe place; press Ctrl-C again to stop at once\n"
PLAIN_SECONDS = 5.0  # between two lines where no bar can be drawn


class StopFlag:
    """Whether the user asked to stop."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask to stop."""
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()


@contextmanager
def stop_on_signals(*, kill: Callable[[int], None] = os._exit) -> Iterator[StopFlag]:
    """Turn the first SIGINT or SIGTERM into a flag; a second SIGINT ends the process at once.

    SIGINT is blocked in this thread and awaited in another. Blocked signals stay blocked in child
    processes, so a Ctrl-C that the terminal sends to all of them does not make every image reader
    print a traceback, even while it is still importing. Threads that a library has started before
    may receive it too: hence a handler as well. Call this from the main thread.
    """
    # Starting it later would unblock SIGINT here: it does so after launching its process.
    multiprocessing.resource_tracker.ensure_running()
    flag = StopFlag()
    closing = threading.Event()

    def ask(*_: object) -> None:
        if flag:
            kill(128 + signal.SIGINT)
        flag.set()
        os.write(2, STOPPING)  # a print could be inside another print that the signal interrupts

    def watch() -> None:
        while signal.sigwait({signal.SIGINT}) and not closing.is_set():
            ask()

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    interrupt = signal.signal(signal.SIGINT, ask)
    terminate = signal.signal(signal.SIGTERM, lambda *_: flag.set())
    watcher = threading.Thread(target=watch, name="stop-on-signals", daemon=True)
    watcher.start()
    try:
        yield flag
    finally:
        closing.set()
        signal.pthread_kill(watcher.ident or 0, signal.SIGINT)  # wakes it, so that it ends
        watcher.join()
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class TerminalProgress(Progress, Protocol):
    """A ``Progress`` to be used in a ``with`` statement, which leaves the terminal tidy."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@contextmanager
def watched() -> Iterator[TerminalProgress]:
    """Progress on the terminal; a signal stops the work at the next place where it can go on."""
    with stop_on_signals() as stop:
        try:
            with terminal_progress(stop) as progress:
                yield progress
        except RuntimeError as error:
            if stop:  # the signal has reached the image readers first, which is no defect
                raise Interrupted("an image reader was stopped") from error
            raise


def terminal_progress(stop: StopFlag, console: Console | None = None) -> TerminalProgress:
    """Bars on a terminal, plain lines everywhere else. ``console`` defaults to standard error."""
    console = console or Console(stderr=True)
    return BarProgress(stop, console) if console.is_terminal else PlainProgress(stop, console)


class PlainProgress:
    """One line per phase, one every few seconds, one at the end of a phase: for log files."""

    def __init__(
        self, stop: StopFlag, console: Console, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stop = stop
        self._console = console
        self._clock = clock
        self._meter: Meter | None = None
        self._next_line = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_phase()

    def phase(self, name: str, total: int, *, done: int = 0, unit: str = "samples") -> None:
        """Say what begins, and what an earlier try has left to do."""
        self._close_phase()
        self._meter = meter.begin(name, total, unit, done=done, now=self._clock())
        self._next_line = self._clock() + PLAIN_SECONDS
        earlier = f", {done:,} already done" if done else ""
        self._say(f"{name}: {total:,} {unit}{earlier}")

    def advance(self, count: int, *, skipped: int = 0) -> None:
        """Count, and say so from time to time."""
        if self._meter is None:
            return
        self._meter.advance(count, skipped)
        if self._clock() >= self._next_line:
            self._next_line = self._clock() + PLAIN_SECONDS
            self._say(f"{self._meter.name}: {status_line(self._meter, self._clock())}")

    def note(self, text: str) -> None:
        """Print ``text`` on a line of its own."""
        self._say(f"note: {text}")

    def check(self) -> None:
        """Raise ``Interrupted`` once a signal asked to stop."""
        raise_if_stopped(self._stop)

    def _close_phase(self) -> None:
        if self._meter is not None:
            self._say(f"{self._meter.name}: {status_line(self._meter, self._clock())}")
            self._meter = None

    def _say(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


class BarProgress:
    """A bar per phase that is redrawn in place; notes scroll by above it."""

    def __init__(
        self, stop: StopFlag, console: Console, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stop = stop
        self._clock = clock
        self._meter: Meter | None = None
        self._task: TaskID | None = None
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", style="dim", markup=False),
            console=console,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def phase(self, name: str, total: int, *, done: int = 0, unit: str = "samples") -> None:
        """Begin another bar; the one before stays where it is."""
        self._meter = meter.begin(name, total, unit, done=done, now=self._clock())
        self._task = self._bars.add_task(name, total=total, completed=done, status=unit)

    def advance(self, count: int, *, skipped: int = 0) -> None:
        """Lengthen the bar."""
        if self._meter is None or self._task is None:
            return
        self._meter.advance(count, skipped)
        self._bars.update(
            self._task, completed=self._meter.done, status=_figures(self._meter, self._clock())
        )

    def note(self, text: str) -> None:
        """Print ``text`` above the bars."""
        self._bars.console.print(f"note: {printable(text)}", markup=False, highlight=False)

    def check(self) -> None:
        """Raise ``Interrupted`` once a signal asked to stop."""
        raise_if_stopped(self._stop)


def raise_if_stopped(stop: StopFlag) -> None:
    """Raise ``Interrupted`` if ``stop`` is set."""
    if stop:
        raise Interrupted("stopped by a signal")


def status_line(phase: Meter, now: float) -> str:
    """How far ``phase`` is at ``now``, in one line."""
    return f"{phase.done:,}/{phase.total:,} {_figures(phase, now)}"


def _figures(phase: Meter, now: float) -> str:
    rate = phase.rate(now)
    parts = [phase.unit]
    if rate is not None:
        parts.append(f"{rate:,.1f}/s")
    if phase.done < phase.total:
        parts.append(f"{duration(phase.remaining(now))} left")
    if phase.skipped:
        parts.append(f"{phase.skipped:,} skipped")
    return ", ".join(parts)
