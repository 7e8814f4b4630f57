"""The paper's claims, repeated on data that fits two cores.

    python bench/reproduce.py [--only PART ...] [--quick] [--json FILE]

Labels: scikit-learn's digits, the drawings of the demo pool, and 10,000 CIFAR-10 images with human
label noise (``../shared/data/cifar10n_10k.parquet``; left out, and said so, where it is not there).
Pairs: the demo pool of ``data_samples``, and photographs (``../shared/data/flickr8k_1k``). Data
sets and seeds run beside each other, each on one core. With ``--only``, the other parts in FILE
stay as they are. ``--quick`` goes through every step on a small part of the data; its figures mean
nothing. ``docs/reproduction.md`` says what they show.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import repository  # noqa: F401 - first: the packages lie one level up
from reproduce_labels import SETS, LabelPlan, ahead, all_sets, reference_of, reproduce_labels
from reproduce_labels import missing as missing_set
from reproduce_members import MembersPlan, reproduce_members
from reproduce_networks import NetworkPlan, Way, reproduce_networks
from reproduce_numbers import Say, rounded
from reproduce_pair_tables import collect_fine_tuning, collect_pairs, pair_tables
from reproduce_pairs import Settings
from reproduce_photographs import PhotographPlan, reproduce_photographs
from reproduce_photographs import missing as missing_photographs
from reproduce_probe import ProbePlan
from reproduce_report import as_markdown
from reproduce_settings import SettingsPlan, reproduce_retention, reproduce_temperatures

LONGEST = ("cifar10n", "digits", "drawings")
LABELLED = ("labels", "members", "temperatures", "retention")
PARTS = (*LABELLED, "networks", "photographs", "fine_tuning", "pairs")
SEEDED = {"pairs": collect_pairs, "fine_tuning": collect_fine_tuning}
LIBRARIES = ("torch", "open_clip_torch", "timm", "scikit-learn", "numpy", "polars")


@dataclass(frozen=True)
class Job:
    """What one process does: parts of a labelled data set, whose reference is trained once; whole
    networks; photographs; or a seed of the demo's pairs.
    """

    parts: tuple[str, ...]
    what: str
    quick: bool

    @property
    def name(self) -> str:
        """In a few words."""
        return f"{' '.join(self.parts)} {self.what}"


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
        "machine": _machine(),
        "quick": options.quick,
        "missing": missing,
    }
    found["cpu"] = {job.name: seconds for job, (_, seconds) in zip(jobs, made, strict=True)}
    results = [(job, result) for job, (result, _) in zip(jobs, made, strict=True)]
    found |= _together(results)
    found["seconds"] = {" ".join(options.only or PARTS): time.perf_counter() - start}
    found = dict(rounded(found))
    if options.json is not None and options.json.is_file() and options.only:
        found = beside(json.loads(options.json.read_text(encoding="utf-8")), found)
    if options.json is not None:
        options.json.write_text(json.dumps(found) + "\n", encoding="utf-8")
    text = as_markdown(found)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text, encoding="utf-8")
    return found


def beside(before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The parts of ``found``, and those of ``before`` that it does not have.

    Raises:
        SystemExit: ``before`` comes from other libraries, or is a quick run's and ``found`` is not.
    """
    for name in ("quick", "machine"):
        if before[name] != found[name]:
            raise SystemExit(
                f"the file's other parts have another {name}: {before[name]}, not {found[name]}; "
                "run all parts, or write to another file"
            )
    both = {**before, **found}
    both |= {name: {**before[name], **found[name]} for name in ("cpu", "seconds")}
    return both


def run_job(job: Job) -> tuple[Any, float]:
    """One job on one core: its figures, and its processor time in seconds."""
    import torch

    torch.set_num_threads(1)
    start, before = time.perf_counter(), time.process_time()

    def say(text: str) -> None:
        print(f"[{job.name} {time.perf_counter() - start:5.0f} s] {text}", flush=True)

    if job.parts[0] in SEEDED:
        settings = QUICK_PAIRS if job.quick else Settings()
        found: Any = SEEDED[job.parts[0]](settings, int(job.what), say)
    elif "networks" in job.parts:
        found = reproduce_networks(QUICK_NETWORKS if job.quick else NetworkPlan(), say)
    elif "photographs" in job.parts:
        photographs = PhotographPlan(seeds=(0,)) if job.quick else PhotographPlan()
        found = reproduce_photographs(photographs, say)
    else:
        found = _labelled(job, say)
    return found, round(time.process_time() - before, 1)


