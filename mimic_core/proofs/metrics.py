"""Held-out loss and retrieval recall, as one contribution per held-out sample.

In a contrastive batch every sample is also a distractor of all others, so a sample's own loss is
not all that it does to the mean. The contributions here are jackknife values in closed form: how
the mean would change without the sample. Their mean is the metric itself and their spread is its
sampling spread, so that samples can be resampled as if they were independent.

Letters: H held-out samples, D embedding width. All in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

BLOCK_CELLS = 4_194_304  # similarities at a time, 32 MB: eight trainings may judge at once


def clip_contributions(logits: np.ndarray) -> np.ndarray:
    """Contributions (H,) to the mean CLIP loss of one batch of logits (H, H)."""
    own = np.diagonal(logits)
    total = (0.5 * (_lse(logits) + _lse(logits.T)) - own).sum()
    # Without sample j the others lose the logit towards it, in their row and in their column.
    remaining = 0.5 * (lse_without(logits) + lse_without(logits.T)) - own[:, None]
    np.fill_diagonal(remaining, 0.0)
    return jackknife_values(total, remaining.sum(0))


def siglip_contributions(logits: np.ndarray) -> np.ndarray:
    """Contributions (H,) to the mean SigLIP loss of one batch of logits (H, H)."""
    signs = 2 * np.eye(len(logits)) - 1
    losses = np.logaddexp(0, -signs * logits)
    total = losses.sum()
    return jackknife_values(total, total - losses.sum(0) - losses.sum(1) + np.diagonal(losses))


def lse_without(logits: np.ndarray) -> np.ndarray:
    """Element (i, j): log-sum-exp of row i of (H, H) without its element j."""
    rows = np.arange(len(logits))
    top = logits.argmax(1)
    peak = logits[rows, top]
    shares = np.exp(logits - peak[:, None])
    shares[rows, top] = 0.0
    # As long as the largest element stays, subtracting loses no digits: the rest is at least 1.
    out = np.log(1 + shares.sum(1, keepdims=True) - shares) + peak[:, None]
    others = logits.copy()
    others[rows, top] = -np.inf
    out[rows, top] = _lse(others)
    return np.asarray(out)


def recall_contributions(
    queries: np.ndarray, answers: np.ndarray, cutoffs: Sequence[int]
) -> list[np.ndarray]:
    """Contributions (H,) to recall@k of finding answer i by query i, for each k of ``cutoffs``.

    Equal similarities share the places they take: a query whose answer ties with others counts
    with the chance that a random order among them finds it. Equal embeddings tie exactly.

    Args:
        queries, answers: Unit embeddings (H, D).
    """
    compare = partial(_comparisons, *_distinct(queries), *_distinct(answers))
    # One block is kept between the two passes; where there are several, they are computed again.
    kept = list(compare()) if len(queries) * len(answers) <= BLOCK_CELLS else None
    above, equal = np.empty(len(queries)), np.empty(len(queries))
    for block, higher, level in kept or compare():
        above[block], equal[block] = higher.sum(1), level.sum(1)
    hits = [_hits(above, equal, k) for k in cutoffs]
    gained = np.zeros((len(cutoffs), len(queries)))
    for block, higher, level in kept or compare():
        over, tied = above[block], equal[block]
        for number, k in enumerate(cutoffs):
            now = hits[number][block]
            gains_above = np.where(over > 0, _hits(np.maximum(over - 1, 0), tied, k) - now, 0.0)
            gains_equal = np.where(tied > 0, _hits(over, np.maximum(tied - 1, 0), k) - now, 0.0)
            gained[number] += higher.T @ gains_above + level.T @ gains_equal
    return [
        jackknife_values(now.sum(), now.sum() - now + row)
        for now, row in zip(hits, gained, strict=True)
    ]


def _hits(above: np.ndarray, equal: np.ndarray, k: int) -> np.ndarray:
    """Chance (H,) to be among the first k with ``above`` others before and ``equal`` level."""
    return np.asarray(np.clip((k - above) / (equal + 1), 0.0, 1.0))


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of (H, D) in float64, and which of them each row is (H,)."""
    distinct, place = np.unique(rows, axis=0, return_inverse=True)
    return distinct.astype(np.float64), place.ravel()


def _comparisons(
    queries: np.ndarray, query: np.ndarray, answers: np.ndarray, answer: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Blocks of b queries: which of all answers are more similar than the query's own, (b, H) bool,
    and which other answers are just as similar.

    Products are computed once for equal rows, because rounding may depend on the position.

    Args:
        queries, answers: Distinct rows.
        query, answer: Which of them each of the H samples has.
    """
    size = max(1, BLOCK_CELLS // len(answer))
    for start in range(0, len(query), size):
        block = slice(start, min(start + size, len(query)))
        needed, place = np.unique(query[block], return_inverse=True)
        products = (queries[needed] @ answers.T)[np.ix_(place.ravel(), answer)]
        own = np.arange(len(products)), np.arange(start, block.stop)
        best = products[own][:, None]
        level = products == best
        level[own] = False
        yield block, products > best, level


def jackknife_values(total: float, remaining: np.ndarray) -> np.ndarray:
    """Contributions (H,) to ``total / H``, from the totals (H,) that remain without each sample."""
    count = len(remaining)
    mean = total / count
    without = remaining / max(count - 1, 1)
    return np.asarray(mean + (count - 1) * (without.mean() - without))


def _lse(values: np.ndarray) -> np.ndarray:
    """Log-sum-exp (H,) of the rows of (H, M)."""
    peak = values.max(1)
    return np.asarray(np.log(np.exp(values - peak[:, None]).sum(1)) + peak)
