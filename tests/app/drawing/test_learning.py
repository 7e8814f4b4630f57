"""Training runs as curves and figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.drawing import learning
from app.drawing.colours import DARK, LIGHT, Theme
from app.drawing.learning import Curve
from app.drawing.training import MAX_CURVES, in_words, learning_curves
from mimic_core.runs.metrics import MetricsFile
from tests.fakes import PER_EPOCH, fake_run, fake_training, metrics_row


def test_a_curve_counts_the_epochs_that_are_done(tmp_path: Path) -> None:
    found = learning.curve(fake_training(tmp_path), "mimic")
    assert found.points["epoch"].to_list() == [0, 1, 2]
    assert found.measure("train_loss").rows() == [(1.0, 1.0), (2.0, 0.5)]
    assert found.measure("held_out_loss").rows() == [(0.0, 8.0), (1.0, 4.0), (2.0, 2.0)]
    assert found.last("image_to_text_recall_at_1") == pytest.approx(0.3)
    assert found.last("accuracy") is None


def test_a_measurement_inside_an_epoch_stands_between_its_ends(tmp_path: Path) -> None:
    run = fake_training(tmp_path)
    inside = {**metrics_row(1), "step": PER_EPOCH + 1, "train_loss": None, "held_out_loss": 3.0}
    MetricsFile(run.path / "metrics.parquet").add(inside)
    points = learning.curve(run, "mimic").measure("held_out_loss")
    assert points.rows() == [(0.0, 8.0), (1.0, 4.0), (1.25, 3.0), (2.0, 2.0)]


def test_before_the_first_epoch_ends_only_the_start_is_known(tmp_path: Path) -> None:
    run = fake_training(tmp_path, measured=False, done=False)
    metrics = MetricsFile(run.path / "metrics.parquet")
    metrics.add(metrics_row(-1))
    metrics.add({**metrics_row(0), "step": 1, "train_loss": None})
    assert learning.curve(run, "mimic").points["epoch"].to_list() == [0]


def test_runs_are_put_together_by_their_pool(tmp_path: Path) -> None:
    one, two = fake_training(tmp_path), fake_training(tmp_path, weighting="uniform")
    fake_training(tmp_path, measured=False, weighting="agra")
    silent = fake_training(tmp_path, measured=False, weighting="rho")
    other = fake_run(tmp_path, n=9, seed=1)
    (pool,) = found = learning.by_pool([one, other, two, silent])
    assert found[pool] == [one, two]
    assert learning.pool_label(pool) == "fake-0"


def test_names_say_the_weighting_and_what_differs(tmp_path: Path) -> None:
    def named(*settings: dict[str, object]) -> list[str]:
        return learning.names([fake_training(tmp_path, **one) for one in settings])  # type: ignore[arg-type]

    assert named({}) == ["mimic"]
    assert named({}, {"weighting": "uniform"}) == ["mimic", "uniform"]
    assert named({"weighting": "uniform"}, {"reweight": "all"}, {}) == [
        "uniform",
        "mimic, weights on all",
        "mimic, weights on layers",
    ]
    assert named({"seed": 1}, {"seed": 2}) == ["mimic, seed 1", "mimic, seed 2"]
    assert named({"temperature": 0.1}, {}) == ["mimic, temperature 0.1", "mimic, temperature none"]


def test_twins_are_told_apart_by_their_time(tmp_path: Path) -> None:
    one = fake_training(tmp_path / "a", created_at="2026-03-02T03:04:05+00:00")
    two = fake_training(tmp_path / "b", created_at="2026-03-02T03:04:06+00:00")
    same = learning.names([one, two])
    assert same == ["mimic, 02 Mar 03:04:05", "mimic, 02 Mar 03:04:06"]


def test_other_held_out_samples_are_noticed(tmp_path: Path) -> None:
    def same(*settings: dict[str, object]) -> bool:
        return learning.same_held_out(
            [fake_training(tmp_path, **one) for one in settings]  # type: ignore[arg-type]
        )

    assert same({"held_out": 0.2}, {"held_out": 0.2, "weighting": "uniform"})
    assert not same({"held_out": 0.2}, {"held_out": 0.1})
    assert not same({"held_out": 0.2}, {"held_out": 0.2, "seed": 1})
    assert same({"seed": 1}, {"seed": 2})  # nothing is drawn by the seed
    assert not same({"held_out_column": "split=a"}, {"held_out_column": "split=b"})
    assert not same({"held_out": 0.2}, {"held_out": 0.2, "held_out_label_column": "clean"})


def test_the_table_has_the_newest_figures(tmp_path: Path) -> None:
    runs = [fake_training(tmp_path, labels=True), fake_training(tmp_path, done=False, seed=1)]
    curves = [learning.curve(run, name) for run, name in zip(runs, ["a", "b"], strict=True)]
    assert learning.measured(curves) == list(learning.MEASURES)
    table = learning.table(curves)
    assert table["state"].to_list() == ["finished", "not finished"]
    assert table["epochs"].to_list() == [2, 2]
    assert table["accuracy"].to_list() == [pytest.approx(0.3), None]
    assert table["held-out loss"].to_list() == [2, 2]


def curves_of(tmp_path: Path) -> list[Curve]:
    labelled = learning.curve(fake_training(tmp_path, labels=True), "<b>a</b>")
    return [labelled, learning.curve(fake_training(tmp_path, seed=1), "b")]


def test_a_figure_has_a_line_for_each_run_that_has_the_measure(tmp_path: Path) -> None:
    curves = curves_of(tmp_path)
    figure = learning_curves(curves, "held_out_loss", LIGHT)
    assert [line.name for line in figure.data] == ["&lt;b&gt;a&lt;/b&gt;", "b"]
    assert figure.data[0].x.tolist() == [0, 1, 2]
    assert figure.data[0].y.tolist() == [8, 4, 2]
    (only,) = learning_curves(curves, "text_to_image_recall_at_1", LIGHT).data
    looks = [(one.line.color, one.line.dash, one.marker.symbol) for one in (only, figure.data[1])]
    assert looks[0] == looks[1]  # a run keeps its look
    assert only.name == "b"


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_lines_differ_in_more_than_colour(tmp_path: Path, theme: Theme) -> None:
    one = learning.curve(fake_training(tmp_path), "a")
    figure = learning_curves([one] * MAX_CURVES, "train_loss", theme)
    assert len({line.line.color for line in figure.data}) == MAX_CURVES
    assert len({line.marker.symbol for line in figure.data}) == MAX_CURVES


def test_a_figure_is_said_in_words(tmp_path: Path) -> None:
    assert in_words(curves_of(tmp_path), "accuracy") == (
        "accuracy by epoch. <b>a</b>: from 0.1 to 0.3"
    )
