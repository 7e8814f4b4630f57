"""Cutoffs that split one column of scores in two: exact k-means, a normal mixture, a top share.

All take scores in ascending order (sorting ten million float32 takes a tenth of a second) and work
on up to ``BINS`` bins of them, whose counts, sums and squares are exact. Half of the bins' edges
are equally spaced and half hold equally many values, so that no bin is wider than 1/2,048 of the
range, and none but those of a single repeated value holds more than 1/1,024 of the values: neither
outliers nor point masses can hide a split from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 4096
_BLOCK = 1 << 15  # values that stay in the processor's cache
_MAX_ITERATIONS = 2000
_TOLERANCE = 1e-10  # of the mean log-likelihood per value
_SMALLEST_DEVIATION = 1e-3  # of a component, in standard deviations of all values


@dataclass(frozen=True, slots=True, eq=False)
class _Bins:
    """Bins of N ascending values around their mean; K bins, float64 unless said.

    Attributes:
        edges: (K + 1,) int64, positions at which bins start, and N.
        count, total, square: (K,) number of values, sum of (x - mean) and of its square.
        mean: What is subtracted.
    """

    edges: np.ndarray
    count: np.ndarray
    total: np.ndarray
    square: np.ndarray
    mean: float


def _binned(ascending: np.ndarray) -> _Bins:
    size = len(ascending)
    low, high = float(ascending[0]), float(ascending[-1])
    marks = np.linspace(low, high, BINS // 2 + 1)[1:-1].astype(ascending.dtype)
    by_width = np.searchsorted(ascending, marks)
    places = np.linspace(0, size - 1, BINS // 2 + 1).astype(np.int64)
    by_count = np.searchsorted(ascending, ascending[places])  # equal values stay in one bin
    ends = np.searchsorted(ascending, ascending[places], side="right")
    alone = ends[ends - by_count > size // (BINS // 2)]  # and many equal ones get their own
    edges = np.unique(np.concatenate([[0], by_width, by_count, alone, [size]]))
    middle = float(ascending[size // 2])  # near the mean, so that sums stay exact
    count = np.diff(edges).astype(np.float64)
    total, square = _sums(ascending, edges, middle)
    shift = float(total.sum() / size)
    return _Bins(
        edges=edges,
        count=count,
        total=total - shift * count,
        square=square - 2 * shift * total + shift**2 * count,
        mean=middle + shift,
    )


def _sums(ascending: np.ndarray, edges: np.ndarray, middle: float) -> tuple[np.ndarray, np.ndarray]:
    """Sum of (x - middle) and of its square in each bin (K,), a few bins at a time."""
    total, square = np.empty(len(edges) - 1), np.empty(len(edges) - 1)
    first = 0
    while first < len(total):
        last = int(np.searchsorted(edges, edges[first] + _BLOCK, side="right")) - 1
        last = min(max(last, first + 1), len(total))
        start = edges[first]
        centred = ascending[start : edges[last]].astype(np.float64)
        centred -= middle
        total[first:last] = np.add.reduceat(centred, edges[first:last] - start)
        centred *= centred
        square[first:last] = np.add.reduceat(centred, edges[first:last] - start)
        first = last
    return total, square


def kmeans_cut(ascending: np.ndarray) -> np.float32:
    """Smallest value of the upper of two clusters, exactly the best split of all.

    Two clusters with the least squared distances to their means lie on two sides of a cut, so only
    N - 1 splits are possible. Their gains at the bins' edges are exact, an upper bound holds
    inside each bin, and the few bins that may hold a better split than the best edge are searched
    value by value. The first of equally good splits is taken.

    Args:
        ascending: (N,) float32, not empty.

    Returns:
        The cutoff; the smallest value when all are equal, so that all are kept.
    """
    if ascending[0] == ascending[-1]:
        return np.float32(ascending[0])
    bins = _binned(ascending)
    size = len(ascending)
    n = np.concatenate([[0.0], np.cumsum(bins.count)])
    s = np.concatenate([[0.0], np.cumsum(bins.total)])
    gains = _gains(n[1:-1], s[1:-1], size)
    best = int(np.argmax(gains)) if len(gains) else -1
    gain = float(gains[best]) if len(gains) else -np.inf
    cut = int(bins.edges[best + 1])
    for part in np.flatnonzero(_bounds(bins, n, s, ascending) >= gain * (1 - 1e-9)):
        start, end = int(bins.edges[part]), int(bins.edges[part + 1])
        inside = ascending[start:end].astype(np.float64) - bins.mean
        counts = n[part] + np.arange(1, end - start)
        found = _gains(counts, s[part] + np.cumsum(inside)[:-1], size)
        found[ascending[start + 1 : end] == ascending[start : end - 1]] = -np.inf
        place = int(np.argmax(found))
        if found[place] > gain:
            gain, cut = float(found[place]), start + 1 + place
    return np.float32(ascending[cut])


def _gains(n: np.ndarray, s: np.ndarray, size: int) -> np.ndarray:
    """By how much splitting after ``n`` values with centred sum ``s`` lowers the squared error."""
    return np.asarray(s * s * size / (n * (size - n)))


def _bounds(bins: _Bins, n: np.ndarray, s: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """For each bin no less than the gain of any split inside it; -inf where there is none.

    Centred sums of lower parts are negative, and k values of a bin add at least k times its lowest;
    n (N - n) is concave, so its least is at an end.
    """
    size = len(ascending)
    lowest = ascending[bins.edges[:-1]].astype(np.float64) - bins.mean
    highest = ascending[bins.edges[1:] - 1].astype(np.float64) - bins.mean
    least = s[:-1] + np.minimum(0.0, (bins.count - 1) * lowest)
    first, last = n[:-1] + 1, n[1:] - 1
    with np.errstate(divide="ignore", invalid="ignore"):  # bins of one value divide by zero
        bound = least**2 * size / np.minimum(first * (size - first), last * (size - last))
    return np.where((lowest < highest) & (bins.count > 1), bound, -np.inf)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Two normal components, the lower first; ``share`` is the part of the values in the upper."""

    low_mean: float
    low_deviation: float
    high_mean: float
    high_deviation: float
    share: float


