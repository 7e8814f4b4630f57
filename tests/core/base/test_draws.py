"""The order of samples depends on uid and keys alone."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.base import draws as sampling
from mimic_core.base.errors import MimicError

HEX = "0123456789abcdef"
uids_of_any_pool = st.lists(st.text(HEX, min_size=32, max_size=32), unique=True, max_size=60)
keys = st.lists(st.integers(-(2**70), 2**70), max_size=3)

_MASK = 2**64 - 1


def _splitmix(value: int) -> int:
    """The reference algorithm in Python integers."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _hash(uid: str, *keys: int) -> int:
    state = 0
    for key in keys:
        state = _splitmix(state ^ (key & _MASK))
    upper, lower = int(uid[:16], 16), int(uid[16:], 16)
    return _splitmix(_splitmix(upper ^ state) ^ lower)


def test_splitmix_gives_the_published_first_numbers() -> None:
    # The first outputs of SplitMix64 seeded with 0.
    assert _splitmix(0) == 0xE220A8397B1DCDAF
    assert sampling._mix_int(0) == 0xE220A8397B1DCDAF
    assert sampling._mix(np.zeros(1, np.uint64)).tolist() == [0xE220A8397B1DCDAF]


@given(uids=uids_of_any_pool, keys=keys)
def test_hash_equals_the_same_arithmetic_in_python_integers(
    uids: list[str], keys: list[int]
) -> None:
    assert sampling.hash_words(sampling.uid_words(uids), *keys).tolist() == [
        _hash(uid, *keys) for uid in uids
    ]


@given(uids=uids_of_any_pool)
def test_words_are_the_two_halves_and_sort_like_uids(uids: list[str]) -> None:
    words = sampling.uid_words(pl.Series(uids, dtype=pl.String))
    assert words.dtype == np.uint64
    assert words.shape == (len(uids), 2)
    assert [f"{a:016x}{b:016x}" for a, b in words.tolist()] == uids
    by_words = np.lexsort((words[:, 1], words[:, 0])) if uids else []
    assert [uids[row] for row in by_words] == sorted(uids)


@given(uids=uids_of_any_pool, keys=keys, shuffle=st.randoms(use_true_random=False))
def test_order_does_not_depend_on_the_order_given(
    uids: list[str], keys: list[int], shuffle: random.Random
) -> None:
    first = [uids[row] for row in sampling.order(uids, *keys)]
    other = list(uids)
    shuffle.shuffle(other)
    assert [other[row] for row in sampling.order(other, *keys)] == first
    assert first == sorted(uids, key=lambda uid: (_hash(uid, *keys), uid))


def test_ties_are_broken_by_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sampling, "hash_words", lambda words, *keys: np.zeros(len(words), np.uint64)
    )
    uids = [f"{value:032x}" for value in (2**64, 5, 2**64 - 1, 3)]
    assert [uids[row] for row in sampling.order(uids, 7)] == sorted(uids)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**40))
def test_another_seed_gives_another_order(seed: int) -> None:
    uids = [f"{row:032x}" for row in range(200)]
    assert sampling.order(uids, seed).tolist() != sampling.order(uids, seed + 1).tolist()


def test_neighbouring_uids_are_spread_evenly() -> None:
    uids = [f"{row:032x}" for row in range(40_000)]
    hashes = sampling.hash_words(sampling.uid_words(uids), 0, 1)
    counts = np.histogram(hashes >> np.uint64(32), bins=16, range=(0, 2**32))[0]
    assert counts.sum() == 40_000
    assert np.abs(counts - 2500).max() < 5 * np.sqrt(2500)


@pytest.mark.parametrize(
    "wrong",
    ["", "a" * 31, "a" * 33, "A" * 32, "g" * 32, "é" * 16, "0" * 31 + "\n", None],
)
def test_what_is_no_uid_is_refused_with_its_row(wrong: str | None) -> None:
    uids = pl.Series(["0" * 32, wrong], dtype=pl.String)
    with pytest.raises(MimicError) as caught:
        sampling.uid_words(uids)
    assert "row 1" in caught.value.problem
    assert caught.value.got == repr(wrong)


def test_hashes_are_the_same_in_every_process() -> None:
    code = (
        "from mimic_core.base.draws import hash_words, uid_words; "
        "print(hash_words(uid_words(['0' * 32]), 1, 2)[0])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {f"{_hash('0' * 32, 1, 2)}\n"}
