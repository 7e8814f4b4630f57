from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base import files
from mimic_core.base.errors import RunError
from mimic_core.base.identity import (
    all_unique,
    file_holds,
    files_agree,
    rows_of,
    same_order,
    sorted_uids,
)
from mimic_core.base.schema import SCORE_COLUMNS
from mimic_core.runs.history import HISTORY_COLUMNS, history_of, run_history
from mimic_core.runs.run import open_run
from tests.fakes import fake_run


def long(rows: list[tuple[str, int, float]]) -> pl.DataFrame:
    """Long scores from (uid, epoch, mimic score); loss = 2 x and weight = 3 x the score."""
    frame = pl.DataFrame(rows, schema=["uid", "epoch", "mimic_score"], orient="row")
    return frame.with_columns(
        pl.lit(0).alias("step"),
        (pl.col("mimic_score") * 2).alias("loss"),
        (pl.col("mimic_score") * 3).alias("mimic_weight"),
    ).select(pl.col(name).cast(dtype) for name, dtype in SCORE_COLUMNS.items())


ROWS = [("b", 3, 1.0), ("a", 3, 2.0), ("b", 5, 3.0), ("a", 5, 4.0)]


def test_a_history_is_steps_by_samples_in_order_of_appearance() -> None:
    found = history_of(long(ROWS), batch_size=32)
    assert found.uids.to_list() == ["b", "a"]
    assert found.epochs == (3, 5)
    assert (found.steps, found.samples, found.batch_size) == (2, 2, 32)
    assert found.mimic_score.tolist() == [[1, 2], [3, 4]]
    assert found.loss.tolist() == [[2, 4], [6, 8]]
    assert found.mimic_weight.tolist() == [[3, 6], [9, 12]]
    assert {getattr(found, name).dtype for name in HISTORY_COLUMNS} == {np.dtype(np.float32)}
    assert found.values("loss") is found.loss


@given(st.permutations(ROWS))
def test_scores_of_any_order_meet_by_uid(rows: list[tuple[str, int, float]]) -> None:
    found = history_of(long(rows), batch_size=2)
    table = {
        (uid, epoch): found.mimic_score[step, place]
        for place, uid in enumerate(found.uids)
        for step, epoch in enumerate(found.epochs)
    }
    assert table == {(uid, epoch): score for uid, epoch, score in ROWS}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (ROWS[:3], "epoch 5 did not visit every sample exactly once; got 'no row for uid a'"),
        ([*ROWS, ROWS[0]], "epoch 3 .*; got 'several rows for uid b'"),
        ([*ROWS[:3], ("c", 5, 0.0)], "got 'no row for uid a'"),
        (ROWS[1:], "epoch 5 .*; got '2 rows'"),
    ],
)
def test_a_missing_or_double_visit_is_refused(
    rows: list[tuple[str, int, float]], says: str
) -> None:
    with pytest.raises(RunError, match=says):
        history_of(long(rows), batch_size=2)


def test_nothing_and_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(RunError, match="there are no scores"):
        history_of(long([]), batch_size=2)
    bad = [*ROWS[:3], ("a", 5, math.inf)]
    with pytest.raises(RunError, match="epoch 5 holds a number that is not finite for uid a"):
        history_of(long(bad), batch_size=2)


def test_the_history_of_a_run_is_that_of_its_scores(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=30, images=False)
    found = run_history(run)
    assert found.uids.equals(run.features.samples["uid"])
    assert (found.steps, found.batch_size) == (3, 32)
    expected = history_of(run.scores().sample(fraction=1, shuffle=True, seed=1), 32)
    rows = rows_of(expected.uids, found.uids)
    for name in HISTORY_COLUMNS:
        np.testing.assert_array_equal(found.values(name), expected.values(name)[:, rows])


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    found = run_history(fake_run(tmp_path, n=10, images=False), ["loss"])
    assert found.values("loss").shape == (3, 10)
    assert found.mimic_score.shape == (3, 0)
    with pytest.raises(RunError, match="read without the column mimic_score"):
        found.values("mimic_score")
    with pytest.raises(RunError, match="no such column; got 'step'"):
        found.values("step")  # type: ignore[arg-type]


def test_epoch_files_of_other_orders_are_joined(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=30, images=False)
    expected = run_history(run)
    path = run.epoch_files()[1]
    files.write_parquet(path, pl.read_parquet(path).reverse())
    found = run_history(open_run(run.path))
    assert found.uids.equals(expected.uids)
    np.testing.assert_array_equal(found.mimic_score, expected.mimic_score)


def test_an_unfinished_run_has_no_history(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=10, images=False).update(status="running")
    with pytest.raises(RunError, match="not finished"):
        run_history(run)


# Uids --------------------------------------------------------------------------------------------


def column(uids: list[str]) -> pl.Series:
    return pl.Series("uid", uids, dtype=pl.String)


@given(st.lists(st.sampled_from("abcdefgh")))
def test_unique_means_what_it_says(uids: list[str]) -> None:
    assert all_unique(column(uids)) == (len(set(uids)) == len(uids))


hexadecimal = st.text("0123456789abcdefABCDEF", min_size=1, max_size=34)


@given(st.lists(st.one_of(hexadecimal, st.text(max_size=4), st.just("0" * 16 + "1"))))
def test_uids_are_sorted_as_texts(uids: list[str]) -> None:
    assert sorted_uids(column(uids)).to_list() == sorted(uids, key=lambda uid: uid.encode())


@given(st.lists(st.sampled_from("abcd"), unique=True), st.lists(st.sampled_from("abcdef")))
def test_rows_are_found_by_uid(uids: list[str], wanted: list[str]) -> None:
    found = rows_of(column(uids), column(wanted))
    assert found.tolist() == [uids.index(uid) if uid in uids else -1 for uid in wanted]


@pytest.mark.parametrize(
    ("other", "agree"),
    [
        (["a", "b", "c"], True),
        (["a", "c", "b"], False),
        (["a", "b"], False),
        (["a", "b", "c", "d"], False),
        (["a", "b", "C"], False),
    ],
)
@pytest.mark.parametrize("options", [{}, {"row_group_size": 1}, {"compression": "lz4"}])
def test_files_agree_whatever_the_bytes(
    tmp_path: Path, other: list[str], options: dict[str, object], *, agree: bool
) -> None:
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    column(["a", "b", "c"]).to_frame().write_parquet(one)
    frame = column(other).to_frame().with_columns(pl.lit(1.0).alias("more"))
    frame.write_parquet(two, **options)  # type: ignore[arg-type]
    assert files_agree(one, two) == agree
    assert files_agree(two, one) == agree
    assert file_holds(two, column(["a", "b", "c"])) == agree
    assert same_order(column(["a", "b", "c"]), column(other)) == agree


def test_files_without_uids_do_not_agree_by_accident(tmp_path: Path) -> None:
    one = tmp_path / "one.parquet"
    pl.DataFrame({"key": ["a"]}).write_parquet(one)
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        files_agree(one, one)
