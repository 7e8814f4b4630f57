"""Columns of other files beside a run's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mimic_core.base.errors import ExportError, MimicError, RunError, SourceError
from mimic_core.export.export import export
from mimic_core.export.record import replay
from mimic_core.export.settings import ExportConfig
from mimic_core.filters.conditions import Absolute, Category
from mimic_core.filters.recipe import Recipe
from mimic_core.filters.selections import select
from mimic_core.runs import report
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table, scan_run
from mimic_core.sources.joining import join_columns, remove_join, require_joinable
from tests.fakes import fake_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return fake_run(tmp_path / "runs", n=30, images=False)


def scores(run: Run, path: Path, *, count: int = 20, **columns: pl.Expr) -> Path:
    """A file in another order with a row for ``count`` samples, and two rows of no sample."""
    uids = run_table(run)["uid"]
    rows = pl.DataFrame({"uid": [*uids[:count].reverse(), "f" * 32, "0" * 32]})
    named = {"dfn": pl.int_range(pl.len()).cast(pl.Float32), **columns}
    rows.with_columns(**named).write_parquet(path)
    return path


def test_columns_stand_in_the_table_by_uid_and_all_counts_are_said(
    run: Run, tmp_path: Path
) -> None:
    path = scores(run, tmp_path / "dfn.parquet")
    before = run_table(run)
    joined, said = join_columns(run, path)
    table = run_table(joined)
    expected = pl.read_parquet(path)
    assert table.drop("dfn").equals(before)
    assert table.schema["dfn"] == pl.Float32
    assert table["dfn"].to_list() == [dict(expected.iter_rows()).get(uid) for uid in before["uid"]]
    assert (said.rows, said.matched, said.without, said.unused) == (22, 20, 10, 2)
    met = "20 of 30 samples have a row there, 10 have none; 2 of its 22 rows are of no sample"
    assert said.as_sentences() == [f"dfn from {path}: {met}"]
    assert open_run(run.path).record.joins == (said,)
    assert said.as_sentences()[0] in "\n".join(report.as_lines(joined))
    assert scan_run(joined, ["dfn", "uid"]).collect().equals(table.select("dfn", "uid"))


def test_names_that_are_taken_are_changed_and_that_is_said(run: Run, tmp_path: Path) -> None:
    path = scores(
        run,
        tmp_path / "theirs.parquet",
        aesthetic=pl.lit(5),
        Clip_Score=pl.lit(0.5),
        **{"^.*$": pl.lit(1)},
    )
    first, said = join_columns(run, path)
    second, again = join_columns(first, path, name="twice")
    assert list(said.columns.items()) == [
        ("dfn", "dfn"),
        ("joined_aesthetic", "aesthetic"),
        ("joined_Clip_Score", "Clip_Score"),
        ("joined_^.*$", "^.*$"),
    ]
    assert list(again.columns) == [
        "joined_dfn",
        "joined_joined_aesthetic",
        "joined_joined_Clip_Score",
        "joined_joined_^.*$",
    ]
    assert "its column 'aesthetic' is stored as 'joined_aesthetic'" in said.as_sentences()[1]
    assert run_table(second)["joined_aesthetic"].drop_nulls().to_list() == [5] * 20


def test_what_is_joined_again_stays_and_what_differs_is_refused_until_it_is_replaced(
    run: Run, tmp_path: Path
) -> None:
    path = scores(run, tmp_path / "dfn.parquet")
    joined, said = join_columns(run, path)
    stored = {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
    assert join_columns(joined, path) == (open_run(run.path), said)
    assert {file: file.stat().st_mtime_ns for file in run.path.rglob("*")} == stored
    scores(run, path, count=10)
    with pytest.raises(RunError, match="joined by that name"):
        join_columns(joined, path)
    changed, other = join_columns(joined, path, replace=True)
    assert changed.record.joins == (other,)
    assert (other.matched, other.sha256 != said.sha256) == (10, True)
    assert [file.name for file in (run.path / "joins").iterdir()] == [other.file]


def test_a_join_that_is_removed_leaves_the_run_as_it_was(run: Run, tmp_path: Path) -> None:
    joined, _ = join_columns(run, scores(run, tmp_path / "dfn.parquet"))
    assert remove_join(joined, "dfn").record == run.record
    assert run_table(open_run(run.path)).equals(run_table(run))
    assert list((run.path / "joins").iterdir()) == []
    with pytest.raises(RunError, match=r"no columns are joined .*none: nothing is joined"):
        remove_join(run, "dfn")


def test_samples_that_share_a_value_get_the_same_row(run: Run, tmp_path: Path) -> None:
    topics = run_table(run)["topic"].unique().sort()
    pl.DataFrame({"name": topics, "nsfw": np.arange(len(topics)) > 0}).write_csv(
        tmp_path / "topics.csv"
    )
    joined, said = join_columns(run, tmp_path / "topics.csv", uid_column="name", on="topic")
    table = run_table(joined)
    assert table["nsfw"].equals((table["topic"] != topics[0]).alias("nsfw"))
    assert (said.matched, said.unused, said.on) == (30, 0, "topic")


def test_samples_held_out_of_training_are_joined_and_left_out_as_ever(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "runs", n=30, images=False)
    everyone = run.features.samples["uid"]
    everyone[3:9].to_frame().write_parquet(run.path / "held_out.parquet")
    for file in run.epoch_files():
        pl.read_parquet(file).filter(~pl.col("uid").is_in(everyone[3:9].implode())).write_parquet(
            file
        )
    everyone.to_frame().with_row_index("row").write_ndjson(tmp_path / "rows.jsonl")
    joined, said = join_columns(run, tmp_path / "rows.jsonl")
    assert (said.matched, said.without) == (len(everyone), 0)
    table = run_table(joined)
    assert len(table) == len(everyone) - 6
    assert everyone.gather(table["row"]).to_list() == table["uid"].to_list()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"on": "clip_score"}, "no column of texts or whole numbers.*uid, key, shard"),
        ({"on": "key"}, "no sample of the run has a row in dfn.parquet"),
        ({"columns": ["sieve"]}, "no column of that name.*sieve.*dfn"),
        ({"uid_column": "id"}, "no column of that name.*id.*uid, dfn"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_stored(
    run: Run, tmp_path: Path, asked: dict[str, str], says: str
) -> None:
    path = scores(run, tmp_path / "dfn.parquet")
    with pytest.raises(MimicError, match=says):
        join_columns(run, path, **asked)  # type: ignore[arg-type]
    assert open_run(run.path).record == run.record
    assert not (run.path / "joins").exists()


def test_a_join_whose_file_is_gone_or_damaged_is_named_and_made_again(
    run: Run, tmp_path: Path
) -> None:
    path = scores(run, tmp_path / "dfn.parquet")
    joined, said = join_columns(run, path)
    table = run_table(joined)
    stored = joined.join_file(said)
    stored.write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"dfn-.*damaged.*--remove"):
        run_table(joined)
    stored.unlink()
    with pytest.raises(RunError, match="missing"):
        run_table(joined)
    assert run_table(join_columns(joined, path)[0]).drop("dfn").equals(table.drop("dfn"))


def test_a_join_that_leads_out_of_the_run_is_refused(run: Run, tmp_path: Path) -> None:
    joined, said = join_columns(run, scores(run, tmp_path / "dfn.parquet"))
    led = joined.update(joins=(said.model_copy(update={"file": "../../elsewhere.parquet"}),))
    with pytest.raises(RunError, match="no file of joined columns"):
        run_table(led)


def test_replay_tells_whether_the_columns_of_its_recipe_are_as_they_were(
    run: Run, tmp_path: Path
) -> None:
    path = scores(run, tmp_path / "dfn.parquet")
    other = scores(run, tmp_path / "other.parquet")
    joined, _ = join_columns(run, path)
    joined, _ = join_columns(joined, other, name="other")
    recipe = Recipe().with_condition("dfn", Absolute(column="dfn", min=5))
    selection = select(joined, recipe)
    manifest = export(
        selection, run_table(joined), joined, ExportConfig(format="csv"), out=tmp_path / "kept.csv"
    ).manifest
    remove_join(joined, "other")  # which the recipe does not read
    assert replay(manifest, run.path.parent).uids.equals(selection.uids)
    scores(run, path, dfn=pl.lit(9.0))
    changed, _ = join_columns(run, path, replace=True)
    with pytest.raises(ExportError, match="joined as dfn are not those"):
        replay(manifest, run.path.parent)
    remove_join(changed, "dfn")
    with pytest.raises(ExportError, match="no such join"):
        replay(manifest, run.path.parent)
    join_columns(run, scores(run, path))
    assert replay(manifest, run.path.parent).uids.equals(selection.uids)


def test_recipes_ask_for_joined_columns_as_for_any_other(run: Run, tmp_path: Path) -> None:
    path = scores(run, tmp_path / "nsfw.parquet", nsfw=pl.col("uid") < "8")
    joined, _ = join_columns(run, path, columns=["nsfw"])
    kept = select(joined, Recipe().with_condition("safe", Category(column="nsfw", values=(False,))))
    known = set(pl.read_parquet(path).filter(~pl.col("nsfw"))["uid"])
    assert kept.uids.to_list() == sorted(known & set(run_table(run)["uid"]))


@pytest.mark.parametrize("name", ["gone.parquet", "table.xlsx", "."])
def test_a_file_that_cannot_be_joined_is_told_before_anything_is_scored(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "table.xlsx").write_bytes(b"")
    with pytest.raises(SourceError):
        require_joinable(tmp_path / name)
