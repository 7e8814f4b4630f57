"""What Grad-Mimic on cached features costs: a small pool, and one of a million samples.

    python bench/probe.py [--samples 4000 1000000] [--width 512] [--epochs 5] [--json FILE]

The features are random: the cost does not depend on their values. For each pool a feature set is
written to a temporary folder (float16, in shards of 100,000), then a process of its own runs the
probe on it and writes the scores as a run would; both times, samples x epochs per second of the
first, and the peak resident memory are printed.
Batch size 256 below 100,000 samples, 1,024 from there on.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up
import torch

from mimic_core.base import files
from mimic_core.base.config import ProbeConfig
from mimic_core.base.schema import SCHEMA_VERSION, SKIP_COLUMNS
from mimic_core.models.devices import pick_device
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.run import epoch_frame
from mimic_core.scoring.probe import Probe

SHARD = 100_000


def write_features(folder: Path, samples: int, width: int) -> FeatureSet:
    """A feature set of ``samples`` random rows; embeddings and features are ``width`` wide."""
    from safetensors.torch import save

    shards = {f"{i:05d}": min(SHARD, samples - start) for i, start in _starts(samples)}
    names = ["image_features", "text_embedding", "image_embedding"]
    info = {"schema_version": SCHEMA_VERSION, "arrays": names, "shards": shards}
    files.write_json(folder / "features.json", info)
    head = {
        "logit_scale": torch.tensor(50.0),
        "logit_bias": torch.tensor(0.0),
        "image.weight": torch.randn(width, width) * width**-0.5,
    }
    metadata = {"names": json.dumps({"loss": "clip", "image": "visual.proj"})}
    files.write_bytes(folder / "head.safetensors", save(head, metadata=metadata))
    features = FeatureSet.open(folder)
    generator = np.random.default_rng(0)
    for number, start in _starts(samples):
        rows = min(SHARD, samples - start)
        uids = pl.Series("uid", [f"{start + i:032x}" for i in range(rows)])
        noise = generator.standard_normal((rows, width), dtype=np.float32)
        unit = noise / np.linalg.norm(noise, axis=1, keepdims=True)
        arrays = dict(zip(names, (noise, unit, unit), strict=True))
        halves = {name: array.astype(np.float16) for name, array in arrays.items()}
        skipped = pl.DataFrame(schema=SKIP_COLUMNS)
        features.write_shard(f"{number:05d}", uids.to_frame(), skipped, halves)
    return features


def _starts(samples: int) -> list[tuple[int, int]]:
    return list(enumerate(range(0, samples, SHARD)))


def run_one(folder: Path, config: ProbeConfig, device: str | None) -> None:
    """Run the probe on the feature set in ``folder`` and print seconds and peak memory as JSON."""
    chosen = pick_device(device)
    features = FeatureSet.open(folder)
    if features.samples.height > config.batch_size:  # start threads and kernels
        _ = torch.ones(512, 512, device=chosen) @ torch.ones(512, 512, device=chosen)
    start = time.perf_counter()
    probe = Probe(features, config, device=chosen)
    uids = features.samples["uid"]
    writing = 0.0
    for epoch in range(config.epochs):
        frame = epoch_frame(epoch, uids, probe.run(epoch))
        began = time.perf_counter()
        files.write_parquet(folder / f"scores-{epoch}.parquet", frame)
        writing += time.perf_counter() - began
    seconds = time.perf_counter() - start - writing
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "writing_seconds": writing, "peak_gib": peak}))


def main() -> None:
    """Measure every size, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[4000, 1_000_000])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--device", default=None)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--run", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    results = []
    for samples in arguments.samples:
        batch = 256 if samples < SHARD else 1024
        config = ProbeConfig(batch_size=batch, epochs=arguments.epochs)
        if arguments.run:
            run_one(arguments.run, config, arguments.device)
            return
        with tempfile.TemporaryDirectory() as name:
            write_features(Path(name), samples, arguments.width)
            command = [sys.executable, __file__, "--run", name, "--samples", str(samples)]
            command += ["--epochs", str(arguments.epochs)]
            command += ["--device", arguments.device] if arguments.device else []
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results.append({"samples": samples, "batch_size": batch, **json.loads(out)})
    print(f"width {arguments.width}, {arguments.epochs} epochs, torch {torch.__version__}\n")
    print("| samples | batch | seconds | writing, seconds | per second | peak memory, GiB |")
    print("|---|---|---|---|---|---|")
    for row in results:
        rate = row["samples"] * arguments.epochs / row["seconds"]
        print(
            f"| {row['samples']:,} | {row['batch_size']} | {row['seconds']:.2f} "
            f"| {row['writing_seconds']:.2f} | {rate:,.0f} | {row['peak_gib']:.2f} |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
