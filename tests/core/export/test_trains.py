"""Real photographs, exported, train a tiny CLIP model through open_clip's own data code."""

from __future__ import annotations

import csv
import itertools
import math
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mimic_core.export.export import export
from mimic_core.export.settings import ExportConfig, ExportFormat
from mimic_core.filters.conditions import Percentile
from mimic_core.filters.recipe import Recipe, Selection, apply
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from tests.core.export.any_run import run_on
from tests.places import DATA

FLICKR = DATA / "flickr8k_1k"
PHOTOGRAPHS, BATCH, STEPS = 24, 8, 10

pytestmark = [
    pytest.mark.skipif(not FLICKR.exists(), reason=f"needs the photographs in {FLICKR}"),
    # webdataset leaves its files to the garbage collector.
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.filterwarnings("ignore:'pin_memory':UserWarning"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """On the first photographs, with all their captions."""
    root = tmp_path_factory.mktemp("flickr")
    pool = root / "pool"
    (pool / "images").mkdir(parents=True)
    with (FLICKR / "captions.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    place = next(n for n, cell in enumerate(rows[0]) if cell.lower().endswith(".jpg"))
    names = list(dict.fromkeys(row[place] for row in rows))[:PHOTOGRAPHS]
    with (pool / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *(row for row in rows if row[place] in names)])
    for name in names:
        found = next(one for one in (FLICKR / name, FLICKR / "images" / name) if one.is_file())
        target = pool / found.relative_to(FLICKR)
        shutil.copyfile(found, target)
    return run_on(pool, root / "runs")


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Any:
    table, out = run_table(run), tmp_path_factory.mktemp("exported")
    half: Selection = apply(
        Recipe().with_condition("half", Percentile(column="mimic_score", lower=50)), table
    )

    def write(file_format: ExportFormat, name: str, **settings: Any) -> Path:
        config = ExportConfig(format=file_format, **settings)
        return export(half, table, run, config, out=out / name).files[0]

    return write


def tiny() -> tuple[Any, Any, Any]:
    """A CLIP model of one block for each side, its preprocessing and its tokenizer."""
    import open_clip
    import torch

    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "patch_size": 16, "layers": 1, "width": 64, "head_width": 32},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    )
    return model, open_clip.image_transform(32, is_train=True), open_clip.get_tokenizer("ViT-B-32")


def train(model: Any, batches: Iterable[tuple[Any, Any]]) -> list[float]:
    """The losses of ten steps."""
    import open_clip
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for images, texts in itertools.islice(batches, STEPS):
        assert (len(images), len(texts)) == (BATCH, BATCH)
        loss = open_clip.ClipLoss()(*model(images, texts))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def from_open_clip(train_data: str, kind: str, transform: Any, tokenizer: Any) -> Any:
    """Endless batches of open_clip's own loader, and how many samples it counts."""
    from open_clip_train import data
    from webdataset.tariterators import tar_file_expander

    # webdataset 1 marks the ends of shards, which open_clip (it asks for 0.2) takes for a file.
    data.tar_file_expander = partial(tar_file_expander, eof_value=None)
    arguments = SimpleNamespace(
        train_data=train_data, val_data=None, imagenet_val=None, imagenet_v2=None,
        dataset_type=kind, dataset_resampled=False, train_data_upsampling_factors=None,
        train_num_samples=None, val_num_samples=None, seed=0, batch_size=BATCH, workers=0,
        world_size=1, distributed=False, csv_img_key="filepath", csv_caption_key="title",
        csv_separator="\t",
    )  # fmt: skip
    found = data.get_data(arguments, (transform, transform), tokenizer=tokenizer)["train"]
    loader = found.dataloader
    return itertools.chain.from_iterable(itertools.repeat(loader)), loader.num_samples


def learns(losses: list[float]) -> bool:
    return len(losses) == STEPS and all(map(math.isfinite, losses)) and losses[-1] < losses[0]


def test_open_clip_trains_on_the_shards(exported: Any) -> None:
    folder = exported("webdataset", "shards", shard_size=20)
    model, transform, tokenizer = tiny()
    shards = str(folder / "{00000000..00000002}.tar")
    batches, count = from_open_clip(shards, "webdataset", transform, tokenizer)
    assert math.ceil(60 / BATCH) * BATCH == count  # from sizes.json; open_clip fills up the last
    assert learns(train(model, batches))


def test_open_clip_trains_on_its_table_of_paths(exported: Any) -> None:
    model, transform, tokenizer = tiny()
    table = exported("open_clip", "kept.tsv")
    batches, count = from_open_clip(str(table), "csv", transform, tokenizer)
    assert count == 60
    assert learns(train(model, batches))


def test_an_imagefolder_trains_with_open_clips_preprocessing(exported: Any, tmp_path: Path) -> None:
    import datasets
    import torch

    datasets.disable_progress_bars()
    folder = exported("imagefolder", "folder")
    model, transform, tokenizer = tiny()
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path), split="train")
    assert len(found) == 60
    found.set_transform(
        lambda rows: {
            "image": [transform(one) for one in rows["image"]],
            "text": tokenizer(rows["caption"]),
        }
    )
    loader = torch.utils.data.DataLoader(found, BATCH, shuffle=True, drop_last=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    assert learns(train(model, ((one["image"], one["text"]) for one in batches)))
