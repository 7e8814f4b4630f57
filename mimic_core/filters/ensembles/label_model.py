"""The label model: how reliable each step's votes are, and what they say together.

Dawid and Skene's model with two classes: a sample belongs to the kept side with probability
``prior``; given its side, the steps vote independently, step s keeping a sample of the kept side
with probability ``keeps_kept[s]`` and one of the dropped side with ``keeps_dropped[s]``. EM finds
the parameters of greatest likelihood. It works on the distinct patterns of votes (32 for five
steps, whatever the number of samples); a pattern is kept as packed bytes, and sums over its steps
are looked up byte by byte, so that 64 steps need no table of single votes.

Steps of one run are not independent: they see the same sample through similar weights. Beliefs are
therefore too certain; their order, and the decision at one half, suffer less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mimic_core.base.errors import ScoreError

FEWEST_STEPS = 3  # with two voters the same votes fit many parameters
_MAX_ITERATIONS = 2000
_TOLERANCE = 1e-9  # the largest change of a parameter
_EDGE = 1e-12  # probabilities stay that far from 0 and 1
_TABLE_BITS = 16  # up to that many steps, patterns are counted in a table

# Bits of each byte, lowest first: (256, 8) float64.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(
    np.float64
)


@dataclass(frozen=True, slots=True, eq=False)
class DawidSkene:
    """What the label model found; arrays float64 unless said.

    Attributes:
        prior: Share of the samples on the kept side.
        keeps_kept: (S,) probability that a step keeps a sample of the kept side.
        keeps_dropped: (S,) probability that it keeps one of the dropped side.
        belief: (N,) float32, probability that a sample belongs to the kept side.
        iterations: Steps of EM taken.
        converged: Whether it stopped because nothing changed any more.
    """

    prior: float
    keeps_kept: np.ndarray
    keeps_dropped: np.ndarray
    belief: np.ndarray
    iterations: int
    converged: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Patterns:
    """The U distinct patterns of votes.

    Attributes:
        steps: Number of steps S.
        bytes: (ceil(S / 8), U) uint8, votes packed lowest bit first.
        count: (U,) float64, samples with that pattern.
        of: (N,) which pattern each sample has.
    """

    steps: int
    bytes: np.ndarray
    count: np.ndarray
    of: np.ndarray

    def weighted(self, weights: np.ndarray) -> np.ndarray:
        """For every pattern the sum of ``weights`` (S,) over the steps that keep."""
        padded = np.zeros(8 * len(self.bytes))
        padded[: self.steps] = weights
        tables = (_BITS @ padded[8 * k : 8 * k + 8] for k in range(len(self.bytes)))
        parts = [table[row] for table, row in zip(tables, self.bytes, strict=True)]
        return np.asarray(np.sum(parts, axis=0))

    def keeps(self, amounts: np.ndarray) -> np.ndarray:
        """For every step the sum of ``amounts`` (U,) over the patterns that it keeps, (S,)."""
        sums = [np.bincount(row, weights=amounts, minlength=256) @ _BITS for row in self.bytes]
        return np.concatenate(sums)[: self.steps]


def dawid_skene(votes: np.ndarray) -> DawidSkene:
    """Fit the label model to the votes of S steps on N samples.

    EM starts from the share of keep votes, so it repeats exactly; which side is which is settled
    by the majority: the kept side is the one that agrees with more of the majority decisions.

    Args:
        votes: (S, N) bool, S >= 3, N >= 1.

    Raises:
        ScoreError: There are fewer than three steps.
    """
    steps, samples = votes.shape
    if steps < FEWEST_STEPS:
        raise ScoreError(
            f"a label model needs the votes of at least {FEWEST_STEPS} steps",
            got=steps,
            allowed=f"{FEWEST_STEPS} or more epochs or repeats",
            next_step="aggregate by majority, unanimous or mean rank, or score with more epochs",
        )
    patterns = _patterns(votes)
    share = patterns.weighted(np.ones(steps)) / steps
    belief, before, converged = share, np.full(2 * steps + 1, np.inf), False
    for iteration in range(1, _MAX_ITERATIONS + 1):  # noqa: B007 - reported below
        prior, kept, dropped = _parameters(patterns, belief)
        belief = _posterior(patterns, prior, kept, dropped)
        now = np.concatenate([[prior], kept, dropped])
        converged = bool(np.abs(now - before).max() < _TOLERANCE)
        if converged:
            break
        before = now
    # Half-way votes belong to neither side and count for neither.
    agreement = patterns.count * np.sign(share - 0.5) * np.sign(belief - 0.5)
    if agreement.sum() < 0:
        prior, kept, dropped, belief = 1 - prior, dropped, kept, 1 - belief
    each = belief.astype(np.float32)[patterns.of]
    assert each.shape == (samples,)
    return DawidSkene(prior, kept, dropped, each, iteration, converged)


def _parameters(patterns: _Patterns, belief: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Prior and the two keep probabilities of every step, given the patterns' beliefs (U,)."""
    on_kept = patterns.count * belief
    on_dropped = patterns.count * (1 - belief)
    total = float(patterns.count.sum())
    prior = float(np.clip(on_kept.sum() / total, _EDGE, 1 - _EDGE))
    rates = []
    for amounts in (on_kept, on_dropped):
        # A side without samples says nothing of the steps: its rates are then one half.
        rate = (patterns.keeps(amounts) + _EDGE / 2) / (amounts.sum() + _EDGE)
        rates.append(np.clip(rate, _EDGE, 1 - _EDGE))
    return prior, rates[0], rates[1]


def _posterior(
    patterns: _Patterns, prior: float, kept: np.ndarray, dropped: np.ndarray
) -> np.ndarray:
    """Belief (U,) that samples of a pattern belong to the kept side."""
    gain = np.log(kept) - np.log(dropped)
    loss = np.log1p(-kept) - np.log1p(-dropped)
    base = np.log(prior) - np.log1p(-prior) + loss.sum()
    logit = np.clip(base + patterns.weighted(gain - loss), -700, 700)
    return np.asarray(1 / (1 + np.exp(-logit)))


def _patterns(votes: np.ndarray) -> _Patterns:
    """Count the distinct patterns of (S, N) votes."""
    steps = len(votes)
    packed = np.packbits(votes, axis=0, bitorder="little")
    if steps <= _TABLE_BITS:
        codes = packed[0] if steps <= 8 else packed[0] | packed[1].astype(np.uint16) << np.uint16(8)
        counts = np.bincount(codes, minlength=1 << steps)
        there = np.flatnonzero(counts)
        place = np.zeros(1 << steps, np.int32)
        place[there] = np.arange(len(there), dtype=np.int32)
        rows = there.astype("<u2").view(np.uint8).reshape(-1, 2).T[: len(packed)]
        return _Patterns(steps, rows, counts[there].astype(np.float64), place[codes])
    frame = pl.DataFrame({f"byte {k}": row for k, row in enumerate(packed)})
    names = frame.columns
    distinct = frame.group_by(names, maintain_order=True).agg(pl.len().alias("count"))
    distinct = distinct.with_row_index("pattern")
    of = frame.join(distinct, on=names, how="left", maintain_order="left")["pattern"].to_numpy()
    rows = distinct.select(names).to_numpy().T
    return _Patterns(steps, rows, distinct["count"].cast(pl.Float64).to_numpy(), of)
