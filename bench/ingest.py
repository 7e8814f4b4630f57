"""Exports of shards over a plain copy of the same bytes.

    python bench/ingest.py [--samples N] [--image-bytes B] [--folder DIR] [--json FILE]

A pool of webdataset shards (10,000 samples each, pictures of random bytes) is indexed as scoring
does it, and all of its samples are exported again. The plain copy is ``shutil.copyfile`` of the
exported files, which the system does without handing the bytes to any program, and ``fsync`` of
each, as the export does it. Both write to the same folder and take turns; medians of the rounds.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up

from mimic_core.base import files
from mimic_core.base.config import ProbeConfig, RunConfig, SourceConfig
from mimic_core.base.identity import digest
from mimic_core.base.schema import MEASURED_COLUMNS, SCHEMA_VERSION, ScoreBatch
from mimic_core.export.export import export
from mimic_core.export.settings import ExportConfig, ExportFormat
from mimic_core.export.shards import tar_header
from mimic_core.filters.recipe import Recipe, apply
from mimic_core.runs import run as runs
from mimic_core.runs.featureset import FeatureSet, locate
from mimic_core.runs.record import RunRecord, run_id
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from mimic_core.sources.index import build_index
from mimic_core.sources.opening import open_source

ROUNDS = 5
PER_SHARD = 10_000
TARGET = 0.8  # of the copy's speed
JPEG = b"\xff\xd8\xff\xe0"
FORMATS: tuple[ExportFormat, ...] = ("webdataset", "hf_parquet")


def write_pool(folder: Path, *, samples: int, image_bytes: int) -> None:
    """Webdataset shards of pictures that no decoder would take, with captions and metadata."""
    random = np.random.default_rng(0)
    for shard in range(-(-samples // PER_SHARD)):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(shard * PER_SHARD, min(samples, (shard + 1) * PER_SHARD)):
                about = {"uid": digest(number, length=32), "rank": number}
                for suffix, data in (
                    ("jpg", JPEG + random.bytes(image_bytes)),
                    ("txt", f"a caption of a picture, number {number}".encode()),
                    ("json", json.dumps(about).encode()),
                ):
                    member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def run_of(pool: Path, root: Path) -> Run:
    """A finished run on a pool whose images no model has seen."""
    config = SourceConfig(path=str(pool))
    source, path = open_source(config), root / "features" / "pool"
    indexed = build_index(source, config, path)
    info = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": source.fingerprint(),
        "arrays": [],
        "shards": dict.fromkeys(source.shards, 0),
        "location": locate(source.root, path),
        "indexed": indexed,
    }
    files.write_json(path / "features.json", info)
    features = FeatureSet.open(path)
    for shard in source.shards:
        measured = [pl.lit(1, dtype).alias(name) for name, dtype in MEASURED_COLUMNS.items()]
        rows = features.index(shard).with_columns(measured)
        features.write_shard(shard, rows, features.index_skips(shard), {})
    settings = RunConfig(source=config, reference="none", probe=ProbeConfig(epochs=1))
    made: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION, "run_id": run_id(settings, features.id, None),
        "status": "running", "created_at": runs.now(), "config": settings,
        "feature_set": features.id, "mimic_layers": ("none",), "batch_size": 2,
        "samples": len(features.samples), "skipped": 0, "epochs": 1, "versions": {},
        "preprocessing": {}, "preprocessing_sha256": "", "decoder": "", "self_check": {},
        "direction_check": None, "timings": {},
    }  # fmt: skip
    run = runs.start_run(root, RunRecord(**made))
    count = made["samples"]
    scores = np.random.default_rng(0).normal(size=(3, count)).astype(np.float32)
    run.write_epoch(0, features.samples["uid"], [ScoreBatch(0, 0, np.arange(count), *scores)])
    files.write_parquet(run.path / "skipped.parquet", features.skipped)
    return run.update(status="done")


def copied(source: Path, target: Path) -> None:
    """A plain copy of all files below ``source``, flushed to disk."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        with place.open("rb") as file:
            os.fsync(file.fileno())


