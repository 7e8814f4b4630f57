from __future__ import annotations

import numpy as np
import pytest

from app.choices.box import Box
from app.choices.lasso import Corner, simplified
from app.choices.selecting import drop_region, keep_region, regions
from app.components.explore import map as mapview
from app.state import address
from app.state.session import AppState
from mimic_core.filters.polygon import inside_polygon
from mimic_core.filters.recipe import Recipe

BOX = Box(-7.0, 22.0, -3.0, 17.0)
PIXEL = (BOX.x1 - BOX.x0) / 600


def drawn(count: int, *, radius: float = 5.0, seed: int = 0) -> list[Corner]:
    """A round lasso with the tremble of a hand."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    radii = radius * (1 + 0.2 * np.sin(3 * angles)) + rng.normal(0, PIXEL / 4, count)
    x, y = 7 + radii * np.cos(angles), 7 + radii * np.sin(angles)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def distance_to(outline: list[Corner], points: np.ndarray) -> np.ndarray:
    """From each point (N, 2) to the nearest of many places along the outline."""
    corners = np.array(outline)
    steps = np.linspace(0, 1, 50)[:, None, None]
    along = (corners + steps * (np.roll(corners, -1, axis=0) - corners)).reshape(-1, 2)
    nearest = [np.linalg.norm(points - place, axis=1) for place in along]
    return np.min(nearest, axis=0)


def test_a_lasso_of_300_points_fits_into_the_address() -> None:
    whole = drawn(300)
    assert address.pack(keep_region(Recipe(), whole)) == ""
    short = simplified(whole, BOX)
    assert len(short) < 100
    recipe = drop_region(keep_region(Recipe(), short), simplified(drawn(300, seed=1), BOX))
    letters = address.pack(recipe)
    assert 0 < len(letters) < 2000
    assert address.unpack(letters) == recipe
    assert regions(recipe)[0] == tuple(short)


@pytest.mark.parametrize("radius", [0.3, 5.0])
def test_only_samples_within_about_a_pixel_of_the_outline_change_sides(radius: float) -> None:
    points = 7 + np.random.default_rng(2).uniform(-1.5 * radius, 1.5 * radius, (4000, 2))
    before = drawn(200, radius=radius)
    after = simplified(before, BOX)
    x, y = points.T
    changed = inside_polygon(x, y, before) != inside_polygon(x, y, after)
    assert (distance_to(before, points)[changed] < 1.5 * PIXEL).all()
    assert changed.mean() < 0.1


def test_corners_are_short_numbers_that_were_drawn() -> None:
    short = simplified(drawn(300), BOX)
    assert all(len(str(abs(value))) <= 7 for corner in short for value in corner)
    places = np.array(drawn(300))
    gaps = [np.abs(places - np.array(corner)).max(axis=1).min() for corner in short]
    assert max(gaps) <= (BOX.x1 - BOX.x0) / 4000


def test_a_box_stays_exactly_as_it_was_drawn() -> None:
    box = [(0.1234567891, 1.0), (2.0, 1.0), (2.0, 3.3333333333), (0.1234567891, 3.3333333333)]
    assert simplified(box, BOX) == box


def test_a_lasso_smaller_than_a_pixel_stays_a_region() -> None:
    tiny = [
        (7 + PIXEL * a / 4, 7 + PIXEL * b / 4) for a, b in [(0, 0), (1, 0), (2, 1), (1, 2), (0, 1)]
    ]
    assert len(simplified(tiny, BOX)) >= 3
    keep_region(Recipe(), simplified(tiny, BOX))  # is accepted


def test_what_is_drawn_on_the_map_is_simplified_before_it_selects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = zip(*drawn(300), strict=True)
    event = {"selection": {"lasso": [{"x": list(x), "y": list(y)}], "box": []}}
    set_to: list[Recipe] = []
    monkeypatch.setattr("app.state.session.value", lambda _key: event)
    monkeypatch.setattr("app.state.session.state", AppState)
    monkeypatch.setattr("app.state.session.set_recipe", set_to.append)
    mapview._lassoed(BOX)()
    assert set_to == [keep_region(Recipe(), simplified(drawn(300), BOX))]
