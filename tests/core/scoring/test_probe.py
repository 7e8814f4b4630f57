"""Probe mode against an independent replay: an ordinary module, autograd and torch's own AdamW."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mimic_core.base.config import LossName, Method, ProbeConfig, Side, WeightingName
from mimic_core.base.draws import draw_batches, fitting_batch_size, uid_words
from mimic_core.base.errors import ConfigError, RunError, ScoreError
from mimic_core.base.schema import ScoreBatch
from mimic_core.features.stored import read_ends, store_ends
from mimic_core.mimic import scores as mimic
from mimic_core.mimic.contrastive import ScoredLogits
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.run import epoch_frame
from mimic_core.scoring import learner, probe
from mimic_core.scoring.probe import Probe
from mimic_core.scoring.tuning import tune
from tests.core import oracle
from tests.core.feature_sets import Towers, feature_set
from tests.core.scoring_pool import uid_of

CONFIG = ProbeConfig(epochs=4, batch_size=16, learning_rate=3e-3, weight_decay=1e-2)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[LossName, FeatureSet]:
    """50 samples in two shards, for both losses."""
    root = tmp_path_factory.mktemp("features")
    return {
        "clip": feature_set(root / "clip"),
        "siglip": feature_set(root / "siglip", siglip=True),
    }


def all_batches(features: FeatureSet, config: ProbeConfig) -> Iterator[ScoreBatch]:
    """Of all epochs, in order."""
    scorer = Probe(features, config)
    return (batch for epoch in range(config.epochs) for batch in scorer.run(epoch))


# --- the replay ---


class _Tower(nn.Module):
    """The frozen tower's end: a linear map of given features, in float64."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.linear = nn.Linear(*weight.shape, bias=bias is not None, dtype=torch.float64)
        with torch.no_grad():
            self.linear.weight.copy_(weight.T)
            if bias is not None:
                self.linear.bias.copy_(bias)
        if bias is not None:
            self.linear.bias.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        raw = self.linear(features)
        return raw / raw.norm(dim=1, keepdim=True)


@dataclass
class _Visit:
    loss: np.ndarray
    score: np.ndarray
    weight: np.ndarray


def _replay(
    features: FeatureSet, config: ProbeConfig, start: Tensor, batches: list[list[np.ndarray]]
) -> list[list[_Visit]]:
    """Grad-Mimic from the definition: a gradient per sample, then a weighted backward and AdamW."""
    ends = read_ends(features)
    projection = ends.projections[config.side]
    model = _Tower(start, projection.bias)
    target = projection.weight.T.double()
    other = "text" if config.side == "image" else "image"
    inputs = torch.from_numpy(features.array(f"{config.side}_features").read()).double()
    others = torch.from_numpy(features.array(f"{other}_embedding").read()).double()
    optimiser = torch.optim.AdamW(
        [model.linear.weight], lr=config.learning_rate, weight_decay=config.weight_decay
    )
    scale, bias = torch.tensor(ends.scaling.scale), torch.tensor(ends.scaling.bias)
    visits: list[list[_Visit]] = []
    for epoch in batches:
        visits.append([])
        for rows in epoch:
            unit, fixed = model(inputs[rows]), others[rows]
            image, text = (unit, fixed) if config.side == "image" else (fixed, unit)
            losses = (
                oracle.contrastive_losses(image, text, scale)
                if ends.scaling.loss == "clip"
                else oracle.sigmoid_losses(image, text, scale, bias)
            )
            direction = target - model.linear.weight.detach()
            scores = []
            for loss in losses:
                (gradient,) = torch.autograd.grad(loss, model.linear.weight, retain_graph=True)
                score = -(gradient * direction).sum() / direction.norm()
                scores.append(score / gradient.norm() if config.method == "cos" else score)
            score = torch.stack(scores)
            weights = torch.exp(score / config.temperature)
            weights = weights / weights.sum()
            used = (
                weights if config.weighting == "mimic" else torch.full_like(weights, 1 / len(rows))
            )
            optimiser.zero_grad()
            (used * losses).sum().backward()
            optimiser.step()
            visits[-1].append(_Visit(*(v.detach().numpy() for v in (losses, score, weights))))
    return visits


def _compositions(epochs: list[list[ScoreBatch]], size: int) -> list[list[np.ndarray]]:
    """Whole batches from the counted rows: the last is filled from the head of its epoch."""
    whole = []
    for epoch in epochs:
        order = np.concatenate([batch.rows for batch in epoch])
        whole.append([order[i : i + size] for i in range(0, len(order), size)])
        short = size - len(whole[-1][-1])
        whole[-1][-1] = np.concatenate([whole[-1][-1], order[:short]])
    return whole


