from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from app.choices.ranking import GalleryMode, GalleryOrder, page_of, ranked_rows
from mimic_core.stats.dynamics import ascending

TABLE = pl.DataFrame(
    {"uid": ["d", "a", "c", "b", "e"], "score": [3.0, 1.0, 2.0, 2.0, None]},
)
VALUES = np.array([3.0, 1.0, 2.0, 2.0, np.nan])
SELECTED = np.array([True, False, True, False, True])


def ranked(
    mode: GalleryMode, cutoff: float | None = None, *, first: GalleryOrder = "highest"
) -> list[str]:
    order = ascending(TABLE["score"], TABLE["uid"].arg_sort().to_numpy())
    wanted = ~SELECTED if mode == "dropped" else SELECTED
    rows = ranked_rows(order, VALUES, mode=mode, first=first, wanted=wanted, cutoff=cutoff)
    return TABLE["uid"].gather(rows).to_list()


@pytest.mark.parametrize(
    ("mode", "uids"),
    [
        ("lowest", ["a", "b", "c", "d"]),  # b before c: equal scores in the order of the uids
        ("highest", ["d", "c", "b", "a"]),
        ("kept", ["d", "c"]),
        ("dropped", ["b", "a"]),
        ("lasso", ["d", "c"]),
    ],
)
def test_order_of_each_mode_leaves_missing_values_out(mode: GalleryMode, uids: list[str]) -> None:
    assert ranked(mode) == uids


def test_the_wanted_samples_can_come_lowest_first() -> None:
    assert ranked("kept", first="lowest") == ["c", "d"]
    assert ranked("dropped", first="lowest") == ["a", "b"]
    assert ranked("highest", first="lowest") == ranked("highest")  # has an order of its own


def test_around_the_cutoff_the_nearest_comes_first() -> None:
    assert ranked("cutoff", 2.9) == ["d", "b", "c", "a"]


def test_without_a_cutoff_the_middle_is_the_median() -> None:
    assert ranked("cutoff")[:2] == ["b", "c"]


def test_pages_say_their_ranks() -> None:
    page = page_of(np.arange(130), 2)
    assert (page.first, page.last, page.total, page.pages) == (61, 120, 130, 3)
    assert page.rows.tolist() == list(range(60, 120))


def test_the_last_page_is_short() -> None:
    page = page_of(np.arange(130), 3)
    assert (page.first, page.last, len(page.rows)) == (121, 130, 10)


def test_a_page_beyond_the_end_is_the_last_one() -> None:
    assert page_of(np.arange(130), 9).number == 3


def test_an_empty_ranking_has_one_empty_page() -> None:
    page = page_of(np.arange(0), 1)
    assert (page.first, page.last, page.total, page.pages) == (0, 0, 0, 1)
