"""The halves whose difference in noise proofs are asked to find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bench.test_reproduce import bench

prove = bench("prove")


def test_halves_differ_by_the_points_that_are_asked_for(tmp_path: Path) -> None:
    pool = prove.digits(tmp_path)
    assert len(pool.uids) + len(pool.judges) == 1797
    for points in prove.POINTS:
        halves = pool.halves(3, points)
        assert np.array_equal(np.sort(np.concatenate([*halves.values()])), np.arange(1347))
        assert len(halves["A"]) == len(halves["B"]) - 1 == 673
        first, second = (float(pool.noisy[rows].mean()) for rows in halves.values())
        expected = pytest.approx(points / 100, abs=0.002 if points else 0.08)
        assert second - first == expected
