"""How long work tells how far it is, and learns that it should stop.

The workers know only the ``Progress`` protocol; the terminal and the job database implement it.
"""

from __future__ import annotations

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
