"""What grows with the pool is kept a few times only: a server for a million rows must not swell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.cache import tables as cache
from app.cache.tables import LARGE, TableKey
from mimic_core.filters.recipe import Recipe
from mimic_core.runs.run import Run

COLUMNS = ("mimic_score", "mimic_weight", "loss", "clip_score", "width", "height", "caption_length")
EVERYTHING = Recipe().to_yaml()


def ranked(key: TableKey, column: str) -> object:
    return cache.ranked(key, EVERYTHING, column=column, mode="lowest", first="highest", cutoff=None)


def colouring(key: TableKey, column: str) -> object:
    return cache.colouring(key, column, dark=False)


@pytest.mark.parametrize(
    "kept", [cache.ascending, cache.sorted_values, ranked, colouring], ids=lambda one: one.__name__
)
def test_only_the_last_few_of_what_grows_with_the_pool_are_kept(
    run: Run, kept: Callable[..., Any]
) -> None:
    key = cache.key_of(run)
    found = {column: kept(key, column) for column in COLUMNS}
    assert len(COLUMNS) > LARGE
    for column in COLUMNS[-LARGE:]:
        assert kept(key, column) is found[column]
    assert kept(key, COLUMNS[0]) is not found[COLUMNS[0]]


def test_only_the_last_few_tables_are_kept(run: Run) -> None:
    keys = [cache.key_of(run)._replace(stamp=stamp) for stamp in range(LARGE + 1)]
    tables = [cache.table(key) for key in keys]
    assert cache.table(keys[-1]) is tables[-1]
    assert cache.table(keys[0]) is not tables[0]
