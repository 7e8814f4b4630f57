"""How often a proof is wrong: two random halves of the demo pool, told apart or not.

    python bench/prove.py [--replications 200] [--json FILE]

Every replication cuts the demo pool into two random halves, which are equally good, and proves one
against the other as the command line does, with trainings made shorter (batch 32, 30 steps, three
seeds). Printed are the shares of replications with a false "better" or "worse": of the halves
against each other at 5 % without correction, and of any comparison of the proof after it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import repository  # noqa: F401 - first: the packages lie one level up

from mimic_core.filters.conditions import Uids
from mimic_core.filters.recipe import Recipe
from mimic_core.proofs.prove import prove
from mimic_core.proofs.record import Proof
from mimic_core.proofs.settings import ProveConfig
from mimic_core.runs.run import open_run
from mimic_core.runs.table import run_table

RUNS = Path(__file__).resolve().parents[1] / "data_samples" / "runs"


def main() -> None:
    """Prove again and again, print the shares and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    run = open_run(next(RUNS.glob("*/run.json")).parent)
    good = run_table(run).filter(~np.array(run_table(run)["is_noisy"]))["uid"]
    held_out = good.sort()[::7]
    features = run.features  # a bare feature set: nothing is stored
    uids = np.array(features.samples["uid"])
    config = ProveConfig(seeds=3, steps=30, batch_size=32, resamples=2000)
    proofs: list[Proof] = []
    start = time.perf_counter()
    for seed in range(arguments.replications):
        mixed = np.random.default_rng(seed).permutation(uids)
        halves = np.array_split(mixed, 2)
        recipes = {
            name: Recipe().with_condition(name, Uids(uids=tuple(half)))
            for name, half in zip("AB", halves, strict=True)
        }
        proofs.append(prove(features, recipes, config, held_out=held_out))
    pairs = [next(c for c in p.comparisons if (c.first, c.second) == ("A", "B")) for p in proofs]
    result = {
        "replications": len(proofs),
        "seconds": round(time.perf_counter() - start, 1),
        "halves_told_apart": sum(c.p <= config.level for c in pairs),
        "any_false_verdict": sum(
            any(c.outcome in ("better", "worse") for c in p.comparisons) for p in proofs
        ),
    }
    print("| replications | halves told apart at 5 % | any false verdict, corrected | seconds |")
    print("|---|---|---|---|")
    print(
        "| "
        + " | ".join(
            str(result[key])
            for key in ("replications", "halves_told_apart", "any_false_verdict", "seconds")
        )
        + " |"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
