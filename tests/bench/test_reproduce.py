"""The reproduction: what it counts with, disjoint parts, and that its training is the product's."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base.config import RunConfig, SourceConfig, TrainConfig
from mimic_core.features.filling import loader_for
from mimic_core.models.load import load_model
from mimic_core.scoring.training.train import train_pool
from mimic_core.sources.opening import open_source
from tests.core import checkpoints_on_disk as disk
from tests.core import scoring_pool as pool
from tests.places import ROOT


def bench(name: str) -> ModuleType:
    """A module of ``bench/``, which is a folder of scripts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "bench")
        return importlib.import_module(name)


numbers = bench("reproduce_numbers")


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 9))
def test_parts_are_disjoint_and_leave_nobody_out(a: int, b: int, rest: int, seed: int) -> None:
    found = numbers.parts(a + b + rest, (a, b), seed)
    assert [len(part) for part in found] == [a, b, rest]
    assert sorted(np.concatenate(found)) == list(range(a + b + rest))


def test_other_seeds_give_other_parts() -> None:
    first, second = (numbers.parts(100, (50,), seed)[0] for seed in (0, 1))
    assert list(first) != list(second)


@given(st.integers(1, 200), st.floats(0, 1), st.integers(2, 12), st.integers(0, 9))
def test_noise_hits_exactly_its_share(count: int, rate: float, classes: int, seed: int) -> None:
    labels = np.arange(count) % classes
    noisy, wrong = numbers.with_noise(labels, rate, classes, seed)
    assert wrong.sum() == round(rate * count)
    assert ((noisy != labels) == wrong).all()
    assert ((noisy >= 0) & (noisy < classes)).all()


def test_noise_reaches_every_other_class_alike() -> None:
    noisy, _ = numbers.with_noise(np.zeros(9000, np.int64), 1.0, 10, 0)
    counts = np.bincount(noisy, minlength=10)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 1000).max() < 150  # five standard deviations


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=3, max_size=30))
def test_pearson_is_numpys(points: list[tuple[float, float]]) -> None:
    first, second = ([point[i] for point in points] for i in (0, 1))
    found = numbers.pearson(first, second)
    if np.std(first) > 1e-3 and np.std(second) > 1e-3:
        assert found == pytest.approx(np.corrcoef(first, second)[0, 1], abs=1e-6)
    assert abs(found) <= 1 + 1e-9


def test_pearson_of_a_constant_is_zero() -> None:
    assert numbers.pearson([1, 1, 1], [1, 2, 3]) == 0


def test_spread_of_three_values_by_hand() -> None:
    found = numbers.spread([1.0, 2.0, 3.0])
    assert found["mean"] == 2
    assert found["sd"] == 1
    assert found["half"] == pytest.approx(4.302652729911275 / np.sqrt(3))  # t, two degrees
    assert numbers.spread([5.0])["sd"] is None


@pytest.mark.parametrize(
    ("level", "expected"), [(5.0, 0), (4.0, 0), (3.0, 5), (2.0, 10), (1.5, 25), (0.5, None)]
)
def test_steps_are_counted_to_the_first_crossing(level: float, expected: float | None) -> None:
    losses = {0: 4.0, 10: 2.0, 20: 2.5, 30: 0.5 + 1e-9}
    rows = [{"step": float(step), "held_out_loss": loss} for step, loss in losses.items()]
    found = numbers.steps_to(rows, level)
    assert found == (None if expected is None else pytest.approx(expected))


def test_held_out_pairs_are_clean_and_do_not_depend_on_the_order() -> None:
    split = bench("reproduce_pairs").split
    frame = pl.DataFrame(
        {"uid": [f"{i:032x}" for i in range(60)], "is_noisy": [i % 3 == 0 for i in range(60)]}
    )
    held, trained = split(frame, 10)
    assert len(held) == 10
    assert not frame["is_noisy"].gather(held).any()
    assert sorted([*held, *trained]) == list(range(60))
    turned = frame.reverse()
    again, _ = split(turned, 10)
    assert set(turned["uid"].gather(again)) == set(frame["uid"].gather(held))


@pytest.mark.parametrize(("weighting", "reweight"), [("uniform", "layers"), ("mimic", "all")])
def test_training_in_memory_is_the_products_training(
    tmp_path: Path, weighting: str, reweight: str
) -> None:
    pool.write_shard(tmp_path / "pool" / "00000.tar", list(range(20)))
    for name, seed in (("reference", 1), ("model", 2)):
        disk.write_model(tmp_path / name, seed=seed)
    training = TrainConfig(
        model=str(tmp_path / "model"),
        weighting=weighting,
        reweight=reweight,
        temperature=0.02,
        epochs=2,
        batch_size=8,
        learning_rate=1e-2,
        held_out=0.2,
    )
    source = SourceConfig(path=str(tmp_path / "pool"))
    config = RunConfig(source=source, reference=str(tmp_path / "reference"), training=training)
    run = train_pool(config, runs_root=tmp_path / "runs", device="cpu", workers=0)
    pairs = bench("reproduce_pairs")
    samples, loaded = run.features.samples, load_model(config.reference)
    uids = samples["uid"]
    held = np.flatnonzero(uids.is_in(run.held_out.implode()).to_numpy())
    mine = pairs.Pool(
        loader_for(open_source(source), loaded).load(samples),
        samples.select("uid"),
        loaded.module,
        held,
        np.setdiff1d(np.arange(len(uids)), held),
    )
    start = load_model(training.model).module
    found = pairs.train(mine, start, training, early=1)
    scores = run.scores().partition_by("epoch", maintain_order=True)
    for epoch, part in enumerate(scores):
        rows = pl.DataFrame({"uid": found.history.uids}).join(part, on="uid", maintain_order="left")
        np.testing.assert_allclose(found.history.loss[epoch], rows["loss"], atol=1e-5)
        np.testing.assert_allclose(found.history.mimic_score[epoch], rows["mimic_score"], atol=1e-5)
    expected = run.metrics().filter(pl.col("epoch") == 1)
    last = found.metrics[-1]
    assert last["step"] == expected["step"].item()
    assert last["image_to_text_recall_at_1"] == pytest.approx(
        expected["image_to_text_recall_at_1"].item()
    )
    assert last["held_out_loss"] == pytest.approx(expected["held_out_loss"].item(), abs=1e-4)


@pytest.mark.parametrize("part", ["labels", "pairs"])
def test_a_quick_run_goes_through_every_table(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    try:
        arguments = ["--quick", "--processes", "1", "--only", part, "--json", str(tmp_path / "f")]
        found = bench("reproduce").main(arguments)
    finally:
        torch.set_num_threads(threads)
    assert json.loads((tmp_path / "f").read_text()) == json.loads(json.dumps(found))
    tables = (
        found["labels"]["digits"]["accuracy"] if part == "labels" else found["pairs"]["training"]
    )
    assert {row.get("weighting", row.get("way")) for row in tables} >= (
        {"uniform", "mimic", "rho"} if part == "labels" else {"plain", "mimic, temperature 0.5"}
    )
    assert "the figures mean nothing" in capsys.readouterr().out


def test_wrong_and_clean_labels_meet_the_reference_only_in_their_own_parts() -> None:
    images = bench("reproduce_images").digits()
    reference, scored, test = images.parts()
    assert (len(reference), len(scored), len(test)) == (700, 700, 397)
    assert len({*reference, *scored, *test}) == 1797
    assert replace(images, name="digits").classes == 10
