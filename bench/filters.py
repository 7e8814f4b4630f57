"""What the offline stage costs: votes, ensembles, curves, and recipes over Parquet.

    python bench/filters.py [--rows 10000000] [--epochs 5] [--root FOLDER] [--json FILE]

Made-up scores (three of ten samples noisy, with overlap). Ensembles and the curve are timed in
memory; a recipe of four conditions in a process of its own that reads Parquet and writes the kept
uids, with its peak resident memory; a changed condition as the app does it, on a table in memory,
with a tenth of the rows. Medians of three. Processor seconds are those of all threads together.
The run is written to --root and found again there, else to a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up
from big_run import BATCH, made_up_scores, noisy_rows, write_big_run

from mimic_core.filters.conditions import (
    Absolute,
    Condition,
    EnsembleVote,
    Minus,
    Not,
    Percentile,
    Text,
    TopK,
)
from mimic_core.filters.ensembles.config import (
    AtLeast,
    EnsembleConfig,
    GaussianMixture,
    KMeans,
    LabelModel,
    Majority,
    MeanRank,
    Threshold,
    TopPercent,
    Unanimous,
)
from mimic_core.filters.ensembles.ensemble import ensemble
from mimic_core.filters.recipe import Recipe, selection_of
from mimic_core.filters.votes import votes
from mimic_core.jobs.processes import environment
from mimic_core.runs.history import History, run_history
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table
from mimic_core.stats.retention import retention_curve

ROUNDS = 3
APP_SHARE = 10  # the app is timed on a tenth of the rows
FOUR = (
    Recipe()
    .with_condition("long enough", Absolute(column="caption_length", min=12))
    .with_condition("helps", Percentile(column="mimic_score", lower=15))
    .with_condition("matches", Percentile(column="clip_score", lower=10))
    .with_condition("no birds", Not(condition=Text(contains="two birds")))
)
WITH_ENSEMBLE = FOUR.with_condition("helps", EnsembleVote(aggregate=LabelModel()))


@dataclass(frozen=True)
class Measured:
    """One line of the table."""

    what: str
    rows: int
    seconds: float
    processor_seconds: float
    limit: float | None
    peak_gib: float | None = None


def timed(what: str, rows: int, limit: float, work: Callable[[], object]) -> Measured:
    """Median wall and processor time of ``work`` over the rounds."""
    walls, processor = [], []
    for _ in range(ROUNDS):
        wall, busy = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processor.append(time.process_time() - busy)
    return Measured(what, rows, statistics.median(walls), statistics.median(processor), limit)


def made_up_history(rows: int, epochs: int) -> History:
    """The history of the made-up run, in memory."""
    noisy = noisy_rows(rows)
    steps = [made_up_scores(noisy, epoch) for epoch in range(epochs)]
    arrays = {
        name: np.stack([step.pop(name) for step in steps])
        for name in ("mimic_score", "mimic_weight", "loss")
    }
    uids = pl.Series("uid", np.arange(rows)).cast(pl.String)
    return History(uids, epochs=tuple(range(epochs)), batch_size=BATCH, **arrays)


def ensembles(history: History) -> Iterator[Measured]:
    """Every binarisation by majority, then every aggregation of the cheapest votes."""
    rows = history.samples
    for vote in (
        Threshold(),
        KMeans(),
        KMeans(scope="all"),
        GaussianMixture(),
        GaussianMixture(scope="all"),
        TopPercent(percent=70),
        TopPercent(percent=70, scope="all"),
    ):
        config = EnsembleConfig(binarise=vote)
        yield timed(
            f"votes and majority, {vote.describe()}",
            rows,
            2,
            partial(ensemble, history, config),
        )
    for way in (Majority(), AtLeast(votes=2), Unanimous(), MeanRank(), LabelModel()):
        config = EnsembleConfig(binarise=Threshold(), aggregate=way)
        yield timed(f"threshold and {way.describe()}", rows, 3, partial(ensemble, history, config))


def curves(history: History) -> Iterator[Measured]:
    """The retained fraction over all cutoffs, without and with a truth."""
    values = pl.Series("mimic_score", history.mimic_score[0])
    truth = pl.Series("is_noisy", noisy_rows(history.samples))
    rows = history.samples
    yield timed("kept-fraction curve", rows, 1, lambda: retention_curve(values))
    yield timed(
        "the same with precision and recall", rows, 1, lambda: retention_curve(values, truth)
    )


def commands(run: Run, recipes: dict[str, Recipe]) -> Iterator[Measured]:
    """Recipes over Parquet, each in a process of its own: the selection, then the whole command."""
    for name, recipe in recipes.items():
        rounds = [_command(run, recipe) for _ in range(ROUNDS)]
        peak = max(one["peak_gib"] for one in rounds)
        for what, limit in (("select", 5.0), ("command", None)):
            yield Measured(
                f"{name} over Parquet, {WHAT[what]}",
                run.record.samples,
                statistics.median(one[what] for one in rounds),
                statistics.median(one[f"{what}_processor"] for one in rounds),
                limit,
                peak,
            )


WHAT = {
    "select": "who is kept and why not",
    "command": "the whole command, start and writing of the uids included",
}
CHILD = """
import json, sys, time
from pathlib import Path
from mimic_core.filters import selections
from mimic_core.filters.library import read_recipe
from mimic_core.runs.run import open_run
wall, busy = time.perf_counter(), time.process_time()
selection = selections.select(open_run(Path(sys.argv[2])), read_recipe(Path(sys.argv[1])))
print(json.dumps([time.perf_counter() - wall, time.process_time() - busy]))
selections.write_rows(selections.kept_uids(selection), Path(sys.argv[3]))
"""


def _command(run: Run, recipe: Recipe) -> dict[str, float]:
    """Seconds of one process that does what the command ``filter`` does, and its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(recipe.to_yaml(), encoding="utf-8")
        arguments = [str(file), str(run.path), str(Path(folder) / "kept.parquet")]
        start = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None  # it is a pipe
        said = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit("the filtering process failed")
    selecting, processor = json.loads(said)
    return {
        "select": selecting,
        "select_processor": processor,
        "command": wall,
        "command_processor": usage.ru_utime + usage.ru_stime,
        "peak_gib": usage.ru_maxrss / 2**20,
    }


