"""A recipe applied to a run on disk, for the command line, exports and scripts alike.

Only the columns that the recipe asks for are read, one condition after the other, so this works on
millions of rows; equal recipes and runs give equal selections and equal files.
"""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from mimic_core.base import files
from mimic_core.base.errors import ExportError
from mimic_core.base.schema import ROW_GROUP_ROWS
from mimic_core.filters import uid_lists
from mimic_core.filters.conditions import Leaf, UidList
from mimic_core.filters.recipe import Recipe, Selection, apply, needed_columns, needed_history
from mimic_core.runs import stored
from mimic_core.runs.history import run_history
from mimic_core.runs.run import Run
from mimic_core.runs.table import scan_run


def select(run: Run, recipe: Recipe) -> Selection:
    """What ``recipe`` keeps of a finished run.

    Raises:
        FilterError: A condition does not fit the run; the message names the column.
        SourceError: A list of uids cannot be read.
        RunError: The run is not finished, or damaged.
    """
    recipe = recipe.with_leaves(uid_lists.pinned)
    asked = needed_history(recipe)
    # What has no image has no vote of the epochs.
    more = {"image_kind"} if asked else set()
    table = scan_run(run, [*needed_columns(recipe), *sorted(more)])
    with stored.intact(run.tables):
        return apply(recipe, table, run_history(run, asked) if asked else None)


def lists_met(selection: Selection) -> list[str]:
    """How each list of uids that the recipe names has met the run, in a sentence."""
    found: list[str] = []

    def note(leaf: Leaf) -> Leaf:
        if isinstance(leaf, UidList):
            found.append(uid_lists.met(leaf, selection.table_uids))
        return leaf

    selection.recipe.with_leaves(note)
    return found


def kept_uids(selection: Selection) -> pl.DataFrame:
    """Column ``uid`` with the kept samples, in the order of the run's table."""
    return selection.table_uids.filter(pl.Series(selection.mask)).alias("uid").to_frame()


def dropped_uids(selection: Selection) -> pl.DataFrame:
    """Columns ``uid`` and ``reason`` with the dropped samples, in the order of the run's table."""
    dropped = pl.Series(~selection.mask)
    reasons = selection.reasons.filter(dropped).cast(pl.String)
    return pl.DataFrame({"uid": selection.table_uids.filter(dropped), "reason": reasons})


def write_rows(rows: pl.DataFrame, out: Path, *, overwrite: bool = False) -> None:
    """Write ``rows`` to the Parquet file ``out``, whole or not at all.

    Writing again what is there already changes nothing.

    Raises:
        ExportError: ``out`` is not named as a Parquet file, or another file is there and
            ``overwrite`` is not set.
    """
    if not out.name or out.suffix != ".parquet":
        raise ExportError(
            "the uids are written as Parquet",
            got=out.name,
            allowed="a name ending in .parquet",
            next_step=f"write to {out.stem or 'uids'}.parquet",
        )
    data = _parquet_bytes(rows)
    if out.exists() and not overwrite:
        if not files.holds(out, data):
            raise ExportError(
                "something else is already there",
                got=str(out),
                next_step="choose another name, or allow overwriting",
            )
        return
    files.write_bytes(out, data)


def _parquet_bytes(rows: pl.DataFrame) -> bytes:
    """As Parquet; level 1 takes a third of the time for random hex digits, and less space."""
    out = io.BytesIO()
    rows.write_parquet(out, compression="zstd", compression_level=1, row_group_size=ROW_GROUP_ROWS)
    return out.getvalue()
