from __future__ import annotations

import polars as pl

from app.columns import category_columns, text_columns, truth_columns


def test_booleans_can_mark_noise_and_texts_can_be_searched(table: pl.DataFrame) -> None:
    more = table.with_columns(pl.lit(value=True).alias("a_flag"))
    assert truth_columns(more.select("a_flag", "topic", "is_noisy", "width")) == [
        "is_noisy",
        "a_flag",
    ]
    assert text_columns(more) == ["caption", "key", "shard", "topic", "noise_kind"]


def test_a_column_of_missing_values_is_offered_nowhere(table: pl.DataFrame) -> None:
    empty = table.with_columns(pl.lit(None, pl.String).alias("label"))
    assert "label" not in category_columns(empty)
    assert "label" not in text_columns(empty)
    full = table.with_columns(pl.lit("cat").alias("label"))
    assert "label" in category_columns(full)
    assert "label" in text_columns(full)
