"""The fixture itself: tests lean on it, so what it promises is checked once."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from mimic_core.runs.run import list_runs
from tests.fakes import SCRIPT_CAPTION, TRICKY_CAPTION, fake_run


def test_a_fake_run_opens_like_a_real_one(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=41, epochs=4)
    assert [found.id for found in list_runs(tmp_path).runs] == [run.id]
    assert run.done
    assert len(run.scores()) == 41 * 4
    assert run.features.samples["caption"][:2].to_list() == [SCRIPT_CAPTION, TRICKY_CAPTION]
    assert len(run.features.skipped) == 3
    norms = np.linalg.norm(run.features.array("image_embedding").read().astype(np.float32), axis=1)
    np.testing.assert_allclose(norms, 1, atol=2e-3)


def test_its_images_are_where_the_samples_say(tmp_path: Path) -> None:
    features = fake_run(tmp_path, n=20).features
    for row in features.samples.iter_rows(named=True):
        data = (features.source_root() / row["image_path"]).read_bytes()
        found = data[row["image_offset"] : row["image_offset"] + row["image_length"]]
        assert Image.open(io.BytesIO(found)).size == (row["width"], row["height"])


def test_the_same_arguments_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        fake_run(tmp_path / name, n=12, seed=5)
    one, two = (
        {
            file.relative_to(tmp_path / name): file.read_bytes()
            for file in sorted((tmp_path / name).rglob("*"))
            if file.suffix in {".parquet", ".npy", ".tar"}
        }
        for name in ("one", "two")
    )
    assert one
    assert one == two


def test_two_fakes_share_a_root(tmp_path: Path) -> None:
    ids = {fake_run(tmp_path, n=10, seed=seed).id for seed in (0, 1)}
    ids.add(fake_run(tmp_path, n=10, snapshot=True).id)
    assert {run.id for run in list_runs(tmp_path).runs} == ids
    assert len(ids) == 3
