"""How long the app takes to answer, in a real browser, whatever the size of the run.

    python bench/explore.py [--rows 1000000] [--rounds 10] [--json FILE]

Writes a run of that many rows (three epochs, captions, map, embeddings, 20,000 images that the rows
share) to a temporary folder, starts the app on it and opens it in Chromium. Every action is done
``--rounds`` times. Printed are the median and the 95th percentile of the time from the event until
the server has answered and all pictures in sight are there, the CPU seconds of the server, and what
came over the wire; then the frames per second while a cutoff is dragged for two seconds, by the
browser's own clock, and the memory of the server with one viewer and for each further one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from repository import ROOT

from mimic_core.runs.run import Run
from tests.browser import traffic
from tests.browser.conftest import BROWSERS, FLAGS
from tests.browser.steps import plot
from tests.fakes import fake_run

IMAGES = 10_000  # in each of the two shards
DRAG_SECONDS = 2.0
VIEWERS = 5
WAIT_MS = 180_000
_TICKS = os.sysconf("SC_CLK_TCK")
Action = Callable[[], object]


class Server:
    """The app on a free port, and what it has used."""

    def __init__(self, runs: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app" / "serve.py")]
        command += [f"--server.port={port}", "--server.headless=true"]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "MIMICSCOPE_RUNS": str(runs)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=5).close()  # noqa: S310
                return
            time.sleep(0.2)
        raise SystemExit("the app did not start")

    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)


class Tab:
    """A tab of the browser, and the bytes that it has been sent."""

    def __init__(self, browser: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1440, "height": 900})
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.context.new_page()
        self.bytes = 0
        traffic.follow(self.page)
        wire = self.context.new_cdp_session(self.page)
        wire.send("Network.enable")
        wire.on("Network.loadingFinished", lambda sent: self._count(sent["encodedDataLength"]))
        wire.on(
            "Network.webSocketFrameReceived",
            lambda sent: self._count(3 * len(sent["response"]["payloadData"]) // 4),  # base64
        )

    def _count(self, size: float) -> None:
        self.bytes += int(size)

    def open(self, url: str) -> None:
        """Open Explore and wait for charts and pictures."""
        self.page.goto(url)
        for name in ("histogram", "map"):
            self.page.wait_for_selector(f".chart.{name}[data-ready]")
        self.settle()

    def settle(self) -> None:
        """Wait for the server's answer and for all pictures in sight."""
        page = self.page
        page.wait_for_timeout(40)  # a chart sends its event with the next frame
        while traffic.traffic(page).unanswered:
            page.wait_for_timeout(5)
        for image in page.locator(".tile img").all()[:24]:
            with contextlib.suppress(Exception):  # gone with the page that it was on
                image.evaluate("image => image.complete || image.decode()", timeout=2000)


def drag(tab: Tab, start: float, end: float, seconds: float = 0.0) -> None:
    """Drag on the histogram between two shares of its width."""
    x, y, width = plot(tab.page)
    tab.page.mouse.move(x + width * start, y)
    tab.page.mouse.down()
    begun = time.perf_counter()
    while (part := (time.perf_counter() - begun) / seconds if seconds else 1.0) < 1:
        tab.page.mouse.move(x + width * (start + part * (end - start)), y)
    tab.page.mouse.move(x + width * end, y)
    tab.page.mouse.up()


def lasso(tab: Tab, share: float) -> None:
    """Draw a triangle on the map."""
    box = tab.page.locator(".chart.map .field").bounding_box()
    corners = [(0.3, 0.3), (0.3 + share, 0.35), (0.4, 0.3 + share), (0.3, 0.3)]
    for number, (x, y) in enumerate(corners):
        tab.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if not number:
            tab.page.mouse.down()
    tab.page.mouse.up()


def frames_per_second(tab: Tab) -> float:
    """Frames that the browser draws while the cutoff is dragged."""
    tab.page.evaluate(
        "() => { const begun = window.begun = performance.now(); window.frames_seen = 0;"
        " const next = () => { if (window.begun !== begun) return;"
        " window.frames_seen++; requestAnimationFrame(next); };"
        " requestAnimationFrame(next); }"
    )
    drag(tab, 0.3, 0.7, DRAG_SECONDS)
    found: float = tab.page.evaluate(
        "() => 1000 * window.frames_seen / (performance.now() - window.begun)"
    )
    tab.settle()
    return found


def choose(tab: Tab, key: str, name: str) -> None:
    """Choose an option of a select box."""
    tab.page.locator(f".st-key-{key} input").click()
    tab.page.get_by_role("option", name=name, exact=True).click()


def go_to(tab: Tab, name: str) -> None:
    """Switch to another page."""
    tab.page.locator('[data-testid="stSidebarNavLink"]', has_text=name).click()
    tab.page.wait_for_selector(f'[data-testid="stSidebarNavLink"][aria-current]:has-text("{name}")')


