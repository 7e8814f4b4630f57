"""Dragging over the heat map, opening a trajectory and handing the rows on, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from tests.browser import steps
from tests.browser.conftest import N
from tests.fakes import SCRIPT_CAPTION, fake_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run(root: Path) -> Run:
    return fake_run(root, n=N, epochs=4)


@pytest.fixture
def url(run: Run, address: str) -> str:
    return f"{address}/dynamics?run={run.id}"


def open_dynamics(page: Any, url: str) -> None:
    page.goto(url)
    page.wait_for_selector(".st-key-dyn_heat .nsewdrag")
    page.locator(
        ".st-key-dyn_trajectory .js-plotly-plot, .st-key-dyn_trajectory svg"
    ).first.wait_for()
    steps.settle(page)


def drag_rows(page: Any, start: float, end: float) -> None:
    """Drag over the heat map between two shares of its height."""
    box = page.locator(".st-key-dyn_heat .nsewdrag").first.bounding_box()
    x = box["x"] + box["width"] * 0.3
    page.mouse.move(x, box["y"] + box["height"] * start)
    page.mouse.down()
    page.mouse.move(x + 30, box["y"] + box["height"] * end, steps=8)
    page.mouse.up()
    steps.settle(page, asks=True)


@pytest.mark.slow
def test_dragged_rows_are_looked_at_and_become_the_selection(url: str, page: Any, run: Run) -> None:
    open_dynamics(page, url)
    assert steps.kept(page) == (N, N)
    drag_rows(page, 0.25, 0.5)
    first, last = (int(steps.field(page, key)) for key in ("dyn_from", "dyn_to"))
    assert first == pytest.approx(N / 4, abs=4)
    assert last == pytest.approx(N / 2, abs=4)
    ranked = run_table(run).sort("mimic_score", "uid")
    shown = [tile.get_attribute("data-uid") for tile in page.locator(".tile").all()]
    assert shown == ranked["uid"][first - 1 : last].to_list()[:20]
    count = last - first + 1
    assert page.get_by_text(f"of {count} samples: ranks {first}–{last} of {N}").is_visible()

    page.locator(f'.tile[data-uid="{shown[3]}"]').click()
    steps.settle(page)
    panel = page.locator(".st-key-panel_sample")
    panel.get_by_text(shown[3]).wait_for()
    panel.get_by_text(ranked["caption"][first + 2]).wait_for()
    assert panel.get_by_text(f"4 of {count} in the gallery").is_visible()
    picture = panel.locator(".picture")
    page.wait_for_function("image => image.naturalWidth > 0", arg=picture.element_handle())
    page.keyboard.press("ArrowRight")
    panel.get_by_text(shown[4]).wait_for()

    page.locator(".st-key-dyn_keep button").first.click()
    steps.settle(page)
    assert steps.kept(page) == (count, N)
    page.locator('[data-testid="stSidebarNavLink"]', has_text="Explore").click()
    steps.charts(page)
    assert steps.kept(page) == (count, N)
    page.reload()
    steps.charts(page)
    assert steps.kept(page) == (count, N)  # the rows are in the address


def test_zooming_in_redraws_the_picture_and_a_finer_drag_follows(url: str, page: Any) -> None:
    open_dynamics(page, url)
    picture = ".st-key-dyn_heat image"
    whole = page.locator(picture).first.get_attribute("href")
    drag_rows(page, 0.25, 0.5)
    page.locator(".st-key-dyn_zoom_in button").first.click()
    page.wait_for_function(
        "([path, old]) => document.querySelector(path)?.getAttribute('href') !== old",
        arg=[picture, whole],
    )
    steps.settle(page)
    first, last = (int(steps.field(page, key)) for key in ("dyn_from", "dyn_to"))
    drag_rows(page, 0.4, 0.6)
    finer = [int(steps.field(page, key)) for key in ("dyn_from", "dyn_to")]
    assert finer[0] == pytest.approx(first + 0.4 * (last - first), abs=3)
    assert finer[1] == pytest.approx(first + 0.6 * (last - first), abs=3)
    page.locator(".st-key-dyn_zoom_out button").first.click()
    steps.settle(page)
    assert steps.kept(page) == (N, N)


def test_a_click_on_a_bar_shows_its_samples(url: str, page: Any) -> None:
    open_dynamics(page, url)
    box = page.locator(".st-key-dyn_flips .nsewdrag").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 3 / 8, box["y"] + box["height"] * 0.3)
    steps.settle(page)
    gallery = page.locator(".st-key-dyn_gallery")
    gallery.get_by_text("1 flip", exact=True).wait_for()
    text = page.locator(".st-key-dyn_gallery_bar").inner_text()
    (many,) = re.findall(r"of (\d+) samples, most flips first", text)
    assert 0 < int(many) < N


def test_a_hostile_caption_is_text_in_the_trajectory(url: str, page: Any, run: Run) -> None:
    open_dynamics(page, url)
    table = run_table(run)
    hostile = table["uid"][table["caption"].to_list().index(SCRIPT_CAPTION)]
    search = page.locator(".st-key-dyn_find input")
    search.fill(hostile)
    search.press("Enter")
    page.locator(".st-key-panel_sample").get_by_text(SCRIPT_CAPTION).wait_for()


@pytest.mark.parametrize("width", [420, 1440])
def test_nothing_is_wider_than_the_window(url: str, page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    open_dynamics(page, url)
    wide = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollWidth")
    assert wide <= width


def test_on_a_phone_the_trajectory_stands_above_the_tiles(url: str, page: Any) -> None:
    page.set_viewport_size({"width": 420, "height": 900})
    open_dynamics(page, url)
    trajectory = page.locator(".st-key-panel_sample").bounding_box()
    assert trajectory["y"] < page.locator(".tile").first.bounding_box()["y"]
