"""COLUMN and COLUMN=VALUE mean the same samples wherever they are said."""

from __future__ import annotations

import polars as pl
import pytest

from mimic_core.base.config import HeadConfig, TrainConfig
from mimic_core.base.errors import ConfigError
from mimic_core.proofs.trusted import trusted_mask
from mimic_core.scoring.training.splitting import split_samples
from mimic_core.sources.marks import marked_rows, trusted_samples
from tests.core.scoring_pool import uid_of

# A pool scored by its column `noisy`, whose own column `label` is kept as `source_label`.
TABLE = pl.DataFrame(
    {
        "uid": [uid_of(n) for n in range(6)],
        "label": ["cat", "cat", "dog", "dog", "dog", "dog"],
        "source_label": ["cat", "dog", "cat", "dog", None, "dog"],
        "good": [True, False, None, True, False, False],
        "fold": [0, 1, 2, 3, 4, 5],
        "share": [0.5, 1.0, None, 2.0, 2.0, 2.0],
        "a=b": [False, True, False, False, False, True],
        "empty": pl.Series([None] * 6, dtype=pl.Null),
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("label=cat", [0, 2]),  # the user's own column of that name, never the scored label
        ("source_label=cat", [0, 2]),
        ("good", [0, 3]),
        ("good=No", [1, 4, 5]),
        (" fold = 2 ", [2]),
        ("share=1", [1]),
        ("a=b", [1, 5]),
    ],
)
def test_every_option_means_the_same_samples(text: str, rows: list[int]) -> None:
    assert marked_rows(TABLE, text, option="--x").nonzero()[0].tolist() == rows
    held = split_samples(TABLE, TrainConfig(model="", held_out_column=text)).held_out
    assert held.tolist() == rows
    assert trusted_mask(TABLE, text).nonzero()[0].tolist() == rows
    assert trusted_samples(TABLE, HeadConfig(trusted=text)).rows.tolist() == rows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fold", "does not say true or false.*COLUMN=VALUE.*0, 1, 2"),
        ("nowhere=1", "no such column.*label, good, fold"),
        ("good=maybe", "cannot hold that value.*false, true"),
        ("fold=many", "cannot hold that value"),
        ("label=owl", "no sample has that value.*cat, dog.*correct --x"),
        ("empty=1", "no sample has that value.*empty"),
    ],
)
def test_what_marks_nothing_is_refused_with_what_would(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        marked_rows(TABLE, text, option="--x")
