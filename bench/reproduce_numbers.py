"""What both parts of the reproduction count with: spreads over seeds, correlation, crossings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Say = Callable[[str], None]
Table = list[dict[str, Any]]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (n - 1) and half-width of the 95 % t interval over seeds.

    With a single value the two last are None.
    """
    from scipy.stats import t

    numbers = [float(value) for value in values]
    mean = float(np.mean(numbers))
    if len(numbers) < 2:
        return {"mean": mean, "sd": None, "half": None, "values": numbers}
    sd = float(np.std(numbers, ddof=1))
    half = float(t.ppf(0.975, len(numbers) - 1)) * sd / math.sqrt(len(numbers))
    return {"mean": mean, "sd": sd, "half": half, "values": numbers}


def pearson(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation; 0 where one of the two does not vary."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    a, b = a - a.mean(), b - b.mean()
    length = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / length if length else 0.0


def steps_to(metrics: Sequence[Mapping[str, float]], level: float) -> float | None:
    """Steps until the held-out loss first is at most ``level``, between evaluations on a line.

    None where it never is.
    """
    before: tuple[float, float] | None = None
    for row in metrics:
        step, loss = row["step"], row["held_out_loss"]
        if loss <= level:
            if before is None or before[1] == loss:
                return step
            share = (before[1] - level) / (before[1] - loss)
            return before[0] + share * (step - before[0])
        before = (step, loss)
    return None


def with_noise(
    labels: np.ndarray, rate: float, classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric noise: exactly ``round(rate * N)`` labels become another class, uniformly drawn.

    Returns:
        The new labels (N,), and which of them are wrong (N,) bool.
    """
    generator = np.random.default_rng(seed)
    wrong = np.zeros(len(labels), bool)
    wrong[generator.permutation(len(labels))[: round(rate * len(labels))]] = True
    moved = (labels + generator.integers(1, classes, len(labels))) % classes
    return np.where(wrong, moved, labels), wrong


def parts(count: int, sizes: Sequence[int], seed: int) -> list[np.ndarray]:
    """Disjoint random parts of ``range(count)`` of these sizes, and the rest; each sorted."""
    shuffled = np.random.default_rng(seed).permutation(count)
    edges = np.cumsum(sizes)
    return [np.sort(part) for part in np.split(shuffled, edges)]


def rounded(found: Any) -> Any:
    """``found`` with every number to five decimals, as it is printed and stored."""
    if isinstance(found, float):
        return round(found, 5)
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    return [rounded(value) for value in found] if isinstance(found, list | tuple) else found
