"""The runner of hostile cases, and the count of them at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.runner import Hostile

FOLDER = Path(__file__).parent


@pytest.fixture
def hostile(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Hostile:
    """Runs a case in the test's own folder. ``capfd`` hears the panics of libraries too."""
    return Hostile(tmp_path, capfd.readouterr)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cases have been tried."""
    tried = {
        name: [
            report
            for report in terminalreporter.stats.get(name, ())
            if report.nodeid.startswith("tests/hostile/")
        ]
        for name in ("passed", "failed", "skipped")
    }
    counts = ", ".join(f"{len(found)} {name}" for name, found in tried.items() if found)
    if counts:
        terminalreporter.write_line(f"hostile cases: {counts}")
