"""What the benchmarks share: interleaved times, peak memory of a process, what they ran on."""

from __future__ import annotations

import ctypes
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each way over ``rounds``, after one warm-up each, by ``clock``.

    The order alternates from round to round, so that none always follows the same other, and a busy
    machine slows all of them alike.
    """
    names = list(ways)
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(rounds + 1):
        for name in names if round_ % 2 else reversed(names):
            synchronise(device)
            start = clock()
            ways[name]()
            synchronise(device)
            if round_:
                times[name].append(clock() - start)
        print(f"round {round_} of {rounds} is done", file=sys.stderr, flush=True)
    return {name: statistics.median(values) for name, values in times.items()}


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_in_own_process(script: str, arguments: Sequence[str]) -> float:
    """Run ``script`` with ``arguments``; its last line is the peak in bytes (``own_peak``)."""
    command = [sys.executable, script, *arguments]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(out.splitlines()[-1])


def forget_peak(device: torch.device) -> None:
    """Let ``own_peak`` be that of what follows: loading a model may take more than a pass.

    On Linux alone; elsewhere the peak on the CPU stays that of the whole process.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        ctypes.CDLL(None).malloc_trim(0)  # what loading has freed is no part of a pass
        _CLEAR.write_text("5")  # sets the high-water mark back to what is resident now


def own_peak(device: torch.device) -> float:
    """Peak memory in bytes: of this process on the CPU, allocated on the device on CUDA."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    if not _STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    (line,) = [one for one in _STATUS.read_text().splitlines() if one.startswith("VmHWM:")]
    return float(line.split()[1]) * 1024.0


def machine(device: torch.device) -> str:
    """What the benchmark ran on, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"
