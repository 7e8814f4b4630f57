"""Folders: captions tables of every format, paths that must not be followed, loose pairs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mimic_core.base.errors import SourceError
from mimic_core.base.identity import digest
from mimic_core.base.schema import Locator, Skip
from mimic_core.sources.images import ImageError
from mimic_core.sources.reading import read_image
from mimic_core.sources.source import ROWS_PER_SHARD
from tests.core.sources_pools import (
    captions,
    image_bytes,
    items,
    opened,
    samples,
    skips,
    write_files,
    write_image_rows,
)

PNG = image_bytes()
JSON_ROWS = """{"file_name": "i/a.png", "text": "A, b"}

{"text": "C", "file_name": "i/b.png"}"""


def folder(root: Path, name: str, table: bytes | str, *images: str) -> Path:
    """A folder with one table and the images it may name."""
    return write_files(root, {name: table, **dict.fromkeys(images or ("i/a.png", "i/b.png"), PNG)})


def test_csv_gives_a_sample_per_row_and_reads_its_images(tmp_path: Path) -> None:
    folder(tmp_path, "captions.csv", "filename,caption\ni/a.png,one\ni/a.png,two\ni/b.png,three\n")
    source = opened(tmp_path)
    assert (source.layout, source.image_column, source.caption_column, source.shards) == (
        "folder",
        "filename",
        "caption",
        ("captions-00000",),
    )
    found = samples(source)
    assert [(s.key, s.caption) for s in found] == [
        ("i/a.png", "one"),
        ("i/a.png", "two"),
        ("i/b.png", "three"),
    ]
    assert found[0].image == Locator("range", "i/a.png", 0, len(PNG))
    assert found[0].uid == digest(["captions.csv", "i/a.png", "one", 0], length=32)
    assert [read_image(source.root, s.image) for s in found] == [PNG] * 3


def test_the_table_itself_may_be_given(tmp_path: Path) -> None:
    folder(tmp_path, "captions.csv", "filename,caption\ni/a.png,one\n")
    assert samples(opened(tmp_path / "captions.csv")) == samples(opened(tmp_path))


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("metadata.csv", 'file_name,text\ni/a.png,"A, b"\ni/b.png,C\n'),
        ("train.csv", "filepath\ttitle\ni/a.png\tA, b\ni/b.png\tC\n"),
        ("train.tsv", "filepath\ttitle\ni/a.png\tA, b\ni/b.png\tC\n"),
        ("x.csv", "Image;Caption\ni/a.png;A, b\ni/b.png;C\n"),
        ("x.csv", "image_name| comment\ni/a.png|A, b\ni/b.png|C\n"),
        ("x.csv", b'\xef\xbb\xbffilename,caption\r\ni/a.png,"A, b"\r\ni/b.png,C\r\n'),
        ("metadata.jsonl", JSON_ROWS),
        ("x.ndjson", "\ufeff" + JSON_ROWS.replace("file_name", "image") + "\n"),
    ],
)
def test_usual_tables_are_understood(tmp_path: Path, name: str, table: bytes | str) -> None:
    assert captions(opened(folder(tmp_path, name, table))) == {"i/a.png": "A, b", "i/b.png": "C"}


def test_parquet_table_keeps_dtypes(tmp_path: Path) -> None:
    folder(tmp_path, "unused.txt", "")
    rows = [
        {"file_name": "i/a.png", "text": "A", "is_noisy": True, "n": 1, "tags": ["x"], "raw": b"1"},
        {"file_name": "i/b.png", "text": None, "is_noisy": None, "n": 2, "tags": [], "raw": b"2"},
    ]
    write_image_rows(tmp_path / "metadata.parquet", rows)
    # A binary column could be the image; the user says that it is not.
    source = opened(tmp_path, image_column="file_name")
    found = items(source)
    assert not isinstance(found[0], Skip)
    assert found[0].meta == {"is_noisy": True, "n": 1, "tags": '["x"]'}
    assert found[1] == Skip(
        "i/b.png", "metadata-00000", "empty_caption", "no caption; looked for the column text"
    )


def test_parquet_table_with_a_number_as_caption_is_refused(tmp_path: Path) -> None:
    rows = [{"file_name": "a.png", "text": 7, "other": "x"}]
    write_image_rows(tmp_path / "metadata.parquet", rows)
    with pytest.raises(SourceError) as caught:
        samples(opened(tmp_path))
    assert "text" in caught.value.problem
    assert "Int64" in caught.value.problem
    assert caught.value.allowed == "file_name, other"
    assert "--caption-column" in caught.value.next_step


def test_csv_columns_are_typed_over_the_whole_table(tmp_path: Path) -> None:
    header = "filename,caption,is_noisy,n,f,code,mixed,blank,uid"
    rows = [
        "i/a.png,123,True,1,1,007,1,,0123456789ABCDEF0123456789abcdef",
        "i/b.png,456,false,-20,nan,12,x,,no",
        "i/b.png,789,,,-1.5e3,,2,,",
    ]
    folder(tmp_path, "t.csv", "\n".join([header, *rows]))
    found = samples(opened(tmp_path))
    assert [s.caption for s in found] == ["123", "456", "789"]
    assert found[0].uid == "0123456789abcdef0123456789abcdef"
    assert [s.meta for s in found] == [
        {"is_noisy": True, "n": 1, "f": 1.0, "code": "007", "mixed": "1", "blank": None},
        {"is_noisy": False, "n": -20, "f": None, "code": "12", "mixed": "x", "blank": None,
         "uid": "no"},
        {"is_noisy": None, "n": None, "f": -1500.0, "code": None, "mixed": "2", "blank": None,
         "uid": None},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["12345678901234567890", "1"], ["12345678901234567890", "1"]),  # an id, not a float
        (["123456789012345678", "-1"], [123456789012345678, -1]),
        (["1.5", "2"], [1.5, 2.0]),
        (["1.", ".5e1"], [1.0, 5.0]),
        (["+1", "1"], [1.0, 1.0]),
        (["inf", "-Infinity"], [None, None]),
        (["00", "1"], ["00", "1"]),
        (["1e5", "0x10"], ["1e5", "0x10"]),
        (["TRUE", "false"], [True, False]),
        (["yes", "no"], ["yes", "no"]),
        (["", " "], [None, " "]),
        (["1,5", "2"], ["1,5", "2"]),
    ],
)
def test_csv_values_are_typed_only_when_nothing_is_lost(
    tmp_path: Path, texts: list[str], values: list[Any]
) -> None:
    rows = [f"i/a.png;caption;{text}" for text in texts]
    folder(tmp_path, "t.csv", "\n".join(["filename;caption;x", *rows]))
    assert [s.meta["x"] for s in samples(opened(tmp_path))] == values


def test_quoted_newlines_quotes_and_nul_stay_in_the_caption(tmp_path: Path) -> None:
    text = 'filename,caption\ni/a.png,"two\nlines, ""quoted"""\ni/b.png,nul \0 <script>\n'
    folder(tmp_path, "t.csv", text)
    assert captions(opened(tmp_path)) == {
        "i/a.png": 'two\nlines, "quoted"',
        "i/b.png": "nul \0 <script>",
    }


