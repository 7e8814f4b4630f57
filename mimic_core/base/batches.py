"""Which samples meet in which batch (phase 2, method.md section 4; ``docs/formats.md``).

Batches are drawn over the readable samples of the pool in the order of a hash of (seed, epoch,
uid), exactly B each; the short last batch is filled from the head of the order, and those second
scores are discarded. So a composition depends on the pool, the seed, the epoch and B alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mimic_core.base.draws import order_words
from mimic_core.base.errors import ScoreError


@dataclass(frozen=True)
class Draw:
    """Positions ``rows`` (B,) int64 in the pool; the scores of the first ``scored`` count."""

    step: int
    rows: np.ndarray
    scored: int


def draw_batches(words: np.ndarray, *, batch_size: int, seed: int, epoch: int) -> Iterator[Draw]:
    """The batches of one epoch, or of one repeat.

    Args:
        words: Parsed uids (N, 2) uint64 of the pool (``mimic_core.base.draws.uid_words``).
        batch_size: B, at most N (see ``fitting_batch_size``).
    """
    order = order_words(words, seed, epoch)
    for step, start in enumerate(range(0, len(order), batch_size)):
        rows = order[start : start + batch_size]
        scored = len(rows)
        yield Draw(step, np.concatenate([rows, order[: batch_size - scored]]), scored)


def fitting_batch_size(wanted: int, samples: int) -> int:
    """``wanted``, or the whole pool as one batch where the pool is smaller.

    Raises:
        ScoreError: Fewer than two samples: a contrastive loss needs another sample to compare with.
    """
    if samples < 2:
        raise ScoreError(
            "the pool has too few readable samples for a contrastive loss",
            got=samples,
            allowed="at least 2",
            next_step="look at skipped.parquet for the samples that could not be read",
        )
    return min(wanted, samples)
