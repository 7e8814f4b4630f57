from __future__ import annotations

import io
import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

from app.choices import box
from app.choices.box import Box
from app.drawing import colours, explore, figures, map_picture
from app.drawing.colours import DARK, LIGHT, Theme
from app.drawing.explore import Span

EDGES = np.array([0.0, 1.0, 2.0, 3.0])
TOTAL = np.array([5, 7, 2])
KEPT = np.array([0, 4, 2])


def histogram(span: Span | None = None) -> explore.go.Figure:
    return explore.histogram(EDGES, TOTAL, KEPT, column="mimic_score", span=span, theme=LIGHT)


def test_histogram_stacks_kept_and_dropped() -> None:
    kept, dropped = histogram().data
    assert kept.y.tolist() == [0, 4, 2]
    assert dropped.y.tolist() == [5, 3, 0]
    assert (kept.name, dropped.name) == ("kept 6", "dropped 8")


def test_cutoff_is_a_line_and_shades_what_it_drops() -> None:
    shapes = histogram(Span(1.5, None)).layout.shapes
    areas = [(s.x0, s.x1) for s in shapes if s.type == "rect"]
    lines = [s.x0 for s in shapes if s.type == "line"]
    assert areas == [(0.0, 1.5)]
    assert lines == [1.5]


def test_band_shades_both_sides() -> None:
    shapes = histogram(Span(1.0, 2.0)).layout.shapes
    assert [(s.x0, s.x1) for s in shapes if s.type == "rect"] == [(0.0, 1.0), (2.0, 3.0)]


def test_histogram_is_dragged_along_x_only() -> None:
    layout = histogram().layout
    assert (layout.dragmode, layout.selectdirection) == ("select", "h")