def test_broken_rows_are_skipped_with_their_line(tmp_path: Path) -> None:
    lines = [
        b"filename,caption",
        b'i/a.png,"two\nlines"',
        b"i/a.png",
        b"i/a.png,caf\xe9",
        b'i/a.png,"x"y',
        b"",
        b"i/b.png,good,extra",
        b"i/b.png,  ",
        b"i/b.png,",
        b"i/b.png,last",
    ]
    folder(tmp_path, "t.csv", b"\n".join(lines))
    source = opened(tmp_path)
    assert captions(source) == {"i/a.png": "two\nlines", "i/b.png": "last"}
    assert [(s.key, s.reason, s.detail) for s in skips(source)] == [
        ("row 1", "bad_metadata", "line 4: 1 fields, the header has 2"),
        ("row 2", "bad_metadata", "line 5: not UTF-8"),
        ("row 3", "bad_metadata", "line 6: ',' expected after '\"'"),
        ("row 4", "bad_metadata", "line 8: 3 fields, the header has 2"),
        ("i/b.png", "empty_caption", "the caption holds only white space"),
        ("i/b.png", "empty_caption", "the caption holds only white space"),
    ]


@pytest.mark.parametrize("lines", [["x,y"] * 20, ["long"] * 500, ["i/a.png,fine"] * 9])
def test_an_unclosed_quote_is_a_skip_and_swallows_no_row(tmp_path: Path, lines: list[str]) -> None:
    text = "\n".join(['filename,caption\ni/a.png,x\ni/b.png,"never closed', *lines])
    folder(tmp_path, "t.csv", text)
    found = items(opened(tmp_path))
    assert len(found) == 2 + len(lines)
    assert found[1] == Skip(
        "row 1", "t-00000", "bad_metadata", "line 3: a quote is opened and not closed"
    )
    fine = [item.caption for item in found if not isinstance(item, Skip)]
    assert fine == ["x", *["fine"] * lines.count("i/a.png,fine")]


