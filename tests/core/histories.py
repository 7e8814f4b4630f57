"""Histories that fit in the head, for tests of votes and filters."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from mimic_core.runs.history import History

UIDS = "abcdefghijklmnopqrstuvwxyz"


def history(
    mimic_score: Any, *, uids: Any = None, weight: Any = None, loss: Any = None, batch_size: int = 4
) -> History:
    """A history of these scores (S, N); weights and losses are the scores unless given."""
    scores = np.asarray(mimic_score, np.float32)
    steps, size = scores.shape
    names = [f"{i:04d}" for i in range(size)] if uids is None else list(uids)
    return History(
        uids=pl.Series("uid", names, dtype=pl.String),
        mimic_score=scores,
        mimic_weight=scores if weight is None else np.asarray(weight, np.float32),
        loss=scores if loss is None else np.asarray(loss, np.float32),
        epochs=tuple(range(steps)),
        batch_size=batch_size,
    )


def voting(votes: Any, uids: Any = UIDS) -> History:
    """A history whose mimic weights cross 1/B exactly where ``votes`` (S, N) says so."""
    keep = np.asarray(votes, bool)
    weight = np.where(keep, 0.5, 0.125)
    return history(weight, uids=uids[: keep.shape[1]], weight=weight)


def made_up_votes(samples: int = 300, steps: int = 5) -> np.ndarray:
    """Votes (S, N) of steps of unequal reliability, from a congruence that any language repeats."""
    state, votes = 12345, np.zeros((steps, samples), bool)

    def draw() -> float:
        nonlocal state
        state = (1103515245 * state + 12345) % 2**31
        return state / 2**31

    for sample in range(samples):
        kept = draw() < 0.6
        for step in range(steps):
            votes[step, sample] = draw() < (0.7 if kept else 0.1) + 0.05 * step
    return votes
