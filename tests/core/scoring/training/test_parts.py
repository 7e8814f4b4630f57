"""The parts of training on their own: split, schedule, optimiser, metrics, recall, compiling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mimic_core.base.config import RunConfig, SourceConfig, TrainConfig
from mimic_core.base.errors import ConfigError, RunError
from mimic_core.base.progress import Silent, Unheard
from mimic_core.base.schema import ScoreBatch
from mimic_core.jobs import worker
from mimic_core.runs import run as runs
from mimic_core.runs.metrics import METRIC_COLUMNS, MetricsFile, as_sentence
from mimic_core.scoring.training.compiling import compile_plain_parts
from mimic_core.scoring.training.data import Plan, mirrored
from mimic_core.scoring.training.evaluation import recall_at_1
from mimic_core.scoring.training.objectives import LabelObjective
from mimic_core.scoring.training.optimisation import (
    MAX_LOGIT_SCALE,
    Updater,
    learning_rate,
    limit_logit_scale,
)
from mimic_core.scoring.training.splitting import split_samples
from tests.core import tiny
from tests.core.scoring_pool import uid_of
from tests.core.tiny import PAIRS, batch_of
from tests.fakes import fake_run


def settings(**changes: Any) -> TrainConfig:
    config: TrainConfig = TrainConfig.parse({"model": "m", **changes})
    return config


def samples(count: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "uid": [uid_of(n) for n in range(count)],
            "split": ["test" if n % 4 == 0 else "train" for n in range(count)],
            "noisy": [None if n == 1 else n % 2 == 0 for n in range(count)],
            "fold": list(range(count)),
            "image_kind": ["range"] * count,
            "image_path": [f"{n}.jpg" for n in range(count)],
            "image_offset": [0] * count,
            "image_member": [""] * count,
        }
    )


# --- the split ---


def test_the_held_out_share_is_a_matter_of_image_and_seed() -> None:
    table = samples(400)
    split = split_samples(table, settings(held_out=0.25), classes=None)
    assert 70 <= len(split.held_out) <= 130
    assert sorted([*split.trained, *split.held_out]) == list(range(400))
    held = set(table["uid"].gather(split.held_out))
    part = table.reverse().head(100)
    again = split_samples(part, settings(held_out=0.25), classes=None)
    assert set(part["uid"].gather(again.held_out)) == held & set(part["uid"])
    other = split_samples(table, settings(held_out=0.25, seed=1), classes=None)
    assert set(table["uid"].gather(other.held_out)) != held
    more = split_samples(table, settings(held_out=0.5), classes=None)
    assert held < set(table["uid"].gather(more.held_out))


def test_a_column_holds_out_too_whatever_its_type() -> None:
    table = samples(20)
    split = split_samples(table, settings(held_out_column="split=test"), classes=None)
    assert split.held_out.tolist() == [0, 4, 8, 12, 16]


def test_clean_samples_are_so_many_of_each_class_and_never_held_out() -> None:
    table = samples(200)
    classes = pl.Series([f"class {n % 3}" for n in range(200)])
    config = settings(
        clean_column="noisy=false", clean_per_class=5, held_out_column="split=train", held_out=0.2
    )
    with pytest.raises(ConfigError, match="all clean samples are held out"):
        split_samples(table, config, classes=classes)  # odd rows are noisy=false and in train
    config = settings(clean_column="noisy=false", clean_per_class=5, held_out=0.2)
    split = split_samples(table, config, classes=classes)
    assert classes.gather(split.clean).value_counts().sort("").to_series(1).to_list() == [5, 5, 5]
    assert set(split.clean) <= set(split.trained)
    assert all(n % 2 == 1 for n in split.clean)
    alike = split_samples(table, config, classes=None)
    assert len(alike.clean) == 5


# --- batches ---


@given(st.integers(2, 40), st.integers(2, 12), st.integers(1, 3))
def test_every_sample_is_scored_once_in_each_epoch(count: int, size: int, epochs: int) -> None:
    words = np.stack([np.arange(count), np.arange(count) * 7], 1).astype(np.uint64)
    plan = Plan(words, np.arange(count) + 100, min(size, count), 0, epochs)
    for epoch in range(epochs):
        draws = plan.draws(epoch)
        assert len(draws) == plan.steps
        scored = np.concatenate([draw.rows[: draw.scored] for draw in draws])
        assert sorted(scored) == list(range(count))
        others = plan.draws(epoch, comparison=True)
        assert [len(draw.rows) for draw in others] == [plan.batch_size] * plan.steps
        if plan.steps > 3:
            assert any((a.rows != b.rows).any() for a, b in zip(draws, others, strict=True))


def test_mirrored_images_belong_to_samples_even_where_captions_share_one() -> None:
    from dataclasses import replace

    whole = batch_of(3, 0)
    shared = replace(whole, images=whole.images[:2], image_of=torch.tensor([0, 0, 1]))
    found = mirrored(shared, np.array([True, False, False]))
    assert torch.equal(found.images[0], whole.images[0].flip(-1))
    assert torch.equal(found.images[1], whole.images[0])
    assert torch.equal(found.images[2], whole.images[1])
    assert found.image_of.tolist() == [0, 1, 2]


# --- the optimiser ---


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    config = settings(learning_rate=1.0, warmup_steps=4, schedule="cosine")
    rates = [learning_rate(config, step, 12) for step in range(13)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5)
    assert rates[12] == pytest.approx(0.0, abs=1e-12)
    flat = settings(learning_rate=1.0, warmup_steps=2)
    assert [learning_rate(flat, step, 9) for step in (0, 1, 8)] == [0.5, 1.0, 1.0]


def updater_of(module: nn.Module, precision: Any = "fp32", **changes: Any) -> Updater:
    return Updater(
        dict(module.named_parameters()), settings(**changes), total=10,
        device=torch.device("cpu"), precision=precision,
    )  # fmt: skip


def test_gradients_are_clipped_by_their_common_norm() -> None:
    module = nn.Linear(2, 1)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    module.weight.grad = torch.tensor([[3.0, 0.0]])
    module.bias.grad = torch.tensor([4.0])
    updater_of(module, optimiser="sgd", momentum=0.0, learning_rate=1.0, clip_norm=1.0).update()
    assert module.weight[0, 0].item() == pytest.approx(-0.6, rel=1e-4)
    assert module.bias.item() == pytest.approx(-0.8, rel=1e-4)
    assert module.weight.grad is None


def test_vectors_do_not_decay() -> None:
    module = nn.Linear(2, 2)
    before = module.bias.detach().clone(), module.weight.detach().clone()
    module.weight.grad, module.bias.grad = torch.zeros(2, 2), torch.zeros(2)
    updater_of(module, learning_rate=0.1, weight_decay=0.5).update()
    assert torch.equal(module.bias, before[0])
    torch.testing.assert_close(module.weight.detach(), before[1] * 0.95)


def test_an_overflow_in_half_precision_skips_the_update_and_lowers_the_scale() -> None:
    module = nn.Linear(1, 1)
    before = module.weight.detach().clone()
    updater = updater_of(module, "fp16")
    first = float(updater.scale(torch.tensor(1.0)))
    module.weight.grad, module.bias.grad = torch.tensor([[torch.inf]]), torch.zeros(1)
    updater.update()
    assert torch.equal(module.weight, before)
    assert float(updater.scale(torch.tensor(1.0))) == first / 2
    other = updater_of(nn.Linear(1, 1), "fp16")
    other.load(updater.state())
    assert float(other.scale(torch.tensor(1.0))) == first / 2


def test_the_logit_scale_of_clip_is_limited_and_that_of_siglip_is_not() -> None:
    model, siglip = tiny.clip_vit(0), tiny.siglip_vit(0)
    for module in (model, siglip):
        module.logit_scale.data.fill_(9.0)  # type: ignore[union-attr, operator]
        limit_logit_scale(module)
    assert float(model.logit_scale.detach().exp()) == pytest.approx(MAX_LOGIT_SCALE)  # type: ignore[union-attr, operator]
    assert float(siglip.logit_scale.detach()) == 9.0  # type: ignore[union-attr, operator]


# --- metrics ---


def test_recall_counts_every_caption_of_the_image_as_right() -> None:
    embeddings = torch.eye(4)
    answers = torch.eye(4)[[1, 0, 2, 2]]  # 0 and 1 find each other's caption
    apart, shared = np.array([0, 1, 2, 3]), np.array([5, 5, 6, 7])
    assert recall_at_1(embeddings, answers, apart) == 0.25
    assert recall_at_1(embeddings, answers, shared) == 0.75


def test_rows_of_an_unfinished_epoch_are_dropped(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.parquet")
    for epoch, step in ((-1, 0), (0, 3), (1, 4), (1, 6)):
        file.add({"epoch": epoch, "step": step, "held_out": 0})
    file.keep_until(0, 3)
    kept = pl.read_parquet(tmp_path / "metrics.parquet")
    assert kept.schema == METRIC_COLUMNS
    assert kept["epoch"].to_list() == [-1, 0]
    assert as_sentence({"accuracy": 0.5, "train_loss": None}) == "accuracy 0.5"


def test_a_run_that_trained_nothing_has_no_metrics(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no metrics"):
        fake_run(tmp_path, n=4).metrics()


def test_epoch_files_hold_what_the_batches_hold() -> None:
    uids = pl.Series("uid", [uid_of(n) for n in range(3)])
    values = np.array([1.0, 2.0, 3.0], np.float32)
    batch = ScoreBatch(
        0, 4, np.array([2, 0, 1]), values, values, values, values / 6,
        np.array([True, False, True]),
    )  # fmt: skip
    frame = runs.epoch_frame(0, uids, [batch])
    assert frame["train_weight"].to_list() == [pytest.approx(v) for v in (2 / 6, 3 / 6, 1 / 6)]
    assert frame["correct"].to_list() == [False, True, True]
    assert frame["step"].to_list() == [4, 4, 4]


# --- compiling, jobs, processes ---


def test_only_what_carries_no_tangents_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    model = tiny.clip_vit(0)
    assert "text tower is compiled" in compile_plain_parts(model, PAIRS, [tiny.IMAGE_MLP])
    assert compiled == ["Transformer"]
    assert "image tower is compiled" in compile_plain_parts(model, PAIRS, ["text_projection"])
    assert compiled == ["Transformer", "VisionTransformer"]
    both = [tiny.IMAGE_MLP, "text_projection"]
    assert "nothing is compiled" in compile_plain_parts(model, PAIRS, both)
    monkeypatch.setattr(torch, "compile", lambda part: compiled.append(part.__name__))
    labels = LabelObjective(("a",), torch.device("cpu"))
    assert "below the head" in compile_plain_parts(tiny.vit(0), labels, ["head.weight"])
    deeper = ["blocks.1.mlp.fc2.weight"]
    assert "nothing is compiled" in compile_plain_parts(tiny.vit(0), labels, deeper)
    assert compiled[2:] == ["forward_features"]


def test_a_job_with_training_settings_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path, n=4)
    calls: list[RunConfig] = []

    def train_pool(config: RunConfig, **_: Any) -> runs.Run:
        calls.append(config)
        return run

    monkeypatch.setattr("mimic_core.scoring.training.train.train_pool", train_pool)
    config = RunConfig(source=SourceConfig(path="p"), reference="r", training=settings())
    store = worker.JobStore(tmp_path / "jobs.sqlite")
    job, _ = store.enqueue(config, worker.JobOptions(), tmp_path)
    assert worker.work(store, job.job_id) == "done"
    assert calls == [config]
    assert store.job(job.job_id).run_dir == run.path


def test_processes_beside_the_first_are_silent_but_stop() -> None:
    class Stopped(Silent):
        def check(self) -> None:
            raise KeyboardInterrupt

        def note(self, text: str) -> None:
            raise AssertionError(text)

    beside = Unheard(Stopped())
    beside.note("nothing")
    with pytest.raises(KeyboardInterrupt):
        beside.check()
