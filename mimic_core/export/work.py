"""What every format is given to write: the kept rows, their pictures, and where files go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from mimic_core.base.errors import ExportError, no_such_column
from mimic_core.export.destination import Draft
from mimic_core.export.pictures import Account, Pictures
from mimic_core.export.settings import ExportConfig
from mimic_core.runs.run import Run

SPLIT = "split"
_SPLIT_NAME = re.compile(r"\w+(?:\.\w+)*")  # what Hugging Face takes for a split


@dataclass(frozen=True)
class Work:
    """One export: ``rows`` are the kept ones of the run's table, in the order of the pool."""

    run: Run
    rows: pl.DataFrame
    config: ExportConfig
    draft: Draft
    name: str
    """what is written, a file or a folder: all names in the draft begin with it"""
    pictures: Pictures
    account: Account

    def splits(self) -> list[tuple[str | None, pl.DataFrame]]:
        """The rows by split, in the order of their names; one without a name where there are none.

        Raises:
            ExportError: The column is missing, has no value in a row, or one that names no split.
        """
        column = self.config.split_column or SPLIT
        there = column in self.rows.columns
        if self.config.split_column is not None and not there:
            raise ExportError(
                "the table has no such column",
                got=column,
                allowed=no_such_column(column, self.rows.columns).allowed,
                next_step="choose one of its columns as --split-column",
            )
        if self.config.no_splits or not there:
            return [(None, self.rows)]
        named = self.rows[column].cast(pl.String)
        for value in named.unique().sort():
            if value is None or not _SPLIT_NAME.fullmatch(value):
                raise ExportError(
                    f"the column {column} names a split for each sample, but not here",
                    got=value,
                    allowed="letters, digits, _ and single points, such as train",
                    next_step="choose another column with --split-column, or --no-splits",
                )
        return [(value, self.rows.filter(named == value)) for value in named.unique().sort()]


def class_names(rows: pl.DataFrame) -> list[str] | None:
    """The classes of labelled samples, sorted; None of samples with captions."""
    return rows["label"].drop_nulls().unique().sort().to_list() or None


def renamed(rows: pl.DataFrame, taken: re.Pattern[str]) -> pl.DataFrame:
    """The rows with other names for the columns that a reader would take for its own."""
    names = dict.fromkeys(rows.columns)
    changed: dict[str, str] = {}
    for name in filter(taken.fullmatch, rows.columns):
        other = f"{name}_column"
        while other in names:
            other += "_"
        changed[name] = other
        names[other] = None
    return rows.rename(changed)


def dataset_card(files: Mapping[str, str]) -> bytes:
    """A ``README.md`` from which Hugging Face knows which files each split has, whatever its name.

    Args:
        files: The pattern of the files of each split.
    """
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split, pattern in files.items():
        lines += [f"  - split: {split}", f'    path: "{pattern}"']
    return "\n".join([*lines, "---", ""]).encode()
