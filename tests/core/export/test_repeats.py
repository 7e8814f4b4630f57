"""How often a uid is written for DataComp: counts, the soft cap, and the resharder's own rules."""

from __future__ import annotations

import heapq
import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base.errors import ExportError
from mimic_core.export.export import export, export_bytes
from mimic_core.export.repeats import repeats_of, soft_cap
from mimic_core.export.settings import ExportConfig
from mimic_core.filters.recipe import Recipe, apply
from mimic_core.runs.table import run_table
from tests.fakes import fake_run


def greedy(scores: list[float], total: int, penalty: float) -> list[int]:
    """One place after the other to the highest remaining worth, by its definition."""
    places = [0] * len(scores)
    heap = [(-score, row) for row, score in enumerate(scores)]
    heapq.heapify(heap)
    for _ in range(total):
        _, row = heapq.heappop(heap)
        places[row] += 1
        heapq.heappush(heap, (-(scores[row] - places[row] * penalty), row))
    return places


# Quarters: what is compared is exact, and ties are many.
quarters = st.integers(-20, 20).map(lambda n: n / 4)


@given(
    st.lists(quarters, min_size=1, max_size=12), st.integers(1, 60), st.sampled_from([0.25, 0.5, 3])
)
def test_a_soft_cap_gives_place_after_place_to_the_highest(
    scores: list[float], total: int, penalty: float
) -> None:
    found = soft_cap(np.array(scores), total=total, penalty=penalty)
    assert found.tolist() == greedy(scores, total, penalty)


@given(st.integers(1, 10**6), st.floats(1e-3, 1e3))
def test_places_add_up(total: int, penalty: float) -> None:
    scores = np.random.default_rng(total).normal(size=500)
    found = soft_cap(scores, total=total, penalty=penalty)
    assert found.sum() == total
    assert (np.diff(found[np.argsort(scores)]) >= 0).all()


def test_a_column_of_counts_and_what_is_none() -> None:
    rows = pl.DataFrame(
        {"uid": ["a", "b", "c"], "n": [2, 0, 1], "x": [0.5, 1, 2], "t": ["", "", ""]}
    )
    assert repeats_of(rows, ExportConfig(format="datacomp")) is None
    found = repeats_of(rows, ExportConfig(format="datacomp", repeats="n"))
    assert found is not None
    assert found.tolist() == [2, 0, 1]
    for column, says in (("x", "0.5 for uid a"), ("t", "of type String"), ("y", "no such column")):
        with pytest.raises(ExportError, match=says):
            repeats_of(rows, ExportConfig(format="datacomp", repeats=column))
    gaps = rows.with_columns(pl.Series("n", [1, None, -1]))
    with pytest.raises(ExportError, match="null for uid b"):
        repeats_of(gaps, ExportConfig(format="datacomp", repeats="n"))
    with pytest.raises(ExportError, match="-1 for uid c"):
        repeats_of(gaps.drop_nulls(), ExportConfig(format="datacomp", repeats="n"))


def copies(subset: np.ndarray, uid: str) -> int:
    """How often DataComp's resharder copies a sample: it searches its pair from both sides."""
    pair = np.array([divmod(int(uid, 16), 2**64)], np.dtype("u8,u8"))[0]
    left, right = (np.searchsorted(subset, pair, side) for side in ("left", "right"))
    return int(right - left)


def test_the_resharder_copies_a_sample_as_often_as_it_is_told(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=20)
    table = run_table(run).with_columns(pl.Series("n", [n % 4 for n in range(20)]))
    chosen = apply(Recipe(), table)
    config = ExportConfig(format="datacomp", repeats="n")
    subset = np.load(io.BytesIO(export_bytes(chosen, table, config)))
    assert subset.dtype == np.dtype("u8,u8")
    assert (np.sort(subset) == subset).all()
    found = {uid: copies(subset, uid) for uid in table["uid"]}
    assert found == dict(table.select("uid", "n").iter_rows())
    result = export(chosen, table, run, config, out=tmp_path / "subset.npy")
    said = json.loads(result.manifest.read_text())
    assert (said["exported"], said["not_exported"]) == (15, {"no_repeats": 5})
    assert said["settings"] == {"repeats": "n"}
