"""The real pools that lie beside the repository, where they are there."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl
import pytest

from mimic_core.base.errors import SourceError
from mimic_core.sources.images import decode_image
from mimic_core.sources.reading import read_image
from tests.core.sources_pools import indexed, opened, samples
from tests.places import DATA

FLICKR = DATA / "flickr8k_1k"
CIFAR = DATA / "cifar10n_10k.parquet"

needs_flickr = pytest.mark.skipif(not FLICKR.is_dir(), reason=f"no pool at {FLICKR}")
needs_cifar = pytest.mark.skipif(not CIFAR.is_file(), reason=f"no pool at {CIFAR}")


@needs_flickr
def test_flickr8k_gives_five_thousand_pairs_of_a_thousand_images(tmp_path: Path) -> None:
    source = opened(FLICKR)
    frame, skipped = indexed(source, tmp_path)
    assert (len(frame), frame["image_path"].n_unique(), len(skipped)) == (5000, 1000, 0)
    assert frame["uid"].n_unique() == 5000
    with (FLICKR / "captions.csv").open(newline="", encoding="utf-8") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert frame.select("image_path", "caption").rows() == rows


@needs_flickr
def test_every_twentieth_flickr8k_image_is_decoded() -> None:
    source = opened(FLICKR)
    for sample in samples(source)[::100]:
        image = decode_image(read_image(source.root, sample.image))
        assert (image.mode, min(image.size) > 50) == ("RGB", True)


@needs_cifar
def test_cifar_is_a_labelled_pool_with_its_clean_labels() -> None:
    source = opened(CIFAR)
    assert (source.task, source.label_column, source.caption_column) == ("labels", "label", None)
    with pytest.raises(SourceError, match="not text but Int64"):
        opened(CIFAR, caption_column="cifar_index")


@needs_cifar
def test_noisy_cifar_labels_are_chosen_and_the_clean_ones_kept(tmp_path: Path) -> None:
    source = opened(CIFAR, label_column="noisy_label")
    frame, skipped = indexed(source, tmp_path)
    assert (len(frame), len(skipped), len(source.shards)) == (10_000, 0, 2)
    table = pl.read_parquet(CIFAR)
    assert frame["label"].to_list() == table["noisy_label"].to_list()
    assert frame["source_label"].to_list() == table["label"].to_list()
    assert frame["noisy_worse"].to_list() == table["noisy_worse"].to_list()
    assert "noisy_label" not in frame.columns
    assert frame["caption"].null_count() == 10_000
    clean, _ = indexed(opened(CIFAR), tmp_path / "clean")
    assert clean["uid"].to_list() == frame["uid"].to_list()  # whatever the label
    assert frame.schema["cifar_index"] == pl.Int64
    for row in (0, 300, 9999):
        sample = list(source.index(source.shards[row // 8192]))[row % 8192]
        data = read_image(source.root, sample.image)  # type: ignore[union-attr]  # no skips here
        assert data == table["image"][row]["bytes"]
        assert decode_image(data).size == (32, 32)
