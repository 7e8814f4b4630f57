"""Training from the page: start, refresh meanwhile, curves, Explore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mimic_core.jobs.store import JOBS_FILE, JobStore
from mimic_core.runs.run import open_run
from tests.browser import steps
from tests.browser.conftest import serving
from tests.core.checkpoints_on_disk import write_config
from tests.core.scoring_pool import READABLE, write_pool

pytestmark = [pytest.mark.browser, pytest.mark.slow]
TRAINING_MS = 300_000


def fill(page: Any, key: str, value: str) -> None:
    field = page.locator(f".st-key-{key} input")
    field.wait_for()
    field.fill(value)
    field.press("Enter")
    steps.settle(page)


def choose(page: Any, key: str, name: str) -> None:
    page.locator(f".st-key-{key} button", has_text=name).first.click()
    steps.settle(page)


def fill_in(page: Any, pool: Path, model: Path) -> None:
    """A pool of this machine, a tiny reference of random weights, two epochs."""
    choose(page, "pool_kind", "On this machine")
    fill(page, "pool_path", str(pool))
    page.locator(".st-key-set_reference input").first.click()
    page.get_by_role("option", name="Random weights").click()
    steps.settle(page)
    fill(page, "set_Random-weights", f"{model}:random:5")
    fill(page, "train_epochs", "2")
    fill(page, "train_batch", "8")


def test_training_from_the_page_to_explore(page: Any, tmp_path: Path) -> None:
    pool, model = write_pool(tmp_path / "pool"), write_config(tmp_path / "model")
    store = JobStore(tmp_path / JOBS_FILE)
    with serving(tmp_path) as url:
        page.goto(f"{url}/train")
        page.locator(".st-key-train_go button").first.wait_for()
        fill_in(page, pool, model)
        page.locator(".st-key-train_go button").first.click()
        page.locator("[class*='st-key-cancel-'] button").first.wait_for()
        page.locator('[data-testid="stProgress"]').first.wait_for()
        (job,) = store.jobs()
        page.reload()  # the session is lost, the job is not
        page.locator(f".st-key-job-{job.job_id}").wait_for()
        opener = page.locator(f".st-key-open-{job.job_id} button").first
        opener.wait_for(timeout=TRAINING_MS)
        assert [one.attempt for one in store.jobs()] == [1]
        run_dir = store.job(job.job_id).run_dir
        assert run_dir is not None
        run = open_run(run_dir)
        assert run.record.config.training is not None
        assert len(run.metrics()) == 3  # before training, and after each epoch
        if page.locator(".st-key-curve_held_out_loss").count() == 0:
            choose(page, "train_view", "Learning curves")
        for measure in ("train_loss", "held_out_loss", "image_to_text_recall_at_1"):
            line = page.locator(f".st-key-curve_{measure} .scatterlayer .trace")
            line.first.wait_for()
            assert line.count() == 1
        assert page.locator(".st-key-curve_held_out_loss .point").count() == 3
        opener.click()
        steps.charts(page, "histogram")  # no map was asked for
        heading = page.locator(".st-key-heading").inner_text()
        assert "training" in heading
        assert "weighting mimic" in heading
        total = len(READABLE) - len(run.held_out)
        assert steps.kept(page) == (total, total)
