"""What all tests share: one thread per library, no network, no settings from outside."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Set before numpy, polars or torch are imported: test processes share two cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# UMAP would compile for a minute in every process. As plain Python it gives the same map of a small
# pool at once; the slow test of tests/core/runs/test_layout.py compiles it.
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that wants to download must fail
os.environ.pop("MIMICSCOPE_RUNS", None)

# Slow machines are no defect, and a failure must come back when the test is run again.
settings.register_profile(
    "mimicscope", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("mimicscope")
