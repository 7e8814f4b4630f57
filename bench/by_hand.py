"""What is written by hand although a library has it, against that library.

    python bench/by_hand.py [--samples 20000 100000] [--width 512] [--classes 100] [--json FILE]

- The logistic regression of reference heads against scikit-learn's, of float32 features and of the
  same in float64. Random classes in features of unit length, stored as float16; each fit has a
  process of its own, and memory is its peak over what the stored features take.
  The loss is that which all minimise, in float64, over what ours reaches.
- AdamW of one tensor against torch's: a process that imports torch and makes one step.

Seconds are those of the processor, so that other work beside it counts little.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import repository  # noqa: F401 - first: the packages lie one level up
import torch
from measuring import forget_peak, own_peak

from mimic_core.scoring.labels.logistic import fit_logistic

ROOT = Path(__file__).parents[1]
WAYS = ("ours", "float32", "float64")
WEIGHT_DECAY = 1e-2


def make_features(samples: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (T, F) float16 of unit length, and class numbers (T,)."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, width), dtype=np.float32)
    labels = rng.integers(0, classes, samples)
    noisy = centres[labels] + 4 * rng.standard_normal((samples, width), dtype=np.float32)
    return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float16), labels


def fit(way: str, stored: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The head (F + 1, C) by ``way``: its weight, and its bias as last row."""
    width = stored.shape[1]
    if way == "ours":
        found = fit_logistic(
            lambda rows: torch.from_numpy(stored[rows]).float(),
            labels,
            classes=classes,
            width=width,
            weight_decay=WEIGHT_DECAY,
        )
        return np.vstack([found.weight.numpy().T, found.bias.numpy()])
    from sklearn.linear_model import LogisticRegression

    x = stored.astype(way)
    x -= x.mean(0)
    scale = np.sqrt(np.square(x).mean(dtype=np.float64))
    x /= scale
    model = LogisticRegression(C=1 / (WEIGHT_DECAY * len(x)), tol=1e-6, max_iter=500)
    model.fit(x, labels)
    weight = model.coef_ / scale
    return np.vstack([weight.T, model.intercept_ - weight @ stored.astype(way).mean(0)])


def loss(head: np.ndarray, stored: np.ndarray, labels: np.ndarray) -> float:
    """The penalised mean cross-entropy of a head (F + 1, C)."""
    scale = np.sqrt(stored.astype(np.float64).var(0).mean())
    total = 0.5 * WEIGHT_DECAY * float(np.square(head[:-1] * scale).sum())
    for start in range(0, len(stored), 10_000):
        logits = stored[start : start + 10_000].astype(np.float64) @ head[:-1] + head[-1]
        own = logits[np.arange(len(logits)), labels[start : start + 10_000]]
        total += float((np.logaddexp.reduce(logits, 1) - own).sum()) / len(stored)
    return total


def run_one(way: str, samples: int, width: int, classes: int) -> None:
    """Fit once in this process and print the figures."""
    stored, labels = make_features(samples, width, classes)
    cpu = torch.device("cpu")
    forget_peak(cpu)
    before = own_peak(cpu)
    start = time.process_time()
    head = fit(way, stored, labels, classes)
    seconds = time.process_time() - start
    peak = (own_peak(cpu) - before) / 2**20
    reached = loss(head, stored, labels)
    print(json.dumps({"way": way, "seconds": seconds, "peak": peak, "loss": reached}))


def steps() -> dict[str, float]:
    """Median processor seconds of a process that makes one step, over one that imports torch."""
    begin = "import torch; weight = torch.ones(9, 9, requires_grad=True); "
    ways = {
        "torch alone": "",
        "ours": "from mimic_core.mimic.adamw import AdamW; "
        "AdamW(weight.detach(), 1e-3, 0.0).step(torch.ones(9, 9))",
        "torch.optim.AdamW": "weight.grad = torch.ones(9, 9); torch.optim.AdamW([weight]).step()",
    }
    found = {}
    for way, code in ways.items():
        seconds = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", begin + code], check=True, cwd=ROOT)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        found[way] = statistics.median(seconds)
    return {way: value - found["torch alone"] for way, value in found.items()}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--one", choices=WAYS, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        run_one(options.one, options.samples[0], options.width, options.classes)
        return
    print("| samples | way | seconds | peak MB | loss above ours |\n|---|---|---|---|---|")
    rows: list[dict[str, object]] = []
    for samples in options.samples:
        found = {}
        for way in WAYS:
            command = [sys.executable, __file__, "--one", way, "--samples", str(samples)]
            command += ["--width", str(options.width), "--classes", str(options.classes)]
            found[way] = json.loads(subprocess.check_output(command).splitlines()[-1])
        for way in WAYS:
            one, ours = found[way], found["ours"]
            above = one["loss"] - ours["loss"]
            figures = f"{one['seconds']:.1f} | {one['peak']:.0f} | {above:+.1e}"
            print(f"| {samples:,} | {way} | {figures} |")
            rows.append({"samples": samples, **one})
    adamw = steps()
    for way, seconds in adamw.items():
        print(f"{way}: {seconds:.2f} s")
    if options.json:
        text = json.dumps({"logistic": rows, "adamw": adamw}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
