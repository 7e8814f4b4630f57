"""What is recorded of every run of the calibration: the figure, the truth, and other candidates.

Letters: N samples, K planted ones, S epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mimic_core.base.schema import ScoreBatch
from mimic_core.stats.agreement import rank_agreement
from mimic_core.stats.detection import auroc
from mimic_core.stats.direction import Control, judge

Made = dict[str, Any]
Seen = Callable[[np.ndarray, np.ndarray], np.ndarray]


def gathered(
    epochs: Sequence[Sequence[ScoreBatch]],
    count: int,
    wrong: np.ndarray,
    seen: Seen,
    *,
    right_by_chance: float,
    agreed: np.ndarray,
) -> Made:
    """Figures of one run.

    Args:
        epochs: Its batches, epoch by epoch.
        count: N.
        wrong: Which labels or captions are wrong (N,): for the truth alone.
        seen: How well images (K,) go with the labels or captions of others, to the reference.
        right_by_chance: The chance that a planted label is right where the own one is wrong.
        agreed: Whose label or caption the reference agrees with (N,).
    """
    scores = np.zeros((len(epochs), count), np.float32)
    losses, planted = np.zeros_like(scores), np.zeros_like(scores)
    partners = np.full(count, -1)
    for epoch, batches in enumerate(epochs):
        for batch in batches:
            scores[epoch, batch.rows], losses[epoch, batch.rows] = batch.mimic_score, batch.loss
            if batch.planted is not None:
                planted[epoch, batch.planted.rows] = batch.planted.scores
                partners[batch.planted.rows] = batch.planted.partners
    rows = np.flatnonzero(partners >= 0)
    control = Control(
        scores[:, rows],
        planted[:, rows],
        losses[:, rows],
        seen(rows, rows),
        seen(rows, partners[rows]),
        right_by_chance,
    )
    judged = judge(control)
    every = np.arange(count)
    truths = [auroc(-one, wrong) for one in scores]
    return {
        "wrong": float(wrong.mean()),
        "auroc": auroc(-scores.mean(0), wrong),
        "figure": judged.figure.value,
        "error": judged.figure.error,
        "like_planted": judged.like,
        "level": judged.level,
        "turns_at": judged.turns_at,
        "use_epochs": judged.use_epochs,
        "epochs": [
            {"figure": one.figure.value, "auroc": truth}
            for one, truth in zip(judged.epochs, truths, strict=True)
        ],
        **_candidates(control, scores, losses, seen(every, every), agreed, judged.figure.above),
    }


def _candidates(
    control: Control,
    scores: np.ndarray,
    losses: np.ndarray,
    reference: np.ndarray,
    agreed: np.ndarray,
    above: float,
) -> Made:
    """What else could be looked at without knowing who is wrong."""
    mean = scores.mean(0)
    both = 0 < agreed.sum() < len(agreed)
    fall = losses[0][agreed].mean() - losses[-1][agreed].mean() if agreed.any() else None
    return {
        "above_planted": above,
        "rank_with_loss": rank_agreement(mean, losses.mean(0)),
        "rank_with_reference": rank_agreement(mean, reference),
        "above_disagreed": auroc(mean, agreed) if both else None,
        "agreement": float(agreed.mean()),
        "share_positive": float((mean > 0).mean()),
        "first_with_last_epoch": rank_agreement(scores[0], scores[-1]),
        "halves": _halves(control),
        "loss_fall_agreed": None if fall is None else float(fall),
    }


def _halves(control: Control) -> float:
    """The lower of the shares of own scores above planted ones in two halves of the pool."""
    own, planted = control.own.mean(0), control.planted.mean(0)
    found = []
    for start in (0, 1):
        both = np.concatenate([own[start::2], planted[start::2]])
        share = auroc(both, np.arange(len(both)) < len(own[start::2]))
        found.append(0.5 if share is None else share)
    return min(found)
