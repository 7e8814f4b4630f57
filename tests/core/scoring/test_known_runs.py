"""The direction check on runs whose truth is known: small, and the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimic_core.base.config import HeadConfig, ProbeConfig, RunConfig, SourceConfig, TrainConfig
from mimic_core.base.draws import draw_batches, uid_words
from mimic_core.base.schema import SCHEMA_VERSION, ScoreBatch
from mimic_core.features.loading import LoadedBatch
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.record import DirectionCheck, RunRecord
from mimic_core.runs.run import Run, start_run
from mimic_core.scoring.direction import POSITIONS, finish_scores
from mimic_core.scoring.labels.class_head import HEAD_FILE, ClassHead, store_class_head
from mimic_core.scoring.labels.logistic import fit_logistic
from mimic_core.scoring.labels.probe import LabelProbe
from mimic_core.scoring.training.objectives import LabelObjective
from mimic_core.scoring.training.optimisation import Updater
from mimic_core.scoring.training.planting import Planting
from mimic_core.scoring.training.step import Aids, Learner, visit_batch
from mimic_core.stats.detection import auroc
from tests.core.feature_sets import write_features

CLASSES = tuple(map(str, range(6)))
SAMPLES, WIDTH, SPREAD = 1200, 24, 1.1


class Pool:
    """Features around the centres of six classes; ``rate`` of the labels are of another class."""

    def __init__(self, path: Path, rate: float) -> None:
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(len(CLASSES), WIDTH))

        def draw(truth: np.ndarray) -> np.ndarray:
            spread = SPREAD * rng.normal(size=(len(truth), WIDTH))
            found: np.ndarray = (centres[truth] + spread).astype(np.float16)
            return found

        self.trusted = rng.integers(0, len(CLASSES), SAMPLES)
        self.seen = torch.from_numpy(draw(self.trusted)).float()
        truth = rng.integers(0, len(CLASSES), SAMPLES)
        self.wrong = rng.random(SAMPLES) < rate
        moved = (truth + rng.integers(1, len(CLASSES), SAMPLES)) % len(CLASSES)
        self.labels = np.where(self.wrong, moved, truth)
        self.features = write_features(
            path,
            {"image_features": draw(truth)},
            columns={"label": [CLASSES[label] for label in self.labels]},
            task="labels",
        )

    def head(self, length: float = 1.0) -> ClassHead:
        """A reference head from trusted samples, scaled."""
        fit = fit_logistic(
            lambda rows: self.seen[torch.from_numpy(rows)],
            self.trusted,
            classes=len(CLASSES),
            width=WIDTH,
            weight_decay=1e-2,
        )
        return ClassHead(CLASSES, length * fit.weight, length * fit.bias)


def _run(root: Path, features: FeatureSet, head: ClassHead, config: RunConfig) -> Run:
    record = RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id="known",
        status="running",
        created_at="2026-01-01T00:00:00+00:00",
        config=config,
        feature_set=features.id,
    )
    run = start_run(root, record)
    store_class_head(run.path / HEAD_FILE, head)
    return run


def _config(**mode: ProbeConfig | TrainConfig) -> RunConfig:
    source = SourceConfig(path="pool", task="labels")
    return RunConfig(source=source, reference="timm:x", head=HeadConfig(file="x"), **mode)  # type: ignore[arg-type]


def _probed(pool: Pool, head: ClassHead, config: ProbeConfig, root: Path) -> Run:
    run = _run(root, pool.features, head, _config(probe=config))
    probe = LabelProbe(pool.features, head, config)
    segment = probe.segment_losses(POSITIONS)
    for epoch in range(config.epochs):
        run.write_epoch(epoch, probe.uids, probe.run(epoch))
    return finish_scores(run, pool.features, segment, self_check=0.0)


def _check(run: Run) -> DirectionCheck:
    assert run.record.direction_check is not None
    return run.record.direction_check


def _truth(pool: Pool, run: Run) -> list[float | None]:
    """AUROC of each epoch's scores for wrong labels."""
    parts = run.stored_scores().partition_by("epoch", maintain_order=True)
    return [auroc(-part["mimic_score"], pool.wrong) for part in parts]


def test_a_good_reference_is_good_whatever_the_loss_on_wrong_labels(tmp_path: Path) -> None:
    """Two labels in five are wrong, so the mean loss rises on the way to a confident reference."""
    pool = Pool(tmp_path / "features", 0.4)
    config = ProbeConfig(epochs=3, temperature=1.0)
    run = _probed(pool, pool.head(length=3.0), config, tmp_path / "runs")
    check = _check(run)
    assert check.segment[-1][1] > check.segment[0][1]
    truth = _truth(pool, run)
    assert min(value for value in truth if value is not None) > 0.9
    assert check.level == "good"
    assert check.turns_at is None
    assert check.planted == SAMPLES
    # Of six classes a planted label is right for one in five of the wrong ones: w = 0.4 / 0.92.
    assert check.like_planted == pytest.approx(0.435, abs=0.06)
    for epoch, value in zip(check.epochs, truth, strict=True):
        assert epoch.figure == pytest.approx(value, abs=0.06)


