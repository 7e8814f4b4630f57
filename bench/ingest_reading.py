"""Reading a pool: sources over a bare decode loop, the index of a large pool, one image once."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import repository  # first: the packages lie one level up
import torch
from PIL import Image

from mimic_core import RunConfig
from mimic_core.base.config import ProbeConfig, SourceConfig
from mimic_core.base.progress import Silent
from mimic_core.features.encoders import ReferenceEncoder
from mimic_core.features.loading import SampleLoader
from mimic_core.features.portions import PortionDataset, plan_portions
from mimic_core.scoring.inputs import open_inputs
from mimic_core.sources.images import decode_image
from mimic_core.sources.index import build_index
from mimic_core.sources.opening import open_source

LAYOUTS = ("webdataset", "folder", "zip", "parquet")
_PORTION = 64
_REFERENCE = repository.ROOT / "data_samples" / "reference"
_EMPTY = torch.empty(0)
_SPARSE_BYTES = 20_000  # of an image that nobody reads


def photographs(folder: Path, count: int) -> list[Path]:
    """JPEGs of 500 x 375 pixels with the detail of photographs, about 60 KB each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 9, (375, 500, 1))
        pixels = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
        path = folder / f"{number:05d}.jpg"
        Image.fromarray(pixels).save(path, quality=90)
        paths.append(path)
    return paths


def write_layouts(root: Path, images: list[Path]) -> dict[str, Path]:
    """The same images with a caption each, in every layout."""
    found = {layout: root / layout for layout in LAYOUTS}
    for folder in found.values():
        folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(found["webdataset"] / "0.tar", "w") as tar:
        for path in images:
            _add(tar, path.name, path.read_bytes())
            _add(tar, f"{path.stem}.txt", f"picture {path.stem}".encode())
    write_table(found["folder"], images, captions=1)
    with zipfile.ZipFile(found["zip"] / "pool.zip", "w") as archive:
        for path in images:
            archive.write(path, path.name)
            archive.writestr(f"{path.stem}.txt", f"picture {path.stem}")
    found["zip"] /= "pool.zip"
    captions = [f"picture {path.stem}" for path in images]
    table = pl.DataFrame({"image": [path.read_bytes() for path in images], "caption": captions})
    table.write_parquet(found["parquet"] / "0.parquet")
    return found