@pytest.mark.parametrize(
    ("name", "table", "problem"),
    [
        ("t.csv", "filename,caption\n".encode("utf-32"), "t.csv is not UTF-8"),
        ("t.csv", b"filename,caf\xe9,caption\n", "t.csv is not UTF-8"),
        ("t.csv", "filename,caption,caption\n", "t.csv names a column twice"),
        ("t.csv", "", "t.csv has no column that is clearly the image"),
        ("t.csv", "link,caption\n", "t.csv has no column that is clearly the image"),
        ("t.csv", "filename,score\n", "t.csv has no column that is clearly the caption or the"),
        ("t.csv", "filename,Caption,caption\n", "t.csv has several columns named caption"),
        ("t.jsonl", "not json\n", "t.jsonl has no column that is clearly the image"),
        ("t.parquet", b"PAR1 no", "t.parquet cannot be read as Parquet"),
    ],
)
def test_tables_without_clear_columns_are_refused(
    tmp_path: Path, name: str, table: bytes | str, problem: str
) -> None:
    folder(tmp_path, name, table)
    with pytest.raises(SourceError) as caught:
        opened(tmp_path)
    assert problem in caught.value.problem


def test_refusal_lists_the_columns_and_names_the_option(tmp_path: Path) -> None:
    folder(tmp_path, "t.csv", "where,what,more\ni/a.png,words,1\n")
    with pytest.raises(SourceError) as caught:
        opened(tmp_path)
    assert caught.value.got == "'columns where, what, more'"
    assert "--image-column" in caught.value.next_step
    with pytest.raises(SourceError) as caught:
        opened(tmp_path, image_column="where")
    assert "--caption-column" in caught.value.next_step
    with pytest.raises(SourceError) as caught:
        opened(tmp_path, image_column="nowhere")
    assert (caught.value.got, caught.value.allowed) == ("'nowhere'", "where, what, more")
    source = opened(tmp_path, image_column="where", caption_column="what")
    assert captions(source) == {"i/a.png": "words"}


def test_several_tables_are_refused_unless_only_one_fits(tmp_path: Path) -> None:
    folder(tmp_path, "a.csv", "filename,caption\ni/a.png,one\n")
    write_files(tmp_path, {"scores.csv": "filename,score\ni/a.png,1\n"})
    assert captions(opened(tmp_path)) == {"i/a.png": "one"}
    write_files(tmp_path, {"b.jsonl": '{"image": "i/a.png", "text": "x"}'})
    with pytest.raises(SourceError) as caught:
        opened(tmp_path)
    assert caught.value.got == "['a.csv', 'b.jsonl']"
    assert captions(opened(tmp_path / "b.jsonl")) == {"i/a.png": "x"}


