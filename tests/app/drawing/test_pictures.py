from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from app.drawing.pictures import picture
from mimic_core.base.schema import SKIP_REASONS, Locator
from tests.core.sources_pools import image_bytes, write_files


def test_a_picture_is_shrunk_to_fit(tmp_path: Path) -> None:
    Image.new("RGB", (400, 100), "red").save(tmp_path / "a.png")
    found = picture(tmp_path, Locator("range", "a.png"), side=80)
    assert found.data is not None
    assert Image.open(io.BytesIO(found.data)).size == (80, 20)


def test_a_small_picture_keeps_its_size(tmp_path: Path) -> None:
    Image.new("RGB", (7, 5), "red").save(tmp_path / "a.png")
    found = picture(tmp_path, Locator("range", "a.png"), side=80)
    assert found.data is not None
    assert Image.open(io.BytesIO(found.data)).size == (7, 5)


def test_an_unreadable_picture_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    gone = picture(tmp_path, Locator("range", "gone.png"), side=80)
    broken = picture(tmp_path, Locator("range", "a.png"), side=80)
    assert (gone.data, gone.reason) == (None, SKIP_REASONS["missing_image"])
    assert (broken.data, broken.reason) == (None, SKIP_REASONS["corrupt_image"])


def test_nothing_outside_of_the_given_folders_is_shown(tmp_path: Path) -> None:
    pool = write_files(tmp_path / "pool", {"a.png": image_bytes()})
    write_files(tmp_path / "secret", {"s.png": image_bytes()})
    (pool / "link.png").symlink_to(tmp_path / "secret" / "s.png")
    for name, within, shown in (
        ("a.png", [pool], True),
        ("link.png", [pool], False),
        ("link.png", [pool, tmp_path / "secret"], True),
        ("link.png", [], True),
    ):
        found = picture(pool, Locator("range", name), side=99, within=within)
        assert (found.data is not None) is shown
