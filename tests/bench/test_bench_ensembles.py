"""The tables of ``bench/ensembles.py``: complete, and complete in the documentation."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from tests.places import ROOT

TRUTH, KIND = pl.Series([True, True, True, False, False]), pl.Series(["a", "a", "b b", None, None])


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.delitem(sys.modules, "ensembles", raising=False)
    return import_module("ensembles")


def test_a_share_that_was_asked_for_has_no_interval(
    bench: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = np.array([False, False, True, True, False])
    rows = [bench.Decision("x", "y", keep, fixed) for fixed in (True, False)]
    bench.print_totals(rows, TRUTH)
    printed = capsys.readouterr().out.splitlines()[2:]
    assert printed[0].startswith("| x | y | 40.0% | – | 0.667 |")
    assert printed[1].startswith("| x | y | 40.0% | 0.0% to 80.0% | 0.667 |")


def test_kinds_are_columns_and_every_decision_is_a_row(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = np.array([False, True, False, True, False])
    rows = [bench.Decision("x", "y", keep, fixed=False)]
    bench.print_kinds(rows, TRUTH, KIND)
    assert capsys.readouterr().out.splitlines() == [
        "| votes | put together by | a (2) | b b (1) | clean (2) |",
        "|---|---|---|---|---|",
        "| x | y | 50 | 100 | 50.0 |",
    ]
    bench.write_json(tmp_path / "f.json", rows, TRUTH, KIND)
    (found,) = json.loads((tmp_path / "f.json").read_text("utf-8"))
    assert found["dropped"] == {"a": 0.5, "b b": 1.0, "clean": 0.5}


def test_the_documentation_has_both_tables_for_every_ensemble(bench: ModuleType) -> None:
    lines = (ROOT / "docs" / "ensembles.md").read_text("utf-8").splitlines()
    pairs = [(vote.describe(), way.describe()) for vote in bench.VOTES for way in bench.WAYS]
    assert len(set(pairs)) == 40
    for vote, way in pairs:
        rows = [line for line in lines if line.startswith(f"| {vote} | {way} |")]
        assert [row.count("|") for row in rows] == [8, 15]
