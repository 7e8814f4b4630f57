"""The whole way of a new user: score the demo, refresh meanwhile, select, export, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from app.library import DEMO_REFERENCE
from mimic_core.export.record import replay
from mimic_core.jobs.store import JOBS_FILE, JobStore
from mimic_core.runs.run import open_run
from tests.browser import steps
from tests.browser.conftest import serving

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not DEMO_REFERENCE.exists(), reason="the demo reference is not there"),
]
SAMPLES = 150
MANY = 400  # so that a job still runs when the next server is there
SCORING_MS = 420_000


def start_scoring(page: Any, url: str, samples: int) -> None:
    page.goto(f"{url}/data")
    page.locator(".st-key-start button").first.wait_for()
    size = page.locator(".st-key-set_sample input")
    size.fill(str(samples))
    size.press("Enter")
    steps.settle(page)
    page.locator(".st-key-start button").first.click()
    page.locator("[class*='st-key-cancel-'] button").first.wait_for()


def test_from_the_demo_pool_to_a_subset(page: Any, tmp_path: Path) -> None:
    store = JobStore(tmp_path / JOBS_FILE)
    with serving(tmp_path) as url:
        start_scoring(page, url, SAMPLES)
        (job,) = store.jobs()
        page.reload()  # the session is lost, the job is not
        page.locator(f".st-key-job-{job.job_id}").wait_for()
        assert [one.attempt for one in store.jobs()] == [1]
        opener = page.locator(f".st-key-open-{job.job_id} button").first
        opener.wait_for(timeout=SCORING_MS)
        opener.click()
        steps.charts(page)
        assert steps.kept(page) == (SAMPLES, SAMPLES)
        steps.drag_cutoff(page, 0.3, 1.02)
        by_cutoff = steps.kept(page)[0]
        steps.lasso(page, centre=(0.0, 0.0), radius=0.35)
        on_screen = steps.kept(page)[0]
        assert 0 < on_screen < by_cutoff < SAMPLES
        page.locator(".tile").first.click()
        page.locator('[data-testid="stDialog"]').get_by_text("rank 1 of").wait_for()
        page.keyboard.press("Escape")
        steps.go_to(page, "Export")
        data = steps.download(page, "download_data", tmp_path)
        manifest = steps.download(page, "download_manifest", tmp_path)
        uids = pl.read_parquet(data)["uid"].to_list()
        assert len(uids) == on_screen
        assert replay(manifest, tmp_path).uids.to_list() == uids
        run = open_run(tmp_path / json.loads(manifest.read_text())["run_id"])
        assert set(uids) <= set(run.features.samples["uid"])


def test_a_job_outlives_the_server_and_can_be_cancelled_and_resumed(
    page: Any, tmp_path: Path
) -> None:
    store = JobStore(tmp_path / JOBS_FILE)
    with serving(tmp_path) as url:
        start_scoring(page, url, MANY)
        (job,) = store.jobs()
    assert store.job(job.job_id).active  # the server is gone
    with serving(tmp_path) as url:
        page.goto(f"{url}/data")
        page.locator(f".st-key-cancel-{job.job_id} button").first.click()
        again = page.locator(f".st-key-resume-{job.job_id} button").first
        again.wait_for(timeout=SCORING_MS)
        assert store.job(job.job_id).status == "cancelled"
        again.click()
        page.locator(f".st-key-cancel-{job.job_id} button").first.wait_for()
        assert store.job(job.job_id).attempt == 2
        page.locator(f".st-key-cancel-{job.job_id} button").first.click()
        again.wait_for(timeout=SCORING_MS)
