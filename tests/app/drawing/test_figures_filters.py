"""The retention curve, by its data."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from app.drawing.colours import DARK, LIGHT, Theme
from app.drawing.filters import retention_figure
from mimic_core.stats.retention import retention_curve

VALUES = pl.Series("loss", [0.0, 1.0, 2.0, 3.0])
NOISY = pl.Series("is_noisy", [False, False, True, True])


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_the_curve_shows_what_every_cutoff_retains_and_finds(theme: Theme) -> None:
    curve = retention_curve(VALUES, NOISY, keep="low")
    figure = retention_figure(curve, column="loss", marks=[1.0], kept=0.5, theme=theme)
    assert [list(line.x) for line in figure.data] == [[0.0, 1.0, 2.0, 3.0]] * 3
    assert {line.name: list(line.y) for line in figure.data} == {
        "retained": [0.25, 0.5, 0.75, 1.0],
        "precision of the drop": [2 / 3, 1.0, 1.0, None],  # nothing is dropped at the end
        "recall of the drop": [1.0, 1.0, 0.5, 0.0],
    }
    level, mark = figure.layout.shapes
    assert (level.y0, level.y1) == (0.5, 0.5)
    assert (mark.x0, mark.x1, mark.line.color) == (1.0, 1.0, theme.accent)
    assert figure.layout.xaxis.title.text == "kept up to this loss"
    assert [note.text for note in figure.layout.annotations] == ["this recipe 50.0 %", "1"]


def test_without_a_truth_there_is_one_line_and_no_mark_without_a_cutoff() -> None:
    curve = retention_curve(pl.Series("clip_score", [1.0, None, 2.0]))
    figure = retention_figure(curve, column="clip_score", marks=[], kept=1.0, theme=LIGHT)
    (line,) = figure.data
    assert (list(line.x), list(line.y)) == ([1.0, 2.0], [2 / 3, 1 / 3])
    assert figure.layout.xaxis.title.text == "kept from this CLIP score"
    assert len(figure.layout.shapes) == 1


def test_the_figure_does_not_grow_with_the_pool() -> None:
    values = pl.Series("x", np.random.default_rng(0).normal(size=100_000))
    figure = retention_figure(retention_curve(values), column="x", marks=[], kept=0.5, theme=LIGHT)
    assert len(figure.data[0].x) <= 200
    assert len(figure.to_json()) < 40_000