def rgba(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


BOX = Box(0.0, 10.0, 0.0, 5.0)


def drawn(x: list[float], y: list[float], *, selected: list[bool], box: Box = BOX) -> np.ndarray:
    rgb = np.full((len(x), 3), [200, 30, 30], np.uint8)
    png = map_picture.draw(
        np.array(x), np.array(y), rgb=rgb, selected=np.array(selected), box=box, theme=LIGHT
    )
    return rgba(png)


def test_points_are_drawn_where_they_are() -> None:
    picture = drawn([2.5], [4.0], selected=[True])
    assert picture.shape == (600, 1200, 4)
    rows, columns = np.nonzero(picture[..., 3])
    assert (rows.mean(), columns.mean()) == pytest.approx((120, 300), abs=1)  # top row is y = 5
    assert picture[120, 300, :3].tolist() == [200, 30, 30]


def test_unselected_points_stay_visible_in_grey() -> None:
    picture = drawn([2.5], [4.0], selected=[False])
    grey = picture[120, 300]
    assert grey[:3].tolist() == list(colours.pc.hex_to_rgb(LIGHT.dropped))
    assert grey[3] > 0


def test_a_selected_point_lies_over_an_unselected_one() -> None:
    picture = drawn([2.5, 2.5], [4.0, 4.0], selected=[False, True])
    reds, greens = picture[120, 300, 0].astype(int), picture[120, 300, 1].astype(int)
    assert reds - greens > 120


def test_points_outside_the_box_are_left_out() -> None:
    assert not drawn([20.0], [4.0], selected=[True])[..., 3].any()


def test_a_point_at_the_corner_is_cut_off_without_wrapping_round() -> None:
    picture = drawn([10.0], [0.0], selected=[True])
    rows, columns = np.nonzero(picture[..., 3])
    assert rows.min() > 580
    assert columns.min() > 1180


def test_the_picture_does_not_grow_with_the_pool() -> None:
    rng = np.random.default_rng(0)
    sizes = []
    for n in (1_000, 100_000):
        x, y = rng.uniform(0, 10, n), rng.uniform(0, 5, n)
        rgb = np.full((n, 3), 90, np.uint8)
        png = map_picture.draw(x, y, rgb=rgb, selected=np.ones(n, bool), box=BOX, theme=LIGHT)
        sizes.append(len(png))
    assert max(sizes) < 1_500_000


def test_the_box_holds_all_points_in_its_middle() -> None:
    x, y = np.array([0.0, 10.0]), np.array([1.0, 2.0])
    around = box.box_around(x, y)
    assert around.holds(x, y).all()
    assert ((around.x0 + around.x1) / 2, (around.y0 + around.y1) / 2) == (5.0, 1.5)
    assert (around.x1 - around.x0) / (around.y1 - around.y0) == pytest.approx(box.ASPECT)


def test_one_point_has_a_box_too() -> None:
    around = box.box_around(np.array([3.0]), np.array([3.0]))
    assert around.x0 < 3.0 < around.x1


def map_figure(captions: list[str], **columns: list[object]) -> explore.go.Figure:
    frame = pl.DataFrame(
        {
            "map_x": [1.0] * len(captions),
            "map_y": [2.0] * len(captions),
            "mimic_score": [0.5] * len(captions),
            "caption": captions,
            **columns,
        }
    )
    name = next(iter(columns), "mimic_score")
    return explore.map_figure(
        "/served/png",
        box=BOX,
        sample=frame,
        colouring=colours.colour_by(frame[name], LIGHT),
        outlines=[[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]],
        theme=LIGHT,
    )


def test_map_is_a_picture_with_equal_axes() -> None:
    layout = map_figure(["a"]).layout
    picture = layout.images[0]
    assert picture.source == "/served/png"
    assert (picture.x, picture.y, picture.sizex, picture.sizey) == (0.0, 5.0, 10.0, 5.0)
    assert layout.yaxis.scaleanchor == "x"
    assert layout.shapes[0].path == "M0.0,0.0L1.0,0.0L1.0,1.0Z"


def test_hover_text_shows_markup_as_text() -> None:
    marks = map_figure(["<script>alert(1)</script>"]).data[0]
    assert marks.customdata[0][2] == "&lt;script&gt;alert(1)&lt;/script&gt;"


def test_a_long_caption_is_cut_in_the_hover_box() -> None:
    assert len(figures.hover_text("x" * 500)) == figures.CAPTION_SHOWN


def test_category_legend_counts_each_value() -> None:
    names = [trace.name for trace in map_figure(["a", "b", "c"], topic=["cat", "dog", "cat"]).data]
    assert names[1:] == ["cat (2)", "dog (1)"]


def test_a_map_without_a_point_in_sight_still_draws() -> None:
    json.loads(map_figure([]).to_json())


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_numbers_span_the_scale_and_missing_ones_are_grey(theme: Theme) -> None:
    column = pl.Series("v", [None, *range(101)], dtype=pl.Float64)
    found = colours.colour_by(column, theme)
    steps = [tuple(round(c) for c in colours.pc.unlabel_rgb(step)) for step in colours.scale(theme)]
    assert tuple(found.rgb[0]) == colours.pc.hex_to_rgb(colours.OTHER)
    assert (found.low, found.high) == (1.0, 99.0)
    assert tuple(found.rgb[1]) == steps[0]
    assert tuple(found.rgb[-1]) == steps[-1]


def test_a_constant_column_has_one_colour() -> None:
    assert len(np.unique(colours.colour_by(pl.Series("v", [2.0, 2.0]), LIGHT).rgb, axis=0)) == 1


def test_categories_take_the_palette_by_size_and_the_rest_is_grey() -> None:
    values = [f"c{i}" for i in range(12) for _ in range(20 - i)]
    found = colours.colour_by(pl.Series("v", values), LIGHT)
    assert found.legend[0] == ("c0", colours.OKABE_ITO[0], 20)
    assert found.legend[-1] == (
        "other or missing",
        colours.OTHER,
        sum(20 - i for i in range(8, 12)),
    )
    assert tuple(found.rgb[-1]) == colours.pc.hex_to_rgb(colours.OTHER)


def test_booleans_are_categories() -> None:
    found = colours.colour_by(pl.Series("is_noisy", [True, False, False]), LIGHT)
    assert [(name, count) for name, _, count in found.legend] == [("false", 2), ("true", 1)]


def test_segment_runs_from_the_model_to_the_reference() -> None:
    (line,) = explore.segment_figure(((0.0, 5.5), (1.0, 1.8)), LIGHT).data
    assert (list(line.x), list(line.y)) == ([0.0, 1.0], [5.5, 1.8])


def test_samples_that_share_a_point_of_the_map_are_told_as_one() -> None:
    frame = pl.DataFrame(
        {
            "map_x": [0.0, 1.0, 0.0, 2.0, 0.0],
            "map_y": [0.0, 1.0, 0.0, 2.0, 5.0],
            "mimic_score": [0.5, 3.0, 1.5, 4.0, 9.0],
            "caption": ["a dog", "a cat", "it runs", "a cow", "a hen"],
            "label": [None] * 5,
            "topic": ["pets", "pets", "sport", None, "farm"],
        },
        schema_overrides={"label": pl.String},
    )
    found = explore.points(frame, np.array([0, 1, 2, 3]))
    assert found.columns == frame.columns
    assert found["caption"].to_list() == [
        "2 samples, values are their means: a dog",
        "a cat",
        "a cow",
    ]
    assert found["mimic_score"].to_list() == [1.0, 3.0, 4.0]
    assert found["topic"].to_list() == [explore.SEVERAL, "pets", None]
    assert found["label"].to_list() == [None] * 3
    alone = explore.points(frame, np.array([3, 1]))
    assert alone.equals(frame[[3, 1]])
    # all samples of a point count, also where one of them alone was drawn
    assert explore.points(frame, np.array([2]))["mimic_score"].to_list() == [1.0]
