"""How often a proof is wrong, and how large a difference it finds.

    python bench/prove.py [--parts alarms power] [--replications 200] [--json FILE]

alarms: every replication cuts the demo pool into two random halves, which are equally good, and
    proves one against the other as the command line does, with trainings made shorter (batch 32,
    30 steps, three seeds). Printed are the shares of replications with a false "better" or "worse":
    of the halves against each other at 5 % without correction, and of any comparison of the proof
    after it.
power: eight times, two halves of a pool whose shares of noise differ by 0, 10 or 20 points are
    proved with all settings as by default, on the demo (30 % planted noise) and on scikit-learn's
    digits (pixels as features, 30 % wrong labels). Printed is how often the cleaner half was found
    better, and how often it and all samples were told apart; beside that, the mean difference of
    the held-out loss, and what the proofs themselves say that their seeds find
    (``mimic_core.proofs.power``; medians).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up
from feature_sets import one_shard
from sklearn.datasets import load_digits

from mimic_core.filters.conditions import Uids
from mimic_core.filters.recipe import Recipe
from mimic_core.proofs.prove import prove
from mimic_core.proofs.record import Comparison, Proof
from mimic_core.proofs.settings import ProveConfig
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.run import open_run
from mimic_core.runs.table import run_table

RUNS = Path(__file__).resolve().parents[1] / "data_samples" / "runs"
POOLS = ("demo", "digits")
POINTS, POWER_REPLICATIONS = (0, 10, 20), 8
SHORT = ProveConfig(seeds=3, steps=30, batch_size=32, resamples=2000)


@dataclass(frozen=True, eq=False)
class Pool:
    """Samples (N) by uid, which of them are noisy (N,), and clean ones that judge."""

    features: FeatureSet
    uids: np.ndarray
    noisy: np.ndarray
    judges: pl.Series

    def proof(self, halves: Mapping[str, np.ndarray], config: ProveConfig) -> Proof:
        """Of recipes that keep these rows; a bare feature set stores nothing."""
        recipes = {
            name: Recipe().with_condition(name, Uids(uids=tuple(self.uids[rows])))
            for name, rows in halves.items()
        }
        return prove(self.features, recipes, config, held_out=self.judges)

    def halves(self, seed: int, points: int = 0) -> dict[str, np.ndarray]:
        """Two halves of the pool, of which A has ``points`` fewer per cent of noisy samples; for 0
        they are random, and their shares differ as they may.
        """
        rng = np.random.default_rng([seed, points])
        order = rng.permutation(len(self.uids))
        half = len(order) // 2
        if not points:
            return {"A": order[:half], "B": order[half:]}
        noisy, clean = order[self.noisy[order]], order[~self.noisy[order]]
        first = round(half * (len(noisy) / len(order) - points / 200))
        cut = half - first
        return {
            "A": np.concatenate([noisy[:first], clean[:cut]]),
            "B": np.concatenate([noisy[first:], clean[cut:]]),
        }


def demo() -> Pool:
    """Image-caption pairs; a seventh of the clean ones judges."""
    run = open_run(next(RUNS.glob("*/run.json")).parent)
    table = run_table(run).sort("uid")
    judges = table.filter(~pl.col("is_noisy"))["uid"][::7]
    return Pool(run.features, np.array(table["uid"]), np.array(table["is_noisy"]), judges)


def digits(folder: Path) -> Pool:
    """Labelled images: 30 % of those that do not judge have a wrong label."""
    found = load_digits()
    rng = np.random.default_rng(0)
    count = len(found.target)
    judging = np.arange(count) % 4 == 0
    wrong = (rng.random(count) < 0.3) & ~judging
    labels = np.where(wrong, (found.target + rng.integers(1, 10, count)) % 10, found.target)
    uids = [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(count)]
    samples = pl.DataFrame({"uid": uids, "label": labels.astype(str)})
    pixels = (found.data / 16).astype(np.float32)
    features = one_shard(folder, samples, {"image_features": pixels}, task="labels")
    rows = np.flatnonzero(~judging)
    return Pool(features, np.array(uids)[rows], wrong[rows], samples["uid"].filter(judging))


def alarms(replications: int) -> dict[str, Any]:
    """How often two random halves of the demo are told apart."""
    pool, start = demo(), time.perf_counter()
    proofs = [pool.proof(pool.halves(seed), SHORT) for seed in range(replications)]
    result = {
        "replications": len(proofs),
        "seconds": round(time.perf_counter() - start, 1),
        "halves_told_apart": sum(_between(proof, "B").p <= SHORT.level for proof in proofs),
        "any_false_verdict": sum(
            any(c.outcome in ("better", "worse") for c in p.comparisons) for p in proofs
        ),
    }
    print("| replications | halves told apart at 5 % | any false verdict, corrected | seconds |")
    print("|---|---|---|---|")
    keys = ("replications", "halves_told_apart", "any_false_verdict", "seconds")
    print("| " + " | ".join(str(result[key]) for key in keys) + " |\n")
    return result


def power(names: Sequence[str]) -> dict[str, Any]:
    """How often halves that differ by so much are told apart, by pool and points."""
    print(
        "| pool | noise of A and B differs by | A found better | A against all: better, worse "
        "| loss of A over B | 5 seeds find | any number |\n|---|---|---|---|---|---|---|"
    )
    result: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        pools: dict[str, Callable[[], Pool]] = {
            "demo": demo,
            "digits": lambda: digits(Path(folder) / "digits"),
        }
        for name in names:
            pool = pools[name]()
            for points in POINTS:
                proofs = [
                    pool.proof(pool.halves(seed, points), ProveConfig())
                    for seed in range(POWER_REPLICATIONS)
                ]
                found = _found(proofs)
                result[f"{name}_{points}"] = found
                print(_row(name, points, found), flush=True)
    return result


def _found(proofs: list[Proof]) -> dict[str, float]:
    pairs = [_between(proof, "B") for proof in proofs]
    wholes = [_between(proof, "all samples") for proof in proofs]
    errors = [one.power for one in pairs if one.power is not None]
    return {
        "replications": len(proofs),
        "better": sum(one.outcome == "better" for one in pairs),
        "worse": sum(one.outcome == "worse" for one in pairs),
        "better_than_all": sum(one.outcome == "better" for one in wholes),
        "worse_than_all": sum(one.outcome == "worse" for one in wholes),
        "difference": statistics.mean(one.differences["held-out loss"].value for one in pairs),
        "detectable": statistics.median(one.detectable for one in errors),
        "limit": statistics.median(one.limit for one in errors),
    }


def _row(name: str, points: int, found: Mapping[str, float]) -> str:
    of = f"of {found['replications']}"
    cells = (
        name,
        f"{points} points" if points else "nothing but chance",
        f"{found['better']} {of}",
        f"{found['better_than_all']}, {found['worse_than_all']} {of}",
        *(f"{found[key]:.3f}" for key in ("difference", "detectable", "limit")),
    )
    return f"| {' | '.join(cells)} |"


def _between(proof: Proof, second: str) -> Comparison:
    return next(c for c in proof.comparisons if (c.first, c.second) == ("A", second))


def main() -> None:
    """Prove again and again, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--parts", nargs="+", choices=["alarms", "power"], default=["alarms", "power"]
    )
    parser.add_argument("--replications", type=int, default=200, help="of the part alarms")
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS))
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    if "alarms" in arguments.parts:
        result |= alarms(arguments.replications)
    if "power" in arguments.parts:
        result["power"] = power(arguments.pools)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
