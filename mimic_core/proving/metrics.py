"""Held-out loss and retrieval recall, as one contribution per held-out sample.

In a contrastive batch every sample is also a distractor of all others, so a sample's own loss is
not all that it does to the mean. The contributions here are jackknife values in closed form: how
the mean would change without the sample. Their mean is the metric itself and their spread is its
sampling spread, so that samples can be resampled as if they were independent.

Letters: H held-out samples, D embedding width. All in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
    similarity = _similarities(queries, answers)
    own = np.diagonal(similarity)[:, None]
    higher = similarity > own
    level = similarity == own
    np.fill_diagonal(level, val=False)
    above, equal = higher.sum(1), level.sum(1)
    found = []
    for k in cutoffs:
        hits = _hits(above, equal, k)
        gains_above = np.where(above > 0, _hits(np.maximum(above - 1, 0), equal, k) - hits, 0.0)
        gains_equal = np.where(equal > 0, _hits(above, np.maximum(equal - 1, 0), k) - hits, 0.0)
        gained = higher.T @ gains_above + level.T @ gains_equal
        found.append(jackknife_values(hits.sum(), hits.sum() - hits + gained))
    return found


def _hits(above: np.ndarray, equal: np.ndarray, k: int) -> np.ndarray:
    """Chance (H,) to be among the first k with ``above`` others before and ``equal`` level."""
    return np.asarray(np.clip((k - above) / (equal + 1), 0.0, 1.0))


def _similarities(queries: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Products (H, H), computed once for equal rows: rounding may depend on the position."""
    one, one_of = np.unique(queries, axis=0, return_inverse=True)
    other, other_of = np.unique(answers, axis=0, return_inverse=True)
    products = one.astype(np.float64) @ other.astype(np.float64).T
    return np.asarray(products[np.ix_(one_of.ravel(), other_of.ravel())])


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
