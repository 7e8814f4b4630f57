"""One order of the samples that depends on their uids and a seed, and on nothing else.

Draws and batches take samples by a 64-bit hash of (keys, uid), so that neither the order of files,
the number of workers nor an interruption can change them. The N smallest hashes of a pool contain
the M < N smallest: a smaller sample is always part of a larger one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from mimic_core.base.errors import ConfigError, MimicError, ScoreError

UID_DIGITS = 32

# Constants of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
# OOPSLA 2014): an odd step near 2^64 / golden ratio, then two multiply-xorshift rounds.
_STEP = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_MASK = (1 << 64) - 1
_INVALID = 16


def _nibble_table() -> np.ndarray:
    """Value of each ASCII byte as a lower-case hexadecimal digit (256,) uint8; 16 = not one."""
    table = np.full(256, _INVALID, np.uint8)
    for value, digit in enumerate(b"0123456789abcdef"):
        table[digit] = value
    return table


_NIBBLES = _nibble_table()


def uid_words(uids: pl.Series | Sequence[str]) -> np.ndarray:
    """Parse uids (N) of 32 lower-case hexadecimal digits.

    Returns:
        (N, 2) uint64: the upper and the lower 64 bits of each uid; their order is the uids' order.

    Raises:
        MimicError: A uid is null, or not 32 lower-case hexadecimal digits.
    """
    series = uids if isinstance(uids, pl.Series) else pl.Series("uid", list(uids), pl.String)
    wrong_length = series.str.len_bytes().ne_missing(UID_DIGITS).arg_true()
    if len(wrong_length):
        raise _bad_uid(series, int(wrong_length[0]))
    text = "".join(series.to_list()).encode()
    nibbles = _NIBBLES[np.frombuffer(text, np.uint8)].reshape(-1, UID_DIGITS)
    wrong_digit = np.flatnonzero((nibbles == _INVALID).any(axis=1))
    if len(wrong_digit):
        raise _bad_uid(series, int(wrong_digit[0]))
    packed = (nibbles[:, 0::2] << 4) | nibbles[:, 1::2]
    return np.ascontiguousarray(packed).view(">u8").astype(np.uint64)


def _bad_uid(series: pl.Series, row: int) -> MimicError:
    return MimicError(
        f"row {row} has a uid that is not one",
        got=series[row],
        allowed="32 lower-case hexadecimal digits",
        next_step="correct the uid column of that table",
    )


def hash_words(words: np.ndarray, *keys: int) -> np.ndarray:
    """Hash parsed uids (N, 2) uint64 under integer keys such as (seed, epoch); (N,) uint64."""
    state = 0
    for key in keys:
        state = _mix_int(state ^ (key & _MASK))
    mixed = _mix(words[:, 0] ^ np.uint64(state))
    return _mix(mixed ^ words[:, 1])


def order_words(words: np.ndarray, *keys: int) -> np.ndarray:
    """Positions (N,) int64 of parsed uids (N, 2) in the order of their hash; ties by uid."""
    hashes = hash_words(words, *keys)
    return np.asarray(np.lexsort((words[:, 1], words[:, 0], hashes)), np.int64)


def order(uids: pl.Series | Sequence[str], *keys: int) -> np.ndarray:
    """Positions (N,) int64 of the uids in the order of their hash; ties are broken by uid."""
    return order_words(uid_words(uids), *keys)


def _mix(values: np.ndarray) -> np.ndarray:
    """One SplitMix64 round of (N,) uint64; arithmetic is modulo 2^64."""
    values = values + np.uint64(_STEP)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_FIRST)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_SECOND)
    return np.asarray(values ^ (values >> np.uint64(31)))


def _mix_int(value: int) -> int:
    """``_mix`` of one Python integer."""
    value = (value + _STEP) & _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def draw_clean(
    uids: pl.Series, rows: np.ndarray, *, seed: int, each: int, classes: pl.Series | None
) -> np.ndarray:
    """Up to ``each`` of ``rows`` from each class, drawn by uid; positions (K,) in order.

    Args:
        uids, classes: Of all samples (N,); without classes all are one class.

    Raises:
        ConfigError: There are no rows to draw from.
    """
    if len(rows) == 0:
        raise ConfigError(
            "all clean samples are held out",
            got="0 samples",
            allowed="clean samples that are not held out",
            next_step="hold out other samples, or call others clean",
        )
    drawn = rows[order(uids.gather(rows), seed)]
    if classes is None:
        return np.sort(drawn[:each])
    frame = pl.DataFrame({"row": drawn, "class": classes.gather(drawn)})
    kept = frame.group_by("class", maintain_order=True).head(each)
    return np.sort(kept["row"].to_numpy())


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
