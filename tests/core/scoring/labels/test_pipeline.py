"""Labelled pools from files to finished runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from open_clip import build_zero_shot_classifier

from mimic_core.base import files
from mimic_core.base.config import RunConfig
from mimic_core.base.errors import ConfigError, ModelError, SourceError
from mimic_core.base.progress import Silent
from mimic_core.base.schema import JUDGED_COLUMNS
from mimic_core.export import export
from mimic_core.export.settings import ExportConfig
from mimic_core.filters.recipe import Recipe, apply
from mimic_core.models.load import load_model
from mimic_core.runs import report
from mimic_core.runs.layout import MapConfig, ensure_map
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table
from mimic_core.scoring.labels import stored
from mimic_core.scoring.labels.class_head import ClassHead, store_class_head
from mimic_core.scoring.pipeline import score_pool
from mimic_core.scoring.tuning import estimate_seconds, tune_run
from tests.core import checkpoints_on_disk as disk
from tests.core.forked import forked_loaders
from tests.core.scoring_pool import CLASSES, write_class_folders
from tests.core.sources_pools import write_files
from tests.places import CIFAR

__all__ = ["forked_loaders"]  # a fixture

needs_cifar = pytest.mark.skipif(not CIFAR.exists(), reason="needs ../shared/data (CIFAR-10N)")
PROBE: dict[str, Any] = {"epochs": 2, "batch_size": 16, "temperature": 1.0}
TRUSTED = {"trusted": "40%"}
TINY = "timm:test_resnet:random:0"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_class_folders(folder / "pool")
    disk.write_model(folder / "clip")
    return folder


def config_of(home: Path, reference: str = TINY, **changes: Any) -> RunConfig:
    pool = {"path": str(home / "pool"), **changes.pop("source", {})}
    values = {"source": pool, "reference": reference, "probe": PROBE, **changes}
    config: RunConfig = RunConfig.parse(values)
    return config


def scored(config: RunConfig, root: Path, **options: Any) -> Run:
    return score_pool(config, runs_root=root, device="cpu", **{"workers": 0, **options})


@pytest.fixture(scope="module")
def trusted_run(home: Path) -> Run:
    return scored(config_of(home, head=TRUSTED), home / "runs")


@pytest.fixture(scope="module")
def clip_run(home: Path) -> Run:
    return scored(config_of(home, str(home / "clip")), home / "runs")


def test_a_run_on_trusted_labels(trusted_run: Run) -> None:
    run = open_run(trusted_run.path)
    record = run.record
    assert (record.samples, record.skipped, record.held_out) == (22, 1, 14)
    assert len(run_table(run)) == record.samples
    assert record.mimic_layers == ("head.weight",)
    assert record.reference_head is not None
    head = record.reference_head
    assert (head.origin, head.trusted, head.scored, head.disjoint) == ("trusted", 14, 22, True)
    assert record.self_check["relative_difference"] < 1e-4
    assert record.direction_check is not None
    assert record.direction_check.rank_with_clip_score is None
    scores = run.scores()
    assert scores.columns[-2:] == ["train_weight", "correct"]
    assert set(scores["uid"]) & set(run.held_out) == set()
    assert set(scores["uid"]) | set(run.held_out) == set(run.features.samples["uid"])
    assert run.scores().equals(tune_run(run, run.record.config.probe))  # type: ignore[arg-type]
    assert estimate_seconds(run, run.record.config.probe) > 0  # type: ignore[arg-type]
    told = "\n".join(report.as_lines(run))
    assert "trained on 14 trusted samples" in told
    assert "14 (held out, or trusted)" in told


def test_the_table_has_labels_and_what_the_reference_says(trusted_run: Run) -> None:
    table = run_table(trusted_run)
    assert len(table) == 22
    assert table["caption"].null_count() == table["clip_score"].null_count() == 22
    assert set(table["label"]) == set(CLASSES)
    assert table["correct_share"].is_between(0, 1).all()
    agreed = (table["label"] == table["reference_label"]).mean()
    assert trusted_run.record.reference_head is not None
    assert trusted_run.record.reference_head.accuracy == pytest.approx(agreed)
    skipped = pl.read_parquet(trusted_run.path / "skipped.parquet")
    assert skipped.select("key", "reason").rows() == [("cat/broken.png", "corrupt_image")]


def test_the_table_says_what_the_head_makes_of_each_label(trusted_run: Run) -> None:
    table = run_table(trusted_run)
    assert {name: table.schema[name] for name in JUDGED_COLUMNS} == JUDGED_COLUMNS
    assert table.select(JUDGED_COLUMNS.keys()).null_count().row(0) == (0, 0, 0)
    agrees = table["label"] == table["reference_label"]
    assert table["reference_agrees"].to_list() == agrees.to_list()
    # The likeliest of three classes has a loss of at most log 3.
    assert (table["reference_loss"].filter(agrees) <= np.log(3)).all()
    assert not (table["label_issue"] & agrees).any()
    recipe = Recipe.from_tree(
        {
            "conditions": [
                {
                    "name": "agrees",
                    "condition": {
                        "kind": "category",
                        "column": "reference_agrees",
                        "values": [True],
                    },
                }
            ]
        }
    )
    assert apply(recipe, table).kept == agrees.sum()


def test_a_run_without_judgements_is_read_and_gains_them_when_scored_again(
    home: Path, trusted_run: Run, tmp_path: Path
) -> None:
    shutil.copytree(trusted_run.path.parent, tmp_path / "runs")
    run = open_run(tmp_path / "runs" / trusted_run.id)
    file = run.path / "reference_labels.parquet"
    whole, scores = pl.read_parquet(file), run.scores()
    files.write_parquet(file, whole.drop(JUDGED_COLUMNS.keys()))
    before = run_table(run)
    assert before.equals(run_table(trusted_run).drop(JUDGED_COLUMNS.keys()))
    scored(config_of(home, head=TRUSTED), tmp_path / "runs")
    assert pl.read_parquet(file).equals(whole)
    assert run.scores().equals(scores)


def test_zero_shot_scores_equal_open_clip_computed_by_hand(home: Path, clip_run: Run) -> None:
    record = clip_run.record.reference_head
    assert record is not None
    assert (record.origin, record.prompts) == ("zero_shot", ("a photo of a {}",))
    model = load_model(str(home / "clip"))
    words = build_zero_shot_classifier(
        model.module,
        model.tokenizer,
        list(CLASSES),
        [lambda name: f"a photo of a {name}"],
        num_classes_per_batch=None,
        device="cpu",
    )  # (D, C)
    table = run_table(clip_run)
    from mimic_core.features.loading import SampleLoader
    from mimic_core.models.preprocessing import image_transform

    loader = SampleLoader(home / "pool", image_transform(model.preprocessing), None)
    samples = clip_run.features.samples
    batch = loader.load(samples)
    with torch.no_grad():
        image = F.normalize(model.module.encode_image(batch.images), dim=-1)  # type: ignore[operator]
    cosines = image @ words
    numbers = torch.tensor([CLASSES.index(name) for name in samples["label"]])
    own = cosines[torch.arange(len(numbers)), numbers]
    np.testing.assert_allclose(samples["clip_score"].to_numpy(), own.numpy(), atol=1e-5)
    guessed = [CLASSES[n] for n in cosines.argmax(1)]
    same = sum(a == b for a, b in zip(guessed, table["reference_label"], strict=True))
    assert same >= 34  # float16 features may turn a tie
    head = stored.read_class_head(clip_run.path / "reference_head.safetensors", width=24, labels=())
    scale = float(model.module.logit_scale.exp())  # type: ignore[operator,union-attr]
    torch.testing.assert_close(head.weight, scale * words.T, rtol=1e-4, atol=1e-4)
    assert not head.bias.any()


def test_prompts_are_another_feature_set_and_another_run(home: Path, clip_run: Run) -> None:
    prompts = {"prompts": ("a drawing of a {}", "{}")}
    other = scored(config_of(home, str(home / "clip"), head=prompts), home / "runs")
    assert other.id != clip_run.id
    assert other.features.id != clip_run.features.id
    assert other.record.reference_head is not None
    assert other.record.reference_head.prompts == prompts["prompts"]


def test_the_reference_head_of_a_run_serves_another(home: Path, trusted_run: Run) -> None:
    file = trusted_run.path / "reference_head.safetensors"
    run = scored(config_of(home, head={"file": str(file)}), home / "runs")
    assert run.record.reference_head is not None
    assert (run.record.reference_head.origin, run.record.held_out) == ("file", 0)
    assert run.features.id == trusted_run.features.id  # the images were not read again
    assert len(run_table(run)) == 36


def test_another_content_of_the_heads_file_is_another_run(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "head.safetensors"
    names = []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(3, feature_width(), generator=generator)
        store_class_head(file, ClassHead(CLASSES, weight, torch.zeros(3)))
        names.append(scored(config_of(home, head={"file": str(file)}), home / "runs").id)
    assert names[0] != names[1]


def feature_width() -> int:
    layer = load_model(TINY).module.get_classifier()  # type: ignore[operator]
    return int(layer.in_features)


def content(root: Path) -> dict[str, Any]:
    """All files; of ``run.json`` what is not a time."""
    found: dict[str, Any] = {}
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        data: Any = file.read_bytes()
        if file.name == "run.json":
            data = json.loads(data)
            for key in ("created_at", "finished_at", "timings"):
                data.pop(key)
        found[str(file.relative_to(root))] = data
    return found


class StopAfter(Silent):
    """Asks to stop at the ``n``-th question."""

    def __init__(self, n: int) -> None:
        self._left = n

    def check(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_stopped_run_resumes_to_the_same_bytes(home: Path, tmp_path: Path, n: int) -> None:
    config = config_of(home, head=TRUSTED)
    scored(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        scored(config, tmp_path / "parts", progress=StopAfter(n))
    scored(config, tmp_path / "parts")
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


@pytest.mark.usefixtures("forked_loaders")
def test_workers_do_not_change_a_byte(home: Path, tmp_path: Path) -> None:
    config = config_of(home, head=TRUSTED)
    scored(config, tmp_path / "none", workers=0)
    scored(config, tmp_path / "two", workers=2)
    assert content(tmp_path / "two") == content(tmp_path / "none")


def test_map_recipe_and_export_work(trusted_run: Run, tmp_path: Path) -> None:
    # Plain axes, for UMAP knows nothing of labels and compiles for long.
    ensure_map(trusted_run.features, MapConfig(n_neighbors=200))
    table = run_table(trusted_run)
    assert table["map_x"].null_count() == 0
    recipe = Recipe.parse(
        {
            "conditions": [
                {
                    "name": "cats",
                    "condition": {"kind": "category", "column": "label", "values": ["cat"]},
                }
            ]
        }
    )
    selection = apply(recipe, table)
    assert len(selection.uids) == (table["label"] == "cat").sum()
    export.export(
        selection, table, trusted_run, ExportConfig(format="csv"), out=tmp_path / "cats.csv"
    )
    assert set(pl.read_csv(tmp_path / "cats.csv")["label"]) == {"cat"}


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({}, ModelError, "no trained classifier of its own"),
        ({"head": {"prompts": ("{}",)}}, ModelError, "without a text tower"),
        ({"head": {"trusted": "none"}}, ConfigError, "no such column"),
        ({"head": {"file": "nowhere.safetensors"}}, ModelError, "does not exist"),
        (
            {"probe": None, "snapshot": {"batch_size": 16}, "head": TRUSTED},
            ConfigError,
            "snapshot mode scores captions",
        ),
    ],
)
def test_what_cannot_be_scored_is_said(
    home: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        scored(config_of(home, **changes), tmp_path)


def test_a_sweep_of_a_labelled_pool_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one mimic layer"):
        scored(config_of(home, head=TRUSTED), tmp_path, sweep=True)


def test_one_class_only_is_refused(home: Path, tmp_path: Path) -> None:
    write_class_folders(tmp_path / "pool")
    for name in CLASSES[1:]:
        for file in (tmp_path / "pool" / name).iterdir():
            file.unlink()
    with pytest.raises(SourceError):
        scored(config_of(tmp_path, str(home / "clip")), tmp_path / "runs")
    asked = {"task": "labels", "path": str(tmp_path / "pool")}
    with pytest.raises(ConfigError, match="all the same"):
        scored(config_of(tmp_path, str(home / "clip"), source=asked), tmp_path / "runs")


def test_captions_refuse_heads_and_image_models(home: Path, tmp_path: Path) -> None:
    from tests.core.scoring_pool import picture

    files = {f"{n}.png": picture(n) for n in range(4)}
    texts: dict[str, bytes | str] = {f"{n}.txt": f"picture {n}" for n in range(4)}
    write_files(tmp_path / "pool", {**files, **texts})
    with pytest.raises(ConfigError, match="this pool has captions"):
        scored(config_of(tmp_path, str(home / "clip"), head=TRUSTED), tmp_path / "runs")
    with pytest.raises(ConfigError, match="text tower"):
        scored(config_of(tmp_path), tmp_path / "runs")


@needs_cifar
def test_real_label_noise_from_file_to_table(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        source={"path": str(CIFAR), "label_column": "noisy_label", "sample": 150},
        head={"trusted": "50%", "trusted_label_column": "label"},
    )
    run = scored(config, tmp_path / "runs")
    table = run_table(run)
    assert len(table) == 75
    assert {"source_label", "noisy_worse", "cifar_index"} <= set(table.columns)
    assert "noisy_label" not in table.columns
    clean = pl.read_parquet(CIFAR, columns=["label", "noisy_label"])
    rows = table["key"].cast(pl.Int64)
    assert table["label"].to_list() == clean["noisy_label"].gather(rows).to_list()
    assert table["source_label"].to_list() == clean["label"].gather(rows).to_list()
    assert table["mimic_score"].null_count() == 0