def _labelled(job: Job, say: Say) -> dict[str, Any]:
    """The parts of one labelled data set."""
    plan = QUICK_LABELS if job.quick else LabelPlan()
    settings = QUICK_SETTINGS if job.quick else SettingsPlan()
    members = MembersPlan(seeds=plan.seeds)
    seen = reference_of(job.what, plan, say)
    ways: dict[str, Callable[[], Any]] = {
        "labels": lambda: reproduce_labels(seen, plan, say),
        "members": lambda: reproduce_members(seen, members, say),
        "temperatures": lambda: reproduce_temperatures(seen, settings, say),
        "retention": lambda: reproduce_retention(seen, settings, say),
    }
    return {part: ways[part]() for part in job.parts}


QUICK_LABELS = LabelPlan(seeds=(0,), rates=(0.4, 0.6), digits_epochs=20)
QUICK_SETTINGS = SettingsPlan(
    labels=QUICK_LABELS, learning_rates=(1e-2,), temperatures=(1.0,), rates=(0.4, 0.6)
)
QUICK_NETWORKS = NetworkPlan(
    seeds=(0,),
    noise=("0.5",),
    ways=(Way("uniform", "same backbone"), Way("rho", "head alone")),
    pre_training=1,
    fine_tuning=1,
    epochs=1,
    scored=64,
    held_out=64,
)
QUICK_PAIRS = Settings(
    seeds=(0,),
    epochs=1,
    early=1,
    later=1,
    tuned=1,
    held_out=20,
    layers=(0.05,),
    everything=(),
    probe=ProbePlan(epochs=1, temperatures=(0.5,)),
    samples=100,
    batch_size=32,
)


def _jobs(options: argparse.Namespace) -> tuple[list[Job], list[str]]:
    """The longest first, and what has to be left out; a quick run leaves out CIFAR-10N's labels."""
    jobs: list[Job] = []
    quick, wanted = options.quick, options.only or PARTS
    missing: list[str] = []
    for part in SEEDED:
        if part in wanted:
            seeds = (QUICK_PAIRS if quick else Settings()).seeds
            jobs += [Job((part,), str(seed), quick) for seed in seeds]
    if "networks" in wanted:
        text = missing_set("cifar10n")
        missing += [] if text is None else [f"networks: {text}"]
        jobs += [Job(("networks",), "cifar10n", quick)] if text is None else []
    if parts := tuple(part for part in LABELLED if part in wanted):
        sets = [name for name in SETS if not (quick and name == "cifar10n")]
        missing += [text for name in sets if (text := missing_set(name)) is not None]
        there = [name for name in sets if missing_set(name) is None]
        jobs += [Job(parts, name, quick) for name in sorted(there, key=LONGEST.index)]
    if "photographs" in wanted:
        text = missing_photographs()
        missing += [] if text is None else [text]
        jobs += [Job(("photographs",), "flickr8k", quick)] if text is None else []
    return jobs, missing


def _together(results: Sequence[tuple[Job, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in LABELLED:
        made = {job.what: result[part] for job, result in results if part in job.parts}
        if made:
            found[part] = {name: made[name] for name in SETS if name in made}
    if "labels" in found:
        found["retained_on_all"] = all_sets(found["labels"])
        found["ahead"] = ahead(found["labels"])
    for job, result in results:
        if job.parts in (("networks",), ("photographs",)):
            found[job.parts[0]] = result
    for part in SEEDED:
        seeds = [result for job, result in results if job.parts == (part,)]
        if seeds:
            found[part] = pair_tables(seeds)
    return found


def _machine() -> dict[str, str]:
    found = {name: version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), "cores": str(os.cpu_count()), **found}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts; default all")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--processes", type=int, default=2, help="each takes one core; default 2")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, help="the printed tables as a file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
