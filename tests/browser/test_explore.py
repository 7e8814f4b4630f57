"""Dragging, lassoing, opening and exporting in a real browser, on a run that no model has seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from tests.browser import steps
from tests.browser.conftest import N
from tests.fakes import SCRIPT_CAPTION

pytestmark = pytest.mark.browser


@pytest.fixture
def url(run: Run, address: str) -> str:
    return f"{address}/?run={run.id}"


def test_dragging_on_the_histogram_sets_the_cutoff(url: str, page: Any, run: Run) -> None:
    steps.open_explore(page, url)
    assert steps.kept(page) == (N, N)
    steps.drag_cutoff(page, 0.5, 1.02)
    scores = run_table(run)["mimic_score"].to_numpy()
    low, high = float(scores.min()), float(scores.max())
    cutoff = steps.field(page, "cut_score")
    assert cutoff == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert steps.field(page, "cut_kept") == steps.kept(page)[0]
    assert steps.kept(page)[0] == pytest.approx((scores >= cutoff).sum(), abs=1)  # 5 digits shown
    steps.drag_cutoff(page, 0.2, 0.6)
    assert page.get_by_text("Kept by the band").is_visible()


def test_selecting_exporting_and_reading_back_gives_the_same_uids(
    url: str, page: Any, run: Run, tmp_path: Path
) -> None:
    steps.open_explore(page, url)
    steps.drag_cutoff(page, 0.35, 1.02)
    steps.lasso(page, centre=(0.0, -0.25), radius=0.22)
    on_screen, total = steps.kept(page)
    assert 0 < on_screen < total == N
    steps.go_to(page, "Export")
    recipe = yaml.safe_load(steps.download(page, "download_recipe", tmp_path).read_text())
    file = steps.download(page, "download_data", tmp_path)
    manifest = json.loads(steps.download(page, "download_manifest", tmp_path).read_text())
    cutoff, region = (named["condition"] for named in recipe["conditions"])
    corners = [tuple(corner) for corner in region["polygon"]]
    expected = {
        row["uid"]
        for row in run_table(run).iter_rows(named=True)
        if np.float32(row["mimic_score"]) >= np.float32(cutoff["min"])
        and steps.inside((row["map_x"], row["map_y"]), corners)
    }
    written = pl.read_parquet(file)
    assert set(written["uid"]) == expected
    assert len(written) == len(expected) == on_screen == manifest["kept"]
    assert (manifest["run_id"], manifest["recipe"]) == (run.id, recipe)


def test_a_sample_opens_and_the_arrow_key_steps_on(url: str, page: Any, run: Run) -> None:
    steps.open_explore(page, url)
    ranked = run_table(run).sort("mimic_score", "uid")
    page.locator(f'.tile[data-uid="{ranked["uid"][0]}"]').click()
    drawer = page.locator('[data-testid="stDialog"]')
    drawer.get_by_text(f"rank 1 of {N}").wait_for()
    drawer.get_by_text(ranked["uid"][0]).first.wait_for()
    picture = drawer.locator(".picture")
    picture.wait_for()
    page.wait_for_function("image => image.naturalWidth > 0", arg=picture.element_handle())
    page.keyboard.press("ArrowRight")
    drawer.get_by_text(f"rank 2 of {N}").wait_for()
    drawer.get_by_text(ranked["uid"][1]).first.wait_for()
    page.keyboard.press("Escape")
    drawer.wait_for(state="detached")
    assert steps.kept(page) == (N, N)


def test_a_hostile_caption_is_shown_as_text(url: str, page: Any, run: Run) -> None:
    steps.open_explore(page, url)
    hostile = run_table(run).filter(pl.col("caption") == SCRIPT_CAPTION)["uid"][0]
    order = run_table(run).sort("mimic_score", "uid")["uid"].to_list()
    rank = page.locator(".st-key-gallery_rank input")
    rank.fill(str(order.index(hostile) + 1))
    rank.press("Enter")
    steps.settle(page)
    tile = page.locator(f'.tile[data-uid="{hostile}"]')
    assert SCRIPT_CAPTION in tile.inner_text()
    assert tile.locator("script").count() == 0
    tile.click()
    page.locator('[data-testid="stDialog"]').get_by_text(SCRIPT_CAPTION).wait_for()


def test_zoom_keeps_the_selection_and_redraws_the_map(url: str, page: Any) -> None:
    steps.open_explore(page, url)
    steps.lasso(page, centre=(0.0, -0.25), radius=0.2)
    before = steps.kept(page)
    whole = page.locator(".chart.map").get_attribute("data-ready")
    page.locator(".st-key-zoom_in button").first.click()
    steps.settle(page)
    page.wait_for_selector(f".chart.map:not([data-ready='{whole}'])")
    assert steps.kept(page) == before
    page.locator(".st-key-zoom_out button").first.click()
    steps.settle(page)
    assert steps.kept(page) == before


def test_everything_follows_the_cutoff_while_it_is_dragged(url: str, page: Any, run: Run) -> None:
    """Counts and map move with the hand, without the server; its exact figures come at the end."""
    steps.open_explore(page, url)
    table = run_table(run)
    scores = table["mimic_score"].to_numpy()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    chart = page.locator(".chart.histogram")
    x, y, width = steps.plot(page)
    whole = pixels(page)
    page.mouse.move(x, y)  # the lower handle stands at the left end
    page.mouse.down()
    seen = []
    for place in (0.3, 0.45, 0.6):
        page.mouse.move(x + place * width, y, steps=4)
        page.evaluate("() => new Promise(requestAnimationFrame)")
        page.evaluate("() => new Promise(requestAnimationFrame)")
        cutoff = scores.min() + place * (scores.max() - scores.min())
        text = chart.locator(".counts").inner_text()
        assert chart.get_attribute("data-exact") == "false"
        assert text.startswith("≈")
        about = int(text.split(" of ")[0].removeprefix("≈").replace(",", ""))
        assert about == pytest.approx((scores >= cutoff).sum(), abs=0.02 * N)
        seen.append(pixels(page))
    assert seen[0] != seen[1] != seen[2] != whole
    assert asked == []
    assert steps.kept(page) == (N, N)  # the server knows of nothing yet
    page.mouse.up()
    steps.settle(page)
    page.wait_for_selector(".chart.histogram[data-exact=true]")
    kept = steps.kept(page)[0]
    assert chart.locator(".counts").inner_text().startswith(f"{kept} of {N}")
    cutoff = steps.field(page, "cut_score")
    assert kept == pytest.approx((scores >= cutoff).sum(), abs=1)
    noisy = table["is_noisy"].to_numpy()
    dropped = scores < cutoff
    precision = (noisy & dropped).sum() / dropped.sum()
    said = chart.locator(".counts").inner_text().split("\n")
    assert float(said[2].split()[0]) == pytest.approx(precision, abs=0.01)


def test_the_gallery_around_the_cutoff_follows_when_the_hand_pauses(
    url: str, page: Any, run: Run
) -> None:
    steps.open_explore(page, url)
    page.locator(".st-key-gallery_mode").get_by_text("Around the cutoff").click()
    steps.settle(page)
    table = run_table(run)
    scores = table["mimic_score"].to_numpy()
    x, y, width = steps.plot(page)
    page.mouse.move(x, y)
    page.mouse.down()
    for place in (0.4, 0.7):
        page.mouse.move(x + place * width, y, steps=4)
        cutoff = scores.min() + place * (scores.max() - scores.min())
        nearest = table["uid"][int(np.abs(scores - cutoff).argmin())]
        page.locator(f'.tile[data-uid="{nearest}"]').wait_for()
    assert steps.kept(page) == (N, N)  # nothing has been decided yet
    page.mouse.up()
    steps.settle(page)
    assert steps.kept(page) < (N, N)


def test_a_click_in_the_legend_keeps_one_category(url: str, page: Any, run: Run) -> None:
    steps.open_explore(page, url)
    page.locator(".st-key-colour input").click()
    page.get_by_role("option", name="topic", exact=True).click()
    steps.settle(page)
    entry = page.locator(".chart.map button.entry").first
    topic = entry.inner_text().split(" (")[0]
    entry.click()
    steps.settle(page)
    topics = run_table(run)["topic"]
    assert steps.kept(page) == ((topics == topic).sum(), N)


def pixels(page: Any) -> str:
    """The map as it is on screen."""
    return str(page.locator(".chart.map canvas").first.evaluate("board => board.toDataURL()"))


def test_the_cutoff_moves_by_arrow_keys_and_a_reload_in_mid_drag_loses_nothing(
    url: str, page: Any
) -> None:
    steps.open_explore(page, url)
    lower = page.get_by_role("slider", name="Lower cutoff")
    lower.focus()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    page.wait_for_selector(".st-key-conditions button:has-text('mimic score')")
    steps.settle(page)
    assert float(lower.get_attribute("aria-valuenow")) == pytest.approx(
        steps.field(page, "cut_score"), rel=1e-3
    )
    before = steps.kept(page)
    assert before < (N, N)
    x, y, width = steps.plot(page)
    page.mouse.move(x + 0.8 * width, y)
    page.mouse.down()
    page.mouse.move(x + 0.9 * width, y, steps=3)
    page.reload()
    steps.charts(page)
    assert steps.kept(page) == before


def test_where_components_fail_plain_charts_take_their_place(url: str, page: Any, run: Run) -> None:
    page.goto(f"{url}&charts=plain")
    page.wait_for_selector(".st-key-map .nsewdrag")
    steps.settle(page)
    box = page.locator(".st-key-histogram .nsewdrag").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 1.02, middle + 20, steps=8)
    page.mouse.up()
    steps.settle(page)
    scores = run_table(run)["mimic_score"].to_numpy()
    kept = steps.kept(page)[0]
    assert kept == pytest.approx((scores >= steps.field(page, "cut_score")).sum(), abs=1)
    assert page.locator(".chart").count() == 0


def test_a_refresh_comes_back_to_the_run(url: str, page: Any, run: Run) -> None:
    steps.open_explore(page, url)
    steps.go_to(page, "Export")
    assert run.id in page.url
    page.reload()
    page.wait_for_selector('h1:has-text("Export")')
    assert run.id in page.url


def test_a_refresh_keeps_the_selection_and_going_back_undoes_it(url: str, page: Any) -> None:
    steps.open_explore(page, url)
    steps.drag_cutoff(page, 0.5, 1.02)
    first = steps.kept(page)
    steps.drag_cutoff(page, 0.7, 1.02)
    second = steps.kept(page)
    assert second < first < (N, N)
    page.reload()
    steps.charts(page)
    assert steps.kept(page) == second
    page.go_back()
    steps.settle(page)
    assert steps.kept(page) == first
    page.go_forward()
    steps.settle(page)
    assert steps.kept(page) == second


@pytest.mark.parametrize("width", [420, 1440])
def test_nothing_is_wider_than_the_window(url: str, page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    steps.open_explore(page, url)
    wide = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollWidth")
    assert wide <= width
