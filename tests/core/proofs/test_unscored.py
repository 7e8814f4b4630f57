"""Proofs on runs in which some samples of the pool have no score: held out of it, or trusted by it.

The feature set then holds more samples than the run's table, so that nothing may go by position.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pytest

from mimic_core.__main__ import main
from mimic_core.base import files
from mimic_core.base.config import RunConfig
from mimic_core.filters.conditions import Percentile
from mimic_core.filters.recipe import Recipe
from mimic_core.proofs import prove as proving
from mimic_core.proofs.prove import prove
from mimic_core.proofs.settings import ProveConfig
from mimic_core.proofs.tasks import PairsTask
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table
from mimic_core.scoring.pipeline import score_pool
from tests.core.scoring_pool import write_class_folders
from tests.fakes import fake_run
from tests.recipes import keeping

QUICK = {"seeds": 2, "steps": 3, "batch_size": 32, "duplicate_cosine": 0.9999}
OPTIONS = ["--seeds", "2", "--steps", "3", "--batch-size", "32", "--duplicate-cosine", "0.9999"]
TOP = Recipe().with_condition("top", Percentile(column="mimic_score", lower=40))


def without_scores(run: Run, uids: pl.Series) -> Run:
    """The run as if those samples had been held out of it."""
    for file in run.epoch_files():
        files.write_parquet(
            file, pl.read_parquet(file).filter(~pl.col("uid").is_in(uids.implode()))
        )
    files.write_parquet(run.path / "held_out.parquet", uids.to_frame("uid"))
    return open_run(run.path)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """400 pairs of which every fifth has no score."""
    whole = fake_run(tmp_path / "runs", n=400)
    return without_scores(whole, whole.features.samples["uid"].gather_every(5))


def trained_on(run: Run, monkeypatch: pytest.MonkeyPatch, recipes: dict[str, Recipe]) -> list[set]:
    """The uids of every training of a proof, wholes and halves."""
    uids, seen = run.features.samples["uid"], []
    fit = PairsTask.fit

    def spied(self: PairsTask, rows: Iterable[int], **options: object) -> object:
        seen.append(set(uids.gather(rows)))  # type: ignore[arg-type]
        return fit(self, rows, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(PairsTask, "fit", spied)
    config = ProveConfig.for_run(run.record.config, trusted="is_noisy=false", **QUICK)
    proof = prove(run, recipes, config)
    assert proof.held_out.unscored == 80
    assert proof.held_out.trusted == (~run.features.samples["is_noisy"]).sum()
    return seen


def test_a_recipe_trains_on_what_it_keeps_and_on_nothing_without_a_score(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = trained_on(run, monkeypatch, {"top": TOP})
    scored = set(run_table(run)["uid"])
    assert len(scored) == 320
    assert all(training <= scored for training in trainings)
    cutoff = run_table(run)["mimic_score"].quantile(0.4, "linear")
    kept = set(run_table(run).filter(pl.col("mimic_score") > cutoff)["uid"])
    everyone = max(trainings, key=len)
    assert kept & everyone in trainings
    assert len(kept & everyone) > 100


def test_the_command_proves_a_run_with_held_out_samples(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "clean.yaml"
    recipe.write_text(keeping("is_noisy", False).to_yaml(), "utf-8")
    command = ["prove", run.id, "--runs", str(run.path.parent), *OPTIONS, "--recipe", str(recipe)]
    assert main([*command, "--trusted", "is_noisy=false"]) == 0
    assert "80 without a score in the run may judge but not train" in capsys.readouterr().out
    chosen = tmp_path / "held.txt"
    chosen.write_text("\n".join(run.held_out), "utf-8")
    assert main([*command, "--held-out", str(chosen)]) == 0
    assert "80 samples judge and never train (of 80 marked as good by a file of 80 uids)" in (
        capsys.readouterr().out
    )


def test_a_column_that_only_the_run_has_marks_by_uid(run: Run) -> None:
    table = run_table(run).reverse().with_columns(seen=pl.lit(value=True))
    marked, _ = proving._judges(run.features, table, ProveConfig(trusted="seen"), None)
    uids = run.features.samples["uid"]
    assert set(uids.filter(pl.Series(marked))) == set(table["uid"])


def test_a_labelled_run_is_proved_on_the_samples_that_it_trusted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_class_folders(tmp_path / "pool", per_class=40)
    values = {
        "source": {"path": str(tmp_path / "pool")},
        "reference": "timm:test_resnet:random:0",
        "probe": {"epochs": 2, "batch_size": 16, "temperature": 1.0},
        "head": {"trusted": "30%"},
    }
    root = tmp_path / "runs"
    run = score_pool(RunConfig.parse(values), runs_root=root, device="cpu", workers=0)
    assert len(run.held_out) + len(run_table(run)) == 120
    recipe, chosen = tmp_path / "top.yaml", tmp_path / "held.csv"
    recipe.write_text(TOP.to_yaml(), "utf-8")
    run.held_out.to_frame("uid").write_csv(chosen)
    command = ["prove", run.id, "--runs", str(root), *OPTIONS, "--recipe", str(recipe)]
    assert main([*command, "--held-out", str(chosen)]) == 0
    printed = capsys.readouterr().out
    assert f"{len(run.held_out)} samples judge and never train" in printed
    assert "accuracy" in printed
