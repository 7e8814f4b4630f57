"""Code that is written by hand because it is faster, against the library or the plain loop.

    python bench/handwritten.py [--json FILE]

Each pair gives the same answer, which is checked first (but for the map: Pillow lets no points show
through others). A row is the median of five rounds in which
the two ways take turns, so that a busy machine slows both alike. The docstrings of the code name
the ratios found here.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up
import torch
from measuring import interleaved, machine
from PIL import Image, ImageDraw
from scipy.stats import rankdata

from app.choices.box import LONG_SIDE, Box
from app.drawing import map_picture
from app.drawing.colours import LIGHT
from mimic_core.base import files
from mimic_core.base.identity import file_holds, files_agree
from mimic_core.filters.ensembles.ensemble import _doubled_ranks
from mimic_core.filters.polygon import inside_polygon
from mimic_core.sources.tarmembers import Member, read_members

ROUNDS = 5
Way = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Pair:
    """One task done in two ways: by our code, and by what it stands in the place of."""

    task: str
    ours: Way
    instead: str
    other: Way


def polygon(points: int = 1_000_000, corners: int = 300) -> Pair:
    """Points in a round lasso: each edge meets the points beside it, not all of them."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, points)).astype(np.float32)
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    lasso = [(float(a), float(b)) for a, b in zip(np.cos(turn), np.sin(turn), strict=True)]

    def plain() -> np.ndarray:
        px, py, inside = x.astype(np.float64), y.astype(np.float64), np.zeros(points, bool)
        for (ax, ay), (bx, by) in zip(lasso, [*lasso[1:], lasso[0]], strict=True):
            crosses = (ay > py) != (by > py)
            inside ^= crosses & (px < (bx - ax) * (py - ay) / ((by - ay) or 1.0) + ax)
        return inside

    assert (inside_polygon(x, y, lasso) == plain()).all()
    task = f"{points:,} points in a lasso of {corners} corners"
    return Pair(task, lambda: inside_polygon(x, y, lasso), "every edge against every point", plain)


def ranks(size: int = 1_000_000) -> Pair:
    """Mean ranks by two direct sorts of packed numbers."""
    values = np.random.default_rng(0).normal(size=size).astype(np.float32).round(5)
    expected = (2 * rankdata(values)).astype(np.uint64)
    assert (_doubled_ranks(values) == expected).all()
    other = lambda: rankdata(values)  # noqa: E731 - a way to be timed
    return Pair(f"mean ranks of {size:,}", lambda: _doubled_ranks(values), "scipy rankdata", other)


def tar_members(folder: Path, members: int = 40_000) -> Pair:
    """The members of a shard as webdataset writes it, without their contents."""
    path = folder / "shard.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(members):
            member = tarfile.TarInfo(f"{number:08d}.txt")
            member.size, member.mtime = 8, 1_700_000_000.25
            tar.addfile(member, io.BytesIO(b"a caption"[:8]))

    def ours() -> list[tuple[str, int, int]]:
        with path.open("rb") as file:
            found = read_members(file, path.stat().st_size)
            return [(one.name, one.offset, one.size) for one in found if isinstance(one, Member)]

    def other() -> list[tuple[str, int, int]]:
        with tarfile.open(path, "r:") as tar:
            return [(one.name, one.offset_data, one.size) for one in tar]

    assert ours() == other()
    return Pair(f"{members:,} members of a tar", ours, "tarfile", other)


def raster(points: int = 1_000_000) -> Pair:
    """The map of many points as a picture; Pillow draws its discs one by one."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, points)).astype(np.float32)
    rgb = random.integers(0, 256, (points, 3), dtype=np.uint8)
    box, selected = Box(-4.0, 4.0, -4.0, 4.0), np.ones(points, bool)

    def ours() -> bytes:
        return map_picture.draw(x, y, rgb=rgb, selected=selected, box=box, theme=LIGHT)

    def other() -> bytes:
        picture = Image.new("RGBA", (LONG_SIDE, LONG_SIDE))
        pen = ImageDraw.Draw(picture)
        per_unit = LONG_SIDE / (box.x1 - box.x0)
        columns, rows = (x - box.x0) * per_unit, (box.y1 - y) * per_unit
        for column, row, colour in zip(columns.tolist(), rows.tolist(), rgb.tolist(), strict=True):
            ends = (column - 1, row - 1, column + 1, row + 1)
            pen.ellipse(ends, fill=(*colour, 217))
        out = io.BytesIO()
        picture.save(out, format="PNG", compress_level=2)
        return out.getvalue()

    return Pair(f"a map of {points:,} points", ours, "Pillow's ellipses", other)


def uid_columns(folder: Path, rows: int = 1_000_000) -> Pair:
    """Whether two files list the same uids: stored bytes against decoded texts."""
    words = np.random.default_rng(0).integers(0, 1 << 63, (rows, 2))
    uids = pl.Series("uid", [f"{one:016x}{two:016x}" for one, two in words.tolist()])
    paths = [folder / "one.parquet", folder / "two.parquet"]
    for path in paths:
        files.write_parquet(path, uids.to_frame())
    assert files_agree(*paths)
    other = lambda: file_holds(paths[1], uids)  # noqa: E731 - a way to be timed
    return Pair(f"{rows:,} uids in two files", lambda: files_agree(*paths), "by value", other)


def pairs(folder: Path) -> Iterator[Pair]:
    """All tasks, made one after the other."""
    yield polygon()
    yield ranks()
    yield tar_members(folder)
    yield raster()
    yield uid_columns(folder)


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for pair in pairs(Path(folder)):
            ways = {"ours": pair.ours, "other": pair.other}
            times = interleaved(ways, ROUNDS, torch.device("cpu"))
            found.append((pair, times["ours"], times["other"]))
    print(f"{machine(torch.device('cpu'))}, median of {ROUNDS} interleaved rounds\n")
    print("| task | ours, s | instead of | s | ratio |\n|---|---|---|---|---|")
    for pair, ours, other in found:
        ratio = other / ours
        print(f"| {pair.task} | {ours:.3f} | {pair.instead} | {other:.3f} | {ratio:.1f} |")
    if options.json:
        rows = [
            {"task": pair.task, "ours_s": ours, "instead_of": pair.instead, "other_s": other}
            for pair, ours, other in found
        ]
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
