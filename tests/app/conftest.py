"""The app on a finished run that no model has seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import mimic_core.scoring.tuning  # noqa: F401 - the app imports it in a thread, beside pytest's filters
from app.library import ROOT_VARIABLE
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from tests.fakes import fake_run
from tests.places import ROOT

MAIN = ROOT / "app" / "main.py"
STATE = "mimicscope"
DEFECTS = "app.components.shared.errors"  # the logger that is told of them
OpenApp = Callable[..., AppTest]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A probe run of 130 samples with map and images. Read-only."""
    return fake_run(tmp_path_factory.mktemp("runs"), n=130)


@pytest.fixture(scope="session")
def table(run: Run) -> pl.DataFrame:
    return run_table(run)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the bundled run, or writes into the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("app.library.BUNDLED_ROOT", tmp_path / "bundled")


@pytest.fixture(autouse=True)
def _no_defects(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A defect is a message on the page, which a test may not look at: no test may cause one."""
    yield
    logged = [one for one in caplog.get_records("call") if one.name == DEFECTS]
    assert [one.exc_info for one in logged if one.levelname == "ERROR"] == []


@pytest.fixture
def open_app(monkeypatch: pytest.MonkeyPatch) -> OpenApp:
    """Open the app on a runs root, on one of its pages."""

    def start(
        root: Path,
        page: str | None = None,
        run_id: str | None = None,
        select: str | None = None,
    ) -> AppTest:
        monkeypatch.setenv(ROOT_VARIABLE, str(root))
        app = AppTest.from_file(str(MAIN), default_timeout=120)
        if run_id is not None:
            app.query_params["run"] = run_id
        if select is not None:
            app.query_params["select"] = select
        app.run()
        if page is not None:
            app.switch_page(f"views/{page}.py").run()
        assert not app.exception
        return app

    return start