def mixture(ascending: np.ndarray) -> Mixture | None:
    """The two normal components of greatest likelihood, by EM from the split of k-means.

    Works on the bins' counts, sums and squares, so a step costs the same for any N; what is
    approximated is that all values of a bin have the posterior of the bin's mean. Deviations are
    kept above 1/1,000 of that of all values, or a point mass would have infinite likelihood.

    Args:
        ascending: (N,) float32, not empty.

    Returns:
        None when all values are equal.
    """
    if ascending[0] == ascending[-1]:
        return None
    bins = _binned(ascending)
    size = float(len(ascending))
    scale = float(np.sqrt(bins.square.sum() / size))
    count, total, square = bins.count, bins.total / scale, bins.square / scale**2
    x = total / count
    split = int(np.searchsorted(ascending, kmeans_cut(ascending)))
    upper = (bins.edges[:-1] >= split).astype(np.float64)  # the bin with the split counts as lower
    upper[-1], upper[0] = 1.0, 0.0
    before = -np.inf
    for _ in range(_MAX_ITERATIONS):
        share = float((count * upper).sum()) / size
        parts = [_moments(count * side, total * side, square * side) for side in (1 - upper, upper)]
        (m0, d0), (m1, d1) = parts
        log_low = np.log1p(-share) - np.log(d0) - 0.5 * ((x - m0) / d0) ** 2
        log_high = np.log(share) - np.log(d1) - 0.5 * ((x - m1) / d1) ** 2
        both = np.logaddexp(log_low, log_high)
        likelihood = float((count * both).sum()) / size
        if abs(likelihood - before) < _TOLERANCE:
            break
        before = likelihood
        upper = np.clip(np.exp(log_high - both), 1e-12, 1 - 1e-12)
    if m0 > m1:
        (m0, d0), (m1, d1), share = (m1, d1), (m0, d0), 1 - share
    return Mixture(m0 * scale + bins.mean, d0 * scale, m1 * scale + bins.mean, d1 * scale, share)


def _moments(count: np.ndarray, total: np.ndarray, square: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of weighted bins."""
    weight = float(count.sum())
    mean = float(total.sum()) / weight
    variance = float(square.sum()) / weight - mean**2
    return mean, float(np.sqrt(max(variance, _SMALLEST_DEVIATION**2)))


def mixture_cut(ascending: np.ndarray) -> np.float32:
    """From which score on the upper of two normal components is the likelier, as a monotone rule.

    The crossing of the posteriors between the two means where there is one. Where the upper
    component is the likelier at both means, the next crossing below; where the lower is at both,
    the next above. Beyond the cutoff everything is kept, whatever a wide lower component claims.

    Returns:
        The cutoff; the smallest value, so that all are kept, where the posteriors never cross.
    """
    found = mixture(ascending)
    crossing = None if found is None else _crossing(found)
    return np.float32(ascending[0] if crossing is None else crossing)


def _crossing(found: Mixture) -> float | None:
    """The cutoff of ``mixture_cut``; None where the posteriors never cross on its side."""
    unit = found.low_deviation  # coordinates in which the lower component is (0, 1)
    mean = (found.high_mean - found.low_mean) / unit
    deviation = found.high_deviation / unit
    odds = np.log(found.share / (1 - found.share)) - np.log(deviation)
    # log odds of the upper one: a x^2 + b x + c
    a = 0.5 - 0.5 / deviation**2
    b = mean / deviation**2
    c = odds - 0.5 * (mean / deviation) ** 2
    roots = np.roots([a, b, c]) if abs(a) > 1e-12 else np.roots([b, c]) if b else np.array([])
    real = np.sort(roots[np.isreal(roots)].real)
    if a * mean**2 + b * mean + c > 0:
        below = real[real <= mean]
        return float(below[-1] * unit + found.low_mean) if len(below) else None
    above = real[real >= mean]
    return float(above[0] * unit + found.low_mean) if len(above) else None


def top_cut(values: np.ndarray, percent: float) -> np.float32:
    """The score from which on the highest ``percent`` percent are kept; ties stay in.

    Args:
        values: (N,) float32 in any order, not empty.
        percent: The number kept is that share, rounded down; for none the cutoff is infinite.
    """
    kept = int(np.floor(percent * len(values) / 100 + 1e-6))
    if kept == 0:
        return np.float32(np.inf)
    return np.float32(np.partition(values, len(values) - kept)[len(values) - kept])