REPLAYS: list[tuple[LossName, Side, Method, WeightingName]] = [
    ("clip", "image", "proj", "mimic"),
    ("clip", "image", "cos", "mimic"),
    ("clip", "text", "proj", "mimic"),
    ("clip", "image", "proj", "uniform"),
    ("siglip", "image", "proj", "mimic"),
    ("siglip", "text", "cos", "mimic"),
]


@pytest.mark.parametrize(("loss", "side", "method", "weighting"), REPLAYS)
def test_every_score_of_every_epoch_equals_the_replay(
    sets: dict[LossName, FeatureSet],
    loss: LossName,
    side: Side,
    method: Method,
    weighting: WeightingName,
) -> None:
    config = CONFIG.model_copy(
        update={"side": side, "method": method, "weighting": weighting, "temperature": 0.2}
    )
    scorer = Probe(sets[loss], config)
    start = scorer.weight.clone()
    ours = [list(scorer.run(epoch)) for epoch in range(config.epochs)]
    truth = _replay(sets[loss], config, start.double(), _compositions(ours, config.batch_size))
    for epoch, expected in zip(ours, truth, strict=True):
        assert [batch.step for batch in epoch] == [0, 1, 2, 3]
        for batch, visit in zip(epoch, expected, strict=True):
            counted = len(batch.rows)
            scale = np.abs(visit.score).max()
            np.testing.assert_allclose(batch.loss, visit.loss[:counted], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(
                batch.mimic_score, visit.score[:counted], rtol=0, atol=2e-4 * scale
            )
            np.testing.assert_allclose(batch.mimic_weight, visit.weight[:counted], rtol=2e-3)
    assert len(ours[0][-1].rows) == 50 - 3 * 16  # the filled-up rest is trained on, not counted
    assert float((scorer.weight - start).abs().max()) > 1e-3  # it was trained


@pytest.mark.parametrize(("loss", "side", "method", "weighting"), REPLAYS)
def test_planted_scores_are_those_of_a_batch_with_one_caption_of_another(
    sets: dict[LossName, FeatureSet],
    loss: LossName,
    side: Side,
    method: Method,
    weighting: WeightingName,
) -> None:
    features = sets[loss]
    config = CONFIG.model_copy(update={"side": side, "method": method, "weighting": weighting})
    scorer = Probe(features, config)
    captions = features.samples["caption"]
    steps = scorer.run(0)
    for _ in range(2):  # full batches alone: the rows that fill the last one are not told
        weight = scorer.weight.clone()
        batch = next(steps)
        assert batch.planted is not None
        assert sorted(batch.planted.rows) == sorted(batch.rows)
        for k in (0, 5, 11):
            row, other = int(batch.planted.rows[k]), int(batch.planted.partners[k])
            assert captions[row] != captions[other]
            place = int(np.flatnonzero(batch.rows == row)[0])
            truth = _planted(features, config, weight, batch.rows, place, other)
            assert batch.planted.scores[k] == pytest.approx(truth, rel=1e-3, abs=1e-5)


def _planted(
    features: FeatureSet,
    config: ProbeConfig,
    weight: Tensor,
    rows: np.ndarray,
    place: int,
    other: int,
) -> float:
    """The score of one sample with the frozen side of another, from the definition."""
    ends = read_ends(features)
    projection = ends.projections[config.side]
    model = _Tower(weight.double(), projection.bias)
    frozen = "text" if config.side == "image" else "image"
    inputs = torch.from_numpy(features.array(f"{config.side}_features").read()).double()
    others = torch.from_numpy(features.array(f"{frozen}_embedding").read()).double()
    fixed = others[rows].clone()
    fixed[place] = others[other]
    image, text = (model(inputs[rows]), fixed)
    if config.side == "text":
        image, text = text, image
    scale, bias = torch.tensor(ends.scaling.scale), torch.tensor(ends.scaling.bias)
    losses = (
        oracle.contrastive_losses(image, text, scale)
        if ends.scaling.loss == "clip"
        else oracle.sigmoid_losses(image, text, scale, bias)
    )
    (gradient,) = torch.autograd.grad(losses[place], model.linear.weight)
    direction = projection.weight.T.double() - model.linear.weight.detach()
    score = -(gradient * direction).sum() / direction.norm()
    return float(score / gradient.norm() if config.method == "cos" else score)


def test_the_first_step_is_exact(sets: dict[LossName, FeatureSet]) -> None:
    for loss, features in sets.items():
        scorer = Probe(features, CONFIG)
        start = scorer.weight.clone()
        batch = next(scorer.run(0))
        truth = _replay(features, CONFIG, start.double(), [[batch.rows]])[0][0]
        scores = torch.from_numpy(batch.mimic_score)
        assert oracle.relative_difference(scores, torch.from_numpy(truth.score)) <= 1e-5, loss
        assert batch.mimic_score.dtype == batch.loss.dtype == np.float32


def test_uniform_weighting_trains_on_the_mean_and_still_logs_mimic_weights(
    sets: dict[LossName, FeatureSet],
) -> None:
    uniform = CONFIG.model_copy(update={"weighting": "uniform", "epochs": 1})
    batches = list(all_batches(sets["clip"], uniform))
    mimic_run = list(all_batches(sets["clip"], CONFIG.model_copy(update={"epochs": 1})))
    assert np.array_equal(batches[0].mimic_weight, mimic_run[0].mimic_weight)
    assert not np.array_equal(batches[1].mimic_score, mimic_run[1].mimic_score)
    assert float(batches[0].mimic_weight.sum()) == pytest.approx(1, abs=1e-5)


# --- batches ---


def _by_uid(features: FeatureSet, config: ProbeConfig) -> dict[str, list[tuple[float, ...]]]:
    frame = tune(features, config)
    found: dict[str, list[tuple[float, ...]]] = {}
    for row in frame.sort("uid", "epoch").iter_rows():
        found.setdefault(row[0], []).append(row[1:])
    return found


def test_scores_do_not_depend_on_the_order_or_the_shards_of_the_pool(tmp_path: Path) -> None:
    plain = _by_uid(feature_set(tmp_path / "a"), CONFIG)
    moved = _by_uid(feature_set(tmp_path / "b", shuffle=5, shards=7), CONFIG)
    assert plain == moved  # to the last bit


def test_batches_depend_on_seed_epoch_and_uid_alone() -> None:
    uids = np.array([uid_of(n) for n in range(40)])

    def batches(order: np.ndarray, seed: int, epoch: int) -> list[list[str]]:
        words = uid_words(list(uids[order]))
        draws = draw_batches(words, batch_size=12, seed=seed, epoch=epoch)
        return [list(uids[order][draw.rows]) for draw in draws]

    plain = batches(np.arange(40), 0, 0)
    shuffled = np.random.default_rng(0).permutation(40)
    assert batches(shuffled, 0, 0) == plain
    assert batches(np.arange(40), 0, 1) != plain
    assert batches(np.arange(40), 1, 0) != plain
    assert batches(np.arange(40), 1, 0) != batches(np.arange(40), 0, 1)


@pytest.mark.parametrize(("samples", "size"), [(40, 12), (40, 40), (36, 12), (13, 12), (2, 2)])
def test_every_sample_is_counted_once_and_every_batch_is_full(samples: int, size: int) -> None:
    words = uid_words([uid_of(n) for n in range(samples)])
    draws = list(draw_batches(words, batch_size=size, seed=0, epoch=0))
    counted = np.concatenate([draw.rows[: draw.scored] for draw in draws])
    assert sorted(counted) == list(range(samples))
    assert {len(draw.rows) for draw in draws} == {size}
    assert [draw.step for draw in draws] == list(range(len(draws)))
    last = draws[-1]
    assert list(last.rows[last.scored :]) == list(draws[0].rows[: size - last.scored])
    assert len(set(last.rows)) == size  # no sample meets itself


def test_a_small_pool_is_one_batch_and_a_single_sample_is_refused() -> None:
    assert fitting_batch_size(256, 50) == 50
    assert fitting_batch_size(16, 50) == 16
    with pytest.raises(ScoreError) as caught:
        fitting_batch_size(256, 1)
    assert "got 1" in str(caught.value)
    assert "at least 2" in str(caught.value)


def test_a_pool_smaller_than_the_batch_is_scored(tmp_path: Path) -> None:
    batches = list(all_batches(feature_set(tmp_path / "f", samples=5), ProbeConfig(epochs=2)))
    assert [len(batch.rows) for batch in batches] == [5, 5]


# --- repeatability ---


def test_tune_repeats_itself_and_changes_with_every_setting(
    sets: dict[LossName, FeatureSet],
) -> None:
    base = tune(sets["clip"], CONFIG)
    assert tune(sets["clip"], CONFIG).equals(base)
    assert base["epoch"].to_list() == [e for e in range(4) for _ in range(50)]
    assert base["uid"].to_list() == sets["clip"].samples["uid"].to_list() * 4
    for change in (
        {"seed": 1},
        {"temperature": 0.5},
        {"batch_size": 17},
        {"learning_rate": 1e-2},
        {"weight_decay": 0.5},
        {"side": "text"},
        {"method": "cos"},
        {"weighting": "uniform"},
    ):
        other = tune(sets["clip"], CONFIG.model_copy(update=change))
        assert not other["mimic_score"].equals(base["mimic_score"]), change


def test_reading_batch_by_batch_gives_the_same_bytes(
    sets: dict[LossName, FeatureSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tune(sets["clip"], CONFIG)
    monkeypatch.setattr("mimic_core.features.stored.IN_MEMORY_BYTES", 0)
    assert tune(sets["clip"], CONFIG).equals(held)


def test_the_seed_of_torch_has_no_part_in_it(sets: dict[LossName, FeatureSet]) -> None:
    torch.manual_seed(1)
    first = tune(sets["clip"], CONFIG)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert tune(sets["clip"], CONFIG).equals(first)
    assert torch.equal(torch.get_rng_state(), state)


# --- checks and errors ---


def test_self_check_is_small_and_sees_a_wrong_score(
    sets: dict[LossName, FeatureSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    for features in sets.values():
        for method in ("proj", "cos"):
            config = CONFIG.model_copy(update={"method": method})
            assert 0 <= Probe(features, config).self_check() < 1e-5, method
    right = probe.score_logits

    def wrong(*args: object, **kwargs: object) -> ScoredLogits:
        scored = right(*args, **kwargs)  # type: ignore[arg-type]
        return replace(scored, scores=-scored.scores)

    monkeypatch.setattr(probe, "score_logits", wrong)
    assert Probe(sets["clip"], CONFIG).self_check() > 0.1


def test_checks_never_build_the_logits_of_all_pairs(
    sets: dict[LossName, FeatureSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the largest batch they would take 17 GB."""

    def all_pairs(*_: object) -> None:
        raise AssertionError("all pairs at once")

    for features in sets.values():
        scorer = Probe(features, CONFIG)
        segment = scorer.segment_losses((0.0, 1.0))
        monkeypatch.setattr(probe, "contrastive_losses", all_pairs)
        assert scorer.self_check() < 1e-5
        assert scorer.segment_losses((0.0, 1.0)) == segment
        monkeypatch.setattr(learner, "SEGMENT_SAMPLES", CONFIG.batch_size)
        assert scorer.segment_losses((0.0, 1.0)) == scorer.segment_losses((0.0, 1.0), batches=1)
        monkeypatch.undo()


def test_segment_runs_from_the_fresh_projection_to_the_reference(
    sets: dict[LossName, FeatureSet],
) -> None:
    features = sets["clip"]
    scorer = Probe(features, CONFIG.model_copy(update={"batch_size": 50}))
    first, middle, last = scorer.segment_losses((0.0, 0.5, 1.0))
    images = torch.from_numpy(features.array("image_features").read()).double()
    texts = torch.from_numpy(features.array("text_embedding").read()).double()
    ends = read_ends(features)
    target = ends.projections["image"].weight.double()
    for position, ours in ((0.0, first), (0.5, middle), (1.0, last)):
        weight = (1 - position) * scorer.weight.double() + position * target
        raw = images @ weight
        unit = raw / raw.norm(dim=1, keepdim=True)
        losses = oracle.contrastive_losses(unit, texts, torch.tensor(ends.scaling.scale))
        assert ours == pytest.approx(float(losses.mean()), rel=1e-4)


def test_a_side_without_projection_is_refused(tmp_path: Path) -> None:
    features = feature_set(tmp_path / "f")
    (features.path / "head.safetensors").unlink()
    towers = Towers(12, 8, siglip=False, seed=0)
    store_ends(features, towers, ("text",))
    with pytest.raises(ConfigError) as caught:
        Probe(features, CONFIG)
    assert "image" in str(caught.value)
    assert "allowed: text" in str(caught.value)


def test_cos_above_its_limit_names_both_numbers(
    sets: dict[LossName, FeatureSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mimic, "COS_MAX_BATCH", 8)
    with pytest.raises(ScoreError) as caught:
        list(all_batches(sets["clip"], CONFIG.model_copy(update={"method": "cos"})))
    assert "got 16" in str(caught.value)
    assert "at most 8" in str(caught.value)


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    features = feature_set(tmp_path / "f", samples=20, shards=1)
    file = features.array_file("00000", "image_features")
    array = np.load(file)
    array[3, 0] = np.inf
    np.save(file, array)
    with pytest.raises(ScoreError, match="not finite"):
        list(all_batches(FeatureSet.open(features.path), CONFIG))


def test_epoch_frame_refuses_a_sample_that_was_not_visited_once(
    sets: dict[LossName, FeatureSet],
) -> None:
    features = sets["clip"]
    batches = list(Probe(features, CONFIG).run(0))
    with pytest.raises(RunError, match="not exactly once"):
        epoch_frame(0, features.samples["uid"], batches[1:])
    with pytest.raises(RunError, match="2 visits"):
        epoch_frame(0, features.samples["uid"], [*batches, replace(batches[0], step=9)])
