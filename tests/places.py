"""Where the repository is, and the real data that some tests use where it lies beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
CIFAR = DATA / "cifar10n_10k.parquet"
