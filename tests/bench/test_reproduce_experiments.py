"""Each experiment of the reproduction on a few made-up samples: its figures by hand or by law."""

from __future__ import annotations

import importlib
import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from mimic_core.runs.history import History
from tests.places import ROOT


def bench(name: str) -> ModuleType:
    """A module of ``bench/``, which is a folder of scripts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "bench")
        return importlib.import_module(name)


images = bench("reproduce_images")
found_by = bench("reproduce_detection")
labels = bench("reproduce_labels")
members = bench("reproduce_members")
settings = bench("reproduce_settings")
networks = bench("reproduce_networks")
photographs = bench("reproduce_photographs")


def seen(count: int = 120, noise: float = 0.0) -> Any:
    """Three classes that their features tell apart; the reference's part, scored and test parts."""
    draw = np.random.default_rng(0)
    numbers = draw.integers(0, 3, count)
    features = torch.from_numpy(np.eye(3)[numbers] + noise * draw.normal(size=(count, 3))).float()
    given = images.Images("digits", features, numbers, {}, (40, 40), 3)
    return images.fitted(given, features, given.parts()[0])


def noisy(rate: float = 0.4) -> Any:
    (found,) = labels.noisy_labels(seen().images, (rate,), 0)
    return found


def history(scores: np.ndarray, weights: np.ndarray, batch: int) -> History:
    uids = pl.Series([f"{row:032x}" for row in range(scores.shape[1])])
    both = scores.astype(np.float32), weights.astype(np.float32)
    return History(uids, *both, -both[0], tuple(range(len(scores))), batch)


def test_a_reference_that_sees_every_class_finds_every_wrong_label() -> None:
    given, wrong = seen(), noisy()
    logits = given.logits(given.images.parts()[1])
    assert found_by.reference_orders(logits, wrong) == ("loss of the reference", 1.0)
    found = {one.binarise: one for one in found_by.reference_finds(logits, wrong)}
    assert found[found_by.DISAGREES].f1 == 1
    assert found[found_by.DISAGREES].kept == 1 - wrong.rate
    assert found["label issue"].f1 == 1


def test_ensembles_at_other_batches_are_named_and_are_majorities() -> None:
    wrong = noisy()
    scores = np.where(wrong.wrong, -1.0, 1.0)[None].repeat(3, 0)
    for batch, ways in ((32, 4), (256, 1)):
        weights = np.where(scores > 0, 1.5, 0.5) / batch
        found = list(found_by.ensembles_find(history(scores, weights, batch), wrong))
        assert len(found) == 6 * ways
        assert all(one.binarise.startswith("batch 256: ") == (batch == 256) for one in found)
        assert {one.f1 for one in found} == {1.0}


def test_every_weighting_is_compared_with_grad_mimic_by_seed() -> None:
    def row(noise: str, weighting: str, *values: float) -> dict[str, Any]:
        return {"noise": noise, "weighting": weighting, "accuracy": {"values": values}}

    tables = {
        "accuracy": [
            row("0.3", "mimic", 0.5, 0.6, 0.7),
            row("0.3", "rho", 0.6, 0.6, 0.6),
            row("worse", "mimic", 0.5),
            row("worse", "rho", 0.8),
        ]
    }
    first, second = labels.ahead({"digits": tables})
    assert (first["noise"], first["pairs"], first["ahead"], first["behind"]) == (
        "injected",
        3,
        1,
        1,
    )
    assert first["gain"] == pytest.approx(0)
    assert (second["noise"], second["ahead"], second["gain"]) == ("people's", 1, pytest.approx(0.3))


def test_half_of_the_scored_part_trains_and_differs_by_seed() -> None:
    first, second = (members.halved(11, seed) for seed in (0, 1))
    assert first.sum() == second.sum() == 5
    assert (first != second).any()


