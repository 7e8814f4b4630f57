"""Names of image files that a table spells otherwise than the files are named."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Skip
from mimic_core.sources.folder import FolderFiles
from mimic_core.sources.images import ImageError
from mimic_core.sources.reading import read_image
from mimic_core.sources.spelling import Spellings
from tests.core.sources_pools import (
    captions,
    image_bytes,
    items,
    opened,
    samples,
    skips,
    write_files,
    write_zip,
)

PNG = image_bytes()


def table(*names: str) -> str:
    """JSON Lines that name images; each caption is the name."""
    return "\n".join(json.dumps({"image": name, "caption": name or "none"}) for name in names)


@pytest.mark.parametrize(
    ("written", "file", "how"),
    [
        ("img\\0.png", "img/0.png", "backslashes for slashes"),
        (" img/0.png\t", "img/0.png", "white space around the name"),
        ("img/a%20b.png", "img/a b.png", "percent signs for characters"),
        (unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "é.png"), "Unicode"),
        (unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png"), "Unicode"),
        ("IMG/0.PNG", "img/0.png", "capitals"),
        ("/mnt/disk/pool/img/0.png", "img/0.png", "another folder in front"),
        ("C:\\data\\img\\0.png", "img/0.png", "another folder in front"),
    ],
)
def test_a_spelling_that_one_file_fits_is_resolved_and_counted(
    tmp_path: Path, written: str, file: str, how: str
) -> None:
    source = opened(write_files(tmp_path, {"t.jsonl": table(written), file: PNG}))
    (sample,) = samples(source)
    assert sample.key == written
    assert sample.image.path == file
    assert read_image(source.root, sample.image) == PNG
    ((what, count),) = source.notes.remarks.items()
    assert (how in what, count) == (True, 1)
    assert len(source.fingerprint()) == 64
    assert source.unread() == {}


def test_a_name_that_is_a_file_is_taken_as_it_stands(tmp_path: Path) -> None:
    files = {"t.jsonl": table("a%20b.png", "a b.png"), "a%20b.png": PNG, "a b.png": PNG}
    source = opened(write_files(tmp_path, files))
    assert [one.image.path for one in samples(source)] == ["a%20b.png", "a b.png"]
    assert source.notes.remarks == {}


def test_two_files_that_fit_are_a_skip(tmp_path: Path) -> None:
    source = opened(write_files(tmp_path, {"t.jsonl": table("A.png"), "a.png": PNG, "a.PNG": PNG}))
    (skip,) = skips(source)
    assert skip.reason == "missing_image"
    assert "the nearest file is a.PNG" in skip.detail


def test_absolute_names_never_fall_together(tmp_path: Path) -> None:
    names = ["/a/cat/0.png", "/a/dog/0.png"]
    source = opened(write_files(tmp_path, {"t.jsonl": table(*names), "0.png": PNG}))
    assert [one.key for one in skips(source)] == names
    assert "--image-root" in skips(source)[0].detail


@given(st.lists(st.text("ab/", min_size=1, max_size=6), min_size=1, max_size=6, unique=True))
def test_no_two_absolute_names_become_one_file(
    tmp_path_factory: pytest.TempPathFactory, written: list[str]
) -> None:
    root = write_files(tmp_path_factory.mktemp("p"), {"a/a.png": PNG, "b/a.png": PNG, "a.png": PNG})
    names = {"/x/" + "/".join(filter(None, f"{one}/a.png".split("/"))) for one in written}
    spellings, error = Spellings(FolderFiles(root), sorted(names)), ImageError("missing_image", "")
    found = []
    for name in sorted(names):
        try:
            found.append(spellings.find(name, error)[0])
        except ImageError:
            continue
    assert len(found) == len(set(found))


def test_the_images_may_have_moved(tmp_path: Path) -> None:
    pool = write_files(tmp_path / "pool", {"t.jsonl": table("img/0.png", "/old/disk/img/1.png")})
    moved = write_files(tmp_path / "moved", {"img/0.png": PNG, "img/1.png": PNG})
    source = opened(pool, image_root=str(moved))
    assert [one.image.path for one in samples(source)] == ["img/0.png", "img/1.png"]
    assert [read_image(source.root, one.image) for one in samples(source)] == [PNG, PNG]
    with pytest.raises(SourceError, match="--image-root"):
        opened(pool, image_root=str(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("imgs/0.png", "the nearest file is img/0.png"),
        ("img/0.jpg", "the nearest file is img/0.png"),
        ("https://example.org/img/9.png", "is a URL"),
        ("../img/0.png", "leads out of the pool's folder"),
    ],
)
def test_a_name_that_no_file_fits_is_a_skip_with_the_nearest(
    tmp_path: Path, name: str, detail: str
) -> None:
    source = opened(write_files(tmp_path, {"t.jsonl": table(name), "img/0.png": PNG}))
    (skip,) = skips(source)
    assert (skip.key, skip.reason) == (name, "missing_image")
    assert detail in skip.detail


def test_images_that_are_still_packed_are_named(tmp_path: Path) -> None:
    write_files(tmp_path, {"images.7z": "packed"})
    source = opened(write_files(tmp_path, {"t.jsonl": table("0.png")}))
    assert "it may be in images.7z: unpack that" in skips(source)[0].detail
    assert source.unread() == {".7z": 1}


def test_backslashes_in_a_zip_are_slashes(tmp_path: Path) -> None:
    files = {"p\\t.jsonl": table("img/0.png", "img\\1.png"), "p\\img\\0.png": PNG}
    path = write_zip(tmp_path / "p.zip", {**files, "p\\img\\1.png": PNG})
    source = opened(path)
    assert captions(source) == {"img/0.png": "img/0.png", "img\\1.png": "img\\1.png"}
    found = [one.image for one in items(source) if not isinstance(one, Skip)]
    assert [read_image(source.root, one) for one in found] == [PNG, PNG]
