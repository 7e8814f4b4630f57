"""The index of one pool, in a process that does nothing else: seconds, memory and bytes read."""

from __future__ import annotations

import time
from pathlib import Path

import repository  # noqa: F401 - first: the packages lie one level up

from mimic_core.base.config import SourceConfig
from mimic_core.base.progress import Silent
from mimic_core.sources.index import build_index
from mimic_core.sources.opening import open_source


def main(pool: str, directory: str, sample: int) -> None:
    """Print wall and CPU seconds, peak memory in GiB and bytes read."""
    config = SourceConfig(path=pool, sample=sample or None)
    before, start, cpu = _own("io", "rchar"), time.perf_counter(), time.process_time()
    build_index(open_source(config), config, Path(directory), Silent())
    wall, used = time.perf_counter() - start, time.process_time() - cpu
    peak = _own("status", "VmHWM") / (1 << 20)
    print(wall, used, peak, _own("io", "rchar") - before)


def _own(file: str, name: str) -> int:
    """A figure of this process that Linux keeps."""
    told = Path(f"/proc/self/{file}").read_text().splitlines()
    return int(next(line for line in told if line.startswith(name)).split()[1])