def changes(run: Run) -> Iterator[Measured]:
    """What the app computes when one condition changes: its own votes, then the selection."""
    table, history = run_table(run), run_history(run)
    before = [votes(named.condition, table) for named in FOUR.conditions]
    minus = Minus(
        keep=Percentile(column="clip_score", lower=70),
        drop=Percentile(column="mimic_score", upper=15),
    )
    changed: dict[str, Condition] = {
        "a range": Absolute(column="mimic_score", min=0.3),
        "a percentile": Percentile(column="mimic_score", lower=31),
        "a percentile in each group": Percentile(column="clip_score", lower=31, by="topic"),
        "a count in each group": TopK(column="clip_score", k=1000, by="topic"),
        "a text": Text(contains="dog"),
        "a minus": minus,
    }
    for vote in (KMeans(), GaussianMixture()):
        for way in (Majority(), MeanRank(), LabelModel()):
            one = EnsembleVote(binarise=vote, aggregate=way)
            changed[f"an ensemble, {one.describe()},"] = one
    for name, condition in changed.items():
        work = partial(counted, condition, before, table, history)
        yield timed(f"app: {name} changed", len(table), 0.5, work)


def counted(
    condition: Condition, before: list[pl.Series], table: pl.DataFrame, history: History
) -> dict[str, int]:
    """Counts of all drops; votes of unchanged conditions are remembered, no ensemble is."""
    anew = History(**{name: getattr(history, name) for name in history.__dataclass_fields__})
    found = votes(condition, table, anew)
    recipe = FOUR.with_condition("changed", condition)
    return {**selection_of(recipe, table["uid"], [*before, found]).drops, "": int(found.sum() or 0)}


@contextmanager
def folder_for_runs(root: Path | None) -> Iterator[Path]:
    """``root``, or a temporary folder."""
    if root is not None:
        yield root
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def run_of(root: Path, rows: int, epochs: int) -> Run:
    """The made-up run of that size under ``root``, written unless it is there."""
    path = root / f"made-up-{rows}-{epochs}"
    if (path / "run.json").exists() and open_run(path).done:
        return open_run(path)
    return write_big_run(root, rows, epochs)


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--root", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rows, epochs = arguments.rows, arguments.epochs
    found: list[Measured] = []
    with folder_for_runs(arguments.root) as root:
        big = run_of(root, rows, epochs)
        found += commands(big, {"four conditions": FOUR, "an ensemble among four": WITH_ENSEMBLE})
        found += changes(run_of(root, max(rows // APP_SHARE, 10), epochs))
    history = made_up_history(rows, epochs)
    found += [*ensembles(history), *curves(history)]
    versions = f"polars {pl.__version__}, numpy {np.__version__}"
    print(f"{epochs} epochs, {os.cpu_count()} cores, {versions}\n")
    print("| what | rows | seconds | processor seconds | limit | peak memory, GiB |")
    print("|---|---|---|---|---|---|")
    for one in found:
        limit = "" if one.limit is None else f"{one.limit:g}"
        peak = "" if one.peak_gib is None else f"{one.peak_gib:.2f}"
        print(
            f"| {one.what} | {one.rows:,} | {one.seconds:.2f} | {one.processor_seconds:.2f} "
            f"| {limit} | {peak} |"
        )
    if arguments.json:
        values = [asdict(one) for one in found]
        arguments.json.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
