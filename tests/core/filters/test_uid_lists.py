"""Lists of uids in files of their own, as a condition of recipes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mimic_core.base.errors import FilterError, SourceError
from mimic_core.export.export import export
from mimic_core.export.formats import datacomp_bytes
from mimic_core.export.record import replay
from mimic_core.export.settings import ExportConfig
from mimic_core.filters.conditions import AllOf, AnyOf, Minus, Not, Percentile, UidList
from mimic_core.filters.library import read_recipe, save_recipe
from mimic_core.filters.recipe import Recipe
from mimic_core.filters.selections import lists_met, select
from mimic_core.filters.uid_lists import pinned
from mimic_core.filters.votes import votes
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from tests.core.scoring_pool import uid_of
from tests.fakes import fake_run

UIDS = pl.Series("uid", [uid_of(n) for n in range(6)])
TABLE = UIDS.to_frame()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fake_run(tmp_path_factory.mktemp("runs"), n=30, images=False)


def kept(condition: UidList | Not | Minus) -> list[int]:
    return np.flatnonzero(votes(condition, TABLE).to_numpy()).tolist()


def test_listed_samples_are_kept_or_dropped_and_others_in_the_list_do_no_harm(
    tmp_path: Path,
) -> None:
    file = tmp_path / "subset.npy"
    file.write_bytes(datacomp_bytes(pl.DataFrame({"uid": [UIDS[1], UIDS[4], "f" * 32]})))
    keep, drop = UidList(file=str(file)), UidList(file=str(file), listed="drop")
    assert kept(keep) == [1, 4]
    assert kept(drop) == kept(Not(condition=keep)) == [0, 2, 3, 5]
    assert kept(Minus(keep=drop, drop=keep)) == [0, 2, 3, 5]
    assert [keep.describe(), drop.describe()] == [
        "listed in subset.npy",
        "not listed in subset.npy",
    ]
    assert keep.columns_read() == {"uid"}


def test_a_list_of_other_samples_and_no_list_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("f" * 32)
    with pytest.raises(FilterError, match=r"no sample of this table is listed in a\.txt"):
        kept(UidList(file=str(tmp_path / "a.txt"), listed="drop"))
    with pytest.raises(SourceError, match="cannot be read"):
        kept(UidList(file=str(tmp_path / "gone.txt")))
    with pytest.raises(FilterError, match="zero byte"):
        Recipe.from_tree(
            {"conditions": [{"name": "a", "condition": {"kind": "uid_list", "file": "a\0"}}]}
        )


def test_a_changed_file_is_noticed_where_the_recipe_says_its_content(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(UIDS[0])
    free = UidList(file=str(file))
    fixed = pinned(free)
    assert fixed == free.model_copy(update={"sha256": hashlib.sha256(UIDS[0].encode()).hexdigest()})
    assert pinned(fixed) == fixed
    file.write_text(UIDS[2])
    os.utime(file, ns=(1, 1))  # as a later change would have
    assert kept(free) == [2]
    with pytest.raises(FilterError, match=r"a\.txt is not the list that the recipe was made with"):
        kept(fixed)  # type: ignore[arg-type]  # it is one


def test_a_list_lies_beside_its_recipe_wherever_in_it_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "a.yaml").write_text(
        """
version: 1
conditions:
  - name: known
    condition:
      kind: all
      conditions:
        - kind: any
          conditions: [{kind: uid_list, file: lists/a.txt, listed: drop}]
        - kind: minus
          keep: {kind: percentile, column: mimic_score, lower: 10}
          drop: {kind: not, condition: {kind: uid_list, file: /elsewhere/b.csv}}
"""
    )
    monkeypatch.chdir(tmp_path)
    found = read_recipe(Path("a.yaml"))
    expected = AllOf(
        conditions=(
            AnyOf(conditions=(UidList(file=str(tmp_path / "lists" / "a.txt"), listed="drop"),)),
            Minus(
                keep=Percentile(column="mimic_score", lower=10),
                drop=Not(condition=UidList(file="/elsewhere/b.csv")),
            ),
        )
    )
    assert found.conditions[0].condition == expected
    saved = save_recipe(tmp_path / "runs", "known", found)
    assert read_recipe(saved.path) == found
    assert Recipe.from_yaml(found.to_yaml()) == found


def test_a_manifest_names_the_list_and_replay_notices_another(run: Run, tmp_path: Path) -> None:
    uids = run_table(run)["uid"]
    file = tmp_path / "subset.txt"
    file.write_text("\n".join([*uids[:12], "f" * 32]))
    selection = select(run, Recipe().with_condition("known", UidList(file=str(file))))
    assert selection.uids.to_list() == sorted(uids[:12])
    assert lists_met(selection) == [
        "subset.txt lists 13 uids: 12 of the run's 30 samples, and 1 others"
    ]
    done = export(
        selection, run_table(run), run, ExportConfig(format="csv"), out=tmp_path / "kept.csv"
    )
    assert replay(done.manifest, run.path.parent).uids.equals(selection.uids)
    file.write_text("\n".join(uids[:11]))
    with pytest.raises(FilterError, match=r"subset\.txt is not the list"):
        replay(done.manifest, run.path.parent)
    file.unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        replay(done.manifest, run.path.parent)
