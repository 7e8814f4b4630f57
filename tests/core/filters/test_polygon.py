"""The polygon test against a slow, independent one that walks the border point by point."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.filters.polygon import inside_polygon

Corner = tuple[int, int]
corners = st.tuples(st.integers(-5, 5), st.integers(-5, 5))
polygons = st.lists(corners, min_size=3, max_size=9)
# Points at the height of corners, where rays meet them, and between; none at the place of one.
points = st.lists(
    st.tuples(st.integers(-18, 18), st.integers(-12, 12)), min_size=1, max_size=30
).map(lambda found: [(Fraction(x, 3) + Fraction(1, 7), Fraction(y, 2)) for x, y in found])


def on_edge(x: Fraction, y: Fraction, a: Corner, b: Corner) -> bool:
    across = (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
    within_x = min(a[0], b[0]) <= x <= max(a[0], b[0])
    return across == 0 and within_x and min(a[1], b[1]) <= y <= max(a[1], b[1])


def inside_slowly(x: Fraction, y: Fraction, polygon: list[Corner]) -> bool:
    """Even-odd rule in exact arithmetic: crossings of a ray to the left, edge by edge."""
    crossings = 0
    for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if (a[1] > y) != (b[1] > y):
            reach = a[0] + Fraction(b[0] - a[0]) * (y - a[1]) / (b[1] - a[1])
            crossings += reach < x
    return crossings % 2 == 1


@given(polygons, points)
def test_it_agrees_with_exact_arithmetic_off_the_border(
    polygon: list[Corner], found: list[tuple[Fraction, Fraction]]
) -> None:
    edges = list(zip(polygon, polygon[1:] + polygon[:1], strict=True))
    off = [p for p in found if not any(on_edge(*p, a, b) for a, b in edges)]
    x, y = (np.array([float(p[axis]) for p in off]) for axis in (0, 1))
    assert inside_polygon(x, y, polygon).tolist() == [inside_slowly(*p, polygon) for p in off]


@given(polygons)
def test_start_and_direction_of_the_border_do_not_matter(polygon: list[Corner]) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-6, 6, 200), rng.uniform(-6, 6, 200)
    expected = inside_polygon(x, y, polygon)
    turned = polygon[2:] + polygon[:2]
    assert (inside_polygon(x, y, turned) == expected).all()
    assert (inside_polygon(x, y, polygon[::-1]) == expected).all()


@given(corners, corners)
def test_a_box_keeps_its_border(one: Corner, other: Corner) -> None:
    (x0, x1), (y0, y1) = sorted((one[0], other[0])), sorted((one[1], other[1]))
    grid = np.arange(-6, 7)
    x, y = (axis.ravel() for axis in np.meshgrid(grid, grid))
    box = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    expected = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    assert (inside_polygon(x, y, box) == expected).all()


def test_corners_of_any_polygon_are_inside() -> None:
    star = [(0, 3), (2, -3), (-3, 1), (3, 1), (-2, -3)]
    x, y = (np.array([corner[axis] for corner in star], float) for axis in (0, 1))
    assert inside_polygon(x, y, star).all()


def test_what_is_enclosed_twice_is_outside() -> None:
    star = [(0, 3), (2, -3), (-3, 1), (3, 1), (-2, -3)]
    assert inside_polygon(np.array([0.0, 0.0]), np.array([0.0, 2.0]), star).tolist() == [
        False,
        True,
    ]


def test_no_points_are_no_problem() -> None:
    assert inside_polygon(np.empty(0), np.empty(0), [(0, 0), (1, 0), (0, 1)]).tolist() == []
