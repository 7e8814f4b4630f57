"""How well the direction check tracks the truth: runs whose wrong labels or captions are known.

    python bench/direction.py [--quick] [--json FILE] [--markdown FILE]

Data: scikit-learn's digits, 10,000 CIFAR-10 images with human label noise
(``../shared/data/cifar10n_10k.parquet``; left out, and said so, where it is not there) and the
demo's pairs. The thresholds of the check were chosen on the calibration family alone; the figures
of the goal are those of the held-out families. Runs without noise have no AUROC:
they are listed with their verdict and counted nowhere else. ``docs/direction.md`` says what the
figures show.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import repository  # noqa: F401 - first: the packages lie one level up
from direction_figures import Made
from direction_labels import backbones, batch_pairs, label_probes, trainings
from direction_pairs import pair_runs, snapshots
from reproduce_images import CIFAR
from reproduce_numbers import rounded

from mimic_core.stats.agreement import rank_agreement

CALIBRATION, HELD_OUT = "calibration", "held out"
# The thresholds were chosen while looking at probes on the first CIFAR-10 images alone. What is
# held out has other data, other images and networks, or another mode.
JOBS = (
    ("cifar10n probes", CALIBRATION),
    ("unseen probes", HELD_OUT),
    ("digits probes", HELD_OUT),
    ("cifar10n trainings", HELD_OUT),
    ("digits trainings", HELD_OUT),
    ("pairs, image projection", HELD_OUT),
    ("pairs, text projection", HELD_OUT),
    ("snapshots", HELD_OUT),
)
CANDIDATES = (
    "figure",
    "above_planted",
    "halves",
    "rank_with_loss",
    "rank_with_reference",
    "above_disagreed",
    "agreement",
    "share_positive",
    "first_with_last_epoch",
    "loss_fall_agreed",
    "norm_left",
    "segment",
    "segment_agreed",
)
LEVELS = ("good", "caution", "bad", "unknown")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Make the runs, print the tables as Markdown, write the files; returns the figures."""
    options = _options(arguments)
    start = time.perf_counter()
    jobs, missing = list(JOBS), None
    if not CIFAR.is_file():
        jobs = [job for job in JOBS if "cifar" not in job[0] and "unseen" not in job[0]]
        missing = f"{CIFAR.name} is not in ../shared/data: its families are left out"
    if options.quick:
        jobs = [job for job in jobs if job[0] in ("digits probes", "snapshots")]
    most = 8 if options.quick else None
    if options.processes == 1:
        made = [run_job(family, most) for family, _ in jobs]
    else:
        with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
            made = list(pool.map(run_job, [family for family, _ in jobs], [most] * len(jobs)))
    runs = [
        run | {"part": part} for (_, part), some in zip(jobs, made, strict=True) for run in some
    ]
    found = dict(
        rounded(summary(runs) | {"batches": batches(runs), "missing": missing, "runs": runs})
    )
    found["seconds"] = round(time.perf_counter() - start)
    text = as_markdown(found)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    if options.json is not None:
        options.json.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return found


def run_job(family: str, most: int | None) -> list[Made]:
    """All runs of a family, or as many as ``most``, on one core."""
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{family} {time.perf_counter() - start:5.0f} s] {text}", flush=True)

    with TemporaryDirectory() as folder:
        made = list(itertools.islice(_runs(family, Path(folder), say), most))
    say(f"{len(made)} runs")
    return made


def _runs(family: str, folder: Path, say: Any) -> Iterator[Made]:
    name, what = family.split(maxsplit=1) if " " in family else (family, "")
    if what == "probes":
        for backbone in backbones(name, say):
            yield from label_probes(backbone, family, folder)
            yield from batch_pairs(backbone, family, folder)
    elif what == "trainings":
        yield from trainings(name, family, say)
    elif family == "snapshots":
        yield from snapshots(family, folder)
    else:
        yield from pair_runs("image" if "image" in what else "text", family, folder)


def summary(runs: Sequence[Made]) -> dict[str, Any]:
    """The figures that the goal is about, of both parts."""
    parts = {part: _part([run for run in runs if run["part"] == part]) for part in
             (CALIBRATION, HELD_OUT)}  # fmt: skip
    held = parts[HELD_OUT]
    return {
        "held_out_runs": held["runs"],
        "spearman": held["spearman"],
        "good_min_auroc": held["good_min_auroc"],
        "bad_max_auroc": held["bad_max_auroc"],
        "parts": parts,
    }


