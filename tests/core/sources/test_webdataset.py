"""Tar shards: grouping, captions, metadata, damage; nothing is lost without a skip."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.base.errors import SourceError
from mimic_core.base.identity import digest
from mimic_core.base.schema import Locator, Sample, Skip
from mimic_core.sources.images import ImageError
from mimic_core.sources.index import preview
from mimic_core.sources.limits import MAX_FIELDS, MAX_TEXT_BYTES
from mimic_core.sources.reading import read_image
from mimic_core.sources.texts import split_key
from tests.core.sources_pools import (
    captions,
    image_bytes,
    items,
    opened,
    samples,
    skips,
    triple,
    write_files,
    write_tar,
)

PNG = image_bytes()
UID = "0123456789abcdef0123456789ABCDEF"


def test_samples_are_grouped_and_their_images_read_back(tmp_path: Path) -> None:
    images = [image_bytes((shade, 0, 0)) for shade in (1, 2)]
    write_tar(
        tmp_path / "00000.tar",
        [*triple("b", "second", image=images[0]), *triple("a", "first", image=images[1])],
    )
    source = opened(tmp_path)
    assert source.shards == ("00000",)
    found = samples(source)
    assert [(s.key, s.caption, s.meta) for s in found] == [("b", "second", {}), ("a", "first", {})]
    assert [read_image(source.root, s.image) for s in found] == images
    assert found[0].uid == digest(["00000.tar", "b", "second", 0], length=32)
    assert found[0].image.path == "00000.tar"


def test_one_tar_gives_what_its_folder_gives(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", triple("a", "one"))
    assert samples(opened(path)) == samples(opened(tmp_path))
    assert opened(path).fingerprint() == opened(tmp_path).fingerprint()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.c/1.seg.PNG", ("a/b.c/1", "seg.png")),
        ("./7.jpg", ("7", "jpg")),
        ("7", None),
        (".hidden.jpg", None),
        ("a/._7.jpg", None),
        ("__MACOSX/a/7.jpg", None),
    ],
)
def test_key_is_the_path_up_to_the_first_dot_of_the_base_name(
    name: str, expected: tuple[str, str] | None
) -> None:
    assert split_key(name) == expected


def test_shards_in_folders_get_safe_unique_names(tmp_path: Path) -> None:
    for name in ("A.tar", "a.tar", "sub/x y.0.tar", ".hidden.tar"):
        write_tar(tmp_path / name, triple("k", "c"))
    write_tar(tmp_path / "sub" / "deep" / "z.tar", triple("k", "c"))
    assert opened(tmp_path).shards == (
        f"A-{digest('A.tar')}",
        f"a-{digest('a.tar')}",
        "sub-deep-z",
        "sub-x-y-0",
    )


def test_a_key_that_comes_back_is_another_sample_with_another_uid(tmp_path: Path) -> None:
    members = [*triple("k", "same"), *triple("j", "x"), *triple("k", "same"), *triple("k", "same")]
    write_tar(tmp_path / "0.tar", members)
    found = [s for s in samples(opened(tmp_path)) if s.key == "k"]
    assert [s.uid for s in found] == [
        digest(["0.tar", "k", "same", ordinal], length=32) for ordinal in range(3)
    ]


def test_caption_falls_back_to_the_metadata(tmp_path: Path) -> None:
    members = [
        *triple("a", None, {"caption": "from caption", "text": "no"}),
        *triple("b", None, {"caption": None, "text": "from text"}),
        *triple("c", "from txt", {"caption": "no"}),
        *triple("d", None, {"caption": 12}),
    ]
    write_tar(tmp_path / "0.tar", members)
    assert captions(opened(tmp_path)) == {
        "a": "from caption",
        "b": "from text",
        "c": "from txt",
        "d": "12",
    }


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    members = [
        ("a.jpg", b"jpg"),
        ("a.seg.png", b"seg"),
        ("a.txt", b"plain"),
        ("a.json", b'{"re_caption": "better"}'),
    ]
    write_tar(tmp_path / "0.tar", members)
    source = opened(tmp_path, image_column="seg.png", caption_column="re_caption")
    (sample,) = samples(source)
    assert (sample.caption, read_image(source.root, sample.image)) == ("better", b"seg")
    (plain,) = samples(opened(tmp_path, caption_column="txt"))
    assert (plain.caption, read_image(source.root, plain.image)) == ("plain", b"jpg")
    assert source.fingerprint() != opened(tmp_path).fingerprint()


def test_metadata_becomes_columns_and_nested_values_json_text(tmp_path: Path) -> None:
    meta = {
        "uid": UID,
        "key": "a",
        "caption": "c",
        "width": 3,
        "is_noisy": True,
        "score": 0.5,
        "bad": float("nan"),
        "exif": {"a": [1]},
        "none": None,
    }
    write_tar(tmp_path / "0.tar", triple("a", "c", meta))
    (sample,) = samples(opened(tmp_path))
    assert sample.uid == UID.lower()
    assert sample.meta == {
        "width": 3,
        "is_noisy": True,
        "score": 0.5,
        "bad": None,
        "exif": '{"a": [1]}',
        "none": None,
    }


def test_a_uid_that_is_none_is_kept_as_a_column(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", triple("a", "c", {"uid": "17"}))
    (sample,) = samples(opened(tmp_path))
    assert sample.uid == digest(["0.tar", "a", "c", 0], length=32)
    assert sample.meta == {"uid": "17"}


def _nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize(
    ("suffix", "data", "reason", "detail"),
    [
        ("txt", b"caf\xe9", "bad_metadata", "the .txt is not UTF-8: byte 0xe9 at position 3"),
        ("txt", b" \n\t", "empty_caption", "the caption holds only white space"),
        ("txt", b"", "empty_caption", "the caption holds only white space"),
        ("txt", b"x" * (MAX_TEXT_BYTES + 1), "bad_metadata", f"the limit is {MAX_TEXT_BYTES}"),
        ("json", b"{", "bad_metadata", "the .json is not JSON"),
        ("json", b"[1]", "bad_metadata", "not a JSON object but list"),
        ("json", _nested(200_000), "bad_metadata", "nested too deeply"),
        ("json", b'{"caption": "\\ud800"}', "bad_metadata", "half a surrogate pair"),
        ("json", b'{"caption": 1' + b"0" * 5000 + b"}", "bad_metadata", "the .json is not JSON"),
        ("json", b'{"url": "u"}', "empty_caption", "no caption; looked for"),
        ("json", b'{"a": "' + b"x" * MAX_TEXT_BYTES + b'"}', "bad_metadata", "the limit is"),
        (
            "json",
            json.dumps({str(n): n for n in range(MAX_FIELDS + 1)}).encode(),
            "bad_metadata",
            f"has {MAX_FIELDS + 1} fields, the limit is {MAX_FIELDS}",
        ),
    ],
)
def test_unusable_texts_skip_their_sample_only(
    tmp_path: Path, suffix: str, data: bytes, reason: str, detail: str
) -> None:
    members = [("a.png", image_bytes()), (f"a.{suffix}", data), *triple("b", "good")]
    write_tar(tmp_path / "0.tar", members)
    source = opened(tmp_path)
    assert captions(source) == {"b": "good"}
    (skip,) = skips(source)
    assert (skip.key, skip.shard, skip.reason) == ("a", "0", reason)
    assert detail in skip.detail


@pytest.mark.parametrize(
    "caption", ["<script>alert(1)</script>", "two\nlines\n", "nul \0 inside", " spaces ", "é漢🙂"]
)
def test_captions_are_kept_as_they_are(tmp_path: Path, caption: str) -> None:
    write_tar(tmp_path / "0.tar", triple("a", caption))
    assert captions(opened(tmp_path)) == {"a": caption}


def test_a_byte_order_mark_is_no_part_of_the_caption(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.png", b"x"), ("a.txt", b"\xef\xbb\xbfhello")])
    assert captions(opened(tmp_path)) == {"a": "hello"}


def test_missing_image_and_linked_members_are_skipped(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, kind in (("a.png", tarfile.SYMTYPE), ("b.jpg", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = "/etc/passwd"
            tar.addfile(member)
            _add(tar, name[0] + ".txt", b"caption")
        _add(tar, "c.txt", b"caption")
        _add(tar, "d.png", b"x")
        link = tarfile.TarInfo("d.txt")
        link.type = tarfile.LNKTYPE
        link.linkname = "a.txt"
        tar.addfile(link)
        folder = tarfile.TarInfo("e.png")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    source = opened(tmp_path)
    assert [(s.key, s.reason) for s in skips(source)] == [
        ("a", "missing_image"),
        ("b", "missing_image"),
        ("d", "bad_metadata"),
        ("c", "missing_image"),  # at the end, where it is known that no image comes
    ]
    assert "a.png is a link, which is not followed" in skips(source)[0].detail
    assert "b.jpg is a special file" in skips(source)[1].detail
    assert samples_of(source) == []


def samples_of(source: Any) -> list[Sample]:
    return [item for item in items(source) if isinstance(item, Sample)]


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _ten(path: Path) -> bytes:
    members = [member for n in range(10) for member in triple(f"{n}", f"caption {n}", {"n": n})]
    return write_tar(path, members).read_bytes()


def test_a_tar_cut_off_anywhere_keeps_whole_samples_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    whole = _ten(path)
    expected = samples(opened(path))
    content = max(s.image.offset for s in expected) + 3 * 1024  # where the last sample may end
    for size in range(0, content, 217):
        path.write_bytes(whole[:size])
        found = items(opened(path))
        kept = [one for one in found if isinstance(one, Sample)]
        last, *opened_last = found[len(kept) :]
        assert kept == expected[: len(kept)]
        assert isinstance(last, Skip)
        assert last.reason == "unreadable_shard"
        assert last.key == (kept[-1].key if kept else "")
        assert [skip.key for skip in opened_last] in ([], [expected[len(kept)].key])
        lost = expected[len(kept)]
        assert lost.image.offset + 512 * 5 > size - 512 * 4, "a sample that is there was dropped"


def test_a_damaged_header_in_the_middle_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    data = bytearray(_ten(path))
    expected = samples(opened(path))
    fifth = expected[5].image.offset - 512  # header of the image of sample 5
    data[fifth : fifth + 512] = b"\x55" * 512
    path.write_bytes(data)
    found = items(opened(path))
    # Sample 4 was still open: its last member cannot be known. Of 5 the image is lost.
    assert [one for one in found if isinstance(one, Sample)] == expected[:4] + expected[6:]
    gap, four, five = (one for one in found if isinstance(one, Skip))
    assert (gap.reason, gap.key) == ("unreadable_shard", "3")
    assert f"at byte {fifth}" in gap.detail
    assert (four.reason, four.key) == ("unreadable_shard", "4")
    assert (five.reason, five.key) == ("missing_image", "5")


@pytest.mark.parametrize("data", [b"", b"not a tar" * 300, b"\x1f\x8b" + bytes(2000)])
def test_what_is_no_tar_is_one_unreadable_shard(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "0.tar").write_bytes(data)
    (skip,) = items(opened(tmp_path))
    assert isinstance(skip, Skip)
    assert (skip.reason, skip.shard) == ("unreadable_shard", "0")


def test_an_empty_tar_holds_nothing(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [])
    assert items(opened(tmp_path)) == []


def test_file_names_that_are_not_utf8_become_printable_keys(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        _add(tar, "a\udce9.png", b"x")
        _add(tar, "a\udce9.txt", b"caption")
    assert captions(opened(tmp_path)) == {"a\\xe9": "caption"}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_and_long_names_are_read(tmp_path: Path, form: int) -> None:
    key = "/".join(["folder" * 8] * 3) + "/1"
    path = write_tar(tmp_path / "0.tar", triple(key, "long"), format=form)
    source = opened(path)
    (sample,) = samples(source)
    assert sample.key == key
    assert read_image(source.root, sample.image) == image_bytes()


def test_times_with_fractions_as_webdataset_writes_them_are_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in triple("a", "caption"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mtime = 1700000000.25  # type: ignore[assignment]  # becomes a pax record
            tar.addfile(member, io.BytesIO(data))
    source = opened(tmp_path)
    (sample,) = samples(source)
    assert read_image(source.root, sample.image) == image_bytes()


names = st.text(st.sampled_from("ab/é"), min_size=1, max_size=5).map(lambda t: t.strip("/") or "k")
groups = st.lists(st.tuples(names, st.text(max_size=8)), max_size=6)


@settings(max_examples=40, deadline=None)
@given(written=groups)
def test_grouping_gives_back_what_was_written(
    written: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tars")
    members: list[tuple[str, bytes]] = []
    for number, (key, caption) in enumerate(written):
        members += [
            (f"{key}.webp", b"image %d" % number),
            (f"{key}.txt", caption.encode()),
        ]
    source = opened(write_tar(folder / "0.tar", members))
    found = items(source)
    read = [(key, caption.removeprefix("\ufeff")) for key, caption in written]
    assert len(found) == len(written)
    got = [(i.key, i.caption) for i in found if isinstance(i, Sample)]
    assert got == [(key, caption) for key, caption in read if caption.strip()]
    uids = [i.uid for i in found if isinstance(i, Sample)]
    assert len(set(uids)) == len(uids)


def test_fingerprint_follows_content_and_not_place(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for root in (one, two):
        for name in ("b.tar", "a.tar") if root == one else ("a.tar", "b.tar"):
            write_tar(root / name, triple("k", f"caption {name}"))
    assert opened(one).fingerprint() == opened(two).fingerprint()
    assert len(opened(one).fingerprint()) == 64
    assert [s.uid for s in samples(opened(one))] == [s.uid for s in samples(opened(two))]
    write_tar(two / "b.tar", triple("k", "another caption"))
    assert opened(one).fingerprint() != opened(two).fingerprint()


def test_source_is_pickled_without_what_it_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", triple("a", "c"))
    source = opened(tmp_path)
    size = len(pickle.dumps(source))
    before = samples(source)
    assert len(pickle.dumps(source)) == size
    assert samples(pickle.loads(pickle.dumps(source))) == before  # noqa: S301 - just written


def test_preview_gives_the_first_of_all_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", triple("a", "c") + triple("b", " "))
    write_tar(tmp_path / "1.tar", triple("d", "c") + triple("e", "c"))
    assert [item.key for item in preview(opened(tmp_path), 3)] == ["a", "b", "d"]


def test_unknown_shard_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", triple("a", "c"))
    with pytest.raises(SourceError, match="no such shard"):
        list(opened(tmp_path).index("1"))


def test_tar_that_shrank_since_indexing_is_a_corrupt_image(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    _ten(path)
    last = samples(opened(path))[-1].image
    path.write_bytes(path.read_bytes()[: last.offset + 3])
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path, last)
    assert caught.value.reason == "corrupt_image"
    assert f"3 of {last.length} bytes" in caught.value.detail


def test_image_of_a_vanished_tar_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path, Locator("range", "gone.tar", 512, 4))
    assert caught.value.reason == "missing_image"


def test_img2dataset_tables_beside_the_tars_are_left_alone(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", triple("000000000", "c", {"status": "success"}))
    write_files(tmp_path, {"00000.parquet": b"not read", "00000_stats.json": "{}"})
    source = opened(tmp_path)
    assert (source.layout, source.shards) == ("webdataset", ("00000",))


# --- keys with dots, members out of order, compressed tars ----------------------------------------


def test_keys_with_dots_are_samples_under_their_names(tmp_path: Path) -> None:
    members = [("shot 2.0 m.png", PNG), ("shot 2.0 m.txt", b"two"), *triple("1", "one")]
    members += [("shot 2.5 m.txt", b"five"), ("shot 2.5 m.png", PNG), ("a/v.1.png", PNG)]
    write_tar(tmp_path / "0.tar", [*members, ("a/v.1.txt", b"v1"), ("a/v.2.txt", b"lone")])
    source = opened(tmp_path)
    assert captions(source) == {
        "shot 2.0 m": "two",
        "1": "one",
        "shot 2.5 m": "five",
        "a/v.1": "v1",
    }
    assert [(s.key, s.reason) for s in skips(source)] == [("a/v.2", "missing_image")]


def test_parts_of_one_key_are_one_sample(tmp_path: Path) -> None:
    members = [("7.image.png", PNG), ("7.caption.txt", b"seven"), ("7.metadata.json", b'{"n": 7}')]
    write_tar(
        tmp_path / "0.tar", [*members, ("8.left.png", PNG), ("8.right.png", PNG), ("8.txt", b"8")]
    )
    source = opened(tmp_path)
    (sample,) = samples_of(source)
    assert (sample.key, sample.caption, sample.meta) == ("7", "seven", {"n": 7})
    (skip,) = skips(source)
    assert (skip.key, skip.reason) == ("8", "bad_metadata")
    assert "several images of one key: left.png, right.png" in skip.detail


def test_what_belongs_to_an_image_is_not_read_but_counted(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [*triple("1", "one"), ("1.seg.png", PNG), ("1.depth.npy", b"")])
    source = opened(tmp_path)
    assert captions(source) == {"1": "one"}
    assert source.unread() == {".seg.png in tars": 1, ".npy in tars": 1}


def test_images_of_other_formats_are_skips(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.heic", b"x"), ("a.txt", b"a"), *triple("b", "b")])
    (skip,) = skips(opened(tmp_path))
    assert (skip.key, skip.reason) == ("a", "unread_format")
    assert ".heic" in skip.detail


@pytest.mark.parametrize("images_first", [True, False])
def test_members_that_are_not_side_by_side_are_put_together(
    tmp_path: Path, images_first: bool
) -> None:
    images = [(f"{n}.png", image_bytes((n, 0, 0))) for n in range(5)]
    texts = [(f"{n}.txt", f"caption {n}".encode()) for n in reversed(range(4))]
    write_tar(tmp_path / "0.tar", [*images, *texts] if images_first else [*texts, *images])
    source = opened(tmp_path)
    assert captions(source) == {f"{n}": f"caption {n}" for n in range(4)}
    assert [(s.key, s.reason) for s in skips(source)] == [("4", "empty_caption")]
    for sample in samples_of(source):
        assert read_image(tmp_path, sample.image) == image_bytes((int(sample.key), 0, 0))


def test_a_list_of_captions_is_as_many_samples(tmp_path: Path) -> None:
    meta = {"caption": ["one", "two", " "], "uid": UID}
    write_tar(tmp_path / "0.tar", triple("a", None, meta))
    source = opened(tmp_path)
    one, two = samples_of(source)
    assert (one.caption, two.caption) == ("one", "two")
    assert one.uid != two.uid
    assert one.image == two.image
    assert one.meta["uid"] == UID
    assert [(s.key, s.reason) for s in skips(source)] == [("a", "empty_caption")]
    single = write_tar(tmp_path / "single" / "0.tar", triple("a", None, {**meta, "caption": ["x"]}))
    assert [s.uid for s in samples_of(opened(single))] == [UID.lower()]


PACKERS = {
    "tar.gz": gzip.compress,
    "tgz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_tars_are_read_beside_plain_ones(tmp_path: Path, suffix: str) -> None:
    big = image_bytes(size=(900, 900), mode="L", colour=3, kind="BMP")  # beyond the window
    members = [m for n in range(4) for m in triple(f"{n}", f"c{n}", image=big + bytes([n]))]
    plain = write_tar(tmp_path / "plain.tar", members).read_bytes()
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / f"1.{suffix}").write_bytes(PACKERS[suffix](plain))
    write_tar(tmp_path / "pool" / "0.tar", triple("x", "y"))
    source = opened(tmp_path / "pool")
    assert captions(source) == {"x": "y", "0": "c0", "1": "c1", "2": "c2", "3": "c3"}
    found = [one for one in samples_of(source) if one.image.kind == "packed"]
    for n in (0, 2, 1, 3, 0):  # forwards and back
        assert read_image(source.root, found[n].image) == big + bytes([n])
    assert [one.key for one in samples_of(opened(tmp_path / "pool" / f"1.{suffix}"))] == [*"0123"]


def test_a_compressed_tar_that_is_cut_off_keeps_what_is_there(tmp_path: Path) -> None:
    rows = [m for n in range(6) for m in triple(f"{n}", f"c{n}", image=os.urandom(3000))]
    data = gzip.compress(write_tar(tmp_path / "t", rows).read_bytes())
    (tmp_path / "0.tar.gz").write_bytes(data[: len(data) // 2])
    (tmp_path / "t").unlink()
    source = opened(tmp_path)
    assert 1 < len(samples_of(source)) < 4
    assert skips(source)[0].reason == "unreadable_shard"
    assert "cannot be unpacked" in skips(source)[0].detail


def test_an_archive_that_unpacks_without_end_is_stopped(tmp_path: Path) -> None:
    head = write_tar(tmp_path / "t", triple("a", "x")).read_bytes()[:-10240]
    (tmp_path / "0.tar.gz").write_bytes(gzip.compress(head + bytes(200 << 20)))
    source = opened(tmp_path / "0.tar.gz")
    assert captions(source) == {}  # its end is not known
    assert "compressed more than" in skips(source)[0].detail


# --- img2dataset ----------------------------------------------------------------------------------


def test_rows_that_were_not_downloaded_are_skips_with_their_error(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", [*triple("000000000", "a"), *triple("000000002", "c")])
    rows = [
        {"url": "u", "key": f"00000000{n}", "status": status, "error_message": error}
        for n, (status, error) in enumerate(
            [("success", None), ("failed_to_download", "HTTP Error 404"), ("success", None),
             ("failed_to_resize", None)]
        )
    ]  # fmt: skip
    pl.DataFrame(rows).write_parquet(tmp_path / "00000.parquet")
    write_files(tmp_path, {"00000_stats.json": "{}"})
    for path in (tmp_path, tmp_path / "00000.tar"):
        source = opened(path)
        assert captions(source) == {"000000000": "a", "000000002": "c"}
        assert skips(source) == [
            Skip("000000001", "00000", "failed_download", "failed_to_download: HTTP Error 404"),
            Skip("000000003", "00000", "failed_download", "failed_to_resize"),
        ]
        assert source.unread() == {}


def test_files_that_img2dataset_wrote_are_known_by_their_table(tmp_path: Path) -> None:
    rows = [{"key": "000000001", "status": "failed_to_download", "error_message": "timeout"}]
    write_files(tmp_path, {"00000/000000000.png": PNG, "00000/000000000.txt": "a"})
    pl.DataFrame(rows).write_parquet(tmp_path / "00000.parquet")
    before = opened(tmp_path).fingerprint()
    source = opened(write_files(tmp_path, {"00000_stats.json": "{}"}))
    assert captions(source) == {"00000/000000000": "a"}
    assert [(s.key, s.reason) for s in skips(source)] == [("000000001", "failed_download")]
    assert source.unread() == {}
    (tmp_path / "00000.parquet").unlink()
    assert opened(tmp_path).fingerprint() != before


# --- several archives in one file, damage in the middle -------------------------------------------


def test_archives_put_behind_one_another_are_all_read(tmp_path: Path) -> None:
    one, two = (write_tar(tmp_path / name, triple(name, name)).read_bytes() for name in "ab")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "0.tar").write_bytes(one + two + one)
    source = opened(tmp_path / "pool")
    assert [s.key for s in samples(source)] == ["a", "b", "a"]
    (tmp_path / "pool" / "0.tar").write_bytes(one + b"rubbish" * 200)
    source = opened(tmp_path / "pool")
    assert captions(source) == {"a": "a"}
    assert "behind the end mark" in skips(source)[0].detail


def test_a_zeroed_header_loses_one_sample_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    data = bytearray(_ten(path))
    expected = samples(opened(path))
    fifth = expected[5].image.offset - 512
    data[fifth : fifth + 512] = bytes(512)
    path.write_bytes(data)
    source = opened(path)
    assert samples_of(source) == expected[:4] + expected[6:]
    assert [s.key for s in skips(source)] == ["3", "4", "5"]
    assert f"the header at byte {fifth} is zeroed" in skips(source)[0].detail


@pytest.mark.parametrize("field", [b"-0000000001\0", b"\xff" * 12, b"\x80" + b"\xff" * 11])
def test_an_impossible_size_swallows_nothing(tmp_path: Path, field: bytes) -> None:
    path = tmp_path / "0.tar"
    data = bytearray(_ten(path))
    expected = samples(opened(path))
    at = data.index(b"caption 5") - 512  # the header of its text
    data[at + 124 : at + 136] = field
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    path.write_bytes(data)
    source = opened(path)
    assert samples_of(source) == [one for one in expected if one.key != "5"]
    assert {s.key for s in skips(source)} == {"4", "5"}
