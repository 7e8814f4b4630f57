"""The paper's claims, repeated on data that fits two cores.

    python bench/reproduce.py [--only labels|pairs] [--quick] [--json FILE]

Labels: scikit-learn's digits and 10,000 CIFAR-10 images with human label noise
(``../shared/data/cifar10n_10k.parquet``; left out, and said so, where it is not there). Pairs: the
demo pool of ``data_samples``. Data sets and seeds run beside each other, each on one core.
``--quick`` goes through every step on a small part of the data; its figures mean nothing.
``docs/reproduction.md`` says what they show.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import repository  # noqa: F401 - first: the packages lie one level up
from reproduce_labels import SETS, LabelPlan, both_sets, reproduce_labels
from reproduce_labels import missing as missing_set
from reproduce_numbers import rounded
from reproduce_pair_tables import collect_pairs, pair_tables
from reproduce_pairs import Settings
from reproduce_probe import ProbePlan
from reproduce_report import as_markdown

PARTS = ("labels", "pairs")
LIBRARIES = ("torch", "open_clip_torch", "timm", "scikit-learn", "numpy", "polars")


@dataclass(frozen=True)
class Job:
    """What one process does: a data set of the labels, or a seed of the pairs."""

    part: str
    what: str
    quick: bool

    @property
    def name(self) -> str:
        """In a word or two."""
        return f"{self.part} {self.what}"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the jobs, print the tables as Markdown, write the files; returns the figures."""
    options = _options(arguments)
    start = time.perf_counter()
    jobs, missing = _jobs(options)
    if options.processes == 1:
        made = [run_job(job) for job in jobs]
    else:
        # Started afresh: a fork of a process with threads may hang.
        context = get_context("spawn")
        with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
            made = list(pool.map(run_job, jobs))
    found: dict[str, Any] = {
        "machine": _machine(options.processes),
        "quick": options.quick,
        "missing": missing,
    }
    found["cpu"] = {job.name: seconds for job, (_, seconds) in zip(jobs, made, strict=True)}
    results = [(job, result) for job, (result, _) in zip(jobs, made, strict=True)]
    found |= _together(results)
    found["seconds"] = time.perf_counter() - start
    found = dict(rounded(found))
    text = as_markdown(found)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text, encoding="utf-8")
    if options.json is not None:
        options.json.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return found


def run_job(job: Job) -> tuple[Any, float]:
    """One job on one core: its figures, and its processor time in seconds."""
    import torch

    torch.set_num_threads(1)
    start, before = time.perf_counter(), time.process_time()

    def say(text: str) -> None:
        print(f"[{job.name} {time.perf_counter() - start:5.0f} s] {text}", flush=True)

    if job.part == "labels":
        plan = QUICK_LABELS if job.quick else LabelPlan()
        found: Any = reproduce_labels(job.what, plan, say)
    else:
        settings = QUICK_PAIRS if job.quick else Settings()
        found = collect_pairs(settings, int(job.what), say)
    return found, round(time.process_time() - before, 1)


QUICK_LABELS = LabelPlan(
    seeds=(0,),
    rates=(0.4, 0.6),
    digits_epochs=20,
    rates_tried=(1e-2,),
    temperatures_tried=(1.0,),
)
QUICK_PAIRS = Settings(
    seeds=(0,),
    epochs=1,
    early=1,
    later=1,
    held_out=20,
    layers=(0.05,),
    everything=(),
    probe=ProbePlan(epochs=1, temperatures=(0.5,)),
    samples=100,
    batch_size=32,
)


def _jobs(options: argparse.Namespace) -> tuple[list[Job], list[str]]:
    """The longest first, and what has to be left out; a quick run goes through digits alone."""
    jobs: list[Job] = []
    quick, wanted = options.quick, (options.only,) if options.only else PARTS
    missing: list[str] = []
    if "pairs" in wanted:
        seeds = (QUICK_PAIRS if quick else Settings()).seeds
        jobs += [Job("pairs", str(seed), quick) for seed in seeds]
    if "labels" in wanted:
        sets = SETS[:1] if quick else tuple(reversed(SETS))
        missing = [text for name in sets if (text := missing_set(name)) is not None]
        jobs += [Job("labels", name, quick) for name in sets if missing_set(name) is None]
    return jobs, missing


def _together(results: Sequence[tuple[Job, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    labels = {job.what: result for job, result in results if job.part == "labels"}
    seeds = [result for job, result in results if job.part == "pairs"]
    if labels:
        found["labels"] = {name: labels[name] for name in SETS if name in labels}
        found["retained_on_all"] = both_sets(labels)
    if seeds:
        found["pairs"] = pair_tables(seeds)
    return found


def _machine(processes: int) -> dict[str, str]:
    found = {name: version(name) for name in LIBRARIES}
    counts = {"cores": str(os.cpu_count()), "processes": str(processes)}
    return {"python": platform.python_version(), **counts, **found}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--processes", type=int, default=2, help="each takes one core; default 2")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, help="the printed tables as a file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
