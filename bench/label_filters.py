"""Wrong labels found by what the reference head says, beside ensembles of the mimic score.

    python bench/label_filters.py [--json FILE]

scikit-learn's 1,797 digits, scored by their pixels as features of one's own: 10 % trusted samples,
symmetric noise on the labels of the rest, five epochs of a probe. A line for each share of noise
and each filter: F1 of dropping wrong labels, mean over three seeds and standard deviation. --json
FILE writes every figure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up
from sklearn.datasets import load_digits

from mimic_core.base.config import RunConfig
from mimic_core.filters.ensembles.config import EnsembleConfig, GaussianMixture, KMeans, Threshold
from mimic_core.filters.ensembles.ensemble import ensemble
from mimic_core.filters.ensembles.splits import mixture_cut
from mimic_core.runs.history import run_history
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from mimic_core.scoring.pipeline import score_pool
from mimic_core.stats.detection import detection

SHARES, SEEDS, BATCHES = (0.1, 0.2, 0.4, 0.6), (0, 1, 2), (32, 256)
VOTES = (Threshold(), KMeans(), GaussianMixture())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = {str(share): [_figures(share, seed) for seed in SEEDS] for share in SHARES}
    print("\n".join(table_lines(figures)))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def table_lines(figures: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """The table in Markdown.

    Args:
        figures: By share of noise, for each seed the F1 of each filter.
    """
    lines = ["| filter | " + " | ".join(f"{float(share):.0%} wrong" for share in figures) + " |"]
    lines.append("|---|" + "---|" * len(figures))
    for name in next(iter(figures.values()))[0]:
        cells = [[one[name] for one in runs] for runs in figures.values()]
        shown = (f"{statistics.mean(one):.3f} ± {statistics.stdev(one):.3f}" for one in cells)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return lines


def _figures(share: float, seed: int) -> dict[str, float]:
    """F1 by filter."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        pool, features = _pool(root, share, seed)
        found: dict[str, float] = {}
        for size in BATCHES:
            config = RunConfig.parse(
                {
                    "source": {"path": str(pool), "task": "labels", "label_column": "label"},
                    "reference": f"features:{features}",
                    "head": {"trusted": "checked", "trusted_label_column": "digit"},
                    "probe": {"batch_size": size, "temperature": 1.0, "seed": seed},
                }
            )
            run = score_pool(config, runs_root=root / "runs", device="cpu", workers=0)
            found |= _of_run(run, size)
    return found


def _pool(root: Path, share: float, seed: int) -> tuple[Path, Path]:
    """A listing whose images are never read, and the file of their features."""
    digits = load_digits()
    rng = np.random.default_rng(seed)
    count = len(digits.target)
    wrong = rng.random(count) < share
    labels = np.where(wrong, (digits.target + rng.integers(1, 10, count)) % 10, digits.target)
    uids = [hashlib.sha256(str(n).encode()).hexdigest()[:32] for n in range(count)]
    (root / "image.png").write_bytes(b"")
    table = {
        "uid": uids,
        "image": ["image.png"] * count,
        "label": labels,
        "digit": digits.target,
        "wrong": wrong,
        "checked": rng.random(count) < 0.1,
    }
    pl.DataFrame(table).write_parquet(root / "pool.parquet")
    rows = digits.data.astype(np.float32).tolist()
    pl.DataFrame({"uid": uids, "image_features": rows}).write_parquet(root / "features.parquet")
    return root / "pool.parquet", root / "features.parquet"


def _of_run(run: Run, size: int) -> dict[str, float]:
    table, history = run_table(run), run_history(run)
    losses = -table["reference_loss"].to_numpy()
    kept = {
        "`reference_agrees`": table["reference_agrees"].to_numpy(),
        "not `label_issue`": ~table["label_issue"].to_numpy(),
        "`reference_loss`, two normal components": losses >= mixture_cut(np.sort(losses)),
    }
    for vote in VOTES:
        config = EnsembleConfig(binarise=vote)
        kept[f"batch {size}, {config.describe()}"] = ensemble(history, config).keep
    found = {name: detection(keep, table["wrong"]).f1 for name, keep in kept.items()}
    return {name: f1 for name, f1 in found.items() if f1 is not None}  # some labels are wrong


if __name__ == "__main__":
    main()
