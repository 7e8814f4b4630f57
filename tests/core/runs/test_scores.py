"""The one reader of a run's scores, and the means made of it."""

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
from mimic_core.runs import scores as reader
from mimic_core.runs.history import run_history
from mimic_core.runs.means import CORRECT_SHARE, SUMMARY_COLUMNS, score_summary
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table
from tests.fakes import fake_run


def wild_run(root: Path, *, epochs: int, samples: int = 500) -> Run:
    """A run with scores of many orders of magnitude and both signs."""
    run = fake_run(root, n=samples, epochs=epochs, images=False)
    random = np.random.default_rng(epochs)
    for path in run.epoch_files():
        wild = np.exp(random.normal(size=samples) * 3) * random.choice([-1, 1], samples)
        changed = pl.Series("mimic_score", wild.astype(np.float32))
        frame = pl.read_parquet(path).with_columns(changed, changed.alias("loss"))
        files.write_parquet(path, frame)
    return open_run(run.path)


def grouped(scores: pl.DataFrame) -> pl.DataFrame:
    """The summary as polars' own aggregation makes it, by compensated sums in float64."""
    score = pl.col("mimic_score").cast(pl.Float64)
    others = [pl.col(name).cast(pl.Float64).mean() for name in ("mimic_weight", "loss")]
    error = (score.std() / score.len().sqrt()).alias("mimic_score_se")
    found = scores.group_by("uid", maintain_order=True).agg(score.mean(), error, *others)
    return found.with_columns(pl.col(SUMMARY_COLUMNS).cast(pl.Float32))


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 8, 20])
def test_means_are_those_of_a_grouping_to_the_bit(tmp_path: Path, epochs: int) -> None:
    run = wild_run(tmp_path, epochs=epochs)
    expected = grouped(run.scores())
    assert score_summary(run.scores()).equals(expected)
    assert score_summary(run.epoch_scores).equals(expected)
    assert score_summary(run.epoch_scores, uids=run.features.samples["uid"]).equals(expected)
    for names in (["loss"], ["mimic_score_se", "mimic_weight"], list(SUMMARY_COLUMNS)):
        assert score_summary(run.epoch_scores, names).equals(expected.select("uid", *names))


@given(st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=40))
def test_a_mean_errs_by_no_more_than_sums_in_double_precision_do(values: list[float]) -> None:
    step = {"step": 0, "loss": 0.0, "mimic_weight": 0.0}
    rows = [{"uid": "a", "epoch": n, "mimic_score": v, **step} for n, v in enumerate(values)]
    found = score_summary(pl.DataFrame(rows), ["mimic_score"])["mimic_score"][0]
    exact, size = math.fsum(values) / len(values), math.fsum(map(abs, values)) / len(values)
    assert abs(found - exact) <= 2.0**-24 * abs(exact) + len(values) * 2.0**-53 * size + 2.0**-149


def test_blocks_of_rows_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = wild_run(tmp_path, epochs=3)
    whole, history = score_summary(run.epoch_scores), run_history(run)
    monkeypatch.setattr(reader, "ROW_GROUP_ROWS", 7)
    monkeypatch.setattr(reader, "_AT_ONCE", 21)
    sizes = [rows.stop - rows.start for rows, _ in run.epoch_scores.blocks(["loss"])]
    assert sizes == [7] * 71 + [3]
    assert score_summary(run.epoch_scores).equals(whole)
    np.testing.assert_array_equal(run_history(run).loss, history.loss)


def test_epochs_of_other_orders_meet_by_uid(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=30, images=False)
    expected = run_table(run)
    path = run.epoch_files()[1]
    files.write_parquet(path, pl.read_parquet(path).reverse())
    again = open_run(run.path)
    assert run_table(again).equals(expected)
    assert score_summary(again.epoch_scores).equals(score_summary(run.scores()))
    assert (
        score_summary(again.scores().sample(fraction=1, shuffle=True, seed=2))
        .sort("uid")
        .equals(score_summary(run.scores()).sort("uid"))
    )


def test_an_epoch_that_misses_a_visit_is_refused(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=30, images=False)
    path = run.epoch_files()[1]
    there = pl.read_parquet(path)
    files.write_parquet(path, there[1:])
    with pytest.raises(RunError, match=f"epoch 1 .*no row for uid {there['uid'][0]}"):
        run_table(run)


def test_a_sample_that_every_epoch_lists_twice_is_refused(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=10, images=False)
    for path in run.epoch_files():
        there = pl.read_parquet(path)
        files.write_parquet(path, pl.concat([there, there[:1]]))
    with pytest.raises(RunError, match=f"several rows for uid {there['uid'][0]}"):
        run_history(run)


def test_the_uids_of_a_table_are_handed_back_where_they_are_the_same(tmp_path: Path) -> None:
    scores = fake_run(tmp_path, n=30, images=False).epoch_scores
    own = scores.uids()
    same, turned = own.clone(), own.reverse()
    assert scores.uids(same) is same
    assert scores.uids(turned).equals(own)


def test_only_the_epochs_that_are_chosen_count(tmp_path: Path) -> None:
    run = wild_run(tmp_path, epochs=4)
    some = run.epoch_scores.only((3, 1))
    assert some.epochs == (1, 3)
    expected = grouped(run.scores().filter(pl.col("epoch").is_in([1, 3])))
    assert score_summary(some).equals(expected)
    assert run.epoch_scores.only(None) is run.epoch_scores
    for wrong in ((), (1, 7)):
        with pytest.raises(RunError, match=r"no such epochs.*at least one of 0, 1, 2, 3"):
            run.epoch_scores.only(wrong)


def test_the_share_of_right_predictions_is_read_with_the_means(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=6, images=False)
    right = [[True, True, False, False, True, False]] * 2 + [[True, False, False, True, True, True]]
    for path, now in zip(run.epoch_files(), right, strict=True):
        frame = pl.read_parquet(path).with_columns(pl.Series("correct", now))
        files.write_parquet(path, frame)
    run = open_run(run.path)
    assert run.epoch_scores.has("correct")
    found = score_summary(run.epoch_scores, [CORRECT_SHARE])
    expected = np.array([3, 2, 0, 1, 3, 1]) / np.float32(3)
    np.testing.assert_array_equal(found[CORRECT_SHARE].to_numpy(), expected.astype(np.float32))
    assert run_table(run)[CORRECT_SHARE].equals(found[CORRECT_SHARE])
