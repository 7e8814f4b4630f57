"""Packed charts of a run: their addresses, made when the browser asks; keys as in tables."""

from __future__ import annotations

import gzip
import json

import numpy as np
import polars as pl
import streamlit as st

from app.cache import tables
from app.cache.served import SERVED, Body, address_of
from app.cache.tables import LARGE, TableKey
from app.choices.box import Box
from app.drawing import packed
from app.drawing.colours import Colouring
from app.drawing.explore import hover_captions
from app.drawing.figures import shortened
from app.drawing.packed import BINS, TONES, Counted
from app.text import number, spoken
from mimic_core.base.schema import named

_BINARY = "application/octet-stream"


@st.cache_resource(max_entries=2 * LARGE, show_spinner=False)
def counted(key: TableKey, column: str, bins: int) -> Counted:
    """A column in bins."""
    return packed.counted(_floats(key, column), tables.sorted_values(key, column), bins)


def _floats(key: TableKey, column: str) -> np.ndarray:
    values = tables.table(key)[column].cast(pl.Float64).fill_null(np.nan)
    return np.asarray(values.to_numpy())


def histogram_address(key: TableKey, column: str, others: str, truth: str | None) -> str:
    """The histogram of a column; ``others`` is the recipe without the column's own cutoff."""

    def make() -> Body:
        counts = tables.histogram(key, column)
        frame = tables.table(key)
        noisy = None if truth is None else frame[truth].fill_null(value=False).to_numpy()
        data = packed.histogram(
            counted(key, column, BINS),
            shown=(counts.edges, counts.counts),
            values=_floats(key, column),
            others=tables.selection(key, others).mask,
            noisy=noisy,
        )
        return Body(data, _BINARY, encoding="gzip")

    return address_of(SERVED.add(("histogram", key, column, others, truth), make))


def map_address(key: TableKey, *, cut: str, others: str, colour: str, box: Box, dark: bool) -> str:
    """The map inside ``box``, its cells counted by the bins of column ``cut``."""

    def make() -> Body:
        frame = tables.table(key)
        rgb = tables.colouring(key, colour, dark=dark).rgb
        column = counted(key, cut, TONES)
        data = packed.grid_map(
            frame["map_x"].to_numpy(),
            frame["map_y"].to_numpy(),
            box=box,
            column=column,
            others=tables.selection(key, others).mask,
            rgb=rgb,
            tones=packed.bin_colours(column, rgb) if cut == colour else None,
        )
        return Body(data, _BINARY, encoding="gzip")

    return address_of(SERVED.add(("map", key, cut, others, colour, box, dark), make))


def hover_address(key: TableKey, colour: Colouring, box: Box) -> str:
    """What the map says of the points under the mouse."""

    def make() -> Body:
        sample = tables.hover_sample(key, colour.column, box)
        said = {
            "x": sample["map_x"].to_list(),
            "y": sample["map_y"].to_list(),
            "text": _hover_texts(sample, colour.column),
        }
        return Body(
            gzip.compress(json.dumps(said).encode(), 5, mtime=0),
            "application/json",
            encoding="gzip",
        )

    return address_of(SERVED.add(("hover", key, colour.column, box), make))


def _hover_texts(sample: pl.DataFrame, column: str) -> list[str]:
    names = ["mimic_score", column]
    values = sample.select(map(named, dict.fromkeys(names))).rows(named=True)
    return [
        "\n".join(
            [
                shortened(text),
                *(f"{spoken(name)} {_said(row[name])}" for name in dict.fromkeys(names)),
            ]
        )
        for text, row in zip(hover_captions(sample), values, strict=True)
    ]


def _said(value: object) -> str:
    return (
        number(value)
        if isinstance(value, float | int)
        else str("missing" if value is None else value)
    )
