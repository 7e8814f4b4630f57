"""A run of which the first epochs alone are used: means, history, votes, exports, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mimic_core.__main__ import main
from mimic_core.base.errors import RunError
from mimic_core.export.export import export
from mimic_core.export.record import replay
from mimic_core.export.settings import ExportConfig
from mimic_core.filters.conditions import Percentile
from mimic_core.filters.ensembles.config import EnsembleConfig
from mimic_core.filters.ensembles.ensemble import ensemble
from mimic_core.filters.recipe import Recipe
from mimic_core.filters.selections import select
from mimic_core.runs.history import run_history
from mimic_core.runs.record import DirectionCheck, EpochCheck
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table
from tests.fakes import fake_run

RECIPE = Recipe().with_condition("score", Percentile(column="mimic_score", lower=30))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return fake_run(tmp_path / "runs", n=40)


def _means(run: Run, epochs: int) -> np.ndarray:
    """By hand: the mean over the first epochs, in the order of the table."""
    parts = [pl.read_parquet(path) for path in run.epoch_files()[:epochs]]
    stacked = pl.concat(parts).group_by("uid").agg(pl.col("mimic_score").cast(pl.Float64).mean())
    uids = run_table(run).select("uid")
    found: np.ndarray = uids.join(stacked, on="uid", maintain_order="left")[
        "mimic_score"
    ].to_numpy()
    return found


def test_means_and_history_are_those_of_the_epochs_used(run: Run) -> None:
    everything = run_table(run)["mimic_score"]
    used = run.use_epochs(2)
    assert open_run(run.path).record.epochs_used == 2
    np.testing.assert_allclose(run_table(used)["mimic_score"], _means(run, 2), rtol=1e-6)
    assert not run_table(used)["mimic_score"].equals(everything)
    assert run_history(used).epochs == (0, 1)
    assert ensemble(run_history(used), EnsembleConfig()).keep.tolist() == (
        ensemble(run_history(run.using(2)), EnsembleConfig()).keep.tolist()
    )
    back = used.use_epochs(None)
    assert back.record.epochs_used is None
    assert run_table(back)["mimic_score"].equals(everything)


def test_one_epoch_has_no_standard_error(run: Run) -> None:
    table = run_table(run.using(1))
    assert table["mimic_score_se"].null_count() == len(table)


@pytest.mark.parametrize("epochs", [0, 4, -1])
def test_epochs_that_a_run_has_not_are_refused(run: Run, epochs: int) -> None:
    assert run.record.epochs == 3
    with pytest.raises(RunError, match="no such epochs") as caught:
        run.use_epochs(epochs)
    assert "allowed: 1 to 3" in str(caught.value)
    assert open_run(run.path).record.epochs_used is None


def test_an_unfinished_run_has_no_epochs_to_choose(run: Run) -> None:
    with pytest.raises(RunError, match="not finished"):
        run.update(status="running").use_epochs(1)


def test_a_manifest_replays_with_the_epochs_it_was_made_with(run: Run, tmp_path: Path) -> None:
    used = run.use_epochs(1)
    selection = select(used, RECIPE)
    made = export(
        selection, run_table(used), used, ExportConfig(format="datacomp"), out=tmp_path / "kept.npy"
    )
    assert json.loads(made.manifest.read_text())["epochs_used"] == 1
    whole = used.use_epochs(None)
    assert select(whole, RECIPE).uids.to_list() != selection.uids.to_list()
    assert replay(made.manifest, run.path.parent).uids.to_list() == selection.uids.to_list()


def test_the_command_chooses_and_takes_back(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "use", str(run.path), "--epochs-used", "2"]) == 0
    assert capsys.readouterr().out == "2 of 3 epochs are used: good\n"
    assert main(["runs", "show", str(run.path)]) == 0
    assert "the first 2 of 3" in capsys.readouterr().out
    assert main(["runs", "use", str(run.path)]) == 0
    assert capsys.readouterr().out == "3 of 3 epochs are used: good\n"
    assert open_run(run.path).record == run.record
    assert main(["runs", "use", str(run.path), "--epochs-used", "9"]) == 1


def test_the_level_is_that_of_the_epochs_used() -> None:
    def epoch(number: int, level: str) -> EpochCheck:
        return EpochCheck.parse(
            {
                "epoch": number,
                "figure": 0.5,
                "figure_until": 0.5,
                "level_until": level,
                "rank_with_loss": None,
                "rank_with_reference": None,
            }
        )

    check = DirectionCheck(
        segment=(),
        share_positive=0.5,
        rank_with_clip_score=None,
        rank_with_loss=None,
        level="bad",
        verdict="",
        epochs=(epoch(0, "good"), epoch(1, "caution"), epoch(2, "bad")),
    )
    assert [check.level_of(used) for used in (1, 2, 3, None)] == ["good", "caution", "bad", "bad"]
    old = check.model_copy(update={"epochs": ()})  # of a run made before
    assert old.level_of(1) == "bad"
