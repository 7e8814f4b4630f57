"""How far a phase is, how fast it goes and how long it will still take.

Both the terminal and the job database show these figures, so they are reckoned in one place.
"""

from __future__ import annotations

from dataclasses import dataclass


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
