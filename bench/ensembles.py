"""How well ensemble filters drop planted noise, by binarisation, aggregation and kind of noise.

    python bench/ensembles.py [RUN] [--temperature T] [--truth is_noisy] [--kind noise_kind]

Two tables in Markdown. First, for every way to vote and every way to put votes together: how much
is kept, and precision, recall and F1 of dropping what is known to be noisy. Then the share of each
kind of noise that is dropped, for one aggregation. The last lines cut the CLIP score and the mean
mimic score by the same splits, without any votes. RUN is a run directory; the default is the
demo's. With --temperature the probe is run anew on the run's features at that temperature.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up

from mimic_core.ensemble import (
    AnyAggregation,
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
    ensemble,
)
from mimic_core.ensembles.binarise import AnyBinarisation
from mimic_core.ensembles.splits import kmeans_cut, mixture_cut
from mimic_core.history import History, history_of, run_history
from mimic_core.runs import Run, open_run
from mimic_core.stats.detection import detection, kept_by_kind
from mimic_core.stats.retention import quality_estimate
from mimic_core.table import run_table, sample_table

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
SHOWN: tuple[AnyBinarisation, ...] = (
    KMeans(),
    GaussianMixture(),
    GaussianMixture(column="loss"),
    TopPercent(percent=70),
)
NAMES = {"clip_score": "CLIP score", "mimic_score": "mean mimic score"}


def tuned(run: Run, temperature: float) -> tuple[pl.DataFrame, History]:
    """Table and history of the run's probe at another temperature."""
    from mimic_core.tuning import tune  # imports torch

    assert run.record.config.probe is not None, "only a probe can be run anew on its features"
    config = run.record.config.probe.model_copy(update={"temperature": temperature})
    scores = tune(run.features, config)
    return sample_table(run.features, scores), history_of(scores, run.record.batch_size)


def decisions(history: History) -> Iterator[tuple[str, str, np.ndarray]]:
    """(how steps vote, how votes are put together, who is kept (N,)) of every ensemble."""
    for vote, way in product(VOTES, WAYS):
        found = ensemble(history, EnsembleConfig(binarise=vote, aggregate=way))
        yield vote.describe(), way.describe(), found.keep


def cuts(table: pl.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    """The same for cutoffs on one column, without votes."""
    for column, name in NAMES.items():
        values = table[column].to_numpy()
        for how, cut in (("k-means", kmeans_cut), ("two normal components", mixture_cut)):
            yield f"{name}: {how}", "no votes", values >= cut(np.sort(values))
        yield f"{name}: top 70 %", "no votes", values >= np.quantile(values, 0.3)


def shown(value: float | None) -> str:
    """A share, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def print_totals(rows: Iterable[tuple[str, str, np.ndarray]], truth: pl.Series) -> None:
    """One line for each decision."""
    print("| votes | put together by | kept | 95 % interval | precision | recall | F1 |")
    print("|---|---|---|---|---|---|---|")
    for vote, way, keep in rows:
        found = detection(keep, truth)
        kept = quality_estimate(int(keep.sum()), len(keep))
        figures = " | ".join(map(shown, (found.precision, found.recall, found.f1)))
        print(
            f"| {vote} | {way} | {kept.retained:.1%} | {kept.low:.1%} to {kept.high:.1%} "
            f"| {figures} |"
        )


def write_json(file: Path, rows: Iterable[tuple[str, str, np.ndarray]], truth: pl.Series) -> None:
    """The figures of ``print_totals``."""
    figures = [
        {"votes": vote, "put_together_by": way, "kept": int(keep.sum()), "of": len(keep)}
        | {name: getattr(found, name) for name in ("precision", "recall", "f1")}
        for vote, way, keep in rows
        for found in [detection(keep, truth)]
    ]
    file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def print_kinds(decided: dict[str, np.ndarray], truth: pl.Series, kind: pl.Series) -> None:
    """The share dropped of each kind of noise, and of the clean samples; a column per decision."""
    print(f"| noise | samples | {' | '.join(decided)} |")
    print(f"|---|---|{'---|' * len(decided)}")
    found = {name: kept_by_kind(keep, truth, kind) for name, keep in decided.items()}
    for row in next(iter(found.values())).iter_rows(named=True):
        recalls = [
            frame.filter(pl.col("noise_kind") == row["noise_kind"])["recall"][0]
            for frame in found.values()
        ]
        print(f"| {row['noise_kind']} | {row['noisy']} | {' | '.join(map(shown, recalls))} |")
    clean = (~truth).fill_null(False).to_numpy()
    wrong = [float((~keep[clean]).mean()) for keep in decided.values()]
    print(f"| clean, dropped by mistake | {clean.sum()} | {' | '.join(map(shown, wrong))} |")


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
    if arguments.json:
        write_json(arguments.json, rows, truth)
    print("\nBy kind of noise, votes put together by majority:\n")
    wanted = {vote.describe() for vote in SHOWN}
    print_kinds(
        {
            vote: keep
            for vote, way, keep in rows
            if (way == "majority" and vote in wanted) or vote == "CLIP score: k-means"
        },
        truth,
        kind,
    )


if __name__ == "__main__":
    main()
