"""The Export page in a real browser: every format that fits the pool is chosen and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mimic_core.export.record import replay
from mimic_core.runs.run import Run
from tests.browser import steps
from tests.browser.filter_steps import choose, click, fill

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AT_ONCE = {"CSV table": "csv", "JSONL table": "jsonl", "DataComp uids": "datacomp"}
BY_A_JOB = {
    "webdataset shards": "webdataset",
    "Hugging Face imagefolder": "imagefolder",
    "Hugging Face Parquet": "hf_parquet",
    "open_clip table": "open_clip",
    "Folder of pictures": "links",
}


@pytest.fixture
def export_page(run: Run, address: str, page: Any) -> Any:
    page.goto(f"{address}/export?run={run.id}")
    page.wait_for_selector('h1:has-text("Export")')
    steps.settle(page)
    return page


def test_every_format_is_written_from_the_page(export_page: Any, run: Run, tmp_path: Path) -> None:
    page = export_page
    for name, file_format in {**BY_A_JOB, **AT_ONCE}.items():
        choose(page, "export_format", name)
        folder = tmp_path / file_format
        if not page.locator(".st-key-export_folder input").first.is_visible():
            page.get_by_text("Write to a folder on this machine, or to a bucket").click()
        fill(page, "export_folder", str(folder))
        click(page, "export_write")
        if name in BY_A_JOB:
            card = page.locator('[class*="st-key-export-"]', has_text=f"export as {file_format}")
            card.get_by_text("done").first.wait_for()
            card.get_by_text("manifest").first.wait_for()
        else:
            page.get_by_test_id("stAlertContentSuccess").get_by_text(str(folder)).wait_for()
        (manifest,) = folder.glob("*.manifest.json")
        said = json.loads(manifest.read_text())
        assert (said["format"], said["exported"]) == (file_format, said["total"])
        assert replay(manifest, run.path.parent).kept == said["kept"]


def test_a_format_for_other_pools_says_so(export_page: Any, tmp_path: Path) -> None:
    page = export_page
    choose(page, "export_format", "Class folders")
    fill(page, "export_folder", str(tmp_path))
    click(page, "export_write")
    page.get_by_text("class folders are for labels").first.wait_for()
    choose(page, "export_format", "Your table with a keep column")
    page.get_by_text("the pool has no table of its own").first.wait_for()
    assert list(tmp_path.iterdir()) == []
