"""Which samples show the same image, and that a held-out share never divides them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from mimic_core.base.config import RunConfig, SourceConfig, TrainConfig
from mimic_core.base.draws import uid_words
from mimic_core.base.identity import PLACE, image_numbers, image_words
from mimic_core.base.schema import SAMPLE_COLUMNS
from mimic_core.scoring.training.splitting import split_samples
from mimic_core.scoring.training.train import train_pool
from tests.core import checkpoints_on_disk as disk
from tests.core.scoring_pool import uid_of

IMAGES, CAPTIONS = 200, 5


def samples_of(images: list[str | None], **columns: pl.Series) -> pl.DataFrame:
    """Samples, one for each of ``images``: paths of files, or None."""
    rows = [
        {"uid": uid_of(n), "image_kind": image and "range", "image_path": image,
         "image_offset": None if image is None else 0, "image_member": image and ""}
        for n, image in enumerate(images)
    ]  # fmt: skip
    schema = {name: SAMPLE_COLUMNS[name] for name in ("uid", *PLACE)}
    return pl.DataFrame(rows, schema).with_columns(**columns)


@pytest.fixture
def captioned() -> pl.DataFrame:
    return samples_of([f"{n % IMAGES}.jpg" for n in range(IMAGES * CAPTIONS)])


def test_equal_places_have_equal_numbers_whatever_the_users_columns_say() -> None:
    ranks = pl.Series("image_rank", [1, 2, 3, 4, 5])
    numbers = image_numbers(samples_of(["a", "b", "a", None, None], image_rank=ranks))
    assert numbers[0] == numbers[2]
    assert len(set(numbers.tolist())) == 4  # two files, and two samples without an image


@pytest.mark.parametrize("column", PLACE)
def test_another_place_is_another_image(column: str) -> None:
    samples = samples_of(["a", "a"])
    other = pl.Series(column, [samples[column][0], 7 if column == "image_offset" else "zip"])
    changed = samples.with_columns(other.cast(SAMPLE_COLUMNS[column]))
    assert len(set(image_numbers(changed).tolist())) == 2
    assert not np.array_equal(*image_words(changed))


def test_the_bits_of_an_image_depend_on_its_place_alone() -> None:
    words = image_words(samples_of(["a.jpg", "b.jpg", "a.jpg", None]))
    assert np.array_equal(words[0], words[2])
    assert np.array_equal(words[3:], uid_words([uid_of(3)]))
    # Written down, so that no version of a library can move a draw unseen.
    assert [f"{word:016x}" for word in words[0]] == ["8f33ac3cbb011163", "e597c15557fa7b00"]


def test_all_captions_of_an_image_are_on_one_side(captioned: pl.DataFrame) -> None:
    split = split_samples(captioned, TrainConfig(model="-", held_out=0.2, seed=3))
    held = {captioned["image_path"][int(row)] for row in split.held_out}
    trained = {captioned["image_path"][int(row)] for row in split.trained}
    assert not held & trained
    assert len(split.held_out) == CAPTIONS * len(held)
    assert 0.13 < len(held) / IMAGES < 0.27  # four standard errors are 0.11


def test_training_on_several_captions_of_an_image_holds_out_images(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    for number in range(8):
        Image.new("RGB", (8, 8), (number * 30, 0, 0)).save(pool / f"{number}.png")
    rows = "".join(f"{n % 8}.png,caption {n}\n" for n in range(24))
    (pool / "captions.csv").write_text(f"filename,caption\n{rows}")
    disk.write_model(tmp_path / "reference", seed=1)
    disk.write_model(tmp_path / "model", seed=2)
    training = TrainConfig(
        model=str(tmp_path / "model"), epochs=1, batch_size=4, held_out=0.4, temperature=0.02
    )
    config = RunConfig(
        source=SourceConfig(path=str(pool)),
        reference=str(tmp_path / "reference"),
        training=training,
    )
    run = train_pool(config, runs_root=tmp_path / "runs", device="cpu", workers=0)
    samples = run.features.samples
    held = samples["uid"].is_in(run.held_out.implode())
    assert 0 < run.record.held_out < 24
    assert not set(samples.filter(held)["image_path"]) & set(samples.filter(~held)["image_path"])
