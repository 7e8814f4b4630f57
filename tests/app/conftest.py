"""The app on a finished run that no model has seen."""

from __future__ import annotations

import polars as pl
import pytest

from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from tests.fakes import fake_run
from tests.pages import (
    DEFECTS,
    STATE,
    OpenApp,
    components_are_looked_for_once,
    elsewhere,
    no_defects,
    open_app,
)

__all__ = [
    "DEFECTS",
    "STATE",
    "OpenApp",
    "components_are_looked_for_once",
    "elsewhere",
    "no_defects",
    "open_app",
]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A probe run of 130 samples with map and images. Read-only."""
    return fake_run(tmp_path_factory.mktemp("runs"), n=130)


@pytest.fixture(scope="session")
def table(run: Run) -> pl.DataFrame:
    return run_table(run)
