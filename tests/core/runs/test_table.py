from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base import files
from mimic_core.base.errors import RunError
from mimic_core.base.schema import MEASURED_COLUMNS, SAMPLE_COLUMNS, SCORE_COLUMNS
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.means import SUMMARY_COLUMNS, score_summary
from mimic_core.runs.run import Run
from mimic_core.runs.table import MAP_COLUMNS, require_finite, run_table, sample_table
from tests.fakes import fake_run


def scores(rows: list[tuple[str, int, float]]) -> pl.DataFrame:
    """Long scores from (uid, epoch, mimic score); loss = 2 x and weight = 3 x the score."""
    frame = pl.DataFrame(rows, schema=["uid", "epoch", "mimic_score"], orient="row")
    return frame.with_columns(
        pl.lit(0).alias("step"),
        (pl.col("mimic_score") * 2).alias("loss"),
        (pl.col("mimic_score") * 3).alias("mimic_weight"),
    ).select(pl.col(name).cast(dtype) for name, dtype in SCORE_COLUMNS.items())


def rewrite_samples(features: FeatureSet, change: pl.Expr) -> FeatureSet:
    """The feature set with the samples of its first shard changed on disk."""
    path = features.path / "samples" / "00000.parquet"
    files.write_parquet(path, pl.read_parquet(path).with_columns(change))
    return FeatureSet.open(features.path)


def test_summary_is_mean_and_standard_error_over_epochs() -> None:
    found = score_summary(
        scores(
            [
                ("b", 0, 1.0),
                ("a", 0, 5.0),
                ("b", 1, 3.0),
                ("a", 1, 5.0),
                ("b", 2, 5.0),
                ("a", 2, 5.0),
            ]
        )
    )
    assert found.to_dicts() == [
        {
            "uid": "b",
            "mimic_score": 3.0,
            "mimic_score_se": pytest.approx(2 / math.sqrt(3), rel=1e-6),
            "mimic_weight": 9.0,
            "loss": 6.0,
        },
        {
            "uid": "a",
            "mimic_score": 5.0,
            "mimic_score_se": 0.0,
            "mimic_weight": 15.0,
            "loss": 10.0,
        },
    ]
    assert [found.schema[name] for name in SUMMARY_COLUMNS] == [pl.Float32] * 4


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=8))
def test_summary_agrees_with_the_statistics_module(values: list[float]) -> None:
    found = score_summary(scores([("a", epoch, value) for epoch, value in enumerate(values)]))
    error = statistics.stdev(values) / math.sqrt(len(values))
    assert found["mimic_score"][0] == pytest.approx(statistics.fmean(values), rel=1e-5, abs=1e-5)
    assert found["mimic_score_se"][0] == pytest.approx(error, rel=1e-5, abs=1e-5)


def test_one_epoch_has_no_standard_error() -> None:
    found = score_summary(scores([("b", 0, 1.0), ("a", 0, 5.0), ("c", 0, 2.0)]))
    assert found["mimic_score"].to_list() == [1.0, 5.0, 2.0]
    assert found["mimic_score_se"].to_list() == [None, None, None]
    assert found.schema["mimic_score_se"] == pl.Float32


def test_summary_does_not_depend_on_the_order_of_the_epochs() -> None:
    rng = np.random.default_rng(0)
    rows = [(f"u{i}", e, float(rng.normal())) for e in range(5) for i in range(50)]
    forward, backward = score_summary(scores(rows)), score_summary(scores(rows[::-1]))
    assert forward.sort("uid").equals(backward.sort("uid"))


def test_table_holds_all_columns_in_order_one_row_per_sample(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=30)
    table = run_table(run)
    own = ["topic", "aesthetic", "is_noisy", "noise_kind"]
    assert table.columns == [
        *SAMPLE_COLUMNS,
        *MEASURED_COLUMNS,
        *SUMMARY_COLUMNS,
        *MAP_COLUMNS,
        *own,
    ]
    assert table["uid"].equals(run.features.samples["uid"])
    one = run.scores().filter(pl.col("uid") == table["uid"][7])["mimic_score"]
    assert table["mimic_score"][7] == pytest.approx(one.mean(), rel=1e-6)
    assert table.schema["map_x"] == pl.Float32
    assert not table["map_x"].has_nulls()