def write_table(folder: Path, images: list[Path], *, captions: int) -> None:
    """A captions table whose rows of one image are far apart, and links to the images."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in images:
        os.link(path, folder / path.name)
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption"])
        for number in range(captions):
            writer.writerows([path.name, f"picture {path.stem}, {number}"] for path in images)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _nothing(_: Image.Image) -> torch.Tensor:
    """Preprocessing is left out on both sides: it would hide what reading costs."""
    return _EMPTY


def _bare(images: list[Path]) -> None:
    for path in images:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.load()
            image.convert("RGB")


def sources(root: Path, *, count: int, rounds: int) -> dict[str, float]:
    """Samples per CPU second of each layout over those of a bare loop, interleaved, one process."""
    images = photographs(root / "photographs", count)
    ways: dict[str, Callable[[], object]] = {"bare": lambda: _bare(images)}
    for layout, path in write_layouts(root, images).items():
        ways[layout] = _loop(root / "indexes" / layout, path, count)
    seconds = _cpu_medians(ways, rounds)
    return {layout: seconds["bare"] / seconds[layout] for layout in LAYOUTS} | {
        "bare_samples_per_second": count / seconds["bare"]
    }


def _loop(index: Path, pool: Path, count: int) -> Callable[[], object]:
    """Portion by portion, as the first phase loads a pool."""
    source = open_source(SourceConfig(path=str(pool)))
    build_index(source, SourceConfig(path=str(pool)), index, Silent())
    heights = {
        shard: len(pl.read_parquet(index / "index" / f"{shard}.parquet")) for shard in source.shards
    }
    assert sum(heights.values()) == count  # nothing is skipped
    plans = [plan for shard, n in heights.items() for plan in plan_portions(shard, n, _PORTION)]
    dataset = PortionDataset(plans, index / "index", SampleLoader(source.root, _nothing, None))
    return lambda: [dataset[number] for number in range(len(dataset))]


def _cpu_medians(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each way after one warm-up; the machine may be busy."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name in ways if round_ % 2 else reversed(list(ways)):
            start = time.process_time()
            ways[name]()
            if round_:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def digesting(root: Path, *, count: int, rounds: int) -> dict[str, float]:
    """CPU seconds of telling images apart by their bytes over those of decoding them."""
    images = [path.read_bytes() for path in photographs(root / "digested", count)]
    ways: dict[str, Callable[[], object]] = {
        "decode": lambda: [decode_image(data) for data in images],
        "digest": lambda: [hashlib.sha256(data).digest() for data in images],
    }
    seconds = _cpu_medians(ways, rounds)
    return {"digest_over_decode": seconds["digest"] / seconds["decode"]}


def large_pool(root: Path, *, tars: int, members: int) -> Path:
    """``tars`` tars of ``members`` members, images and captions by turns; images are holes."""
    root.mkdir(parents=True)
    first = root / "00000.tar"
    with first.open("wb") as file:
        for number in range(members // 2):
            for suffix, size in (("jpg", _SPARSE_BYTES), ("txt", 16)):
                info = tarfile.TarInfo(f"{number:06d}.{suffix}")
                info.size = size
                file.write(info.tobuf())
                if suffix == "txt":
                    file.write(f"picture {number:08d}".encode())
                file.seek(-(-file.tell() // 512) * 512 if suffix == "txt" else file.tell() + size)
                file.seek(-(-file.tell() // 512) * 512)
        file.truncate(file.tell() + 1024)
    for number in range(1, tars):
        os.link(first, root / f"{number:05d}.tar")
    return root


def index(root: Path, *, tars: int, members: int, sample: int) -> dict[str, float]:
    """Seconds, peak memory and bytes read of the index of a large pool, in a process of its own."""
    pool = large_pool(root / "large", tars=tars, members=members)
    found: dict[str, float] = {"members": tars * members}
    for name, drawn in (("all", 0), ("sample", sample)):
        folder = root / f"index-{name}"
        told = f"import ingest_index; ingest_index.main({str(pool)!r}, {str(folder)!r}, {drawn})"
        out = subprocess.run(
            [sys.executable, "-c", told],
            cwd=Path(__file__).parent,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        wall, cpu, peak, read = map(float, out.split())
        found |= {f"{name}_seconds": wall, f"{name}_cpu_seconds": cpu, f"{name}_peak_gib": peak}
        found[f"{name}_read_share"] = read / (tars * (pool / "00000.tar").stat().st_size)
    return found


def image_phase(root: Path, reference: str, *, count: int, rounds: int) -> dict[str, float]:
    """CPU seconds that images take with five captions each over those with one."""
    images = photographs(root / "captioned", count)
    ways = {}
    for captions in (1, 5):
        folder = root / f"captions-{captions}"
        write_table(folder, images, captions=captions)
        ways[captions] = _phase(folder, root / f"runs-{captions}", reference)
    found: dict[int, list[tuple[float, float]]] = {1: [], 5: []}
    for round_ in range(rounds + 1):
        for captions in (1, 5) if round_ % 2 else (5, 1):
            measured = ways[captions]()
            if round_:
                found[captions].append(measured)
    image, whole = (
        {n: statistics.median(one[part] for one in found[n]) for n in found} for part in (0, 1)
    )
    return {"images": image[5] / image[1], "with_captions": whole[5] / whole[1]}


def _phase(pool: Path, runs: Path, reference: str) -> Callable[[], tuple[float, float]]:
    config = RunConfig(
        source=SourceConfig(path=str(pool)), reference=reference, probe=ProbeConfig()
    )

    def run() -> tuple[float, float]:
        shutil.rmtree(runs, ignore_errors=True)
        inputs = open_inputs(config, runs, torch.device("cpu"), Silent())
        start = time.process_time()
        with (
            _timed(SampleLoader, "prepare", "read") as a,
            _timed(ReferenceEncoder, "encode_images") as b,
        ):
            inputs.fill(0, Silent())
        return sum(a) + sum(b), time.process_time() - start

    return run


class _timed:  # noqa: N801 - used as a function
    """CPU seconds of every call of some methods of a class, while it is entered."""

    def __init__(self, owner: type[Any], *names: str) -> None:
        self._owner, self._own = owner, {name: getattr(owner, name) for name in names}

    def __enter__(self) -> list[float]:
        spent: list[float] = []
        for name, method in self._own.items():
            setattr(self._owner, name, self._watched(method, spent))
        return spent

    def __exit__(self, *_: object) -> None:
        for name, method in self._own.items():
            setattr(self._owner, name, method)

    @staticmethod
    def _watched(method: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return method(*given, **named)
            finally:
                spent.append(time.process_time() - start)

        return call


def lines(found: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """All figures as rows of a table."""
    yield "| what | figure | value |\n|---|---|---|"
    for what, figures in found.items():
        yield from (f"| {what} | {name} | {value:,.3f} |" for name, value in figures.items())


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tars", type=int, default=1000)
    parser.add_argument("--members", type=int, default=1000, help="of a tar")
    parser.add_argument("--sample", type=int, default=10_000)
    parser.add_argument("--reference", default=str(_REFERENCE))
    parser.add_argument("--folder", type=Path, default=None, help="for the pools, then removed")
    parser.add_argument("--json", type=Path, default=None)
    asked = parser.parse_args()
    count, rounds = asked.images, asked.rounds
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        root = Path(folder)
        found = {
            "samples per CPU second over a bare loop": sources(
                root / "sources", count=count, rounds=rounds
            ),
            "bytes compared": digesting(root / "bytes", count=count, rounds=rounds),
            "five captions over one, CPU seconds": image_phase(
                root / "captions", asked.reference, count=count, rounds=rounds
            ),
            "index": index(
                root / "index", tars=asked.tars, members=asked.members, sample=asked.sample
            ),
        }
    for line in lines(found):
        print(line)
    print(f"\nload average {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
