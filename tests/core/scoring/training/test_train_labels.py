"""Training on labelled images: heads, closed form against forward mode, logs, resuming."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mimic_core.base.config import HeadConfig, RunConfig, SourceConfig, TrainConfig
from mimic_core.base.draws import draw_batches, uid_words
from mimic_core.base.errors import ConfigError, Interrupted, ModelError
from mimic_core.base.progress import Silent
from mimic_core.features import filling
from mimic_core.features.loading import LoadedBatch
from mimic_core.mimic.scores import task_vector
from mimic_core.models import classifiers
from mimic_core.models.load import load_model
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table
from mimic_core.scoring.labels.class_head import ClassHead
from mimic_core.scoring.training import trainer
from mimic_core.scoring.training.classifier_pair import pair_classifiers
from mimic_core.scoring.training.comparison import mean_gradient
from mimic_core.scoring.training.data import SampleReader
from mimic_core.scoring.training.distributed import Group
from mimic_core.scoring.training.objectives import LabelObjective
from mimic_core.scoring.training.state import weights_file
from mimic_core.scoring.training.step import add_gradients
from mimic_core.scoring.training.tracing import is_head_alone, trace_batch, trace_graph
from mimic_core.scoring.training.train import train_pool
from mimic_core.sources.opening import open_source
from tests.core import checkpoints_on_disk as disk
from tests.core import oracle, tiny
from tests.core.two_processes import assert_alike, train_by_two

CLASSES = ("cat", "dog", "hen")
ARCH = "test_vit"  # timm's tiny ViT of 160 pixels; 64 wide
COUNT = 21


def picture(number: int) -> bytes:
    """Noise whose colour goes with the class ``number % 3``."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 120, (24, 20, 3), dtype=np.uint8)
    pixels[:, :, number % 3] += 120
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet of labelled images; every seventh label is wrong, and a third is trusted."""
    root = tmp_path_factory.mktemp("labels")
    right = [CLASSES[n % 3] for n in range(COUNT)]
    given = [CLASSES[(n + (n % 7 == 0)) % 3] for n in range(COUNT)]
    frame = pl.DataFrame(
        {
            "image": [{"bytes": picture(n), "path": f"{n}.png"} for n in range(COUNT)],
            "label": given,
            "right": right,
            "checked": [n % 9 in (1, 2, 3) for n in range(COUNT)],
            "split": ["test" if n % 5 == 0 else "train" for n in range(COUNT)],
        }
    )
    (root / "pool").mkdir()
    frame.write_parquet(root / "pool" / "images.parquet")
    with torch.random.fork_rng():
        for seed, name in ((0, "reference"), (1, "model")):
            torch.manual_seed(seed)
            module = timm.create_model(ARCH, num_classes=3)
            nn.init.normal_(classifiers.head(module).weight, std=0.1)
            tensors = {k: v.contiguous().clone() for k, v in module.state_dict().items()}
            save_file(tensors, root / f"{name}.safetensors")
    return root


TRUSTED = HeadConfig(trusted="checked", trusted_label_column="right")


def config_of(home: Path, *, head: HeadConfig | None = TRUSTED, **changes: Any) -> RunConfig:
    training = {
        "model": f"timm:{ARCH}:{home / 'model.safetensors'}",
        "epochs": 2,
        "batch_size": 4,
        "temperature": 0.5,
        "learning_rate": 1e-3,
        **changes,
    }
    return RunConfig(
        source=SourceConfig(path=str(home / "pool"), task="labels", label_column="label"),
        reference=f"timm:{ARCH}:{home / 'reference.safetensors'}",
        preprocess="imagenet",
        head=head,
        training=TrainConfig.parse(training),
    )


def train(config: RunConfig, root: Path, **options: Any) -> Run:
    return train_pool(config, runs_root=root, device="cpu", **{"workers": 0, **options})


@pytest.fixture(scope="module")
def trained(home: Path) -> Run:
    return train(config_of(home, held_out_column="split=test"), home / "runs")


# --- one step ---


def labelled(count: int, seed: int, *, rows: slice = slice(None)) -> LoadedBatch:
    images, labels = tiny.labelled(count, seed)
    names = [str(int(label)) for label in labels]
    return LoadedBatch(
        rows=np.arange(count),
        images=images[rows],
        image_of=torch.arange(len(images[rows])),
        tokens=torch.empty((count, 0), dtype=torch.long)[rows],
        labels=[*names][rows],
    )


SEVEN = tuple(str(n) for n in range(7))
LABELS = LabelObjective(SEVEN, torch.device("cpu"))
HEADS = {"vit": tiny.vit, "resnet": tiny.resnet, "convnext": tiny.convnext}


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_the_closed_form_of_the_head_is_what_forward_mode_gives(name: str, with_bias: bool) -> None:
    model, reference = HEADS[name](0).requires_grad_(True), HEADS[name](1)
    head = classifiers.head_name(model)
    layers = [f"{head}.weight", *([f"{head}.bias"] if with_bias else [])]
    if with_bias:
        nn.init.normal_(reference.get_parameter(f"{head}.bias"))
    assert is_head_alone(model, layers)
    vector = task_vector(model, reference, layers)
    batch = labelled(5, 1)
    ours = trace_batch(model, LABELS, batch, vector, Group())
    other = trace_graph(model, LABELS, batch, vector, Group())
    torch.testing.assert_close(ours.scores, other.scores, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.geometry.losses, other.geometry.losses)
    torch.testing.assert_close(ours.geometry.gram(), other.geometry.gram(), rtol=1e-4, atol=1e-5)
    assert ours.correct is not None
    assert other.correct is not None
    assert torch.equal(ours.correct, other.correct)
    assert torch.equal(ours.correct, model(batch.images).argmax(1) == tiny.labelled(5, 1)[1])
    weights = torch.softmax(torch.arange(5.0), 0)
    for name_, pulled in ours.way.pull(weights).items():
        expected = other.way.pull(weights)[name_]
        torch.testing.assert_close(pulled, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reweight", ["layers", "all"])
@pytest.mark.parametrize("layer", ["head.weight", "blocks.1.mlp.fc2.weight"])
def test_reweighted_gradients_are_the_explicit_weighted_sums(layer: str, reweight: str) -> None:
    model, reference = tiny.vit(0).requires_grad_(True), tiny.vit(1)
    images, labels = tiny.labelled(5, 1)

    def losses(module: nn.Module) -> Tensor:
        return oracle.label_losses(module(images.double()), labels)

    names = tuple(name for name, _ in model.named_parameters())
    truth = oracle.reverse_mode(model, reference, names, losses)
    scores = oracle.reverse_mode(model, reference, (layer,), losses).proj
    vector = task_vector(model, reference, [layer])
    trace = trace_batch(model, LABELS, labelled(5, 1), vector, Group())
    assert oracle.relative_difference(trace.scores, scores) < 1e-4
    weights = torch.softmax(trace.scores, 0)
    add_gradients(
        trace,
        weights,
        layers={layer: model.get_parameter(layer)},
        others=[p for name, p in model.named_parameters() if name != layer],
        reweight_all=reweight == "all",
    )
    for name, parameter in model.named_parameters():
        weighted = reweight == "all" or name == layer
        by = weights.double() if weighted else torch.full((5,), 0.2, dtype=torch.float64)
        expected = torch.tensordot(by, truth.gradients[name], 1)
        assert parameter.grad is not None, name
        assert oracle.relative_difference(parameter.grad, expected) < 2e-3, name


@pytest.mark.parametrize("layer", ["head.weight", "blocks.1.mlp.fc2.weight"])
def test_a_comparison_gradient_is_the_mean_of_the_per_sample_ones(layer: str) -> None:
    model, reference = tiny.vit(0).requires_grad_(True), tiny.vit(1)
    images, labels = tiny.labelled(5, 1)
    truth = oracle.reverse_mode(
        model, reference, (layer,), lambda m: oracle.label_losses(m(images.double()), labels)
    )
    whole = [labelled(5, 1)]
    parts = [labelled(5, 1, rows=slice(start, start + 2)) for start in (0, 2, 4)]
    for batches in (whole, parts):
        found = mean_gradient(model, LABELS, batches, [layer], Group())
        assert oracle.relative_difference(found[layer], truth.gradients[layer].mean(0)) < 1e-4


# --- heads ---


def test_the_models_own_head_is_kept_where_it_is_over_the_same_classes(home: Path) -> None:
    notes: list[str] = []
    model = load_model(f"timm:{ARCH}:{home / 'model.safetensors'}", preprocess="imagenet")
    reference = load_model(f"timm:{ARCH}:{home / 'reference.safetensors'}", preprocess="imagenet")
    kept = classifiers.head(model.module).weight.detach().clone()
    width = kept.shape[1]
    head = ClassHead(("cat", "dog", "hen"), torch.randn(3, width), torch.randn(3))
    pair = pair_classifiers(model, reference, head, seed=0, note=notes.append)
    kept_head = "the model's own head is over the same classes and is kept"
    assert notes == [f"{kept_head}; nothing names its outputs, so their order is assumed"]
    assert torch.equal(classifiers.head(pair[0]).weight, kept)
    assert torch.equal(classifiers.head(pair[1]).weight, head.weight)
    assert torch.equal(classifiers.head(pair[1]).bias, head.bias)


def test_a_head_over_other_classes_is_drawn_afresh_by_the_seed(home: Path) -> None:
    def drawn(seed: int) -> Tensor:
        notes: list[str] = []
        model = load_model(f"timm:{ARCH}:{home / 'model.safetensors'}", preprocess="imagenet")
        path = home / "reference.safetensors"
        reference = load_model(f"timm:{ARCH}:{path}", preprocess="imagenet")
        width = classifiers.head(model.module).in_features
        head = ClassHead(("a", "b", "c", "d"), torch.randn(4, width), torch.zeros(4))
        pair = pair_classifiers(model, reference, head, seed=seed, note=notes.append)
        assert notes == ["the model's head is drawn afresh, over 4 classes"]
        return classifiers.head(pair[0]).weight.detach()

    assert drawn(0).shape == (4, 64)
    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_another_architecture_is_refused(home: Path, tmp_path: Path) -> None:
    config = config_of(home, model="timm:test_convnext:random:0")
    with pytest.raises(ModelError, match="differ in architecture"):
        train(config, tmp_path)


# --- whole runs ---


def test_a_labelled_run_logs_whether_the_model_was_right(trained: Run, home: Path) -> None:
    run = open_run(trained.path)
    scores = run.scores()
    assert scores.schema["correct"] == pl.Boolean
    assert scores["correct"].null_count() == 0
    record = run.record
    assert record.mimic_layers == ("head.weight",)
    assert record.reference_head is not None
    assert record.reference_head.origin == "trusted"
    assert record.direction_check is not None
    assert record.direction_check.rank_with_clip_score is None
    table = run_table(run)
    assert len(table) == record.samples
    assert {"correct_share", "reference_label", "label"} <= set(table.columns)
    stored = pl.read_parquet(home / "pool" / "images.parquet")
    kept = stored.filter(~pl.col("checked") & (pl.col("split") == "train"))
    assert record.samples == len(kept)
    assert record.held_out == COUNT - len(kept)
    metrics = run.metrics()
    held = stored.filter(pl.col("split") == "test")
    assert metrics["held_out"].to_list() == [len(held)] * 3
    assert metrics["accuracy"].null_count() == 0
    assert metrics["image_to_text_recall_at_1"].null_count() == 3


def test_logged_scores_are_those_of_reverse_mode_at_the_same_weights(
    trained: Run, home: Path
) -> None:
    source = open_source(trained.record.config.source)
    reference = load_model(trained.record.config.reference, preprocess="imagenet")
    reader = SampleReader(trained.features.path, filling.loader_for(source, reference))
    table = trained.features.samples.with_row_index("row")
    mine = table.filter(~pl.col("uid").is_in(trained.held_out.implode()))
    draw = next(iter(draw_batches(uid_words(mine["uid"]), batch_size=4, seed=0, epoch=1)))
    batch = reader.load(mine["row"].to_numpy()[draw.rows])
    model = load_model(
        f"timm:{ARCH}:{weights_file(trained.path / 'checkpoints', 0)}", preprocess="imagenet"
    ).module
    head = load_file(trained.path / "reference_head.safetensors")
    there = load_model(trained.record.config.reference, preprocess="imagenet").module
    with torch.no_grad():
        classifiers.head(there).weight.copy_(head["weight"])
    labels = torch.tensor([CLASSES.index(str(label)) for label in batch.labels])
    truth = oracle.reverse_mode(
        model,
        there,
        ("head.weight",),
        lambda m: oracle.label_losses(m(batch.images.double()), labels),
    )
    logged = trained.scores().filter((pl.col("epoch") == 1) & (pl.col("step") == 0))
    by_uid = {row["uid"]: row for row in logged.to_dicts()}
    scale = float(truth.proj.abs().max())
    predictions = model(batch.images).argmax(1) == labels
    for i, row in enumerate(draw.rows):
        found = by_uid[mine["uid"][int(row)]]
        assert found["mimic_score"] == pytest.approx(float(truth.proj[i]), abs=1e-4 * scale)
        assert found["loss"] == pytest.approx(float(truth.losses[i]), rel=1e-4)
        assert found["correct"] == bool(predictions[i])


class _Stop(Silent):
    def __init__(self, at: int) -> None:
        self.left = at

    def check(self) -> None:
        self.left -= 1
        if self.left == -1:
            raise Interrupted


def test_an_interrupted_run_ends_with_the_same_bytes(
    trained: Run, home: Path, tmp_path: Path
) -> None:
    config = config_of(home, held_out_column="split=test")
    with pytest.raises(Interrupted):
        train(config, tmp_path, progress=_Stop(5))
    run = train(config, tmp_path)
    for file in sorted(trained.path.rglob("*")):
        if file.is_file() and file.name != "run.json":
            assert (run.path / file.relative_to(trained.path)).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("weighting", ["grand", "agra", "grad_match", "rho", "influence"])
def test_every_weighting_trains(weighting: str, home: Path, tmp_path: Path) -> None:
    run = train(config_of(home, weighting=weighting, epochs=1), tmp_path)
    weights = run.scores()["train_weight"]
    assert weights.is_finite().all()
    assert (weights >= 0).all()
    assert run.scores()["mimic_weight"].to_list() != weights.to_list()


def test_clean_samples_come_from_a_column_or_are_the_trusted_ones(
    home: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"weighting": "influence", "epochs": 1}
    whole = HeadConfig(trusted="checked", trusted_label_column="right", score_trusted=True)
    named = config_of(home, head=whole, clean_column="checked=true", **settings)
    assert train(named, tmp_path).record.samples == COUNT
    own = config_of(home, head=HeadConfig(file=str(home / "reference.safetensors")), **settings)
    with pytest.raises(ConfigError, match="--trusted"):
        train(own, tmp_path)


def test_clean_samples_pass_in_parts_of_the_batch_size(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, str | None]] = []

    def watched(module: Any, objective: Any, parts: Any, *rest: Any) -> dict[str, Tensor]:
        for part in parts:
            seen.extend(zip(part.rows.tolist(), part.labels, strict=True))
        assert [len(part.images) for part in parts] == [4, 2]
        return mean_gradient(module, objective, parts, *rest)

    monkeypatch.setattr(trainer, "mean_gradient", watched)
    train(config_of(home, weighting="influence", epochs=1, clean_per_class=2), tmp_path)
    assert len(set(seen)) == 6  # the same ones at every step
    assert all(label == CLASSES[row % 3] for row, label in seen)  # the trusted labels are right


def test_held_out_samples_do_not_train_the_reference_head(home: Path, tmp_path: Path) -> None:
    stored = pl.read_parquet(home / "pool" / "images.parquet")
    held = pl.col("split") == "test"
    both, free = (stored.filter(pl.col("checked") & one).height for one in (held, ~held))
    assert both
    run = train(config_of(home, held_out_column="split=test", epochs=1), tmp_path / "a")
    record = run.record.reference_head
    assert record is not None
    assert (record.trusted, record.trusted_held_out) == (free, both)
    assert f"{free} trusted samples, {both} more are held out" in record.as_sentence()

    # Whatever the held-out samples' trusted labels say, the head is the same.
    (tmp_path / "pool").mkdir()
    swapped = pl.when(held).then(pl.lit("cat")).otherwise("right").alias("right")
    stored.with_columns(swapped).write_parquet(tmp_path / "pool" / "images.parquet")
    other = config_of(home, held_out_column="split=test", epochs=1)
    pool = other.source.model_copy(update={"path": str(tmp_path / "pool")})
    again = train(other.model_copy(update={"source": pool}), tmp_path / "b")
    heads = [one.path / "reference_head.safetensors" for one in (run, again)]
    assert heads[0].read_bytes() == heads[1].read_bytes()

    with pytest.raises(ConfigError, match="all trusted samples are held out"):
        train(config_of(home, held_out_column="checked"), tmp_path / "c")


class _Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_held_out_samples_are_judged_by_the_labels_of_a_column(home: Path, tmp_path: Path) -> None:
    stored = pl.read_parquet(home / "pool" / "images.parquet").with_row_index("n")
    partly = pl.when(pl.col("n") == 10).then(None).otherwise("right").alias("partly")
    (tmp_path / "pool").mkdir()
    stored.with_columns(partly, wrong=pl.lit("horse")).drop("n").write_parquet(
        tmp_path / "pool" / "images.parquet"
    )

    def config(column: str | None, **changes: Any) -> RunConfig:
        settings = {"held_out_column": "split=test", "epochs": 1, **changes}
        whole = config_of(home, held_out_label_column=column, **settings)
        source = whole.source.model_copy(update={"path": str(tmp_path / "pool")})
        return whole.model_copy(update={"source": source})

    progress = _Notes()
    run = train(config("partly"), tmp_path, progress=progress)
    assert any("1 of 5 held-out samples have no label in partly" in one for one in progress.notes)
    metrics = run.metrics()
    assert metrics["held_out"].to_list() == [4, 4]
    file = weights_file(run.path / "checkpoints", 0)
    model = load_model(f"timm:{ARCH}:{file}", preprocess="imagenet")
    source = open_source(run.record.config.source)
    reader = SampleReader(run.features.path, filling.loader_for(source, model))
    samples = run.features.samples.with_row_index("row")
    judged = samples.filter((pl.col("split") == "test") & pl.col("partly").is_not_null())
    with torch.no_grad():
        logits = model.module(reader.load(judged["row"].to_numpy()).images)
    right = [model.classes[n] for n in logits.argmax(1)] == judged["partly"]
    assert metrics["accuracy"][-1] == pytest.approx(right.mean())
    by_pool = train(config(None), tmp_path).metrics()
    assert by_pool["held_out"].to_list() == [5, 5]
    assert by_pool["held_out_loss"][-1] != pytest.approx(metrics["held_out_loss"][-1])

    with pytest.raises(ModelError, match="does not know 1"):
        train(config("wrong"), tmp_path)
    with pytest.raises(ConfigError, match="no held-out sample has a label"):
        train(config("partly", held_out_column="key=000000010"), tmp_path)
    with pytest.raises(ConfigError, match="needs held_out or held_out_column"):
        config("right", held_out_column=None)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"held_out_column": "split=dev"}, "no sample has that value"),
        ({"held_out_column": "part=test"}, "no such column"),
        ({"held_out_column": "checked"}, "all trusted samples are held out"),
        ({"held_out": 0.5, "held_out_label_column": "rihgt"}, "no such column"),
        ({"weighting": "influence", "clean_column": "right=horse"}, "no sample has that value"),
        ({"mimic_layers": ("haed.weight",)}, "no parameter of that name.*head.weight"),
        ({"head": HeadConfig(trusted="chekced")}, "no such column"),
        ({"head": HeadConfig(trusted_label_column="wrihgt")}, "no such column"),
        ({"head": HeadConfig(file="gone.safetensors")}, "does not exist"),
        ({"head": None, "reference": f"timm:{ARCH}:random:0"}, "no trained classifier"),
    ],
)
def test_settings_are_checked_before_the_images_are_read(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    problem: str,
) -> None:
    def unreached(*_: object, **__: object) -> None:
        pytest.fail("the images are read")

    monkeypatch.setattr("mimic_core.features.filling.fill", unreached)
    reference = {key: changes[key] for key in ("reference",) if key in changes}
    settings = {key: value for key, value in changes.items() if key != "reference"}
    config = config_of(home, **settings).model_copy(update=reference)
    with pytest.raises((ConfigError, ModelError), match=problem):
        train(config, tmp_path)


def test_a_clip_models_image_tower_trains_on_labels(home: Path, tmp_path: Path) -> None:
    disk.write_model(tmp_path / "reference", seed=1)
    disk.write_model(tmp_path / "model", seed=2)
    config = config_of(home, head=None, model=str(tmp_path / "model")).model_copy(
        update={"reference": str(tmp_path / "reference"), "preprocess": None}
    )
    run = train(config, tmp_path / "runs")
    assert run.record.reference_head is not None
    assert run.record.reference_head.origin == "zero_shot"
    assert run.record.mimic_layers == ("head.weight",)
    table = run_table(run)
    assert table["clip_score"].null_count() == 0
    assert run.record.samples == COUNT


def test_a_deeper_mimic_layer_trains_on_labels(home: Path, tmp_path: Path) -> None:
    layer = "blocks.5.mlp.fc2.weight"
    run = train(config_of(home, mimic_layers=(layer,), epochs=1), tmp_path)
    assert run.record.mimic_layers == (layer,)
    assert run.record.self_check["relative_difference"] < 1e-4


@pytest.mark.parametrize("layers", [(), ("blocks.5.mlp.fc2.weight",)], ids=["head", "deeper"])
def test_two_processes_train_as_one(layers: tuple[str, ...], home: Path, tmp_path: Path) -> None:
    config = config_of(
        home, mimic_layers=layers, weighting="agra", optimiser="sgd", momentum=0.0, epochs=1,
        held_out_column="split=test",
    )  # fmt: skip
    one = train(config, tmp_path / "one")
    two = train_by_two(config, one.id, tmp_path)
    assert_alike(one, two)
    assert one.scores()["correct"].equals(two.scores()["correct"])
