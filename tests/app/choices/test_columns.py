from __future__ import annotations

import polars as pl

from app.choices.columns import category_columns, group_columns, text_columns, truth_columns


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


def test_groups_are_also_many_classes_and_whole_numbers(table: pl.DataFrame) -> None:
    rows = len(table)
    more = table.with_columns(
        pl.Series("class", [f"class {row % 60}" for row in range(rows)]),
        pl.Series("cluster", [row % 7 for row in range(rows)]),
        pl.lit(None, pl.Int64).alias("missing"),
    )
    found = group_columns(more)
    assert {"class", "cluster", "topic", "is_noisy"} <= set(found)
    assert not {"uid", "caption", "key", "missing", "mimic_score"} & set(found)
    assert "class" not in category_columns(more)
