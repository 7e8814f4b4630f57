"""A real browser on a real server. Skipped, with a message, where there is no Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mimic_core.runs.run import Run
from tests.browser import traffic
from tests.fakes import fake_run
from tests.places import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_SECONDS = 90
N = 400  # samples of the run that most tests look at

Serve = Callable[[Path], Any]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser found; looked for {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A tab in which any script error or dialog fails the test."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(60_000)
    tab = context.new_page()
    traffic.follow(tab)
    trouble: list[str] = []
    tab.on("pageerror", lambda error: trouble.append(f"script error: {error}"))
    tab.on("dialog", lambda dialog: _refuse(dialog, trouble))
    yield tab
    context.close()
    assert trouble == []


def _refuse(dialog: Any, trouble: list[str]) -> None:
    trouble.append(f"dialog: {dialog.message}")
    dialog.dismiss()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of all tests that only look at runs: one server, slow to start, shows them."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def run(root: Path) -> Run:
    """A finished probe run of ``N`` samples."""
    return fake_run(root, n=N)


@pytest.fixture(scope="session")
def address(root: Path, browser: Any) -> Iterator[str]:  # no server where there is no browser
    del browser
    with serving(root) as found:
        yield found


@contextmanager
def serving(runs_root: Path) -> Iterator[str]:
    """The app on a free port of the loopback address; stopped at the end, by its own pid."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app" / "serve.py")]
    command += [f"--server.port={port}", "--server.headless=true"]
    environment = {**os.environ, "MIMICSCOPE_RUNS": str(runs_root)}
    log = runs_root / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/_stcore/health", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own loopback address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")
