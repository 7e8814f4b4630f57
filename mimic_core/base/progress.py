"""How long work tells how far it is, and learns that it should stop.

The workers know only the ``Progress`` protocol; the terminal and the job database implement it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """Receives progress; every method is called from the main thread of the worker."""

    def phase(self, name: str, total: int, *, done: int = 0, unit: str = "samples") -> None:
        """A new phase of ``total`` units begins, ``done`` of them finished by an earlier try."""

    def advance(self, count: int, *, skipped: int = 0) -> None:
        """``count`` more units are finished, ``skipped`` of them without a result."""

    def note(self, text: str) -> None:
        """Something the user should read, such as the chosen preprocessing."""

    def check(self) -> None:
        """Raise ``mimic_core.base.errors.Interrupted`` if the user asked to stop."""


class Silent:
    """A ``Progress`` that says nothing and never stops: the default of the Python API."""

    def phase(self, name: str, total: int, *, done: int = 0, unit: str = "samples") -> None:
        """Say nothing."""

    def advance(self, count: int, *, skipped: int = 0) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def check(self) -> None:
        """Never stop."""


class Unheard(Silent):
    """Says nothing, but stops when ``other`` does: for processes that work beside the first."""

    def __init__(self, other: Progress) -> None:
        self._other = other

    def check(self) -> None:
        """Stop if the other stops."""
        self._other.check()


@dataclass(slots=True)
class Meter:
    """Progress of one phase. Times are seconds of one clock, the caller's.

    ``done`` counts what an earlier try has finished too; ``earlier`` of them cost no time now and
    so do not count in the rate.
    """

    name: str
    total: int
    unit: str
    started: float
    earlier: int = 0
    done: int = 0
    skipped: int = 0

    def advance(self, count: int, skipped: int = 0) -> None:
        """``count`` more units are finished, ``skipped`` of them without a result."""
        self.done += count
        self.skipped += skipped

    def rate(self, now: float) -> float | None:
        """Units per second since the phase began; None before the first one."""
        elapsed = now - self.started
        finished = self.done - self.earlier
        return finished / elapsed if finished > 0 and elapsed > 0 else None

    def remaining(self, now: float) -> float | None:
        """Seconds until the phase ends at the present rate; None while there is none."""
        rate = self.rate(now)
        return max(self.total - self.done, 0) / rate if rate else None


def begin(name: str, total: int, unit: str, *, done: int, now: float) -> Meter:
    """A phase of ``total`` units that begins at ``now`` with ``done`` of them finished before."""
    return Meter(name=name, total=total, unit=unit, started=now, earlier=done, done=done)


def duration(seconds: float | None) -> str:
    """``seconds`` in words short enough for a status line; a dash for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