def test_json_lines_with_broken_lines(tmp_path: Path) -> None:
    lines = [
        '{"file_name": "i/a.png", "text": "A", "is_noisy": false, "extra": {"k": [1]}}',
        "{broken",
        '{"file_name": 3, "text": "A"}',
        '{"file_name": "i/a.png", "text": ["A"]}',
        '{"file_name": "i/a.png"}',
        '{"file_name": "i/b.png", "text": 12, "score": NaN}',
        json.dumps({"file_name": "i/b.png", "text": "x" * 5_000_000}),
        '{"file_name": "i/b.png", "text": "last"}',
    ]
    folder(tmp_path, "m.jsonl", "\n".join(lines))
    found = items(opened(tmp_path))
    assert [item.reason if isinstance(item, Skip) else item.caption for item in found] == [
        "A",
        "bad_metadata",
        "bad_metadata",
        "A",  # a list of one caption
        "empty_caption",
        "12",
        "bad_metadata",
        "last",
    ]
    assert not isinstance(found[0], Skip)
    assert found[0].meta == {"is_noisy": False, "extra": '{"k": [1]}'}
    assert isinstance(found[1], Skip)
    assert "line 2 is not JSON" in found[1].detail
    assert isinstance(found[6], Skip)
    assert "line 7: longer than" in found[6].detail


def hostile_folder(tmp_path: Path, name: str) -> Path:
    """A pool beside a secret file, naming ``name`` as one of its images."""
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "s.png").write_bytes(PNG)
    root = tmp_path / "pool"
    table = json.dumps({"image": name, "caption": "x"}) + '\n{"image": "i/a.png", "caption": "y"}'
    folder(root, "t.jsonl", table)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "away").symlink_to(tmp_path / "secrets")
    (root / "i" / "inside.png").symlink_to(root / "i" / "a.png")
    os.mkfifo(root / "pipe.png")
    return root


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("../secret.png", "leads out of the pool's folder"),
        ("i/../../secret.png", "leads out of the pool's folder"),
        ("/etc/passwd", "is an absolute path"),
        ("//etc/passwd", "is an absolute path"),
        ("link.png", "a link that leads out"),
        ("away/s.png", "a link that leads out"),
        ("gone.png", "gone.png: No such file"),
        ("i", "i is not a file"),
        ("pipe.png", "pipe.png is not a file"),
        ("", "no image is named"),
        ("a\0b.png", "NUL"),
        ("x" * 5000, "File name too long"),
        ("https://example.org/gone.png", "is a URL"),
        ("i/a.png/x", "Not a directory"),
    ],
)
def test_images_outside_the_pool_or_not_there_are_skipped(
    tmp_path: Path, name: str, detail: str
) -> None:
    root = hostile_folder(tmp_path, name)
    source = opened(root / "t.jsonl", no_follow_links=True)
    assert captions(source) == {"i/a.png": "y"}
    (skip,) = skips(source)
    assert skip.reason == "missing_image"
    assert detail in skip.detail
    assert len(source.fingerprint()) == 64
    with pytest.raises(ImageError) as caught:  # an index that was tampered with gets no further
        read_image(root, Locator("range", name, 0, 4), within=[root])
    assert caught.value.reason == "missing_image"


def test_links_inside_the_pool_are_followed(tmp_path: Path) -> None:
    source = opened(hostile_folder(tmp_path, "i/inside.png") / "t.jsonl")
    assert [read_image(source.root, s.image) for s in samples(source)] == [PNG, PNG]


