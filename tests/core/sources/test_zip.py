"""Zips read in place: the same samples as the unpacked folder, and no harm from hostile ones."""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Locator
from mimic_core.sources import archive
from mimic_core.sources.images import ImageError
from mimic_core.sources.reading import read_image
from tests.core.sources_pools import (
    captions,
    image_bytes,
    opened,
    samples,
    skips,
    write_files,
    write_zip,
)

PNG = image_bytes()
POOL: dict[str, bytes | str] = {
    "captions.csv": "filename,caption\ni/a.png,one\ni/b.png,two\n",
    "i/a.png": PNG,
    "i/b.png": image_bytes((0, 0, 9)),
}
PAIRS: dict[str, bytes | str] = {"x/a.png": PNG, "x/a.txt": "one", "x/b.png": PNG, "x/b.txt": "two"}


@pytest.mark.parametrize("files", [POOL, PAIRS])
@pytest.mark.parametrize("prefix", ["", "my pool/", "outer/inner/"])
def test_zip_gives_the_uids_captions_and_images_of_its_folder(
    tmp_path: Path, files: dict[str, bytes | str], prefix: str
) -> None:
    folder = write_files(tmp_path / "folder", files)
    packed = {prefix + name: data for name, data in files.items()}
    packed["__MACOSX/._captions.csv"] = "no"
    packed[f"{prefix}.DS_Store"] = "no"
    zipped = opened(write_zip(tmp_path / "pool.zip", packed))
    assert zipped.layout == "zip"
    # A zip opens at the first folder that holds more than one folder: x, where all pairs are.
    expected = samples(opened(folder / "x" if files is PAIRS else folder))
    found = samples(zipped)
    assert [(s.uid, s.caption) for s in found] == [(s.uid, s.caption) for s in expected]
    assert [read_image(zipped.root, s.image) for s in found] == [
        files[name] for name in sorted(files) if name.endswith("png")
    ]
    assert found[0].image.kind == "zip"
    assert found[0].image.path == "pool.zip"


def test_fingerprint_follows_content_not_the_archive_name(tmp_path: Path) -> None:
    one = write_zip(tmp_path / "one.zip", POOL)
    two = write_zip(tmp_path / "two.zip", dict(reversed(POOL.items())))
    assert opened(one).fingerprint() == opened(two).fingerprint()
    write_zip(two, {**POOL, "i/b.png": image_bytes((0, 0, 8))})
    assert opened(one).fingerprint() != opened(two).fingerprint()


def test_a_rewritten_zip_is_read_anew(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "p.zip", POOL)
    assert captions(opened(path)) == {"i/a.png": "one", "i/b.png": "two"}
    write_zip(path, {**POOL, "captions.csv": "filename,caption\ni/a.png,longer than before\n"})
    assert captions(opened(path)) == {"i/a.png": "longer than before"}


def table(*names: str) -> str:
    """A captions table naming the given images and a good one."""
    return "\n".join(["filename,caption", *(f"{name},x" for name in names), "i/a.png,good"])


def test_entries_that_lead_out_are_refused(tmp_path: Path) -> None:
    names = ["../evil.png", "/abs.png", "i/../../up.png"]
    files: dict[str, bytes | str] = {
        "captions.csv": table(*names),
        "i/a.png": PNG,
        **dict.fromkeys(names, PNG),
    }
    source = opened(write_zip(tmp_path / "p.zip", files))
    assert captions(source) == {"i/a.png": "good"}
    assert [(s.key, s.reason) for s in skips(source)] == [(name, "missing_image") for name in names]
    for name in names:
        with pytest.raises(ImageError):
            read_image(tmp_path, Locator("zip", "p.zip", 0, 4, name))
    with pytest.raises(ImageError, match="leads out"):
        read_image(tmp_path / "sub", Locator("zip", "../p.zip", 0, 4, "i/a.png"))


def test_hostile_names_in_a_zip_of_pairs_are_skipped(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {**PAIRS, "../evil.png": PNG, "../evil.txt": "caption"}
    source = opened(write_zip(tmp_path / "p.zip", files))
    assert captions(source) == {"x/a": "one", "x/b": "two"}
    assert [(s.key, s.reason) for s in skips(source)] == [("../evil", "missing_image")]


def test_links_are_not_followed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "p.zip", {"captions.csv": table("link.png"), "i/a.png": PNG})
    with zipfile.ZipFile(path, "a") as archive_:
        entry = zipfile.ZipInfo("link.png")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive_.writestr(entry, "/etc/passwd")
    (skip,) = skips(opened(path))
    assert (skip.reason, skip.detail) == (
        "missing_image",
        "link.png is a link, which is not followed",
    )


