"""One training run by two processes on the CPU, and its comparison with another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from mimic_core.base.config import RunConfig
from mimic_core.jobs.processes import environment
from mimic_core.runs.run import Run, open_run
from mimic_core.scoring.training.state import weights_file
from mimic_core.scoring.training.train import train_pool
from tests.core import forked

_SCRIPT = """
import sys
from pathlib import Path
from mimic_core.base.config import RunConfig
from mimic_core.scoring.training.train import train_pool

if __name__ == "__main__":
    config = RunConfig.model_validate_json(Path(sys.argv[1]).read_text())
    train_pool(config, runs_root=Path(sys.argv[2]), device="cpu", workers=0)
"""


def train_by_torchrun(config: RunConfig, run_id: str, folder: Path) -> Run:
    """Train by two processes of ``torchrun`` in ``folder``; the run must be named ``run_id``."""
    (folder / "two.py").write_text(_SCRIPT)
    (folder / "config.json").write_text(config.model_dump_json())
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run"]
    command += ["--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", str(folder / "two.py")]
    command += [str(folder / "config.json"), str(folder / "both")]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return open_run(folder / "both" / run_id)


def train_by_two(config: RunConfig, run_id: str, folder: Path) -> Run:
    """The same by two forks with the environment that ``torchrun`` gives its processes."""
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    logs = [folder / f"{rank}.log" for rank in range(2)]
    processes = [
        forked.start(
            _train, config, folder / "both", log=log, RANK=str(rank), LOCAL_RANK=str(rank), **shared
        )
        for rank, log in enumerate(logs)
    ]
    for process in processes:
        process.join(900)
    said = "\n".join(log.read_text(errors="replace")[-3000:] for log in logs)
    assert [process.exitcode for process in processes] == [0, 0], said
    return open_run(folder / "both" / run_id)


def _train(config: RunConfig, root: Path) -> None:
    train_pool(config, runs_root=root, device="cpu", workers=0)


def assert_alike(one: Run, two: Run) -> None:
    """Equal logs and equal weights after the last epoch, but for rounding."""
    assert two.done
    ours, theirs = one.scores(), two.scores()
    assert ours.select("uid", "epoch", "step").equals(theirs.select("uid", "epoch", "step"))
    for name in ("loss", "mimic_score", "mimic_weight", "train_weight"):
        scale = float(ours[name].abs().max())  # type: ignore[arg-type]
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-4, atol=1e-4 * scale)
    last = one.record.epochs - 1
    found = load_file(weights_file(two.path / "checkpoints", last))
    for name, expected in load_file(weights_file(one.path / "checkpoints", last)).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)