def test_a_pool_behind_a_link_can_be_opened(tmp_path: Path) -> None:
    folder(tmp_path / "real", "t.csv", "filename,caption\ni/a.png,one\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    source = opened(tmp_path / "link")
    assert [read_image(source.root, s.image) for s in samples(source)] == [PNG]
    assert source.fingerprint() == opened(tmp_path / "real").fingerprint()


def test_rows_are_cut_into_virtual_shards_without_changing_anything(tmp_path: Path) -> None:
    count = 2 * ROWS_PER_SHARD + 1
    rows = [f"i/a.png,caption {n % (ROWS_PER_SHARD + 7)}" for n in range(count)]
    folder(tmp_path, "My captions.csv", "\n".join(["filename,caption", *rows]))
    source = opened(tmp_path)
    assert source.shards == tuple(f"My-captions-{n:05d}" for n in range(3))
    found = [list(source.index(shard)) for shard in source.shards]
    assert [len(part) for part in found] == [ROWS_PER_SHARD, ROWS_PER_SHARD, 1]
    flat = samples(source)
    assert [s.caption for s in flat] == [row.split(",")[1] for row in rows]
    assert len({s.uid for s in flat}) == count  # equal rows in different shards stay apart


def test_fingerprint_follows_table_images_and_columns(tmp_path: Path) -> None:
    table = "filename,caption,other\ni/a.png,one,two\n"
    one = folder(tmp_path / "one", "t.csv", table)
    two = folder(tmp_path / "two", "t.csv", table)
    first = opened(one).fingerprint()
    assert opened(two).fingerprint() == first
    assert opened(two, caption_column="caption").fingerprint() == first
    assert opened(two, caption_column="other").fingerprint() != first
    write_files(two, {"i/a.png": PNG + b"more"})
    changed_image = opened(two).fingerprint()
    assert changed_image != first
    write_files(two, {"i/a.png": PNG, "t.csv": table.replace("one", "uno")})
    assert opened(two).fingerprint() not in {first, changed_image}


# --- images with texts beside them ----------------------------------------------------------------


def test_texts_beside_images_make_samples(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "00000/000000000.jpg": PNG,
        "00000/000000000.txt": "first",
        "00000/000000000.json": '{"uid": "0123456789abcdef0123456789abcdef", "n": 1}',
        "00000/000000001.png": PNG,
        "00000/000000001.json": '{"caption": "second"}',
        "00000_stats.json": '{"count": 2}',
        "00000.parquet": b"",
        "a.v2.PNG": PNG,
        "a.v2.txt": "dots",
        "b.txt": "no image",
        "c.jpg": PNG,
        "d.jpg": PNG,
        "d.png": PNG,
        "d.txt": "both",
        ".hidden/e.jpg": PNG,
        ".hidden/e.txt": "no",
    }
    del files["00000.parquet"]
    source = opened(write_files(tmp_path, files))
    assert (source.layout, source.shards) == ("folder", ("images-00000",))
    assert captions(source) == {
        "00000/000000000": "first",
        "00000/000000001": "second",
        "a.v2": "dots",
        "d": "both",
        "d.png": "both",
    }
    assert [(s.key, s.reason) for s in skips(source)] == [
        ("b", "missing_image"),
        ("c", "empty_caption"),
    ]
    found = {item.key: item for item in items(source) if not isinstance(item, Skip)}
    assert found["00000/000000000"].uid == "0123456789abcdef0123456789abcdef"
    assert found["00000/000000000"].meta == {"n": 1}
    assert found["d"].image.path == "d.jpg"
    assert found["a.v2"].uid == digest(["", "a.v2", "dots", 0], length=32)
    assert read_image(source.root, found["d.png"].image) == PNG


def test_img2dataset_table_without_image_paths_does_not_hide_the_pairs(tmp_path: Path) -> None:
    write_files(tmp_path, {"00000/0.jpg": PNG, "00000/0.txt": "first"})
    write_image_rows(tmp_path / "00000.parquet", [{"url": "u", "caption": "c", "key": "0"}])
    assert captions(opened(tmp_path)) == {"00000/0": "first"}


def test_texts_that_are_links_are_not_followed_if_so_asked(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    root = write_files(tmp_path / "pool", {"a.png": PNG, "b.png": PNG, "b.txt": "good"})
    (root / "a.txt").symlink_to(tmp_path / "secret")
    source = opened(root, no_follow_links=True)
    assert captions(source) == {"b": "good"}
    assert [(s.key, s.reason) for s in skips(source)] == [("a", "missing_image")]
    assert captions(opened(root)) == {"a": "secret", "b": "good"}


def test_pairs_fingerprint_reads_the_captions(tmp_path: Path) -> None:
    one = write_files(tmp_path / "one", {"a.png": PNG, "a.txt": "abc"})
    two = write_files(tmp_path / "two", {"a.txt": "abc", "a.png": PNG})
    assert opened(one).fingerprint() == opened(two).fingerprint()
    write_files(two, {"a.txt": "abd"})
    assert opened(one).fingerprint() != opened(two).fingerprint()


# --- what is no pool ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "got", "step"),
    [
        ({}, "with no files", "give the path of the pool itself"),
        ({"a.png": PNG, "b.PNG": PNG}, "with 2 x .png", "put a table of captions or labels beside"),
        ({"train/t.csv": "", "x/y.md": ""}, "1 x .csv, 1 x .md", "with a table: train"),
        ({"a.zip": b"", "b.zip": b""}, "with 2 x .zip", "give the path of one .zip"),
        ({"a.xml.gz": b""}, "with 1 x .xml.gz", "unpack compressed files (a.xml.gz)"),
    ],
)
def test_other_folders_are_refused_with_what_is_there(
    tmp_path: Path, files: dict[str, Any], got: str, step: str
) -> None:
    with pytest.raises(SourceError) as caught:
        opened(write_files(tmp_path, files))
    assert got in str(caught.value.got)
    assert step in caught.value.next_step
    assert "a folder of .tar shards" in str(caught.value.allowed)


@pytest.mark.parametrize("name", ["nothing", "a.npy", "a.7z"])
def test_other_paths_are_refused(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, {"a.npy": b"", "a.7z": b""})
    with pytest.raises(SourceError) as caught:
        opened(tmp_path / name)
    assert name in str(caught.value.got)


def test_images_whose_names_are_not_utf8_are_skipped(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.png": PNG, "a.txt": "x"})
    (tmp_path / "b\udce9.png").write_bytes(PNG)
    (tmp_path / "c\udce9.dat").write_bytes(PNG)
    source = opened(tmp_path)
    assert captions(source) == {"a": "x"}
    assert [(s.key, s.reason) for s in skips(source)] == [("b\\xe9.png", "missing_image")]
    assert source.unread() == {"name that is not UTF-8": 2}


def test_polars_patterns_in_column_names_are_plain_names(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.png": PNG})
    frame = pl.DataFrame({"image": ["a.png"], "^cap.*$": ["right"], "caption": ["wrong"]})
    frame.write_parquet(tmp_path / "t.parquet")
    assert captions(opened(tmp_path, caption_column="^cap.*$")) == {"a.png": "right"}


@pytest.mark.parametrize("field", ["image", "caption", "other"])
def test_half_a_surrogate_pair_in_a_json_row_skips_the_row(tmp_path: Path, field: str) -> None:
    row = {"image": "i/a.png", "caption": "x", "other": "y"}
    bad = json.dumps(row).replace(json.dumps(row[field]), '"\\ud800"')
    folder(tmp_path, "t.jsonl", f"{bad}\n{json.dumps(row)}\n")
    source = opened(tmp_path)
    assert captions(source) == {"i/a.png": "x"}
    assert [s.reason for s in skips(source)] == ["bad_metadata"]
