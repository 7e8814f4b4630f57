"""A run whose columns, captions and recipes are named by somebody who means no good."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl

from mimic_core.filters.conditions import Absolute, Category
from mimic_core.filters.library import save_recipe
from mimic_core.filters.recipe import Recipe
from mimic_core.runs.run import Run, open_run
from tests.recipes import recipe

MARK = ":material/home: :red[r] $x^2$ <b>b</b> **s** [a](http://e.example) `c`"
NUMBER, CATEGORY, TRUTH = f"n {MARK}", f"c {MARK}", f"t {MARK}"
ODD = ("a\0b", "", "UID", "count", "%{x}", "^", "$", ".*", "own.x")


def foreign_run(run: Run, root: Path) -> Run:
    """A copy of a finished run of ``tests.fakes`` with such names, under ``root``."""
    shutil.copytree(run.path.parent, root)
    found = open_run(root / run.path.name)
    names = {"aesthetic": NUMBER, "topic": CATEGORY, "is_noisy": TRUTH}
    for table in ("samples", "index"):
        for path in (found.features.path / table).glob("0000?.parquet"):
            frame = pl.read_parquet(path).rename(names)
            more = [pl.Series(name, [0.5] * len(frame)) for name in ODD]
            foreign = (pl.col("caption") + f" {MARK}").alias("caption")
            kinds = pl.Series(CATEGORY, [f"{value} {MARK}" for value in frame[CATEGORY]])
            frame.with_columns(foreign, kinds, *more).write_parquet(path)
    save_recipe(root, "saved", foreign_recipe())
    return open_run(found.path)


def foreign_recipe() -> Recipe:
    conditions: dict[str, Any] = {
        f"one {MARK}": Absolute(column=NUMBER, min=0.0),
        f"two {MARK}": Category(column=CATEGORY, values=(f"cat {MARK}", f"dog {MARK}")),
        "three": Absolute(column=".*", min=0.0),
    }
    return recipe(**conditions)