def test_a_column_of_the_pool_is_refused_only_where_the_run_makes_one_of_that_name(
    tmp_path: Path,
) -> None:
    run = fake_run(tmp_path, n=30)
    features = rewrite_samples(run.features, pl.col("is_noisy").alias("label_issue"))
    older = run.features.samples.select("uid", reference_label=pl.lit("cat"))
    table = sample_table(features, run.scores(), reference_labels=older.lazy())
    assert table["label_issue"].equals(features.samples["label_issue"])
    judged = older.with_columns(label_issue=pl.lit(False)).lazy()
    with pytest.raises(RunError, match="whose name Mimicscope itself uses") as caught:
        sample_table(features, run.scores(), reference_labels=judged)
    assert caught.value.got == "'label_issue'"


def test_scores_meet_their_samples_by_uid_and_not_by_position(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=30)
    shuffled = run.scores().sample(fraction=1, shuffle=True, seed=3)
    assert sample_table(run.features, shuffled).equals(run_table(run))


def test_places_meet_their_samples_by_uid_and_not_by_position(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=30)
    expected = run_table(run)
    places = run.features.path / "map.parquet"
    files.write_parquet(places, pl.read_parquet(places).reverse())
    assert run_table(run).equals(expected)


def test_without_a_map_the_coordinates_are_null(tmp_path: Path) -> None:
    table = run_table(fake_run(tmp_path, n=10, with_map=False))
    assert table.select(MAP_COLUMNS).null_count().row(0) == (10, 10)
    assert [table.schema[name] for name in MAP_COLUMNS] == [pl.Float32, pl.Float32]


def test_missing_values_stay_null(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=60)
    missing = run.features.samples["aesthetic"].null_count()
    assert missing > 0
    assert run_table(run)["aesthetic"].null_count() == missing


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_with_column_and_uid(
    tmp_path: Path, bad: float
) -> None:
    features = fake_run(tmp_path, n=10).features
    uid = features.samples["uid"][3]
    spoilt = pl.when(pl.col("uid") == uid).then(bad).otherwise("aesthetic").alias("aesthetic")
    changed = rewrite_samples(features, spoilt)
    run = fake_run(tmp_path / "other", n=10)
    with pytest.raises(RunError) as caught:
        sample_table(changed, run.scores())
    assert "column aesthetic" in caught.value.problem
    assert uid in caught.value.problem
    assert caught.value.got == repr(bad)
    assert "missing = null" in caught.value.next_step


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(RunError, match=r"column mimic_score of epoch 0 .* for uid b"):
        score_summary(scores([("a", 0, 1.0), ("b", 0, math.nan)]))


def test_finite_numbers_and_nulls_pass_the_door() -> None:
    require_finite(pl.DataFrame({"uid": ["a", "b"], "x": [1.0, None], "n": [1, None]}))


def break_run(run: Run, how: str) -> tuple[FeatureSet, pl.DataFrame]:
    """Features and scores of ``run`` with one defect."""
    found = run.scores()
    places = run.features.path / "map.parquet"
    match how:
        case "score lost":
            return run.features, found.filter(pl.col("uid") != found["uid"][0])
        case "score of a stranger":
            more = [("stranger", epoch, 1.0) for epoch in (0, 1, 2)]
            return run.features, pl.concat([found, scores(more)])
        case "map lost":
            files.write_parquet(places, pl.read_parquet(places)[1:])
        case "map twice":
            there = pl.read_parquet(places)
            files.write_parquet(places, pl.concat([there, there[:1]]))
        case "sample twice":
            path = run.features.path / "samples" / "00000.parquet"
            there = pl.read_parquet(path)
            files.write_parquet(path, pl.concat([there, there[:1]]))
        case "reserved name":
            return rewrite_samples(run.features, pl.lit(1.0).alias("map_x")), found
    return FeatureSet.open(run.features.path), found


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("score lost", "1 uids are missing from the scores"),
        ("score of a stranger", "1 uids are missing from the samples"),
        ("map lost", "1 uids are missing from the map"),
        ("map twice", "the map hold a uid twice"),
        ("sample twice", "the samples hold a uid twice"),
        ("reserved name", "Mimicscope itself uses"),
    ],
)
def test_a_damaged_run_is_refused(tmp_path: Path, how: str, says: str) -> None:
    features, found = break_run(fake_run(tmp_path, n=10), how)
    with pytest.raises(RunError, match=says):
        sample_table(features, found)


def test_an_unfinished_run_has_no_table(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=10).update(status="running")
    with pytest.raises(RunError, match="not finished"):
        run_table(run)
