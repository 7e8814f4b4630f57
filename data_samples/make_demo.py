"""Make the whole demo again: pool, reference model and one finished run.

Usage, from the root of the repository::

    python data_samples/make_demo.py                 # everything
    python data_samples/make_demo.py --only pool     # one part: pool, reference or run
    python data_samples/make_demo.py --check         # AUROC of the CLIP score by kind of noise
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO_DIR = ROOT / "data_samples"


def make_pool(seed: int | None) -> None:
    """Write the pool to data_samples/pool."""
    from data_samples.make_pool import POOL_DIR, POOL_SEED, write_pool

    write_pool(POOL_DIR, seed=POOL_SEED if seed is None else seed)


def make_reference(seed: int | None) -> None:
    """Train the reference and write it to data_samples/reference."""
    from data_samples.train_reference import (
        REFERENCE_DIR,
        REFERENCE_SEED,
        TrainingPlan,
        train_reference,
    )

    plan = TrainingPlan(seed=REFERENCE_SEED if seed is None else seed)
    train_reference(REFERENCE_DIR, plan)


def make_run() -> None:
    """Score the pool with the reference and write the run, and its map, to data_samples/runs."""
    shutil.rmtree(ROOT / "data_samples" / "runs", ignore_errors=True)
    command = [
        sys.executable, "-m", "mimic_core", "score", "data_samples/pool",
        "--reference", "data_samples/reference", "--out", "data_samples/runs", "--map",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True)


def print_check() -> None:
    """Print how well the CLIP score separates clean samples from each kind of noise."""
    from data_samples.check import check_reference

    print("AUROC of the CLIP score, clean samples against:")
    for kind, value in check_reference(DEMO_DIR / "pool", DEMO_DIR / "reference").items():
        print(f"  {kind:20} {value:.3f}")


def main() -> None:
    """Command line: make everything, or the parts asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("pool", "reference", "run"), help="make one part only")
    parser.add_argument("--check", action="store_true", help="make nothing, print the AUROCs")
    parser.add_argument("--pool-seed", type=int, help="seed of the pool")
    parser.add_argument("--reference-seed", type=int, help="seed of the reference's training")
    options = parser.parse_args()
    if options.check:
        print_check()
        return
    steps: dict[str, Callable[[], None]] = {
        "pool": lambda: make_pool(options.pool_seed),
        "reference": lambda: make_reference(options.reference_seed),
        "run": make_run,
    }
    for name, step in steps.items():
        if options.only in (None, name):
            start = time.perf_counter()
            step()
            print(f"{name} made in {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    # A script's path starts with its own folder; the imports start from the repository's root.
    sys.path[0] = str(ROOT)
    main()
