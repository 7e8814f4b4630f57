"""What a person does on the pages, as functions of a playwright page."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Any

from tests.browser.traffic import traffic

Corner = tuple[float, float]
SETTLE_SECONDS = 60
LATE_SECONDS = 0.3  # charts send their events a moment late; much of what is done sends none


def open_explore(page: Any, url: str) -> None:
    """Open the app and wait for both charts."""
    page.goto(url)
    charts(page)


def charts(page: Any, *names: str) -> None:
    """Wait until these charts of Explore are drawn: both, if none is named."""
    for name in names or ("histogram", "map"):
        page.wait_for_selector(f".chart.{name}[data-ready]")
    settle(page)


def settle(page: Any, *, asks: bool = False) -> None:
    """Wait until the server has answered what was done, and the page shows the answer.

    Args:
        asks: Whether what was done must ask the server for something, however late.
    """
    said, begin = traffic(page), time.monotonic()
    end = begin + SETTLE_SECONDS
    patience = end if asks else begin + LATE_SECONDS
    while said.asked < begin - LATE_SECONDS and time.monotonic() < patience:
        page.wait_for_timeout(20)
    assert not asks or said.asked >= begin - LATE_SECONDS, "the server was not asked for anything"
    answered = False
    while not answered:
        while said.unanswered:
            assert time.monotonic() < end, f"no answer from the server within {SETTLE_SECONDS} s"
            page.wait_for_timeout(20)
        page.wait_for_function(
            "() => !document.querySelector('[data-testid=stStatusWidget], [data-stale=true]')"
        )
        page.wait_for_timeout(200)
        answered = not said.unanswered


def kept(page: Any) -> tuple[int, int]:
    """The counts on the screen: kept, total."""
    text = page.locator('[data-testid="stMetricValue"]').first.inner_text()
    numbers = re.findall(r"[\d,]+", text)
    return int(numbers[0].replace(",", "")), int(numbers[1].replace(",", ""))


def field(page: Any, key: str) -> float:
    """The number in an input."""
    return float(page.locator(f".st-key-{key} input").input_value().replace(",", ""))


def drag_cutoff(page: Any, start: float, end: float) -> None:
    """Drag over the histogram between two shares of its width."""
    x, y, width = plot(page)
    page.mouse.move(x + width * start, y)
    page.mouse.down()
    page.mouse.move(x + width * end, y + 20, steps=8)
    page.mouse.up()
    settle(page)


def plot(page: Any) -> tuple[float, float, float]:
    """Left end, middle and width of the histogram between its axes, in pixels of the window."""
    box = page.locator(".chart.histogram .board").bounding_box()
    left, right = 46, 12  # the margins in histogram.js
    return box["x"] + left, box["y"] + box["height"] / 2, box["width"] - left - right


def lasso(page: Any, *, centre: Corner, radius: float) -> None:
    """Draw a circle on the map; ``centre`` and ``radius`` are shares of its height."""
    box = page.locator(".chart.map .field").bounding_box()
    x = box["x"] + box["width"] / 2 + centre[0] * box["height"]
    y = box["y"] + box["height"] / 2 + centre[1] * box["height"]
    reach = radius * box["height"]
    page.mouse.move(x + reach, y)
    page.mouse.down()
    for step in range(1, 25):
        angle = step / 24 * 2 * math.pi
        page.mouse.move(x + reach * math.cos(angle), y + reach * math.sin(angle))
    page.mouse.up()
    settle(page)


def go_to(page: Any, name: str) -> None:
    """Switch to another page by the sidebar."""
    page.locator('[data-testid="stSidebarNavLink"]', has_text=name).click()
    page.wait_for_selector(f'h1:has-text("{name}")')
    settle(page)


def download(page: Any, key: str, folder: Path) -> Path:
    """Click a download button and save what comes."""
    with page.expect_download() as waiting:
        page.locator(f".st-key-{key} button").first.click()
    target = folder / str(waiting.value.suggested_filename)
    waiting.value.save_as(target)
    return target


def inside(point: Corner, corners: list[Corner]) -> bool:
    """Whether a point lies in a polygon, by the winding number: independent of the code tested."""
    turns = 0.0
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        first = math.atan2(y0 - point[1], x0 - point[0])
        second = math.atan2(y1 - point[1], x1 - point[0])
        turns += (second - first + math.pi) % (2 * math.pi) - math.pi
    return abs(turns) > math.pi
