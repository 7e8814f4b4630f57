"""Training runs: what they log, hold out, keep and resume; processes that share a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from mimic_core.base.config import ProbeConfig, RunConfig, SourceConfig, TrainConfig
from mimic_core.base.draws import draw_batches, uid_words
from mimic_core.base.errors import (
    ConfigError,
    Interrupted,
    MimicError,
    ModelError,
    RunError,
    ScoreError,
)
from mimic_core.base.progress import Silent
from mimic_core.features import filling
from mimic_core.features.loading import load_batches
from mimic_core.mimic.losses import clip_losses
from mimic_core.models.load import load_model
from mimic_core.runs.metrics import METRIC_COLUMNS
from mimic_core.runs.report import as_lines
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table
from mimic_core.scoring.pipeline import score_pool
from mimic_core.scoring.training.data import SampleReader
from mimic_core.scoring.training.state import weights_file
from mimic_core.scoring.training.train import train_pool
from mimic_core.sources.opening import open_source
from mimic_core.sources.source import Source
from tests.core import checkpoints_on_disk as disk
from tests.core import oracle, tiny
from tests.core import scoring_pool as pool
from tests.core.forked import forked_loaders
from tests.core.two_processes import assert_alike, train_by_torchrun, train_by_two

__all__ = ["forked_loaders"]  # a fixture

SAMPLES = 20


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of two shards, a model and a reference."""
    root = tmp_path_factory.mktemp("training")
    pool.write_shard(root / "pool" / "00000.tar", list(range(12)))
    pool.write_shard(
        root / "pool" / "00001.tar", list(range(12, 22)), broken={20: "cut", 21: "cut"}
    )
    disk.write_model(root / "reference", seed=1)
    disk.write_model(root / "model", seed=2)
    return root


def config_of(home: Path, **changes: Any) -> RunConfig:
    """Two epochs of batches of 8 by Grad-Mimic; ``changes`` of the training settings."""
    training = {
        "model": str(home / "model"),
        "epochs": 2,
        "batch_size": 8,
        "temperature": 0.02,
        "learning_rate": 1e-2,
        **changes,
    }
    return RunConfig(
        source=SourceConfig(path=str(home / "pool")),
        reference=str(home / "reference"),
        training=TrainConfig.parse(training),
    )


def train(config: RunConfig, root: Path, **options: Any) -> Run:
    return train_pool(config, runs_root=root, device="cpu", **{"workers": 0, **options})


def content(run: Run) -> dict[str, bytes]:
    """All files of a run by relative path, but for ``run.json``, which holds times."""
    return {
        str(file.relative_to(run.path)): file.read_bytes()
        for file in sorted(run.path.rglob("*"))
        if file.is_file() and file.name != "run.json"
    }


@pytest.fixture(scope="module")
def trained(home: Path) -> Run:
    """A finished run in ``home/runs``, with a fifth of the pool held out."""
    return train(config_of(home, held_out=0.2), home / "runs")


# --- what a run holds ---


def test_logged_scores_are_those_of_reverse_mode_at_the_same_weights(
    trained: Run, home: Path
) -> None:
    scores = trained.scores()
    assert scores.schema == {
        "uid": pl.String, "epoch": pl.Int32, "step": pl.Int32, "loss": pl.Float32,
        "mimic_score": pl.Float32, "mimic_weight": pl.Float32, "train_weight": pl.Float32,
    }  # fmt: skip
    reference = load_model(str(home / "reference"))
    samples = trained.features.samples.filter(~pl.col("uid").is_in(trained.held_out.implode()))
    rows = SampleReader(trained.features.path, filling.loader_for(_source(home), reference))
    positions = dict(zip(trained.features.samples["uid"], range(SAMPLES), strict=True))
    words = uid_words(samples["uid"])
    for epoch in (0, 1):
        # The weights are known at the beginning of an epoch, so its first batch can be redone.
        model = load_model(str(home / "model")).module
        if epoch:
            from safetensors.torch import load_file

            model.load_state_dict(load_file(weights_file(trained.path / "checkpoints", epoch - 1)))
        draw = next(iter(draw_batches(words, batch_size=8, seed=0, epoch=epoch)))
        uids = [samples["uid"][int(row)] for row in draw.rows]
        batch = rows.load(np.array([positions[uid] for uid in uids]))

        def losses(module: Any, batch: Any = batch) -> torch.Tensor:
            outputs = module(batch.images.double()[batch.image_of], batch.tokens)
            return oracle.contrastive_losses(*outputs)

        truth = oracle.reverse_mode(model, reference.module, (tiny.IMAGE_MLP,), losses)
        logged = scores.filter((pl.col("epoch") == epoch) & (pl.col("step") == 0))
        by_uid = {row["uid"]: row for row in logged.to_dicts()}
        assert sorted(by_uid) == sorted(uids)
        weights = torch.softmax(truth.proj / 0.02, 0)
        for i, uid in enumerate(uids):
            assert by_uid[uid]["loss"] == pytest.approx(float(truth.losses[i]), rel=1e-4)
            scale = float(truth.proj.abs().max())
            assert by_uid[uid]["mimic_score"] == pytest.approx(
                float(truth.proj[i]), abs=1e-4 * scale
            )
            assert by_uid[uid]["mimic_weight"] == pytest.approx(float(weights[i]), rel=1e-3)
            assert by_uid[uid]["train_weight"] == by_uid[uid]["mimic_weight"]