def seconds_of(way: Callable[[Path], object], folder: Path) -> tuple[float, float]:
    """How long it takes to fill a folder, which is removed again: by the clock, and of the CPU,
    which other processes on a busy machine change little.
    """
    start, used = time.perf_counter(), time.process_time()
    way(folder)
    taken = time.perf_counter() - start, time.process_time() - used
    shutil.rmtree(folder)
    return taken


def exports(samples: int, image_bytes: int, root: Path) -> list[dict[str, Any]]:
    """A row for each format of shards: samples per second, and of the plain copy."""
    pool = root / "pool"
    pool.mkdir()
    write_pool(pool, samples=samples, image_bytes=image_bytes)
    run = run_of(pool, root / "runs")
    table = run_table(run)
    everything = apply(Recipe(), table)
    rows = []
    for file_format in FORMATS:
        config = ExportConfig(format=file_format)

        def write(out: Path, config: ExportConfig = config) -> None:
            export(everything, table, run, config, out=out, overwrite=True)

        again = root / f"again-{file_format}"
        write(again)
        ways = {"export": write, "copy": lambda out, again=again: copied(again, out)}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for number in range(ROUNDS):
            for name in ways if number % 2 else reversed(list(ways)):
                taken[name].append(seconds_of(ways[name], root / "out"))
            print(f"{file_format}: round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
        size = sum(path.stat().st_size for path in again.rglob("*") if path.is_file())
        median, cpu = (
            {name: statistics.median(one[kind] for one in times) for name, times in taken.items()}
            for kind in (0, 1)
        )
        rows.append(
            {
                "format": file_format,
                "samples": samples,
                "gigabytes": size / 1e9,
                "export_seconds": median["export"],
                "copy_seconds": median["copy"],
                "samples_per_second": samples / median["export"],
                "of_copy": median["copy"] / median["export"],
                "export_cpu_seconds": cpu["export"],
                "copy_cpu_seconds": cpu["copy"],
            }
        )
        shutil.rmtree(again)
    return rows


def headers(count: int = 100_000) -> dict[str, Any]:
    """Headers of tars, ours and ``tarfile``'s, in seconds."""

    def theirs() -> None:
        for number in range(count):
            member = tarfile.TarInfo(f"{number:032x}.jpg")
            member.size = number
            member.tobuf(tarfile.USTAR_FORMAT)

    def ours() -> None:
        for number in range(count):
            tar_header(f"{number:032x}.jpg", number)

    taken = {}
    for name, way in (("ours", ours), ("tarfile", theirs)):
        start = time.perf_counter()
        way()
        taken[name] = time.perf_counter() - start
    return {"headers": count, **taken, "ratio": taken["tarfile"] / taken["ours"]}


@contextmanager
def working_folder(chosen: Path | None) -> Iterator[Path]:
    """A folder for gigabytes that goes with the process."""
    with tempfile.TemporaryDirectory(dir=chosen) as folder:
        yield Path(folder)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--image-bytes", type=int, default=35_000, help="of DataComp's at 512 px")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with working_folder(options.folder) as root:
        rows = exports(options.samples, options.image_bytes, root)
    print("| format | samples | GB | export, s (CPU) | copy, s (CPU) | samples/s | of the copy |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['format']} | {row['samples']:,} | {row['gigabytes']:.2f} "
            f"| {row['export_seconds']:.2f} ({row['export_cpu_seconds']:.2f}) "
            f"| {row['copy_seconds']:.2f} ({row['copy_cpu_seconds']:.2f}) "
            f"| {row['samples_per_second']:,.0f} | {row['of_copy']:.2f} |"
        )
    tar = headers()
    print(f"headers of a tar: {tar['ratio']:.1f} times as fast as tarfile's")
    if options.json:
        found = {"exports": rows, "headers": tar, "target": TARGET}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
