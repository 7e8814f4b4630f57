"""The runner of hostile cases, and the count of them at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from mimic_core.runs.run import Run
from tests.fakes import fake_run
from tests.hostile.runner import Hostile


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of 24 samples without images. Read-only."""
    return fake_run(tmp_path_factory.mktemp("hostile") / "runs", n=24, images=False)


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