def test_a_compression_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    size = 3 * archive.RATIO_FROM_BYTES
    files: dict[str, bytes | str] = {
        "captions.csv": table("bomb.png"),
        "bomb.png": bytes(size),
        "i/a.png": PNG,
    }
    source = opened(write_zip(tmp_path / "p.zip", files))
    (skip,) = skips(source)
    assert skip.reason == "oversized_image"
    assert f"the limit is {archive.MAX_RATIO}" in skip.detail
    with pytest.raises(ImageError, match="oversized_image"):
        read_image(tmp_path, Locator("zip", "p.zip", 0, size, "bomb.png"))


def test_a_table_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"captions.csv": bytes(3 * archive.RATIO_FROM_BYTES)}
    with pytest.raises(SourceError) as caught:
        opened(write_zip(tmp_path / "p.zip", {**files, "i/a.png": PNG}))
    assert f"the limit is {archive.MAX_RATIO}" in str(caught.value.got)


@pytest.mark.parametrize(
    ("limit", "value", "what", "got"),
    [
        ("MAX_ENTRIES", 2, "entries", "3"),
        ("MAX_UNPACKED_BYTES", 100, "bytes when unpacked", None),
    ],
)
def test_limits_are_named_with_the_value(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
    what: str,
    got: str | None,
) -> None:
    monkeypatch.setattr(archive, limit, value)
    with pytest.raises(SourceError) as caught:
        opened(write_zip(tmp_path / "p.zip", POOL))
    total = sum(len(data) for data in POOL.values())
    assert caught.value.problem == f"the archive has too many {what}"
    assert caught.value.got == (got or str(total))
    assert caught.value.allowed == f"at most {value}"


def test_a_table_larger_than_memory_allows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_TABLE_BYTES", 10)
    with pytest.raises(SourceError, match="the limit is 10"):
        opened(write_zip(tmp_path / "p.zip", POOL))


def set_flag(path: Path, names: set[str], flag: int) -> None:
    """Set a bit of the general purpose flag of some entries in the central directory."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive_:
        position = archive_.start_dir
    while data[position : position + 4] == b"PK\x01\x02":
        lengths = struct.unpack_from("<HHH", data, position + 28)
        name = data[position + 46 : position + 46 + lengths[0]].decode()
        if name in names:
            data[position + 8] |= flag
        position += 46 + sum(lengths)
    path.write_bytes(data)


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "p.zip", POOL)
    set_flag(path, set(POOL), 1)
    with pytest.raises(SourceError, match="the archive is encrypted"):
        opened(path)


def test_an_encrypted_image_is_skipped_and_an_encrypted_table_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "p.zip", POOL)
    set_flag(path, {"i/b.png"}, 1)
    (skip,) = skips(opened(path))
    assert (skip.key, skip.reason, skip.detail) == (
        "i/b.png",
        "corrupt_image",
        "i/b.png is encrypted",
    )
    path = write_zip(tmp_path / "q.zip", POOL)
    set_flag(path, {"captions.csv"}, 1)
    with pytest.raises(SourceError) as caught:
        opened(path)
    assert caught.value.got == "'captions.csv is encrypted'"


def test_a_damaged_entry_is_a_corrupt_image(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive_:
        for name, content in POOL.items():
            archive_.writestr(name, content)
    data = path.read_bytes()
    path.write_bytes(data.replace(PNG, PNG[:-20] + b"damaged damaged damag"[:20]))
    source = opened(path)
    good = {s.key: s.image for s in samples(source)}
    with pytest.raises(ImageError) as caught:
        read_image(source.root, good["i/a.png"])
    assert caught.value.reason == "corrupt_image"
    assert "CRC" in caught.value.detail
    assert read_image(source.root, good["i/b.png"]) == POOL["i/b.png"]


@pytest.mark.parametrize("data", [b"", b"PK no zip", b"\x00" * 5000])
def test_what_is_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p.zip").write_bytes(data)
    with pytest.raises(SourceError, match=r"p\.zip cannot be read as a zip"):
        opened(tmp_path / "p.zip")


def test_image_of_a_vanished_zip_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path, Locator("zip", "gone.zip", 0, 4, "a.png"))
    assert caught.value.reason == "missing_image"


def test_an_empty_zip_and_one_of_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="with no files"):
        opened(write_zip(tmp_path / "a.zip", {}))
    with pytest.raises(SourceError, match=r"with 1 x \.md"):
        opened(write_zip(tmp_path / "b.zip", {"readme.md": "x"}))
