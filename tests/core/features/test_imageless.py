"""Rows without an image in a run: measured and embedded captions, null scores, honest filters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mimic_core.base.config import ProbeConfig, RunConfig, SourceConfig
from mimic_core.base.errors import SourceError
from mimic_core.base.schema import NO_IMAGE
from mimic_core.filters.recipe import Recipe
from mimic_core.filters.selections import dropped_uids, kept_uids, select
from mimic_core.models import clip
from mimic_core.models.load import load_model
from mimic_core.runs import imageless
from mimic_core.runs.report import as_lines
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from mimic_core.scoring.pipeline import score_pool
from mimic_core.sources.joining import join_columns, remove_join
from tests.core import checkpoints_on_disk as disk
from tests.core.scoring_pool import caption_of, picture
from tests.core.sources_pools import write_files

IMAGES, ROWS = 12, 18  # the last six rows have no image


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models") / "reference"
    disk.write_model(root)
    return root


@pytest.fixture(scope="module")
def run(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A probe of a table of URLs, most of whose images are there."""
    root = tmp_path_factory.mktemp("imageless")
    lines = ["url,caption,similarity"]
    lines += [f"https://e.org/{n}.png,{caption_of(n)},{n / 100}" for n in range(ROWS)]
    files: dict[str, bytes | str] = {f"{n}.png": picture(n) for n in range(IMAGES)}
    write_files(root / "pool", {**files, "t.csv": "\n".join(lines)})
    config = RunConfig(
        source=SourceConfig(path=str(root / "pool")),
        reference=str(reference),
        probe=ProbeConfig(batch_size=4, epochs=3),
    )
    return score_pool(config, runs_root=root / "runs", device="cpu", workers=0)


def test_they_come_last_in_the_table_with_null_scores(run: Run) -> None:
    table = run_table(run)
    assert "12 samples, 6 rows without an image" in str(run.record.reading)
    lines = [line.split(maxsplit=2) for line in as_lines(run)]
    assert ["without", "image", "6 rows"] in lines
    assert ["samples", "12"] in lines
    assert len(run.features.samples) == IMAGES
    assert table["similarity"].to_list() == [n / 100 for n in range(ROWS)]
    scored, bare = table.head(IMAGES), table.tail(ROWS - IMAGES)
    assert bare["image_kind"].unique().to_list() == [NO_IMAGE.kind]
    nothing = ("mimic_score", "loss", "clip_score", "width", "height", "map_x")
    assert {name: bare[name].null_count() for name in nothing} == dict.fromkeys(nothing, 6)
    assert scored["mimic_score"].null_count() == 0
    assert bare["caption"].to_list() == [caption_of(n) for n in range(IMAGES, ROWS)]
    assert bare["caption_length"].to_list() == [len(caption_of(n)) for n in range(IMAGES, ROWS)]
    assert (bare["caption_tokens"] > 0).all()


def test_their_captions_are_embedded_as_the_reference_embeds_them(
    run: Run, reference: Path
) -> None:
    (shard,) = run.features.shards
    stored = np.load(imageless.file_of(run.features, shard).with_suffix(".npy"))
    model = load_model(str(reference))
    assert model.tokenizer is not None
    tokens = model.tokenizer([caption_of(n) for n in range(IMAGES, ROWS)])
    with torch.no_grad():
        expected = clip.encode_text(model.module, tokens, normalize=True).numpy()
    np.testing.assert_allclose(stored.astype(np.float32), expected, atol=1e-3)


def recipe(condition: str) -> Recipe:
    text = f"version: 1\nconditions:\n  - name: one\n    condition: {condition}\n"
    return Recipe.from_yaml(text)


@pytest.mark.parametrize(
    ("condition", "kept", "missing"),
    [
        ("{kind: absolute, column: similarity, min: 0.1}", 8, 0),
        ("{kind: percentile, column: mimic_score, upper: 100}", 12, 6),
        ("{kind: top_k, column: clip_score, k: 5}", 5, 6),
        (
            "{kind: ensemble, aggregate: {kind: majority}, "  # noqa: ISC004 - one condition
            "binarise: {kind: top_percent, column: mimic_score, percent: 100}}",
            12,
            6,
        ),
    ],
)
def test_what_needs_a_score_does_not_keep_them_and_what_needs_metadata_does(
    run: Run, condition: str, kept: int, missing: int
) -> None:
    selection = select(run, recipe(condition))
    assert (selection.total, int(selection.mask.sum())) == (ROWS, kept)
    bare = run_table(run).tail(ROWS - IMAGES)["uid"]
    dropped = dropped_uids(selection).filter(pl.col("uid").is_in(bare.implode()))
    assert len(dropped) == missing


def test_columns_of_other_files_are_joined_to_them_too(run: Run, tmp_path: Path) -> None:
    before = run_table(run)
    rows = before.select("uid", dfn=pl.col("similarity") * 2)
    rows[:2].vstack(rows[-3:]).write_parquet(tmp_path / "dfn.parquet")
    joined, said = join_columns(run, tmp_path / "dfn.parquet")
    try:
        table = run_table(joined)
        assert table.drop("dfn").equals(before)
        assert table["dfn"].to_list() == [*rows["dfn"][:2], *[None] * (ROWS - 5), *rows["dfn"][-3:]]
        assert (said.matched, said.without, said.unused) == (5, ROWS - 5, 0)
        kept = select(joined, recipe("{kind: absolute, column: dfn, min: 0.2}"))
        assert kept_uids(kept)["uid"].to_list() == rows["uid"][-3:].to_list()
    finally:
        remove_join(joined, "dfn")


def test_scoring_again_finds_the_run_and_writes_nothing(run: Run) -> None:
    (shard,) = run.features.shards
    file = imageless.file_of(run.features, shard)
    before = file.stat().st_mtime_ns
    again = score_pool(run.record.config, runs_root=run.path.parent, device="cpu", workers=0)
    assert (again.id, file.stat().st_mtime_ns) == (run.id, before)


def test_a_pool_without_any_image_is_refused_in_words(reference: Path, tmp_path: Path) -> None:
    pool = write_files(tmp_path / "pool", {"t.csv": "url,caption\nhttps://e.org/0.png,a dog\n"})
    config = RunConfig(
        source=SourceConfig(path=str(pool)), reference=str(reference), probe=ProbeConfig()
    )
    with pytest.raises(SourceError, match="no row of the pool has an image") as caught:
        score_pool(config, runs_root=tmp_path / "runs", device="cpu", workers=0)
    assert "img2dataset" in caught.value.next_step
