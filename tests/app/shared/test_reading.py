"""Every page says what of the run's pool was not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mimic_core.runs.run import Run
from tests.app.conftest import OpenApp
from tests.fakes import fake_run
from tests.places import ROOT

PAGES = sorted(path.stem for path in (ROOT / "app" / "views").glob("[!_]*.py"))
READING = "read as folder: images, 120 samples, not read: 3 x .heic, 1 x *bold* notes"


@pytest.fixture(scope="module")
def partly_read(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fake_run(tmp_path_factory.mktemp("runs")).update(reading=READING)


@pytest.mark.parametrize("page", PAGES)
def test_the_sidebar_says_it_on_every_page(partly_read: Run, open_app: OpenApp, page: str) -> None:
    app = open_app(partly_read.path.parent, page)
    (said,) = [one for one in app.sidebar.caption if one.value.startswith("Not read of the pool")]
    assert said.value.replace("\\", "") == "Not read of the pool: 3 x .heic, 1 x *bold* notes"
    assert "\\*bold\\*" in said.value
    assert said.help.replace("\\", "") == READING


def test_a_run_that_kept_no_reading_says_nothing(open_app: OpenApp, tmp_path: Path) -> None:
    app = open_app(fake_run(tmp_path, n=60).path.parent)
    assert [one for one in app.sidebar.caption if "Not read" in one.value] == []
