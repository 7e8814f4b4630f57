"""One training run by two processes of ``torchrun`` on the CPU, and its comparison with another."""

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

_SCRIPT = """
import sys
from pathlib import Path
from mimic_core.base.config import RunConfig
from mimic_core.scoring.training.train import train_pool

if __name__ == "__main__":
    config = RunConfig.model_validate_json(Path(sys.argv[1]).read_text())
    train_pool(config, runs_root=Path(sys.argv[2]), device="cpu", workers=0)
"""


def train_by_two(config: RunConfig, run_id: str, folder: Path) -> Run:
    """Train in ``folder`` and return the run, which must have the name ``run_id``."""
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