def test_members_are_told_by_a_head_that_has_learned_them_by_heart(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    given = seen()
    given = replace(given, features=torch.randn(120, 60, generator=draw))  # nothing but noise
    rows = {row["way"]: row["auroc"]["mean"]
            for row in members.members_row(given, 1e-4, (0, 1), tmp_path)["auroc"]}  # fmt: skip
    assert rows["loss of the reference"] > 0.95
    assert rows["mimic score, batch 32"] > 0.8
    assert rows["loss, plain training, less the reference's"] > 0.95
    assert abs(rows["loss, plain training"] - 0.5) < 0.2


def test_the_effective_share_of_a_batch_by_hand() -> None:
    scores = np.zeros((2, 8))
    assert settings.effective_share(history(scores, scores + 0.25, 4)) == pytest.approx(1)
    one = np.tile([1.0, 0, 0, 0], (2, 2))
    assert settings.effective_share(history(scores, one, 4)) == pytest.approx(0.25)


def test_temperatures_and_retention_have_a_row_for_each_setting(tmp_path: Path) -> None:
    given, wrong = seen(noise=0.1), noisy()
    heads = bench("reproduce_heads")
    made = heads.Heads.of(given, wrong.labels, tmp_path / "heads")
    base = heads.HeadSettings(epochs=3, learning_rate=0.1)
    rows = list(settings.temperature_figures(made, wrong, base, (1.0, 0.03)))
    shares = [value for key, name, value in rows if name == "effective share"]
    assert len(shares) == 2
    assert shares[0] > shares[1]  # a lower temperature leaves less of a batch
    assert sum(name == "accuracy" for _, name, _ in rows) == 1 + 2 * len(settings.WEIGHED)
    plan = settings.SettingsPlan(labels=labels.LabelPlan(seeds=(0,)), rates=(0.2, 0.5))
    row = settings.retention_row("made up", given, plan, tmp_path)
    assert row["accuracy"] == {"scored": 1.0, "test": 1.0}
    assert row["pearson"]["k-means on scores"] == pytest.approx(-1)


class _Tiny(nn.Module):
    """Two layers with the methods of timm's models; images are 2 x 2."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body, self.head = nn.Linear(12, 16), nn.Linear(16, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(pixels))

    def forward_features(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.body(pixels.flatten(1)).relu()
        return found

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        found: Tensor = features if pre_logits else self.head(features)
        return found

    def get_classifier(self) -> nn.Linear:
        return self.head


def coloured(count: int = 60) -> Any:
    numbers = np.arange(count) % 3
    pixels = torch.zeros(count, 3, 2, 2)
    pixels[torch.arange(count), torch.from_numpy(numbers)] = 1
    return images.Images("digits", pixels, numbers, {}, (20, 20), 3)


def test_a_network_is_trained_towards_a_reference_and_measured_on_the_rest() -> None:
    given, start = coloured(), _Tiny(0)
    both = images.features_of(start, given.pixels)
    fitted = images.fitted(given, both, given.parts()[0])
    reference = deepcopy(start)
    with torch.no_grad():
        reference.head.weight.copy_(fitted.weight)
        reference.head.bias.copy_(fitted.bias)
    _, scored, test = given.parts()
    held = networks.Held(given.pixels[torch.from_numpy(test)], given.labels[test])
    assert networks.reading(start, reference, held) == {
        "its own features": 1.0,
        "the model's features": 1.0,
    }
    (wrong,) = labels.noisy_labels(given, (0.3,), 0)
    pixels = given.pixels[torch.from_numpy(scored)]
    trained = bench("label_training").Given(pixels, wrong.labels, ("0", "1", "2"))
    plan = networks.NetworkPlan(epochs=2, batch_size=5)
    ways = (networks.PLAIN, networks.Way("mimic", "-", "all"), networks.Way("rho", "-", "all"))
    runs = [
        networks.trained(deepcopy(start), reference, trained, held, way, plan, 0) for way in ways
    ]
    assert [row["step"] for row in runs[0].curve] == [0, 2, 4, 6, 8]
    first = networks.figures(runs[0], runs[0], wrong.wrong)
    assert first["reached"] == 1
    assert networks.figures(runs[1], runs[0], wrong.wrong)["AUROC"] > 0.95
    fresh = networks.with_fresh_head(start, given, 1)
    assert float(fresh.head.bias.detach().abs().sum()) == 0
    assert torch.equal(fresh.body.weight, start.body.weight)


def test_a_layer_of_another_network_reads_nothing_of_this_ones_features() -> None:
    given = coloured(300)
    both = [_Tiny(seed) for seed in (0, 1)]
    for module in both:
        made = images.fitted(given, images.features_of(module, given.pixels), np.arange(300))
        with torch.no_grad():
            module.head.weight.copy_(made.weight)
            module.head.bias.copy_(made.bias)
    held = networks.Held(given.pixels, given.labels)
    found = networks.reading(both[0], both[1], held)
    assert found["its own features"] == 1
    assert found["the model's features"] < 1


def test_swapped_captions_of_well_described_images_are_found(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    captions = photographs.unit(draw.normal(size=(40, 8)))
    described = photographs.Described(captions, captions, np.eye(8))
    plan = photographs.PhotographPlan()
    found = dict(photographs.swapped_figures(described, 0.3, 0, plan, tmp_path))
    assert found["AUROC, CLIP score"] == 1
    assert found["AUROC, mimic score, batch 256"] > 0.85
    assert set(found) >= {"AUROC, loss, batch 32", "F1, mimic score, k-means, batch 32"}


def test_captions_of_the_reference_are_not_those_that_are_scored() -> None:
    draw = np.random.default_rng(0)
    words = ["red dog", "blue cat", "green bird", "old house"]
    texts = [[f"{words[row % 4]} runs", words[row % 4]] for row in range(40)]
    plan = photographs.PhotographPlan(reference=30, width=3, penalty=1.0)
    found = photographs.referred_captions(draw.normal(size=(40, 5)), texts, plan)
    assert found.images.shape == (10, 5)
    assert found.captions.shape == (10, 3)
    assert found.projection.shape == (3, 5)
    np.testing.assert_allclose(np.linalg.norm(found.captions, axis=1), 1)


def test_an_image_is_described_by_edges_a_thumbnail_and_colours(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (50, 40), (255, 0, 0)).save(tmp_path / "red.png")
    found = photographs.described_image(tmp_path / "red.png")
    edges, thumbnail, colours = np.split(found, [144, 192])
    assert not edges.any()
    assert thumbnail.reshape(16, 3).tolist() == [[1.0, 0.0, 0.0]] * 16
    assert np.square(colours).sum() == pytest.approx(1)


def test_drawings_are_whole_and_there_once() -> None:
    found = images.drawings()
    parts = found.images.parts()
    assert [len(part) for part in parts] == [700, 700, 500]
    assert found.images.classes == 18
    assert found.accuracy(parts[0]) > found.accuracy(parts[2]) > 0.7


def test_the_documentation_has_the_measured_tables() -> None:
    report = bench("reproduce_report")
    found = json.loads((ROOT / "bench" / "reproduce.json").read_text("utf-8"))
    lines = report.ahead_table(found["ahead"])
    for name, tables in found["labels"].items():
        lines += report.labels_tables(name, tables)
    for part, tables in report.PARTS.items():
        lines += tables(found[part]) if part in found else []
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) > 100
    pages = [ROOT / "docs" / name for name in ("reproduction.md", "ensembles.md")]
    written = {line for page in pages for line in page.read_text("utf-8").splitlines()}
    assert [row for row in rows if row not in written] == []


def test_the_ensembles_page_has_what_is_found_of_peoples_labels() -> None:
    report = bench("reproduce_report")
    found = json.loads((ROOT / "bench" / "reproduce.json").read_text("utf-8"))
    lines = report.peoples_table(found["labels"]["cifar10n"])
    assert len(lines) == 17  # two lines of head, fifteen filters
    assert "\n".join(lines) in (ROOT / "docs" / "ensembles.md").read_text("utf-8")


def test_other_parts_of_a_file_stay_unless_they_are_of_other_libraries() -> None:
    beside = bench("reproduce").beside
    before = {
        "quick": False,
        "machine": {"torch": "1"},
        "cpu": {"a": 1},
        "seconds": {"a": 2},
        "a": 3,
    }
    now = {"quick": False, "machine": {"torch": "1"}, "cpu": {"b": 4}, "seconds": {"b": 5}, "b": 6}
    both = beside(before, now)
    assert (both["a"], both["b"], both["cpu"], both["seconds"]) == (
        3,
        6,
        {"a": 1, "b": 4},
        {"a": 2, "b": 5},
    )
    with pytest.raises(SystemExit, match=r"another machine: .*'2'"):
        beside(before, {**now, "machine": {"torch": "2"}})


@pytest.mark.slow
def test_a_quick_run_goes_through_every_experiment() -> None:
    threads = torch.get_num_threads()
    parts = ["members", "temperatures", "retention", "networks", "photographs", "fine_tuning"]
    try:
        found = bench("reproduce").main(["--quick", "--processes", "1", "--only", *parts])
    finally:
        torch.set_num_threads(threads)
    left_out = {text.split(":")[0] for text in found["missing"]}
    assert set(parts) <= {*found, *left_out}
    assert [row["way"] for row in found["members"]["digits"][0]["auroc"]][:1] == [
        "mimic score, batch 32"
    ]
    assert {row["way"] for row in found["fine_tuning"]["training"]} >= {"plain"}