def actions(tab: Tab) -> Iterator[tuple[str, Action, Action]]:
    """Name, what is timed, and what is done before it without being timed."""
    page = tab.page
    places = iter(0.3 + 0.011 * (i % 37) for i in range(10_000))
    fresh = iter(["loss", "CLIP score", "width", "height", "aesthetic", "caption length"] * 100)
    seen = iter(["loss", "mimic score"] * 1000)

    def nothing() -> None:
        """Nothing to prepare."""

    yield "cutoff", lambda: drag(tab, next(places), 1.02), nothing
    yield "undo", lambda: page.locator(".st-key-undo button").click(), nothing
    yield "column_new", lambda: choose(tab, "column", next(fresh)), nothing
    yield "column_seen", lambda: choose(tab, "column", next(seen)), nothing
    yield "recolour_new", lambda: choose(tab, "colour", next(fresh)), nothing
    yield "recolour_seen", lambda: choose(tab, "colour", next(seen)), nothing
    shares = iter(0.1 + 0.01 * (i % 30) for i in range(10_000))
    yield "lasso", lambda: lasso(tab, next(shares)), nothing
    pages = iter(["2", "3"] * 5000)
    turner = page.locator('[class*="st-key-gallery_page"]')

    def turn() -> None:
        turner.get_by_text(next(pages), exact=True).first.click()

    yield "gallery_page", turn, nothing
    dialog = page.locator('[data-testid="stDialog"]')

    def closed() -> None:
        if dialog.count():
            page.keyboard.press("Escape")
            dialog.wait_for(state="detached")

    def opened() -> None:
        page.locator(".tile").first.click()
        dialog.locator(".picture").wait_for()

    yield "open_sample", opened, closed
    yield "next_sample", lambda: page.keyboard.press("ArrowRight"), nothing

    def to_explore() -> None:
        closed()
        go_to(tab, "Explore")

    yield "to_filters", lambda: go_to(tab, "Filters"), to_explore
    yield "to_dynamics", lambda: go_to(tab, "Dynamics"), lambda: go_to(tab, "Explore")
    yield "to_explore", lambda: go_to(tab, "Explore"), lambda: go_to(tab, "Filters")


def timed(tab: Tab, server: Server, action: Action) -> dict[str, float]:
    """One action: seconds until all of it is there, CPU seconds of the server, bytes."""
    size, cpu, start = tab.bytes, server.cpu(), time.perf_counter()
    action()
    tab.settle()
    seconds = time.perf_counter() - start
    tab.page.wait_for_timeout(300)  # what is still on its way counts as work, not as waiting
    return {"seconds": seconds, "cpu": server.cpu() - cpu, "bytes": tab.bytes - size}


def summary(found: list[dict[str, float]]) -> dict[str, float]:
    """Medians, and the 95th percentile of the times."""
    times = sorted(one["seconds"] for one in found)
    return {
        "median_ms": 1000 * statistics.median(times),
        "p95_ms": 1000 * times[min(len(times) - 1, round(0.95 * (len(times) - 1)))],
        "server_cpu_s": statistics.median(one["cpu"] for one in found),
        "bytes": statistics.median(one["bytes"] for one in found),
    }


def exports(tab: Tab, server: Server) -> Iterator[tuple[str, dict[str, float]]]:
    """What is kept at the end as a download."""

    def save() -> None:
        with tab.page.expect_download(timeout=WAIT_MS) as waiting:
            tab.page.locator(".st-key-download_data button").first.click()
        Path(waiting.value.path()).unlink()

    go_to(tab, "Export")
    for name, words in (("parquet", "Parquet table"), ("csv", "CSV table")):
        tab.settle()
        choose(tab, "export_format", words)
        tab.settle()
        yield f"export_{name}", summary([timed(tab, server, save)])


def measure(runs: Path, run: Run, rounds: int) -> dict[str, Any]:
    """All figures of one run."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)))
    found: dict[str, Any] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        server = Server(runs)
        url = f"{server.url}/?run={run.id}"
        try:
            tab = Tab(browser)
            found["open_cold"] = summary([timed(tab, server, lambda: tab.open(url))])
            warm = Tab(browser)
            opened = [timed(warm, server, lambda: warm.open(url)) for _ in range(min(3, rounds))]
            found["open_warm"] = summary(opened)
            warm.context.close()
            drag_fps = statistics.median(frames_per_second(tab) for _ in range(3))
            for name, action, before in actions(tab):
                got = []
                for _ in range(rounds):
                    before()
                    tab.settle()
                    got.append(timed(tab, server, action))
                found[name] = summary(got)
                print(f"{name} is done", file=sys.stderr, flush=True)
            memory = server.memory()
            others = [Tab(browser) for _ in range(VIEWERS)]
            for other in others:
                other.open(url)
            each = (server.memory() - memory) / VIEWERS
            found |= dict(exports(tab, server))
        finally:
            server.stop()
            browser.close()
    return {"drag_fps": drag_fps, "memory_mb": memory, "viewer_mb": each, "actions": found}


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = fake_run(Path(folder), n=options.rows, images=IMAGES)
        found = {"rows": options.rows, **measure(Path(folder), run, options.rounds)}
    load = os.getloadavg()[0]
    print(f"{options.rows:,} rows, {options.rounds} rounds, load {load:.1f}")
    print(f"{'action':<14} {'median':>8} {'95 %':>8} {'CPU s':>7} {'kB':>8}")
    for name, one in found["actions"].items():
        print(
            f"{name:<14} {one['median_ms']:6.0f} ms {one['p95_ms']:5.0f} ms "
            f"{one['server_cpu_s']:7.2f} {one['bytes'] / 1000:8.0f}"
        )
    print(
        f"drag {found['drag_fps']:.0f} frames per second, {found['memory_mb']:.0f} MB, "
        f"{found['viewer_mb']:.0f} MB for each further viewer"
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