def batches(runs: Sequence[Made]) -> list[dict[str, Any]]:
    """AUROC by batch size of the runs that differ in nothing else."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        if run.get("pair"):
            row = rows.setdefault((run["data"], run["noise"]), {})
            row |= {"data": run["data"], "noise": run["noise"], str(run["batch"]): run["auroc"]}
    return list(rows.values())


def _part(runs: Sequence[Made]) -> dict[str, Any]:
    """Of the runs that have a truth: correlations, levels, extremes; of single epochs as well."""
    known = [run for run in runs if run["auroc"] is not None]
    epochs = [one for run in known for one in run["epochs"]]
    return {
        "runs": len(known),
        "without_noise": len(runs) - len(known),
        "spearman": _spearman(known, "figure"),
        "spearman_epochs": _spearman(epochs, "figure"),
        "good_min_auroc": min((r["auroc"] for r in known if r["level"] == "good"), default=None),
        "bad_max_auroc": max((r["auroc"] for r in known if r["level"] == "bad"), default=None),
        "highest_figure_below_65": max(
            (r["figure"] for r in known if r["auroc"] < 0.65), default=None
        ),
        "lowest_figure_above_85": min(
            (r["figure"] for r in known if r["auroc"] > 0.85), default=None
        ),
        "candidates": {name: _spearman(known, name) for name in CANDIDATES},
        "levels": {level: _level([r for r in known if r["level"] == level]) for level in LEVELS},
        "families": {
            name: {
                "runs": len(some := [run for run in known if run["family"] == name]),
                "spearman": _spearman(some, "figure"),
            }
            for name in dict.fromkeys(run["family"] for run in known)
        },
    }


def _spearman(rows: Sequence[Made], name: str) -> float | None:
    there = [row for row in rows if row.get(name) is not None and row["auroc"] is not None]
    if len(there) < 2:
        return None
    values = [np.array([float(row[key]) for row in there]) for key in (name, "auroc")]
    return rank_agreement(*values)


def _level(runs: Sequence[Made]) -> dict[str, Any]:
    values = sorted(run["auroc"] for run in runs)
    if not values:
        return {"runs": 0, "lowest": None, "median": None, "highest": None}
    middle = statistics.median(values)
    return {"runs": len(values), "lowest": values[0], "median": middle, "highest": values[-1]}


def as_markdown(found: dict[str, Any]) -> str:
    """The calibration tables."""
    lines = []
    for part, of in found["parts"].items():
        lines += [
            f"### {part.capitalize()}",
            "",
            f"{of['runs']} runs with a truth, {of['without_noise']} without noise.",
            (
                f"Spearman of figure and AUROC: {_number(of['spearman'])} over runs, "
                f"{_number(of['spearman_epochs'])} over single epochs."
            ),
            "",
            "| level | runs | lowest AUROC | median | highest |",
            "|---|---|---|---|---|",
        ]
        for level, row in of["levels"].items():
            values = " | ".join(_number(row[name]) for name in ("lowest", "median", "highest"))
            lines.append(f"| {level} | {row['runs']} | {values} |")
        lines += ["", "| family | runs | Spearman |", "|---|---|---|"]
        for family, row in of["families"].items():
            lines.append(f"| {family} | {row['runs']} | {_number(row['spearman'])} |")
        lines.append("")
    names = found["parts"]
    lines += ["### Candidates: Spearman with AUROC", "", "| statistic | calibration | held out |"]
    lines.append("|---|---|---|")
    for name in CANDIDATES:
        both = [_number(names[part]["candidates"][name]) for part in (CALIBRATION, HELD_OUT)]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(both)} |")
    if found["batches"]:
        lines += ["", "### Batches: AUROC at 32 and at 256, all else equal", ""]
        lines += ["| backbone | labels | 32 | 256 |", "|---|---|---|---|"]
        lines += [
            f"| {row['data']} | {row['noise']} | {_number(row['32'])} | {_number(row['256'])} |"
            for row in found["batches"]
        ]
    if found["missing"]:
        lines += ["", f"Left out: {found['missing']}."]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few runs; figures mean nothing")
    parser.add_argument("--processes", type=int, default=2, help="each takes one core; default 2")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, help="the printed tables as a file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