def _source(home: Path) -> Source:
    return open_source(SourceConfig(path=str(home / "pool")))


def test_the_run_is_like_other_runs(trained: Run) -> None:
    run = open_run(trained.path)
    record = run.record
    assert record.status == "done"
    assert record.mimic_layers == (tiny.IMAGE_MLP,)
    assert (record.epochs, record.batch_size, record.skipped) == (2, 8, 2)
    assert record.samples + record.held_out == SAMPLES
    assert 0 < record.held_out < SAMPLES
    assert record.self_check["relative_difference"] < 1e-5
    assert record.direction_check is not None
    table = run_table(run)
    assert len(table) == record.samples
    assert not set(table["uid"]) & set(run.held_out)
    assert table["clip_score"].is_not_null().all()
    text = "\n".join(as_lines(run))
    assert "held-out loss" in text
    assert "training" in text


def test_metrics_are_kept_for_every_epoch(trained: Run) -> None:
    metrics = trained.metrics()
    assert metrics.schema == METRIC_COLUMNS
    assert metrics["epoch"].to_list() == [-1, 0, 1]
    steps = -(-trained.record.samples // 8)
    assert metrics["step"].to_list() == [0, steps, 2 * steps]
    means = trained.scores().group_by("epoch", maintain_order=True).agg(pl.col("loss").mean())
    assert metrics["train_loss"].to_list() == [
        None, *(pytest.approx(loss, rel=1e-5) for loss in means["loss"])
    ]  # fmt: skip
    assert metrics["held_out"].to_list() == [trained.record.held_out] * 3
    assert metrics["accuracy"].to_list() == [None] * 3


def test_an_update_is_evaluated_once_however_many_batches_make_it(
    home: Path, tmp_path: Path
) -> None:
    config = config_of(
        home, held_out_column="shard=00001", batch_size=2, accumulate=2, evaluate_every=2
    )
    metrics = train(config, tmp_path).metrics()
    # 12 samples are 6 batches are 3 updates an epoch; each epoch's last one is always evaluated.
    assert metrics.select("epoch", "step").rows() == [(-1, 0), (0, 2), (0, 3), (1, 4), (1, 6)]


def test_held_out_metrics_are_those_of_the_stored_weights(trained: Run, home: Path) -> None:
    from safetensors.torch import load_file

    reference = load_model(str(home / "reference"))
    rows = SampleReader(trained.features.path, filling.loader_for(_source(home), reference))
    held = np.flatnonzero(
        trained.features.samples["uid"].is_in(trained.held_out.implode()).to_numpy()
    )
    batch = rows.load(held)
    model = load_model(str(home / "model")).module
    model.load_state_dict(load_file(weights_file(trained.path / "checkpoints", 1)))
    image, text, scale = model(batch.images[batch.image_of], batch.tokens)
    last = trained.metrics().row(-1, named=True)
    assert len(held) <= 8  # one batch, so the loss does not depend on how it is cut
    expected = float(clip_losses(image, text, scale).mean())
    assert last["held_out_loss"] == pytest.approx(expected, rel=1e-4)
    best = (image @ text.T).argmax(1)
    right = float((best == torch.arange(len(held))).float().mean())
    assert last["image_to_text_recall_at_1"] == pytest.approx(right)
    best = (text @ image.T).argmax(1)
    right = float((best == torch.arange(len(held))).float().mean())
    assert last["text_to_image_recall_at_1"] == pytest.approx(right)


def test_a_checkpoint_loads_as_a_model(trained: Run, home: Path) -> None:
    file = weights_file(trained.path / "checkpoints", 1)
    config = home / "reference" / "open_clip_config.json"
    loaded = load_model(f"{config}:{file}")
    start = load_model(str(home / "model"))
    changed = loaded.module.get_parameter(tiny.IMAGE_MLP)
    assert not torch.equal(changed, start.module.get_parameter(tiny.IMAGE_MLP))


def test_a_finished_run_is_left_alone(trained: Run, home: Path) -> None:
    before = {f: f.stat().st_mtime_ns for f in trained.path.rglob("*")}
    assert train(config_of(home, held_out=0.2), home / "runs").id == trained.id
    assert {f: f.stat().st_mtime_ns for f in trained.path.rglob("*")} == before


def test_what_decides_the_weights_decides_the_runs_name(home: Path, tmp_path: Path) -> None:
    disk.write_model(tmp_path / "other", seed=3)
    changes: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"weighting": "uniform"}, {"reweight": "all"}, {"clip_norm": 0.1},
        {"model": str(tmp_path / "other")},
    ]  # fmt: skip
    ids = {train(config_of(home, epochs=1, **c), tmp_path / "runs").id for c in changes}
    assert len(ids) == len(changes)


