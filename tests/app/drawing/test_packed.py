"""Packed charts: exact at the edges of bins, of a bounded size, read back by an own reader."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.choices.box import Box, box_around
from app.drawing import packed
from app.drawing.packed import BINS, TONES

VALUES = arrays(
    np.float64,
    st.integers(1, 80),
    elements=st.floats(-5, 5, allow_nan=False).map(lambda value: round(value, 1)),
)


def unpack(data: bytes) -> dict[str, Any]:
    """What ``charts.js`` does, written from the format."""
    data = gzip.decompress(data)
    size = int.from_bytes(data[:4], "little")
    head: dict[str, Any] = json.loads(data[4 : 4 + size])
    for name, (kind, at, count) in head.pop("arrays").items():
        head[name] = np.frombuffer(data, np.dtype(kind).newbyteorder("<"), count, 4 + size + at)
    assert (4 + size) % 8 == 0  # a browser cannot look at doubles elsewhere
    return head


def in_bins(values: np.ndarray, bins: int) -> packed.Counted:
    return packed.counted(values, np.sort(values[~np.isnan(values)]), bins)


@given(VALUES, st.integers(1, 12))
def test_every_edge_counts_exactly_what_a_cutoff_there_keeps(values: np.ndarray, bins: int) -> None:
    column = in_bins(values, bins)
    counts = np.bincount(column.bins, minlength=len(column.edges) - 1)
    for bin_number, edge in enumerate(column.edges[:-1]):
        assert counts[bin_number:].sum() == (values >= edge).sum()
    assert len(counts) <= bins


def test_a_missing_value_has_no_bin_and_an_empty_column_no_edges() -> None:
    values = np.array([np.nan, 1.0, 2.0])
    assert in_bins(values, 4).bins.tolist() == [-1, 0, 1]
    empty = in_bins(np.array([np.nan, np.nan]), 4)
    assert (len(empty.edges), empty.bins.tolist()) == (0, [-1, -1])


def test_the_histogram_counts_kept_noisy_and_missing() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0, np.nan, np.nan])
    others = np.array([True, True, False, True, True, False])
    noisy = np.array([True, False, True, False, True, True])
    found = unpack(
        packed.histogram(
            in_bins(values, 4),
            shown=(np.array([0.0, 1.5, 3.0]), np.array([2, 2])),
            values=values,
            others=others,
            noisy=noisy,
        )
    )
    assert found["all"].tolist() == [2, 2]
    assert found["others"].tolist() == [2, 1]
    assert found["kept"].tolist() == [1, 1, 0, 1]
    assert found["noisy"].tolist() == [1, 0, 0, 0]
    assert (found["total"], found["missing_kept"]) == (6, 1)
    assert (found["noisy_total"], found["noisy_missing_kept"]) == (4, 1)


def test_cells_hold_every_sample_in_sight_once() -> None:
    random = np.random.default_rng(0)
    x, y, values = random.normal(size=(3, 3000))
    values[::7] = np.nan
    others = random.random(3000) < 0.8
    box = Box(-1.5, 1.5, -1.0, 1.0)
    rgb = random.integers(0, 255, (3000, 3)).astype(np.uint8)
    column = in_bins(values, TONES)
    found = unpack(
        packed.grid_map(x, y, box=box, column=column, others=others, rgb=rgb, tones=None)
    )
    here = box.holds(x, y)
    counts = found["counts"].reshape(-1, found["kinds"])
    assert counts.sum() == (here & others).sum()
    assert found["dropped"].sum() == (here & ~others).sum()
    assert counts[:, -1].sum() == (here & others & np.isnan(values)).sum()
    for kind in range(found["kinds"] - 1):
        assert counts[:, kind].sum() == (here & others & (column.bins == kind)).sum()
    cells = np.cumsum(found["cells"])
    assert len(np.unique(cells)) == len(cells) == len(counts)
    assert cells.max() < found["width"] * found["height"]


def test_a_sample_lies_in_the_cell_of_its_place() -> None:
    box = Box(0.0, 2.0, 0.0, 1.0)
    found = unpack(
        packed.grid_map(
            np.array([0.0, 2.0]),
            np.array([1.0, 0.0]),  # the upper left corner, and the lower right
            box=box,
            column=in_bins(np.array([1.0, 2.0]), 2),
            others=np.ones(2, bool),
            rgb=np.array([[255, 0, 0], [0, 0, 255]], np.uint8),
            tones=None,
        )
    )
    assert np.cumsum(found["cells"]).tolist() == [0, found["width"] * found["height"] - 1]
    assert found["rgb"].reshape(-1, 3).tolist() == [[255, 0, 0], [0, 0, 255]]


def test_what_is_sent_does_not_grow_with_the_pool() -> None:
    sizes = []
    for n in (200_000, 800_000):
        random = np.random.default_rng(1)
        x, y = random.normal(size=(2, n))
        values = random.normal(size=n)
        column = in_bins(values, TONES)
        rgb = np.zeros((n, 3), np.uint8)
        packs = packed.grid_map(
            x,
            y,
            box=box_around(x, y),
            column=column,
            others=values > 0,
            rgb=rgb,
            tones=packed.bin_colours(column, rgb),
        )
        bars = np.histogram(values, 80)
        big = in_bins(values, BINS)
        charts = packed.histogram(
            big, shown=(bars[1], bars[0]), values=values, others=values > 0, noisy=None
        )
        sizes.append(len(packs) + len(charts))
    assert max(sizes) < 400_000
    assert sizes[1] < 1.5 * sizes[0]


@pytest.mark.parametrize("name", ["uint8", "uint16"])
def test_counts_take_as_few_bytes_as_they_need(name: str) -> None:
    most = {"uint8": 255, "uint16": 256}[name]
    assert packed._small(np.array([0, most])).dtype == name
    assert packed._small(np.array([70_000])).tolist() == [65_535]
