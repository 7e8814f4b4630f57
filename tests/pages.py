"""The app in this process, opened on a runs root at one of its pages; no page may have a defect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

import mimic_core.scoring.tuning  # noqa: F401 - the app imports it in a thread, beside pytest's filters
from app.library import ROOT_VARIABLE
from tests.places import ROOT

MAIN = ROOT / "app" / "main.py"
DEFECTS = "app.components.shared.errors"  # the logger that is told of them
STATE = "mimicscope"
OpenApp = Callable[..., AppTest]


@pytest.fixture(scope="session", autouse=True)
def components_are_looked_for_once() -> Iterator[None]:
    """Every ``AppTest`` would read the metadata of all installed packages: a third of its time."""
    with pytest.MonkeyPatch.context() as patch:
        found = cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", found)
        yield


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the bundled run, or writes into the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("app.library.BUNDLED_ROOT", tmp_path / "bundled")


@pytest.fixture(autouse=True)
def no_defects(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
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
        if page is not None:  # as by its address: Explore, which draws most, is not drawn before
            app.switch_page(f"views/{page}.py")
        app.run()
        assert not app.exception
        return app

    return start
