"""From a recipe to a proof and an export that replays, by clicking alone, on the demo's run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mimic_core.runs.run import Run, open_run
from tests.browser import steps
from tests.browser.conftest import serving
from tests.browser.filter_steps import build_clip, choose, click, fill, open_filters, save
from tests.places import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the demo's run, beside which proofs and recipes are written."""
    root = tmp_path_factory.mktemp("demo") / "runs"
    shutil.copytree(ROOT / "data_samples" / "runs", root)
    (record,) = root.glob("*/run.json")
    return open_run(record.parent)


@pytest.fixture(scope="module")
def url(run: Run, browser: Any) -> Iterator[str]:  # no server where there is no browser
    del browser
    with serving(run.path.parent) as address:
        yield f"{address}/filters?run={run.id}"


def cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mimic_core", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_recipe_is_built_compared_proved_and_exported(
    url: str, page: Any, run: Run, tmp_path: Path
) -> None:
    open_filters(page, url)
    build_clip(page)
    save(page, "CLIP alone")
    click(page, "minus-0")
    fill(page, "leaf_percent", "60")
    click(page, "edit_add")
    on_screen, total = steps.kept(page)
    assert 0 < on_screen < 600 < total == 2000
    choose(page, "compare_b", "clip-alone")
    only_b = page.locator(".st-key-show-only_b button").inner_text()
    assert f"{600 - on_screen:,} only B keeps" in only_b

    steps.go_to(page, "Prove")
    page.get_by_role("button", name="Saved recipes").click()
    click(page, "prove_saved_clip-alone")
    page.keyboard.press("Escape")
    chosen = page.locator(".st-key-prove_recipes")
    assert f"keeps {on_screen:,}" in chosen.inner_text()
    assert "keeps 600" in chosen.inner_text()
    click(page, "prove_start")
    page.reload()  # the proof goes on without the page
    page.locator("[class*=st-key-verdict]").first.wait_for(timeout=240_000)
    (file,) = (run.path / "proofs").glob("*.json")
    proof = json.loads(file.read_text("utf-8"))
    assert sorted(one["kept"] for one in proof["recipes"]) == sorted([on_screen, 600])

    steps.go_to(page, "Export")
    data = steps.download(page, "download_data", tmp_path)
    recipe = steps.download(page, "download_recipe", tmp_path)
    manifest = steps.download(page, "download_manifest", tmp_path)
    kept = tmp_path / "kept.parquet"
    root = run.path.parent
    filtered = cli("filter", recipe, run.id, "--runs", root, "--out", kept)
    assert filtered.returncode == 0, filtered.stderr
    assert set(pl.read_parquet(kept)["uid"]) == set(pl.read_parquet(data)["uid"])
    replayed = cli("replay", manifest, "--runs", root)
    assert replayed.returncode == 0, replayed.stderr
    assert f"{on_screen:,}" in replayed.stdout
