"""Building, comparing, saving and loading a recipe in a real browser, by clicking alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mimic_core.filters.conditions import Minus, Percentile
from mimic_core.filters.library import list_recipes
from mimic_core.filters.recipe import Recipe, apply
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from tests.browser import steps
from tests.browser.conftest import N
from tests.browser.filter_steps import build_clip, choose, click, fill, open_filters, save

pytestmark = pytest.mark.browser
CLIP = Percentile(column="clip_score", lower=70)
LOW = Percentile(column="mimic_score", upper=60)


@pytest.fixture
def url(run: Run, address: str) -> str:
    return f"{address}/filters?run={run.id}"


@pytest.mark.slow
def test_the_showpiece_is_built_compared_saved_and_loaded(url: str, page: Any, run: Run) -> None:
    table, root = run_table(run), run.path.parent
    clip = Recipe().with_condition("clip", CLIP)
    whole = Recipe().with_condition("both", Minus(keep=CLIP, drop=LOW))
    by_clip, by_both = (apply(one, table).mask for one in (clip, whole))
    assert 0 < by_both.sum() < by_clip.sum()

    open_filters(page, url)
    build_clip(page)
    assert steps.kept(page) == (by_clip.sum(), N)
    save(page, "CLIP alone")
    click(page, "minus-0")
    fill(page, "leaf_percent", "60")
    click(page, "edit_add")
    assert steps.kept(page) == (by_both.sum(), N)
    card = page.locator(".st-key-card-0")
    assert "first to drop" in card.inner_text()
    assert f"{N - by_both.sum():,}" in card.inner_text()

    choose(page, "compare_b", "clip-alone")
    only_b = page.locator(".st-key-show-only_b button")
    assert f"{(by_clip & ~by_both).sum():,} only B keeps" in only_b.inner_text()
    click(page, "show-only_b")
    tiles = page.locator(".tile")
    tiles.first.wait_for()
    shown = [tile.get_attribute("data-uid") for tile in tiles.all()]
    uids = set(table["uid"].filter(pl.Series(by_clip & ~by_both)))
    assert len(shown) == min(24, len(uids))
    assert set(shown) <= uids
    tiles.first.click()
    page.locator('[data-testid="stDialog"]').get_by_text(f"rank 1 of {len(uids)}").wait_for()
    page.keyboard.press("Escape")
    page.locator('[data-testid="stDialog"]').wait_for(state="detached")

    save(page, "CLIP minus mimic")
    saved = list_recipes(root)
    assert saved.names == ("clip-alone", "clip-minus-mimic")
    assert (apply(saved.saved[1].recipe, table).mask == by_both).all()

    page.reload()
    page.wait_for_selector(".st-key-retention .nsewdrag")
    steps.settle(page)
    assert steps.kept(page) == (by_both.sum(), N)  # the address carries it
    click(page, "clear")
    assert steps.kept(page) == (N, N)
    click(page, "open_saved")
    choose(page, "shelf_name", "clip-minus-mimic")
    click(page, "load_saved")
    assert steps.kept(page) == (by_both.sum(), N)
    for name in ("Explore", "Export"):
        page.locator(".st-key-goes_on a", has_text=name).click()
        if name == "Export":
            page.wait_for_selector('h1:has-text("Export")')
        else:
            steps.charts(page)
        assert steps.kept(page) == (by_both.sum(), N)
        steps.go_to(page, "Filters")


def test_a_quadrant_becomes_the_selection_and_undo_brings_the_recipe_back(
    url: str, page: Any, run: Run
) -> None:
    table = run_table(run)
    mask = apply(Recipe().with_condition("clip", CLIP), table).mask
    open_filters(page, url)
    build_clip(page)
    choose(page, "compare_b", "all samples")
    click(page, "show-only_b")
    click(page, "take_quadrant")
    assert steps.kept(page) == ((~mask).sum(), N)
    click(page, "undo")
    assert steps.kept(page) == (mask.sum(), N)


def test_cards_are_moved_and_renamed_by_their_menu(url: str, page: Any) -> None:
    open_filters(page, url)
    build_clip(page)
    click(page, "add_condition")
    click(page, "edit_add")
    page.locator(".st-key-more-0 button:visible").first.click()
    page.get_by_text("Move down", exact=True).click()
    steps.settle(page)
    assert "mimic score: top 30 %" in page.locator(".st-key-card-0").inner_text()
    page.locator(".st-key-more-1 button:visible").first.click()
    page.get_by_text("Rename", exact=True).click()
    steps.settle(page)
    fill(page, "name-1", "the good ones")
    assert "the good ones" in page.locator(".st-key-card-1").inner_text()


def test_a_recipe_goes_out_and_comes_back_as_a_file(
    url: str, page: Any, run: Run, tmp_path: Path
) -> None:
    mask = apply(Recipe().with_condition("clip", CLIP), run_table(run)).mask
    open_filters(page, url)
    build_clip(page)
    click(page, "open_file")
    file = steps.download(page, "download_recipe", tmp_path)
    assert Recipe.from_yaml(file.read_text("utf-8")).conditions[0].condition == CLIP
    page.keyboard.press("Escape")
    page.locator(".st-key-download_recipe").wait_for(state="hidden")
    click(page, "clear")
    assert steps.kept(page) == (N, N)
    click(page, "open_file")
    page.locator(".st-key-load_recipe input[type=file]").set_input_files(file)
    page.locator(".st-key-outcome").get_by_text(f"{mask.sum()} of {N}").wait_for()
    steps.settle(page)
    assert steps.kept(page) == (mask.sum(), N)


@pytest.mark.parametrize("width", [420, 1440])
def test_nothing_is_wider_than_the_window(url: str, page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    open_filters(page, url)
    click(page, "example-0")
    click(page, "minus-0")
    click(page, "show-neither")
    wide = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollWidth")
    assert wide <= width
