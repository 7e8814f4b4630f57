"""Charts as counts: what the browser needs to redraw histogram and map at every move of a cutoff.

Its size does not depend on the pool's: a column becomes at most ``BINS`` bins of about equally many
samples, and the map a grid whose cells hold their samples by ``TONES`` such bins. From these the
browser counts what any cutoff keeps, exactly at the edge of a bin and in proportion inside one.

A packed chart is a JSON header, its length before it (uint32), and arrays behind it, each padded to
eight bytes, all little endian; ``charts.js`` reads it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.colors as pc

from app.choices.box import Box
from app.drawing.colours import OTHER

BINS = 2048  # of a column: a cutoff inside a bin is off by at most 1 in 4,000 samples
TONES = 16  # of a cell of the map
_GRIDS = ((60_000, 1000), (400_000, 640), (float("inf"), 480))  # cells on the long side
_RADII = ((1_000, 7), (3_000, 6), (10_000, 4), (60_000, 3), (400_000, 1), (float("inf"), 1))


@dataclass(frozen=True, slots=True)
class Counted:
    """A column cut into bins by the value.

    Attributes:
        edges: (K + 1,) float64, ascending: bin k is from edge k up to, without, edge k + 1; the
            last bin has its upper edge too. Empty for a column without values.
        bins: The bin of each sample (N,) int16; -1 has no value.
    """

    edges: np.ndarray
    bins: np.ndarray


def counted(values: np.ndarray, ascending: np.ndarray, bins: int) -> Counted:
    """Cut a column into at most ``bins`` bins of about equally many samples; ties share a bin.

    Args:
        values: (N,) float64, NaN where missing.
        ascending: Those that are not missing, in order.
    """
    if not len(ascending):
        return Counted(np.empty(0), np.full(len(values), -1, np.int16))
    places = np.linspace(0, len(ascending), bins + 1).astype(np.int64)[:-1]
    starts = np.unique(ascending[places].astype(np.float64))
    found = (np.searchsorted(starts, values, side="right") - 1).astype(np.int16)
    found[np.isnan(values)] = -1
    return Counted(np.append(starts, float(ascending[-1])), found)


def histogram(
    column: Counted,
    *,
    shown: tuple[np.ndarray, np.ndarray],
    values: np.ndarray,
    others: np.ndarray,
    noisy: np.ndarray | None,
) -> bytes:
    """The histogram of a column.

    Args:
        column: The column in ``BINS`` bins.
        shown: Edges (B + 1,) and counts (B,) of the bars.
        values: The column (N,) float64, NaN where missing.
        others: What all other conditions keep, bool (N,).
        noisy: What is known to be noisy, bool (N,); None where nothing is.
    """
    edges, counts = shown
    size = max(0, len(column.edges) - 1)
    known = others & (column.bins >= 0)
    arrays = {
        "edges": column.edges,
        "bars": edges.astype(np.float64),
        "all": counts.astype(np.uint32),
        "others": np.histogram(values[known], edges)[0].astype(np.uint32),
        "kept": np.bincount(column.bins[known], minlength=size).astype(np.uint32),
    }
    header: dict[str, Any] = {"total": len(values), "missing_kept": int((others & ~known).sum())}
    if noisy is not None:
        arrays["noisy"] = np.bincount(column.bins[known & noisy], minlength=size).astype(np.uint32)
        header |= {
            "noisy_total": int(noisy.sum()),
            "noisy_missing_kept": int((others & ~known & noisy).sum()),
        }
    return pack(header, arrays)


def grid_map(
    x: np.ndarray,
    y: np.ndarray,
    *,
    box: Box,
    column: Counted,
    others: np.ndarray,
    rgb: np.ndarray,
    tones: np.ndarray | None,
) -> bytes:
    """The part of the map inside ``box`` as cells.

    Args:
        x, y: Map coordinates (N,).
        column: The column of the cutoff in ``TONES`` bins.
        others: What all other conditions keep, bool (N,).
        rgb: Colour of each sample (N, 3) uint8.
        tones: Where the colours are those of the same column: the mean colour (K, 3) of each of its
            bins, so that a cell shows what of it is kept.
    """
    here = np.flatnonzero(box.holds(x, y))
    side = next(cells for most, cells in _GRIDS if len(here) <= most)
    per_unit = side / max(box.x1 - box.x0, box.y1 - box.y0)
    width = max(1, round((box.x1 - box.x0) * per_unit))
    height = max(1, round((box.y1 - box.y0) * per_unit))
    columns = np.minimum(((x[here] - box.x0) * per_unit).astype(np.int32), width - 1)
    rows = np.minimum(((box.y1 - y[here]) * per_unit).astype(np.int32), height - 1)
    flat = rows * width + columns
    size = np.bincount(flat, minlength=width * height)
    cells = np.flatnonzero(size)
    place = np.zeros(width * height, np.int32)
    place[cells] = np.arange(len(cells), dtype=np.int32)
    cell = place[flat]
    kinds = max(1, len(column.edges) - 1) + 1  # the last one for missing values
    kept = others[here]
    bins = column.bins[here].astype(np.int32)
    bins[bins < 0] = kinds - 1
    counts = np.bincount(cell[kept] * kinds + bins[kept], minlength=len(cells) * kinds)
    arrays = {
        "cells": np.diff(cells, prepend=0).astype(np.uint32),
        # Counts beyond 65,535 in a sixteenth of a cell: only shares and depth are drawn of them.
        "counts": _small(counts),
        "dropped": _small(size[cells] - np.bincount(cell[kept], minlength=len(cells))),
        "edges": column.edges,
    }
    if tones is None:
        arrays["rgb"] = _mean_colours(cell, rgb[here], len(cells))
    else:
        arrays["tones"] = np.vstack([tones, pc.hex_to_rgb(OTHER)]).astype(np.uint8)
    header = {
        "width": width,
        "height": height,
        "kinds": kinds,
        "radius": next(radius for most, radius in _RADII if len(here) <= most),
        "box": [box.x0, box.x1, box.y0, box.y1],
    }
    return pack(header, arrays)


def bin_colours(column: Counted, rgb: np.ndarray) -> np.ndarray:
    """The mean colour (K, 3) uint8 of the samples of each bin."""
    known = column.bins >= 0
    return _mean_colours(
        column.bins[known].astype(np.int64), rgb[known], max(1, len(column.edges) - 1)
    )


def _mean_colours(group: np.ndarray, rgb: np.ndarray, groups: int) -> np.ndarray:
    size = np.maximum(np.bincount(group, minlength=groups), 1)
    sums = [np.bincount(group, weights=rgb[:, one], minlength=groups) for one in range(3)]
    return np.stack([(total / size).round() for total in sums], axis=1).astype(np.uint8)


def _small(counts: np.ndarray) -> np.ndarray:
    """Counts in the smallest type that holds them, at most two bytes."""
    most = int(counts.max(initial=0))
    small: np.ndarray = np.minimum(counts, 0xFFFF).astype(np.uint8 if most <= 0xFF else np.uint16)
    return small


def pack(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """A packed chart, gzipped."""
    places, parts, at = {}, [], 0
    for name, array in arrays.items():
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        places[name] = [array.dtype.name, at, array.size]
        parts.append(data + bytes(-len(data) % 8))
        at += len(parts[-1])
    head = json.dumps({**header, "arrays": places}).encode()
    head += b" " * (-(len(head) + 4) % 8)
    return gzip.compress(b"".join([len(head).to_bytes(4, "little"), head, *parts]), 5, mtime=0)
