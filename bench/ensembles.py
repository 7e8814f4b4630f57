"""How well ensemble filters drop planted noise, by binarisation, aggregation and kind of noise.

    python bench/ensembles.py [RUN] [--temperature T] [--truth is_noisy] [--kind noise_kind]

Two tables in Markdown, a line for every way to vote and every way to put votes together. First how
much is kept, and precision, recall and F1 of dropping what is known to be noisy; then the share of
each kind of noise that is dropped. The last lines cut the CLIP score and the mean mimic score by
the same splits, without any votes. A share that is kept by construction has no interval. RUN is a
run directory; the default is the demo's. With --temperature the probe is run anew on the run's
features at that temperature. --json FILE writes the figures of both tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up

from mimic_core.filters.ensembles.binarise import AnyBinarisation
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
from mimic_core.filters.ensembles.ensemble import AnyAggregation, ensemble, share_is_fixed
from mimic_core.filters.ensembles.splits import kmeans_cut, mixture_cut
from mimic_core.runs.history import History, history_of, run_history
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table, sample_table
from mimic_core.stats.detection import detection, kept_by_kind
from mimic_core.stats.retention import quality_estimate

VOTES: tuple[AnyBinarisation, ...] = (
    Threshold(),
    KMeans(),
    KMeans(scope="all"),
    KMeans(column="loss"),
    GaussianMixture(),
    GaussianMixture(scope="all"),
    GaussianMixture(column="loss"),
    TopPercent(percent=70),
)
WAYS: tuple[AnyAggregation, ...] = (
    Majority(),
    AtLeast(votes=1),
    Unanimous(),
    MeanRank(),
    LabelModel(),
)
NAMES = {"clip_score": "CLIP score", "mimic_score": "mean mimic score"}


def tuned(run: Run, temperature: float) -> tuple[pl.DataFrame, History]:
    """Table and history of the run's probe at another temperature."""
    from mimic_core.scoring.tuning import tune  # imports torch

    assert run.record.config.probe is not None, "only a probe can be run anew on its features"
    config = run.record.config.probe.model_copy(update={"temperature": temperature})
    scores = tune(run.features, config)
    return sample_table(run.features, scores), history_of(scores, run.record.batch_size)


@dataclass(frozen=True, eq=False)
class Decision:
    """How steps vote, how votes are put together, who is kept (N,) bool, and whether the kept share
    was asked for.
    """

    vote: str
    way: str
    keep: np.ndarray
    fixed: bool


def decisions(history: History) -> Iterator[Decision]:
    """Every ensemble's."""
    for vote, way in product(VOTES, WAYS):
        config = EnsembleConfig(binarise=vote, aggregate=way)
        fixed = share_is_fixed(config, history.steps)
        yield Decision(vote.describe(), way.describe(), ensemble(history, config).keep, fixed)


def cuts(table: pl.DataFrame) -> Iterator[Decision]:
    """Those of cutoffs on one column, without votes."""
    for column, name in NAMES.items():
        values = table[column].to_numpy()
        for how, cut in (("k-means", kmeans_cut), ("two normal components", mixture_cut)):
            keep = values >= cut(np.sort(values))
            yield Decision(f"{name}: {how}", "no votes", keep, fixed=False)
        keep = values >= np.quantile(values, 0.3)
        yield Decision(f"{name}: top 70 %", "no votes", keep, fixed=True)


def shown(value: float | None) -> str:
    """A share, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def print_totals(rows: Sequence[Decision], truth: pl.Series) -> None:
    """One line for each decision."""
    print("| votes | put together by | kept | 95 % interval | precision | recall | F1 |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        found = detection(row.keep, truth)
        kept = quality_estimate(int(row.keep.sum()), len(row.keep))
        span = "–" if row.fixed else f"{kept.low:.1%} to {kept.high:.1%}"
        figures = " | ".join(map(shown, (found.precision, found.recall, found.f1)))
        print(f"| {row.vote} | {row.way} | {kept.retained:.1%} | {span} | {figures} |")


def dropped_by_kind(keep: np.ndarray, truth: pl.Series, kind: pl.Series) -> dict[str, float]:
    """The share dropped of each kind of noise, and of what is clean."""
    found = kept_by_kind(keep, truth, kind)
    clean = (~truth).fill_null(False).to_numpy()
    return dict(found.select("noise_kind", "recall").iter_rows()) | {
        "clean": float((~keep[clean]).mean())
    }


def print_kinds(rows: Sequence[Decision], truth: pl.Series, kind: pl.Series) -> None:
    """A line for each decision and a column for each kind, in per cent; last what is clean."""
    counts = kept_by_kind(rows[0].keep, truth, kind).select("noise_kind", "noisy").iter_rows()
    clean = int((~truth).fill_null(False).sum())
    heads = [f"{name.replace('_', ' ')} ({n})" for name, n in [*counts, ("clean", clean)]]
    print(f"| votes | put together by | {' | '.join(heads)} |")
    print(f"|---|---|{'---|' * len(heads)}")
    for row in rows:
        *noisy, wrong = (100 * one for one in dropped_by_kind(row.keep, truth, kind).values())
        figures = [*(f"{one:.0f}" for one in noisy), f"{wrong:.1f}"]
        print(f"| {row.vote} | {row.way} | {' | '.join(figures)} |")


def write_json(file: Path, rows: Sequence[Decision], truth: pl.Series, kind: pl.Series) -> None:
    """The figures of both tables."""
    figures = [
        {"votes": row.vote, "put_together_by": row.way, "share_is_fixed": row.fixed}
        | {"kept": int(row.keep.sum()), "of": len(row.keep)}
        | {name: getattr(found, name) for name in ("precision", "recall", "f1")}
        | {"dropped": dropped_by_kind(row.keep, truth, kind)}
        for row in rows
        for found in [detection(row.keep, truth)]
    ]
    file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", default=None)
    parser.add_argument("--temperature", type=float, default=None)
    parser.add_argument("--truth", default="is_noisy")
    parser.add_argument("--kind", default="noise_kind")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    demo = Path(__file__).parents[1] / "data_samples" / "runs"
    run = open_run(arguments.run or next(demo.glob("*/run.json")).parent)
    table, history = run_table(run), run_history(run)
    if arguments.temperature is not None:
        table, history = tuned(run, arguments.temperature)
    assert history.uids.equals(table["uid"])  # both in the order of the feature set
    truth, kind = table[arguments.truth], table[arguments.kind]
    temperature = arguments.temperature or run.record.config.scorer.temperature
    print(f"run {run.id}, {history.samples} samples, {history.steps} epochs,", end=" ")
    print(f"batch {history.batch_size}, temperature {temperature}\n")
    rows = [*decisions(history), *cuts(table)]
    print_totals(rows, truth)
    print("\nDropped of each kind, in per cent:\n")
    print_kinds(rows, truth, kind)
    if arguments.json:
        write_json(arguments.json, rows, truth, kind)


if __name__ == "__main__":
    main()
