"""The heat map's picture and the page's figures, by their data."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import plotly.colors as pc
import pytest
from PIL import Image

from app.drawing import dynamics as figures_dynamics
from app.drawing import heat_picture, history
from app.drawing.colours import DARK, LIGHT, Theme, scale
from app.drawing.dynamics import Hover
from app.drawing.figures import HOVER_POINTS
from app.drawing.heat_picture import Painted
from app.drawing.history import Ridge, Track
from mimic_core.stats import dynamics
from mimic_core.stats.dynamics import Bands

VALUES = np.array([[0.0, 1.0, 0.5], [1.0, 1.0, 0.0]], dtype=np.float32)
ROWS = np.array([0, 1, 2])


def painted(
    values: np.ndarray = VALUES,
    rows: np.ndarray = ROWS,
    *,
    limits: tuple[float, float] = (0.0, 1.0),
    theme: Theme = LIGHT,
    strips: tuple[tuple[str, np.ndarray], ...] = (),
    logarithmic: bool = False,
    votes: bool = False,
) -> Painted:
    return heat_picture.paint(
        values,
        rows,
        limits=limits,
        logarithmic=logarithmic,
        votes=votes,
        strips=strips,
        theme=theme,
    )


def pixels(one: Painted) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(one.png)))


def cell(one: Painted, row: int, x: float) -> list[int]:
    """The pixel in the middle of a row at a place on the x axis."""
    picture = pixels(one)
    rows = len(one.heat.means)
    y = int((row + 0.5) * picture.shape[0] / rows)
    found: list[int] = picture[y, int(x * picture.shape[1] / one.width)].tolist()
    return found


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_each_cell_has_the_colour_of_its_value(theme: Theme) -> None:
    one = painted(theme=theme)
    steps = [[round(v) for v in pc.unlabel_rgb(step)] for step in scale(theme)]
    assert cell(one, 0, 0.5) == [*steps[0], 255]
    assert cell(one, 0, 1.5) == [*steps[-1], 255]
    assert cell(one, 1, 0.5) == [*steps[-1], 255]
    assert cell(one, 2, 0.5)[:3] == pytest.approx(steps[5], abs=2)


def test_values_beyond_the_limits_have_the_colour_of_the_limit() -> None:
    one = painted(limits=(0.4, 0.6))
    assert cell(one, 0, 0.5) == cell(painted(), 0, 0.5)
    assert cell(one, 0, 1.5) == cell(painted(), 0, 1.5)


def test_votes_have_the_colours_of_kept_and_dropped() -> None:
    one = painted(VALUES > 0.4, votes=True)
    assert cell(one, 0, 0.5)[:3] == list(pc.hex_to_rgb(LIGHT.dropped))
    assert cell(one, 0, 1.5)[:3] == list(pc.hex_to_rgb(LIGHT.kept))


def test_a_logarithmic_scale_goes_by_powers_of_ten_and_takes_zero() -> None:
    one = painted(np.array([[0.0, 1e-2, 1e-4]], np.float32), limits=(1e-4, 1.0), logarithmic=True)
    linear = painted(np.array([[0.0, 0.5, 0.0]], np.float32))
    for row in range(3):
        assert cell(one, row, 0.5) == cell(linear, row, 0.5)


def test_strips_stand_beside_the_epochs() -> None:
    keep, noisy = np.array([True, False, True]), np.array([False, False, True])
    one = painted(strips=(("ensemble", keep), ("noisy", noisy)))
    first, second = one.strips
    assert 2 < first.left < first.right < second.left < second.right == one.width
    middle = (first.left + first.right) / 2
    assert cell(one, 0, middle)[:3] == list(pc.hex_to_rgb(LIGHT.kept))
    assert cell(one, 1, middle)[:3] == list(pc.hex_to_rgb(LIGHT.dropped))
    assert cell(one, 2, (second.left + second.right) / 2)[:3] == list(pc.hex_to_rgb(LIGHT.accent))
    assert cell(one, 0, (first.right + second.left) / 2)[3] == 0  # the gap is clear


def test_rows_follow_their_order() -> None:
    one, other = painted(), painted(rows=ROWS[::-1])
    assert cell(one, 0, 0.5) == cell(other, 2, 0.5)
    assert cell(one, 1, 1.5) == cell(other, 1, 1.5)


@pytest.mark.parametrize(("steps", "samples"), [(2, 5), (5, 50_000), (400, 3_000), (1000, 2)])
def test_the_picture_is_bounded_whatever_the_pool(steps: int, samples: int) -> None:
    values = np.random.default_rng(0).random((steps, samples)).astype(np.float32)
    one = painted(values, np.arange(samples), strips=(("ensemble", values[0] > 0.5),))
    height, width, _ = pixels(one).shape
    assert height <= 1600
    assert width <= 1101
    assert len(one.heat.means) == min(samples, heat_picture.MOST_ROWS)
    assert one.heat.means.shape[1] == min(steps, heat_picture.MOST_STEPS)
    bins = figures_dynamics.hover_bins(one)
    assert 0 < len(bins) * one.heat.means.shape[1] <= HOVER_POINTS
    assert len(heat_figure(one, steps=steps).data[0].x) <= HOVER_POINTS


def heat_figure(one: Painted, *, steps: int = 2, **changes: Any) -> figures_dynamics.go.Figure:
    bins = figures_dynamics.hover_bins(one)
    arguments: dict[str, Any] = {
        "first": 0,
        "picture": "/served/heat",
        "labels": figures_dynamics.step_labels(range(steps), one.heat.step_edges),
        "hover": Hover(bins, tuple(f"caption {b}" for b in bins)),
        "name": "mimic score",
        "unit": "epoch",
        "band": None,
        "marked": None,
        "theme": LIGHT,
    }
    return figures_dynamics.heat_figure(one, **{**arguments, **changes})


def test_the_heat_map_hovers_over_cells_and_drags_over_rows() -> None:
    figure = heat_figure(painted())
    marks = figure.data[0]
    assert marks.x.tolist() == [0.5, 1.5] * 3
    assert marks.y.tolist() == [1, 1, 2, 2, 3, 3]
    assert marks.customdata[3].tolist() == ["2", "rank 2", "1", "caption 1"]
    assert (figure.layout.dragmode, figure.layout.selectdirection) == ("select", "v")
    assert figure.layout.yaxis.range == (3.5, 0.5)
    assert len(figure.layout.shapes) == 0


def test_the_picture_spans_the_ranks_that_are_shown() -> None:
    figure = heat_figure(painted(), first=100, band=(90, 102), marked=101)
    (image,) = figure.layout.images
    assert (image.y, image.sizey) == (100.5, 3.0)
    band, marked = figure.layout.shapes
    assert (band.y0, band.y1) == (100.5, 102.5)  # cut off where the picture ends
    assert (marked.y0, marked.y1) == (101.5, 102.5)
    assert figure.data[0].customdata[0][1] == "rank 101"


def test_binned_rows_say_that_they_are_means() -> None:
    values = np.zeros((2, 5000), np.float32)
    figure = heat_figure(painted(values, np.arange(5000)))
    assert figure.data[0].customdata[0][1].startswith("mean of ranks ")


def test_columns_of_several_epochs_are_named_from_and_to() -> None:
    assert figures_dynamics.step_labels((0, 1, 2, 3, 4), np.array([0, 2, 3, 5])) == [
        "1–2",
        "3",
        "4–5",
    ]


def test_strips_are_named_on_the_axis() -> None:
    figure = heat_figure(painted(strips=(("ensemble", VALUES[0] > 0), ("noisy", VALUES[0] > 0))))
    ticks = figure.layout.xaxis.ticktext
    assert ticks[:3] == ("1", "2", "ensemble")
    assert ticks[3].endswith("noisy")


def test_flips_stack_known_noisy_samples_and_answer_over_full_height() -> None:
    edges = np.array([-0.5, 0.5, 1.5, 2.5])
    figure = figures_dynamics.flips_figure(
        edges, np.array([90, 8, 2]), np.array([10, 5, 2]), chosen=(1, 1), theme=LIGHT
    )
    others, noisy, click = figure.data
    assert others.y.tolist() == [80, 3, 0]
    assert noisy.y.tolist() == [10, 5, 2]
    assert noisy.base.tolist() == [80, 3, 0]
    assert set(click.y) == {90 * 1.15}
    assert click.customdata.tolist() == [[90, 10], [8, 5], [2, 2]]
    assert [one.text for one in figure.layout.annotations] == ["90", "<b>8</b>", "2"]


def test_flips_without_truth_are_one_stack() -> None:
    figure = figures_dynamics.flips_figure(
        np.array([-0.5, 1.5, 3.5]), np.array([5, 1]), None, chosen=None, theme=DARK
    )
    bars, click = figure.data
    assert bars.y.tolist() == [5, 1]
    assert click.x == ("0–1", "2–3")


def test_spans_of_flips() -> None:
    assert figures_dynamics.flip_spans(np.array([-0.5, 0.5, 1.5])) == [(0, 0), (1, 1)]
    assert figures_dynamics.flip_spans(np.array([-0.5, 2.5, 5.5])) == [(0, 2), (3, 5)]


EDGES = np.array([1.0, 10.0, 100.0])


def ridges(**changes: Any) -> history.go.Figure:
    clean = np.array([[2.0, 0.0], [1.0, 1.0]])
    noisy = np.array([[0.0, 1.0], [0.0, 4.0]])
    arguments: dict[str, Any] = {
        "steps": [0, 1],
        "labels": ["1", "2"],
        "column": "mimic_weight",
        "logarithmic": True,
        "cutoffs": np.array([5.0, 1000.0]),
        "neutral": 20.0,
        "theme": LIGHT,
    }
    both = [Ridge("clean", clean, LIGHT.kept), Ridge("known noisy", noisy, LIGHT.accent)]
    return history.ridges_figure(EDGES, both, **{**arguments, **changes})


def named(figure: history.go.Figure, name: str) -> list[Any]:
    return [one for one in figure.data if one.name == name]


def test_ridges_of_both_groups_share_one_height() -> None:
    figure = ridges()
    tallest = float(np.max(named(figure, "known noisy")[1].y))
    first, second = named(figure, "clean")
    assert first.x.tolist() == pytest.approx([1, np.sqrt(10), np.sqrt(1000), 100])
    assert first.y.tolist() == pytest.approx([1, 1 + 0.6, 1, 1])  # on top: the first epoch
    assert second.y.tolist() == pytest.approx([0, 0.3, 0.3, 0])
    assert tallest == pytest.approx(1.2)
    assert [one.showlegend for one in (first, second)] == [True, False]


def test_each_ridge_has_its_cutoff_and_the_neutral_weight_is_marked() -> None:
    figure = ridges()
    cuts = [one for one in figure.data if (one.hovertemplate or "").startswith("cutoff")]
    assert [one.x[0] for one in cuts] == [5.0, 100.0]  # the second lies beyond the axis
    assert [one.line.dash for one in cuts] == ["solid", "dot"]
    assert "cutoff 1000" in cuts[1].hovertemplate
    assert figure.layout.shapes[0].x0 == 20.0
    (note,) = figure.layout.annotations
    assert (note.text, note.x) == ("1/B", pytest.approx(np.log10(20)))


def test_another_columns_ridges_have_no_cutoff() -> None:
    figure = ridges(cutoffs=None, neutral=None, logarithmic=False)
    assert len(figure.data) == 8
    assert not figure.layout.shapes
    assert figure.layout.xaxis.range == (1.0, 100.0)


def test_at_most_eight_epochs_are_drawn_with_the_first_and_the_last() -> None:
    assert history.shown_steps(5) == [0, 1, 2, 3, 4]
    many = history.shown_steps(100)
    assert (len(many), many[0], many[-1]) == (8, 0, 99)
    assert many == sorted(set(many))


def trajectory(keep: np.ndarray | None) -> history.go.Figure:
    bands = Bands(dynamics.BAND_LEVELS, np.arange(10, dtype=float).reshape(5, 2) + 1)
    cutoffs = None if keep is None else np.array([2.0, 3.0])
    tracks = [
        Track("mimic_score", np.array([1.5, 4.0]), bands, False, cutoffs, keep),
        Track("mimic_weight", np.array([0.1, 0.2]), bands, True),
    ]
    return history.trajectory_figure(
        tracks, labels=["1", "2"], unit="epoch", neutral=0.01, theme=LIGHT
    )


def test_votes_differ_in_colour_and_in_shape() -> None:
    sample, other = named(trajectory(np.array([False, True])), "this sample")
    assert sample.y.tolist() == [1.5, 4.0]
    assert sample.marker.symbol == ("x", "circle")
    assert sample.marker.color == (LIGHT.accent, LIGHT.kept)
    assert sample.text == (", drop", ", keep")
    assert other.text == ("", "")


def test_the_cutoff_is_drawn_in_the_column_that_votes() -> None:
    assert [one.y.tolist() for one in named(trajectory(np.ones(2, bool)), "cutoff")] == [[2, 3]]
    assert named(trajectory(None), "cutoff") == []


def test_the_pools_bands_lie_behind_the_sample() -> None:
    figure = trajectory(None)
    outer = named(figure, "pool 5–95 %")
    assert [one.y.tolist() for one in outer[:2]] == [[1, 2], [9, 10]]
    inner = named(figure, "pool 25–75 %")
    assert [one.y.tolist() for one in inner[:2]] == [[3, 4], [7, 8]]
    (note,) = figure.layout.annotations
    assert (note.text, note.y) == ("1/B", pytest.approx(-2))
