"""The table of ``bench/label_filters.py``: as measured, and complete in the documentation."""

from __future__ import annotations

import json
import sys
from importlib import import_module

import pytest

from tests.places import ROOT


def test_the_documentation_has_the_measured_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.delitem(sys.modules, "label_filters", raising=False)
    figures = json.loads((ROOT / "bench/label_filters.json").read_text(encoding="utf-8"))
    lines = import_module("label_filters").table_lines(figures)
    assert len(lines) == 11
    assert "\n".join(lines) in (ROOT / "docs/ensembles.md").read_text(encoding="utf-8")