def test_a_probe_that_overtakes_its_reference_is_not_good(tmp_path: Path) -> None:
    """The head outgrows a reference of small norm, and the order turns round; not in large batches,
    which make fewer steps.
    """
    pool = Pool(tmp_path / "features", 0.2)
    config = ProbeConfig(epochs=5, batch_size=32, temperature=1.0)
    run = _probed(pool, pool.head(length=0.2), config, tmp_path / "small")
    check = _check(run)
    assert _truth(pool, run) == pytest.approx([0.99, 0.97, 0.70, 0.20, 0.06], abs=0.03)
    assert (check.level, check.turns_at, check.use_epochs) == ("caution", 3, 3)
    assert "turn round in epoch 4 of 5" in check.verdict
    assert (
        "Use epochs 1-3 only, which is sound, or score again with a larger batch" in check.verdict
    )
    larger = config.model_copy(update={"batch_size": 512})
    assert _check(_probed(pool, pool.head(length=0.2), larger, tmp_path / "large")).level == "good"


def test_another_order_of_classes_is_bad_and_a_random_head_is_never_good(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "features", 0.3)
    config, good = ProbeConfig(epochs=2, temperature=1.0), pool.head()
    shuffled = ClassHead(CLASSES, good.weight.roll(1, 0), good.bias)
    assert _check(_probed(pool, shuffled, config, tmp_path / "shuffled")).level == "bad"
    weight = torch.randn(good.weight.shape, generator=torch.Generator().manual_seed(0))
    drawn = ClassHead(CLASSES, weight * good.weight.std(), torch.zeros(len(CLASSES)))
    found = _check(_probed(pool, drawn, config, tmp_path / "drawn"))
    assert found.level in ("bad", "unknown")


# --- whole models ---


class Network(nn.Module):
    """One hidden layer, with the methods of timm's models."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.hidden = nn.Linear(WIDTH, 32)
            self.head = nn.Linear(32, len(CLASSES))

    def forward_features(self, pixels: Tensor) -> Tensor:
        return F.relu(self.hidden(pixels))

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        return features if pre_logits else self.head(features)  # type: ignore[no-any-return]

    def get_classifier(self) -> nn.Linear:
        return self.head


def _learned(pool: Pool) -> Network:
    """A network that has learned the trusted samples by heart."""
    module, labels = Network(seed=0), torch.from_numpy(pool.trusted)
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(200):
        optimiser.zero_grad()
        logits = module.forward_head(module.forward_features(pool.seen))
        F.cross_entropy(logits, labels).backward()
        optimiser.step()
    return module


def test_a_training_towards_another_networks_layer_is_bad(tmp_path: Path) -> None:
    """The last layers of two networks mean different things: the better the model gets, the more
    its scores run the wrong way.
    """
    pool = Pool(tmp_path / "features", 0.3)
    reference, module = _learned(pool), Network(seed=7)
    pixels = torch.from_numpy(pool.features.array("image_features").read()).float()
    with torch.no_grad():
        features = reference.forward_features(pixels).half().numpy()
    labels = {"label": [CLASSES[label] for label in pool.labels]}
    seen = write_features(
        tmp_path / "seen", {"image_features": features}, columns=labels, task="labels"
    )
    head = ClassHead(CLASSES, reference.head.weight.detach(), reference.head.bias.detach())
    config = TrainConfig(model="-", temperature=1.0, learning_rate=3e-3, epochs=4)
    run = _run(tmp_path / "runs", seen, head, _config(training=config))
    epochs = _trained(module, reference, pixels, seen, config)
    for epoch, batches in enumerate(epochs):
        run.write_epoch(epoch, seen.samples["uid"], batches)
    run = finish_scores(run, seen, [1.0] * len(POSITIONS), self_check=0.0)
    truth = _truth(pool, run)
    assert truth[-1] is not None
    assert truth[-1] < 0.45
    assert _check(run).level == "bad"


def _trained(
    module: Network, reference: Network, pixels: Tensor, seen: FeatureSet, config: TrainConfig
) -> list[list[ScoreBatch]]:
    """The product's training step on features in memory."""
    samples, cpu = seen.samples, torch.device("cpu")
    words, names = uid_words(samples["uid"]), samples["label"].to_list()
    target = {"head.weight": reference.head.weight.detach()}
    learner = Learner(module, LabelObjective(CLASSES, cpu), target, config)
    planting = Planting(words, samples, CLASSES)
    parameters = dict(module.named_parameters())
    updater = Updater(parameters, config, total=10_000, device=cpu, precision="fp32")
    made: list[list[ScoreBatch]] = []
    for epoch in range(config.epochs):
        made.append([])
        for draw in draw_batches(words, batch_size=config.batch_size, seed=0, epoch=epoch):
            at, here = torch.from_numpy(draw.rows), torch.arange(len(draw.rows))
            some = [names[row] for row in draw.rows]
            tokens = torch.zeros(len(at), 0, dtype=torch.int64)
            batch = LoadedBatch(draw.rows, pixels[at], here, tokens, labels=list(some))
            visit = visit_batch(learner, batch, Aids(swap=planting.swap(draw, cpu)))
            updater.update()
            columns = (visit.losses, visit.mimic_scores, visit.mimic_weights)
            kept = [values[: draw.scored].numpy() for values in columns]
            assert visit.planted is not None
            planted = planting.planted(draw, visit.planted)
            rows = draw.rows[: draw.scored]
            made[-1].append(ScoreBatch(epoch, draw.step, rows, *kept, planted=planted))
    return made
