"""How well three scores tell planted noise from clean pairs, by kind, in a finished run.

    python bench/detection.py [RUN] [--json FILE]

AUROC against the clean samples: 1 is perfect, 0.5 is chance. Noisy samples are expected at the low
end of mimic score and CLIP score, and at the high end of the loss. RUN is a run directory; the
default is the run that comes with the demo. "mismatched and junk" are the four kinds whose caption
has nothing to do with the image.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up

from mimic_core.runs.run import open_run
from mimic_core.runs.table import run_table
from mimic_core.stats.detection import ANY_NOISE, NOISY_SIDES, detection_table

MISMATCHED = ("swapped_caption", "filename_caption", "junk_caption", "keyword_spam")
GROUP = "mismatched and junk"
SCORES = {name: NOISY_SIDES[name] for name in ("mimic_score", "clip_score", "loss")}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    demo = Path(__file__).parents[1] / "data_samples" / "runs"
    run = open_run(options.run or next(demo.glob("*/run.json")).parent)
    table = run_table(run)
    grouped = table.with_columns(
        pl.when(pl.col("noise_kind").is_in(MISMATCHED))
        .then(pl.lit(GROUP))
        .otherwise(pl.col("noise_kind"))
        .alias("noise_kind")
    )
    group = detection_table(grouped, kind="noise_kind", scores=SCORES)
    group = group.filter(pl.col("noise_kind") == GROUP)
    kinds = detection_table(table, kind="noise_kind", scores=SCORES)
    wide = pl.concat([group, kinds.filter(pl.col("noise_kind") != ANY_NOISE)]).pivot(
        "score", index=["noise_kind", "noisy"], values="auroc"
    )
    if options.json:
        options.json.write_text(json.dumps(wide.to_dicts(), indent=2) + "\n", encoding="utf-8")
    print(f"run {run.id}, {table.height} samples\n")
    print("| noise | samples | mimic score | CLIP score | loss |\n|---|---|---|---|---|")
    for row in wide.iter_rows(named=True):
        values = " | ".join(f"{row[name]:.3f}" for name in SCORES)
        print(f"| {row['noise_kind']} | {row['noisy']} | {values} |")


if __name__ == "__main__":
    main()
