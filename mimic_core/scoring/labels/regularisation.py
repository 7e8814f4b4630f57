"""The weight decay of a reference head, chosen by cross-validation on the trusted samples alone.

What is compared is the mean cross-entropy of trusted samples that a fit has not seen: the losses
and label issues of the pool are made of the same probabilities. Letters: T trusted samples,
F width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mimic_core.base.draws import order
from mimic_core.mimic.losses import cross_entropy_losses, widened
from mimic_core.scoring.labels.logistic import BLOCK, LogisticFit, fit_logistic

GRID = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
USUAL = 0.01  # where the samples are too few to choose
FOLDS = 5
# From so many samples on, one fold in five is enough to tell decays apart, and four fits are saved.
ONE_FOLD = 20_000
_TOLERANCE = 1e-4  # of the gradient: the losses of such fits differ less than those of two decays


def can_choose(labels: Sequence[str]) -> bool:
    """Whether any class has two samples, without which none can be left out."""
    return len(set(labels)) < len(labels)


def chosen_weight_decay(
    take: Callable[[np.ndarray], Tensor],
    targets: np.ndarray,
    uids: pl.Series,
    *,
    classes: int,
    width: int,
) -> float:
    """The weight decay of ``GRID`` with the least loss on samples that were left out.

    Goes down from the strongest, each fit beginning at the last one, and ends at the first that is
    no better. ``USUAL`` where no class has two samples.

    Args:
        take: Features (B, F) float32 of positions (B,) among the T samples.
        targets: Class numbers (T,) int64.
        uids: (T,), which alone decide the folds.
    """
    folds = left_out_folds(uids, targets)
    tried = np.unique(folds[folds >= 0])
    if not len(tried):
        return USUAL
    if len(targets) >= ONE_FOLD:
        tried = tried[:1]
    best, least = USUAL, np.inf
    fits: dict[int, LogisticFit] = {}
    for decay in GRID:
        loss = 0.0
        for fold in tried.tolist():
            train, out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            fits[fold] = fit_logistic(
                partial(_part, take, train),
                targets[train],
                classes=classes,
                width=width,
                weight_decay=decay,
                begin=fits.get(fold),
                tolerance=_TOLERANCE,
            )
            loss += _summed_loss(fits[fold], partial(_part, take, out), targets[out])
        if loss >= least:
            break
        best, least = decay, loss
    return best


def left_out_folds(uids: pl.Series, targets: np.ndarray) -> np.ndarray:
    """The fold (T,) int64 in which each sample is left out; -1: in none.

    Each class is dealt out to the folds in the order of its uids' hashes, so every fold's fit has
    seen every class. The only sample of its class is never left out.
    """
    folds = np.full(len(targets), -1, np.int64)
    by_hash = order(uids, 0)
    for number in np.unique(targets):
        mine = by_hash[targets[by_hash] == number]
        if len(mine) > 1:
            folds[mine] = (np.arange(len(mine)) + number) % FOLDS
    return folds


def _part(take: Callable[[np.ndarray], Tensor], part: np.ndarray, rows: np.ndarray) -> Tensor:
    return take(part[rows])


def _summed_loss(
    fit: LogisticFit, take: Callable[[np.ndarray], Tensor], targets: np.ndarray
) -> float:
    total = 0.0
    for start in range(0, len(targets), BLOCK):
        own = targets[start : start + BLOCK]
        features = take(np.arange(start, start + len(own))).cpu()
        losses = cross_entropy_losses(
            features @ fit.weight.T + fit.bias, torch.from_numpy(own.astype(np.int64))
        )
        total += float(widened(losses).sum())
    return total