# --- resuming ---


class _Stop(Silent):
    """Stops at the n-th look, and then does not stop any more."""

    def __init__(self, at: int) -> None:
        self.left, self.indexing = at, False

    def phase(self, name: str, total: int, *, done: int = 0, unit: str = "samples") -> None:
        self.indexing = name == "index"  # nothing of it is kept

    def check(self) -> None:
        self.left -= not self.indexing
        if self.left == -1 and not self.indexing:
            raise Interrupted


FULL = {
    "held_out": 0.2,
    "schedule": "cosine",
    "warmup_steps": 2,
    "clip_norm": 1.0,
    "accumulate": 2,
    "flip": True,
    "evaluate_every": 1,
    "epochs": 3,
}


# The stops are in the first epoch, the second and the third.
@pytest.mark.parametrize(("optimiser", "stops"), [("adamw", (2, 4, 5, 6)), ("sgd", (4, 6))])
def test_an_interrupted_run_ends_with_the_same_bytes(
    optimiser: str, stops: tuple[int, ...], home: Path, tmp_path: Path
) -> None:
    config = config_of(home, optimiser=optimiser, **FULL)
    expected = content(train(config, tmp_path / "whole"))
    for at in stops:
        stop = _Stop(at)
        root = tmp_path / f"stopped-{at}"
        with pytest.raises(Interrupted):
            train(config, root, progress=stop)
        run = train(config, root)
        found = content(run)
        assert sorted(found) == sorted(expected)
        assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.parametrize(
    "target", ["mimic_core.scoring.training.state.store", "mimic_core.base.files.write_json"]
)
def test_a_run_killed_between_two_files_of_an_epoch_ends_with_the_same_bytes(
    target: str, trained: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    module, _, name = target.rpartition(".")
    owner = importlib.import_module(module)
    real, calls = getattr(owner, name), []

    def killed(*arguments: Any, **options: Any) -> Any:
        path = str(arguments[0])
        calls.append(path)
        if "checkpoints" in path and sum("checkpoints" in call for call in calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    config = config_of(home, held_out=0.2)
    monkeypatch.setattr(owner, name, killed)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path)
    monkeypatch.undo()
    assert content(train(config, tmp_path)) == content(trained)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_loaders")
def test_the_number_of_workers_changes_nothing(trained: Run, home: Path, tmp_path: Path) -> None:
    run = train(config_of(home, held_out=0.2), tmp_path, workers=1)
    assert content(run) == content(trained)


@pytest.mark.parametrize(
    ("workers", "expected"), [(3, {(12, 3), (8, 3)}), (None, {(12, 2), (8, 8)})]
)
def test_training_and_evaluation_load_with_as_many_workers_as_they_should(
    workers: int | None,
    expected: set[tuple[int, int]],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: set[tuple[int, int]] = set()

    def load(dataset: Any, *, workers: int, device: torch.device) -> Any:
        samples = {row for number in range(len(dataset)) for row in dataset[number].rows.tolist()}
        seen.add((len(samples), workers))
        return load_here(dataset, workers=workers, device=device)

    def load_here(dataset: Any, *, workers: int, device: torch.device) -> Any:
        return load_batches(dataset, workers=0, device=device)

    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # as torchrun says it, on a machine of 8 cores
    monkeypatch.setattr("mimic_core.features.loading.MIN_SAMPLES_FOR_WORKERS", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr("mimic_core.scoring.training.trainer.load_batches", load)
    monkeypatch.setattr("mimic_core.scoring.training.data.load_batches", load)
    monkeypatch.setattr("mimic_core.features.filling.load_batches", load_here)
    train(config_of(home, held_out_column="shard=00001", epochs=1), tmp_path, workers=workers)
    assert seen >= expected


def test_a_damaged_checkpoint_is_an_error_that_names_it(home: Path, tmp_path: Path) -> None:
    config = config_of(home)
    with pytest.raises(Interrupted):
        train(config, tmp_path, progress=_Stop(6))
    [file] = tmp_path.rglob("checkpoints/epoch-00000.safetensors")
    file.write_bytes(b"nonsense")
    with pytest.raises(RunError, match="epoch-00000"):
        train(config, tmp_path)


# --- weightings and settings ---


@pytest.mark.parametrize(
    "weighting", ["uniform", "grand", "agra", "grad_match", "rho", "influence"]
)
def test_every_weighting_trains_and_logs_alike(weighting: str, home: Path, tmp_path: Path) -> None:
    clean = {"clean_column": "number=3", "clean_per_class": 4} if weighting == "influence" else {}
    if clean:
        clean["clean_column"] = "shard=00000"
    run = train(config_of(home, weighting=weighting, epochs=1, **clean), tmp_path)
    scores = run.scores()
    assert scores.height == SAMPLES
    full = scores.filter(pl.col("step") < 2).group_by("step").agg(
        pl.col("mimic_weight", "train_weight").sum()
    )  # fmt: skip
    for name in ("mimic_weight", "train_weight"):
        np.testing.assert_allclose(full[name], 1, rtol=1e-4)
    same = (scores["mimic_weight"] - scores["train_weight"]).abs().max()
    assert float(same) > 1e-4  # type: ignore[arg-type]
    first = train(config_of(home, epochs=1), tmp_path).scores().filter(pl.col("step") == 0)
    mine = scores.filter(pl.col("step") == 0)
    assert mine["mimic_score"].equals(first["mimic_score"])  # the first step has equal weights


def test_rho_takes_the_reference_losses_of_the_whole_batch(home: Path, tmp_path: Path) -> None:
    run = train(config_of(home, weighting="rho", epochs=1), tmp_path)
    from mimic_core.scoring.training.reference_losses import pair_losses_of

    rows = np.arange(6)
    found = pair_losses_of(run.features, torch.device("cpu"))(rows)
    reference = load_model(str(home / "reference"))
    batch = SampleReader(run.features.path, filling.loader_for(_source(home), reference)).load(rows)
    expected = clip_losses(*reference.module(batch.images[batch.image_of], batch.tokens))
    np.testing.assert_allclose(found, expected.detach(), rtol=5e-3)  # float16 embeddings


def test_plain_training_is_that_of_torch(home: Path, tmp_path: Path) -> None:
    config = config_of(home, weighting="uniform", epochs=1, weight_decay=0.1)
    run = train(config, tmp_path)
    reference = load_model(str(home / "reference"))
    rows = SampleReader(run.features.path, filling.loader_for(_source(home), reference))
    model = load_model(str(home / "model")).module.requires_grad_(True)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=1e-2
    )
    words = uid_words(run.features.samples["uid"])
    for draw in draw_batches(words, batch_size=8, seed=0, epoch=0):
        batch = rows.load(draw.rows)
        optimiser.zero_grad()
        clip_losses(*model(batch.images[batch.image_of], batch.tokens)).mean().backward()
        optimiser.step()
    from safetensors.torch import load_file

    stored = load_file(weights_file(run.path / "checkpoints", 0))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(stored[name], parameter.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains(precision: str, home: Path, tmp_path: Path) -> None:
    config = config_of(home, epochs=1).model_copy(update={"precision": precision})
    run = train(config, tmp_path)
    assert run.scores()["mimic_score"].is_finite().all()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"weighting": "influence"}, ConfigError, "--clean-column"),
        ({"held_out_column": "nowhere=1"}, ConfigError, "no such column"),
        ({"held_out_column": "shard=9"}, ConfigError, "00000"),
        ({"held_out": 0.999}, ConfigError, "too few samples"),
        ({"mimic_layers": ("visual.porj",)}, ModelError, "visual.proj"),
        ({"model": "/nowhere"}, ModelError, "/nowhere"),
        ({"model": "REFERENCE"}, ScoreError, "equal on the mimic layers"),
        ({"method": "cos", "batch_size": 4096}, ScoreError, "512"),
        ({"clean_column": "shard=00000", "held_out_column": "shard=00000"}, ConfigError, "clean"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(
    changes: dict[str, Any], error: type[MimicError], words: str, home: Path, tmp_path: Path
) -> None:
    if changes.get("model") == "REFERENCE":
        changes = {"model": str(home / "reference")}
    with pytest.raises(error, match=words):
        train(config_of(home, **changes), tmp_path)


def test_another_architecture_is_refused(home: Path, tmp_path: Path) -> None:
    disk.write_model(tmp_path / "deeper", "deeper-vit")
    with pytest.raises(ModelError, match="differ in architecture"):
        train(config_of(home, model=str(tmp_path / "deeper")), tmp_path / "runs")


def test_training_and_scoring_settings_are_not_mixed_up(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train_pool"):
        score_pool(config_of(home), runs_root=tmp_path)
    probe = RunConfig(
        source=SourceConfig(path=str(home / "pool")), reference="r", probe=ProbeConfig()
    )
    with pytest.raises(ConfigError, match="score_pool"):
        train_pool(probe, runs_root=tmp_path)


def test_an_image_that_can_no_longer_be_read_is_named(
    trained: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = load_model(str(home / "reference"))
    nowhere = SourceConfig(path=str(home / "pool"))
    loader = filling.loader_for(open_source(nowhere), reference)
    monkeypatch.setattr(loader._reader, "root", tmp_path)
    with pytest.raises(RunError, match=r"can no longer be read.*000003"):
        SampleReader(trained.features.path, loader).load(np.array([3]))


# --- several processes ---


@pytest.mark.parametrize(
    "changes",
    [
        {"weighting": "agra", "reweight": "all"},
        {"weighting": "grad_match", "epochs": 1},
    ],
    ids=["agra", "grad_match"],
)
def test_two_processes_train_as_one(changes: dict[str, Any], home: Path, tmp_path: Path) -> None:
    config = config_of(home, optimiser="sgd", momentum=0.0, **changes)
    one = train(config, tmp_path / "one")
    assert_alike(one, train_by_two(config, one.id, tmp_path))


@pytest.mark.slow
def test_torchrun_trains_as_one_process_does(home: Path, tmp_path: Path) -> None:
    config = config_of(home, optimiser="sgd", momentum=0.0, held_out=0.2, accumulate=2)
    one = train(config, tmp_path / "one")
    assert_alike(one, train_by_torchrun(config, one.id, tmp_path))


def test_a_batch_that_two_processes_cannot_share_is_refused() -> None:
    from mimic_core.scoring.training.distributed import Group

    assert Group(1, 2).part(8) == slice(4, 8)
    with pytest.raises(ConfigError, match="--batch-size"):
        Group(0, 2).part(9)


def test_such_a_batch_is_refused_before_the_pool_is_read(home: Path, tmp_path: Path) -> None:
    from mimic_core.scoring.job import Job
    from mimic_core.scoring.training.distributed import Group
    from mimic_core.scoring.training.setup import prepare

    config = config_of(home, batch_size=9)
    with pytest.raises(ConfigError, match=r"--batch-size"):
        prepare(Job(config, tmp_path, torch.device("cpu"), 0, Silent()), Group(0, 2))
    assert list(tmp_path.iterdir()) == []
