"""Captions in every format people write them in: rows are samples or skips, none is lost."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.base.errors import SourceError
from mimic_core.base.identity import digest
from mimic_core.base.schema import Sample
from mimic_core.sources.guess import known_names
from mimic_core.sources.index import in_words
from mimic_core.sources.reading import read_image
from mimic_core.sources.tables.delimited import Delimited
from tests.core.sources_pools import (
    captions,
    image_bytes,
    items,
    opened,
    samples,
    skips,
    write_files,
    write_tar,
    write_zip,
)

PNG = image_bytes()
IMAGES: dict[str, bytes | str] = {f"{n}.png": PNG for n in range(4)}
PAIRS = {"0.png": "zero, and more", "1.png": "one"}


def pool(root: Path, name: str, table: bytes | str, images: dict[str, Any] | None = None) -> Path:
    """A table beside four images."""
    return write_files(root, {name: table, **(IMAGES if images is None else images)})


def told(path: Path, **config: Any) -> list[tuple[str, str | None]]:
    """Key and caption of every sample, in order; there are no skips."""
    return [(one.key, one.caption) for one in samples(opened(path, **config))]


# --- packed and encoded ---------------------------------------------------------------------------

CSV = 'file_name,caption\n0.png,"zero, and more"\n1.png,one\n'
JSONL = "".join(json.dumps({"file_name": a, "caption": b}) + "\n" for a, b in PAIRS.items())


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("t.csv.gz", gzip.compress(CSV.encode())),
        ("t.tsv.gz", gzip.compress(CSV.replace(",", "\t").replace("\t ", ", ").encode())),
        ("t.jsonl.gz", gzip.compress(JSONL.encode())),
        ("t.json.gz", gzip.compress(f"[{','.join(JSONL.splitlines())}]".encode())),
        ("t.csv.bz2", bz2.compress(CSV.encode())),
        ("t.csv.xz", lzma.compress(CSV.encode())),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_packed_tables_are_read(tmp_path: Path, name: str, table: bytes) -> None:
    source = opened(pool(tmp_path, name, table))
    assert captions(source) == PAIRS
    assert source.unread() == {".png": 2}
    assert f"{name} with images from file_name" in source.columns_read()
    assert opened(tmp_path / name).fingerprint() == source.fingerprint()


def test_a_zstandard_table_is_read(tmp_path: Path) -> None:
    pl.DataFrame({"file_name": [*PAIRS], "caption": [*PAIRS.values()]}).write_csv(
        tmp_path / "t.csv.zst", compression="zstd"
    )
    assert captions(opened(write_files(tmp_path, IMAGES))) == PAIRS


def test_a_damaged_packed_table_is_refused_and_so_is_a_bomb(tmp_path: Path) -> None:
    cut = gzip.compress(CSV.encode() * 99)[:-20]
    with pytest.raises(SourceError, match=r"t\.csv\.gz cannot be unpacked"):
        opened(pool(tmp_path / "cut", "t.csv.gz", cut))
    bomb = gzip.compress(bytes(80 << 20))
    with pytest.raises(SourceError, match="compressed more than 200 times"):
        opened(pool(tmp_path / "bomb", "t.csv.gz", bomb))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json"])
def test_utf_16_is_read(tmp_path: Path, name: str, encoding: str) -> None:
    text = {
        "t.csv": CSV.replace("one", "\u00e9in"),
        "t.tsv": "file_name\tcaption\n0.png\tzero, and more\n1.png\t\u00e9in\n",
    }.get(name, JSONL.replace("one", "\u00e9in"))
    if name == "t.json":
        text = f"[{','.join(text.splitlines())}]"
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    source = opened(pool(tmp_path, name, mark + text.encode(encoding)))
    assert captions(source) == {**PAIRS, "1.png": "\u00e9in"}


def test_half_a_surrogate_pair_costs_its_row_alone(tmp_path: Path) -> None:
    text = "file_name,caption\n0.png,\ud800\n1.png,one\n"
    data = b"\xff\xfe" + text.encode("utf-16-le", "surrogatepass")
    source = opened(pool(tmp_path, "t.csv", data))
    assert captions(source) == {"1.png": "one"}
    assert [one.detail for one in skips(source)] == ["line 2: not UTF-8"]


# --- without a header, and Flickr's ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("t.csv", '0.png,"zero, and more"\n1.png,one\n'),
        ("t.tsv", "0.png\tzero, and more\n1.png\tone\n"),
        ("t.tsv", "zero, and more\t0.png\none\t1.png\n"),
        ("t.txt", "0.png\tzero, and more\n1.png\tone\n"),
        ("t.csv", '"0.png";zero, and more\n"1.png";one\n'),
    ],
)
def test_a_table_without_a_header_is_read(tmp_path: Path, name: str, table: str) -> None:
    source = opened(pool(tmp_path, name, table))
    assert captions(source) == PAIRS
    assert (source.image_column, source.caption_column) == ("file_name", "caption")


def test_whole_numbers_without_a_header_are_labels(tmp_path: Path) -> None:
    source = opened(pool(tmp_path, "t.csv", "0.png,3\n1.png,7\n"))
    assert [(one.key, one.label) for one in samples(source)] == [("0.png", "3"), ("1.png", "7")]


def test_more_columns_without_a_header_have_to_be_named(tmp_path: Path) -> None:
    path = pool(tmp_path, "t.csv", "0.png,a cat,0.5\n1.png,a dog,0.7\n")
    with pytest.raises(SourceError) as caught:
        opened(path)
    assert "columns file_name, column_2, column_3" in str(caught.value.got)
    source = opened(path, caption_column="column_2")
    assert [(one.caption, one.meta) for one in samples(source)] == [
        ("a cat", {"column_3": 0.5}),
        ("a dog", {"column_3": 0.7}),
    ]


def test_a_header_that_names_a_column_is_a_header(tmp_path: Path) -> None:
    assert Delimited(io.BytesIO(b"image,photo.png\n"), "t.csv").headed
    assert not Delimited(io.BytesIO(b"0.png,photo\n"), "t.csv").headed


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(
            st.characters(codec="utf-8", exclude_characters='\t"\r\n'), min_size=1, max_size=12
        ).filter(lambda text: text.lower() not in known_names()),  # which would be a header
        min_size=1,
        max_size=6,
    )
)
def test_every_line_of_a_table_without_a_header_is_a_row(texts: list[str]) -> None:
    data = "".join(f"{n}.png\t{text}\n" for n, text in enumerate(texts)).encode()
    table = Delimited(io.BytesIO(data), "t.tsv")
    assert not table.headed
    assert [row.cells[:2] for row in table.rows("file_name")] == [
        [f"{n}.png", text] for n, text in enumerate(texts)
    ]


def test_flickr8k_token_is_read(tmp_path: Path) -> None:
    lines = ["0.png#0\tA child .", "0.png#1\tA girl, going in .", "1.png#0\tA dog ."]
    path = pool(tmp_path, "Flickr8k.token.txt", "\n".join(lines) + "\n")
    source = opened(path)
    assert [(one.key, one.caption, one.meta) for one in samples(source)] == [
        ("0.png", "A child .", {"caption_number": 0}),
        ("0.png", "A girl, going in .", {"caption_number": 1}),
        ("1.png", "A dog .", {"caption_number": 0}),
    ]
    assert in_words(source.unread()) == "2 x .png"
    (path / "Flickr8k.token.txt").rename(path / "results_20130124.token")
    assert len(samples(opened(path))) == 3


def test_flickr30k_results_csv_is_read(tmp_path: Path) -> None:
    table = (
        "image_name| comment_number| comment\n"
        "0.png| 0| Two young guys, with hair .\n"
        "0.png| 1| A man in a shirt .\n"
        "1.png| 4   A dog runs .\n"
    )
    images = {f"flickr30k_images/{name}": data for name, data in IMAGES.items()}
    source = opened(pool(tmp_path, "results.csv", table, images))
    found = [one for one in items(source) if isinstance(one, Sample)]
    assert [(one.key, one.caption, one.meta) for one in found] == [
        ("0.png", "Two young guys, with hair .", {"comment_number": 0}),
        ("0.png", "A man in a shirt .", {"comment_number": 1}),
    ]
    assert [one.image.path for one in found] == ["flickr30k_images/0.png"] * 2
    assert [one.detail for one in skips(source)] == ["line 4: 2 fields, the header has 3"]
    assert source.notes.remarks["no folder in front of a name"] == 4  # twice read


def test_captions_txt_of_flickr8k_is_read(tmp_path: Path) -> None:
    images = {f"Images/{name}": data for name, data in IMAGES.items()}
    path = pool(tmp_path, "captions.txt", "image,caption\n0.png,A child .\n1.png,A dog .\n", images)
    assert told(path) == [("0.png", "A child ."), ("1.png", "A dog .")]


def test_texts_beside_images_and_notes_are_no_tables(tmp_path: Path) -> None:
    files: dict[str, Any] = {"0.png": PNG, "0.txt": "0.png\tis the name", "notes.txt": "a, b\nc, d"}
    source = opened(write_files(tmp_path, files))
    assert captions(source) == {"0": "0.png\tis the name"}
    assert [(one.key, one.reason) for one in skips(source)] == [("notes", "missing_image")]


# --- JSON -----------------------------------------------------------------------------------------


def test_a_json_array_is_read(tmp_path: Path) -> None:
    rows = [
        {"image": "0.png", "caption": "zero", "score": 0.5},
        {"image": "gone.png", "caption": "x"},
        "no object",
        {"image": "1.png", "caption": ["one", "uno"]},
    ]
    source = opened(pool(tmp_path, "data.json", json.dumps(rows)))
    found = [one for one in items(source) if isinstance(one, Sample)]
    assert [(one.caption, one.meta.get("score")) for one in found] == [
        ("zero", 0.5),
        ("one", None),
        ("uno", None),
    ]
    assert [(one.key, one.reason) for one in skips(source)] == [
        ("gone.png", "missing_image"),
        ("row 2", "bad_metadata"),
    ]


def test_json_lines_named_json_and_arrays_named_jsonl_are_read(tmp_path: Path) -> None:
    assert captions(opened(pool(tmp_path / "a", "t.json", JSONL))) == PAIRS
    array = f"\ufeff [{','.join(JSONL.splitlines())}]"
    assert captions(opened(pool(tmp_path / "b", "t.jsonl", array))) == PAIRS
    named = json.dumps(PAIRS)
    assert captions(opened(pool(tmp_path / "c", "captions.json", named))) == PAIRS
    wrapped = json.dumps({"version": 1, "data": [json.loads(one) for one in JSONL.splitlines()]})
    assert captions(opened(pool(tmp_path / "d", "t.json", wrapped))) == PAIRS


@pytest.mark.parametrize("text", ["[1, 2", '{"a": 1}', "3", "[" * 100_000])
def test_a_json_file_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceError, match=r"t\.json is no table as JSON"):
        opened(pool(tmp_path, "t.json", text) / "t.json")


def test_coco_captions_are_read_with_their_splits(tmp_path: Path) -> None:
    def coco(names: list[str], start: int) -> str:
        images = [{"id": n, "file_name": name, "width": 6} for n, name in enumerate(names)]
        notes = [
            {"image_id": n, "id": start + 2 * n + k, "caption": f"{name} {k}"}
            for n, name in enumerate(names[:-1])
            for k in range(2)
        ]
        notes.append({"image_id": 99, "id": 999, "caption": "of no image"})
        return json.dumps({"info": {}, "images": images, "annotations": notes})

    names = ["1.png", "2.png"]
    files: dict[str, Any] = {
        f"{split}2017/{name}": PNG for split in ("train", "val") for name in names
    }
    files["annotations/captions_train2017.json"] = coco(names, 0)
    files["annotations/captions_val2017.json"] = coco(names, 10)
    files["annotations/instances_val2017.json"] = json.dumps({"images": [], "categories": [1]})
    source = opened(write_files(tmp_path, files))
    found = [one for one in items(source) if isinstance(one, Sample)]
    assert [(one.image.path, one.caption, one.meta["id"], one.meta["split"]) for one in found] == [
        ("train2017/1.png", "1.png 0", 0, "train2017"),
        ("train2017/1.png", "1.png 1", 1, "train2017"),
        ("val2017/1.png", "1.png 0", 10, "val2017"),
        ("val2017/1.png", "1.png 1", 11, "val2017"),
    ]
    # A caption of no image and an image of no caption, in each file.
    assert sorted((one.key, one.reason) for one in skips(source)) == [
        ("2.png", "empty_caption"),
        ("2.png", "empty_caption"),
        ("row 2", "missing_image"),
        ("row 2", "missing_image"),
    ]
    assert in_words(source.unread()) == "1 x .json"
    assert len({one.uid for one in found}) == 4
    assert found[0].uid == digest(
        ["annotations/captions_train2017.json", "1.png", "1.png 0", 0], length=32
    )
    alone = opened(tmp_path / "annotations" / "captions_val2017.json", image_root=str(tmp_path))
    assert [one.image.path for one in items(alone) if isinstance(one, Sample)] == [
        "val2017/1.png"
    ] * 2


def test_every_entry_of_cocos_is_a_row_whatever_its_numbers(tmp_path: Path) -> None:
    """Numbers that come back, or are none, lose no image and no caption."""
    images = [
        {"id": 1, "file_name": "0.png"},
        {"id": 1, "file_name": "1.png"},
        {"id": [2], "file_name": "2.png"},
        {"file_name": "3.png"},
        7,
    ]
    notes = [
        {"image_id": 1, "caption": "one"},
        {"image_id": [2], "caption": "none"},
        {"caption": "none"},
        None,
    ]
    document = json.dumps({"images": images, "annotations": notes})
    source = opened(pool(tmp_path, "t.json", document) / "t.json")
    found = [one for one in items(source) if isinstance(one, Sample)]
    assert [(one.key, one.caption) for one in found] == [("1.png", "one")]
    assert sorted(one.reason for one in skips(source)) == [
        *["bad_metadata"] * 2,
        *["empty_caption"] * 3,
        *["missing_image"] * 2,
    ]


def test_names_of_images_that_come_back_are_rows_each(tmp_path: Path) -> None:
    path = pool(tmp_path, "t.json", '{"0.png": "zero", "1.png": {"caption": "b"}, "0.png": "nil"}')
    assert told(path) == [("0.png", "zero"), ("1.png", "b"), ("0.png", "nil")]


def test_llava_conversations_are_read_by_their_first_answer(tmp_path: Path) -> None:
    def turns(*texts: str) -> list[dict[str, str]]:
        return [
            {"from": "gpt" if n % 2 else "human", "value": text} for n, text in enumerate(texts)
        ]

    rows = [
        {"id": "a", "image": "0.png", "conversations": turns("<image>\nSay", "zero", "?", "more")},
        {"id": "b", "image": "1.png", "conversations": turns("<image>\nSay")},
        {"id": "c", "conversations": turns("no picture", "yes")},
        {"id": "d", "image": "2.png", "conversations": [{"x": 1}]},
    ]
    source = opened(pool(tmp_path, "llava.json", json.dumps(rows)))
    found = [one for one in items(source) if isinstance(one, Sample)]
    assert [(one.key, one.caption, one.meta["id"]) for one in found] == [("0.png", "zero", "a")]
    assert [(one.key, one.reason) for one in skips(source)] == [
        ("1.png", "empty_caption"),
        ("row 2", "missing_image"),
        ("row 3", "bad_metadata"),
    ]
    lines = "\n".join(map(json.dumps, rows))
    other = opened(pool(tmp_path / "lines", "llava.jsonl", lines))
    assert captions(other) == {"0.png": "zero"}


def test_karpathys_splits_are_read(tmp_path: Path) -> None:
    rows = [
        {
            "filename": "0.png",
            "filepath": "val2014",
            "split": "test",
            "sentences": [{"raw": "zero", "tokens": ["zero"]}, {"raw": "nil", "tokens": ["nil"]}],
        }
    ]
    document = json.dumps({"dataset": "coco", "images": rows})
    source = opened(write_files(tmp_path, {"dataset_coco.json": document, "val2014/0.png": PNG}))
    assert [(one.image.path, one.caption, one.meta) for one in samples(source)] == [
        ("val2014/0.png", "zero", {"split": "test"}),
        ("val2014/0.png", "nil", {"split": "test"}),
    ]


# --- lists of captions: one sample for each, under the same rule in every format ------------------


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl", "t.parquet"])
def test_lists_of_captions_are_read_alike_in_every_format(tmp_path: Path, name: str) -> None:
    uid = "0123456789abcdef" * 2
    rows = [
        {"file_name": "0.png", "caption": ["zero", "nil"], "uid": uid},
        {"file_name": "1.png", "caption": ["one"], "uid": uid[::-1]},
    ]
    path = write_files(tmp_path, IMAGES)
    as_text = pl.DataFrame(
        [{**row, "caption": json.dumps(row["caption"])} for row in rows], orient="row"
    )
    if name == "t.parquet":
        pl.DataFrame(rows).write_parquet(path / name)
    elif name in ("t.csv", "t.tsv"):
        as_text.write_csv(path / name, separator="\t" if name == "t.tsv" else ",")
    else:
        lines = [json.dumps(row) for row in rows]
        text = "\n".join(lines) if name == "t.jsonl" else f"[{','.join(lines)}]"
        (path / name).write_text(text)
    found = samples(opened(path))
    assert [(one.key, one.caption, one.uid) for one in found] == [
        ("0.png", "zero", digest([name, uid, "zero", 0], length=32)),
        ("0.png", "nil", digest([name, uid, "nil", 0], length=32)),
        ("1.png", "one", uid[::-1]),
    ]


# --- a caption is what stands there, under the same rule in every format --------------------------

SPACED = ["\n2", "  a b \n", "\u00a0x\u2003", "\t y"]


def spaced_pool(root: Path, form: str) -> Path:
    rows = [{"file_name": f"{n}.png", "caption": text} for n, text in enumerate(SPACED)]
    table = root / f"t.{form}"
    write_files(root, {} if form in ("tar", "embedded") else IMAGES)
    if form in ("csv", "tsv"):
        pl.DataFrame(rows).write_csv(table, separator="\t" if form == "tsv" else ",")
    elif form in ("json", "jsonl"):
        lines = [json.dumps(row) for row in rows]
        table.write_text("\n".join(lines) if form == "jsonl" else f"[{','.join(lines)}]")
    elif form == "parquet":
        pl.DataFrame(rows).write_parquet(table)
    elif form == "embedded":
        root.mkdir()
        pl.DataFrame({"image": [PNG] * 4, "caption": SPACED}).write_parquet(root / "t.parquet")
    elif form == "tar":
        pairs = [((f"{n}.png", PNG), (f"{n}.txt", one.encode())) for n, one in enumerate(SPACED)]
        write_tar(root / "0.tar", [member for pair in pairs for member in pair])
    else:
        texts = {"txt": str, "sidecar": lambda text: json.dumps({"caption": text})}
        suffix = "txt" if form == "txt" else "json"
        write_files(root, {f"{n}.{suffix}": texts[form](one) for n, one in enumerate(SPACED)})
    return root


@pytest.mark.parametrize(
    "form",
    ["csv", "tsv", "json", "jsonl", "parquet", "embedded", "tar", "txt", "sidecar"],
)
def test_captions_keep_the_white_space_around_them(tmp_path: Path, form: str) -> None:
    found = samples(opened(spaced_pool(tmp_path / "pool", form)))
    assert [one.caption for one in found] == SPACED


def test_the_spaces_beside_a_bar_are_the_separators_and_line_ends_are_not(tmp_path: Path) -> None:
    table = 'file_name| n| caption\n0.png| 0|  zero .\n1.png|1|"\n one"\n'
    assert told(pool(tmp_path, "t.csv", table)) == [("0.png", "zero ."), ("1.png", "\n one")]


# --- imagefolder, splits, places of images --------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_imagefolder_with_splits_is_read(tmp_path: Path, kind: str) -> None:
    for split in ("train", "test"):
        frame = pl.DataFrame({"file_name": ["0.png", "sub/1.png"], "text": [split, f"{split} 1"]})
        write_files(tmp_path, {f"{split}/0.png": PNG, f"{split}/sub/1.png": PNG})
        path = tmp_path / split / f"metadata.{kind}"
        {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[kind](
            path
        )
    source = opened(tmp_path)
    found = sorted(samples(source), key=lambda one: one.key)
    assert [(one.key, one.image.path, one.caption, one.meta) for one in found] == [
        ("test/0.png", "test/0.png", "test", {"split": "test"}),
        ("test/sub/1.png", "test/sub/1.png", "test 1", {"split": "test"}),
        ("train/0.png", "train/0.png", "train", {"split": "train"}),
        ("train/sub/1.png", "train/sub/1.png", "train 1", {"split": "train"}),
    ]
    assert source.unread() == {}
    assert source.columns_read() == (
        f"test/metadata.{kind} and 1 more with images from file_name, captions from text"
    )


def test_tables_named_for_splits_are_one_pool(tmp_path: Path) -> None:
    files: dict[str, Any] = {
        f"{split}.jsonl": json.dumps({"image": f"{n}.png", "caption": split})
        for n, split in enumerate(("train", "val"))
    }
    found = samples(opened(write_files(tmp_path, IMAGES | files)))
    assert [(one.key, one.caption, one.meta) for one in found] == [
        ("0.png", "train", {"split": "train"}),
        ("1.png", "val", {"split": "val"}),
    ]
    write_files(tmp_path, {"val.jsonl": json.dumps({"image": "1.png", "text": "x"})})
    with pytest.raises(SourceError, match=r"val\.jsonl lacks a column that train\.jsonl has"):
        opened(tmp_path)


def test_the_folder_that_holds_most_names_is_meant_where_names_come_back(tmp_path: Path) -> None:
    files: dict[str, Any] = {"a/0.png": PNG, "a/1.png": PNG, "b/0.png": image_bytes((1, 2, 3))}
    files["t.csv"] = "file_name,caption\n0.png,zero\n1.png,one\n"
    assert [one.image.path for one in samples(opened(write_files(tmp_path, files)))] == [
        "a/0.png",
        "a/1.png",
    ]
    (tmp_path / "a" / "1.png").unlink()
    source = opened(tmp_path)  # now both folders have as many: none is meant
    assert [one.reason for one in skips(source)] == ["missing_image"] * 2


def test_images_in_a_zip_beside_their_table_are_read(tmp_path: Path) -> None:
    write_files(tmp_path, {"metadata.jsonl": JSONL})
    write_zip(tmp_path / "images.zip", {"0.png": PNG, "1.png": PNG})
    source = opened(tmp_path)
    assert captions(source) == PAIRS
    assert [read_image(source.root, one.image) for one in samples(source)] == [PNG, PNG]
    assert source.unread() == {}


@pytest.mark.parametrize("name", ["train.csv", "train.tsv"])
def test_an_open_clip_table_of_absolute_paths_is_read(tmp_path: Path, name: str) -> None:
    disk = write_files(tmp_path / "disk", {f"{n}/{n}.png": PNG for n in range(3)})
    rows = "".join(f"{disk}/{n}/{n}.png\tcaption {n}\n" for n in range(3))
    rows += f"{disk}/9/9.png\tgone\n"
    path = write_files(tmp_path / "pool", {name: f"filepath\ttitle\n{rows}"})
    source = opened(path)
    found = [one for one in items(source) if isinstance(one, Sample)]
    assert [one.caption for one in found] == ["caption 0", "caption 1", "caption 2"]
    assert [read_image(source.root, one.image) for one in found] == [PNG] * 3
    assert [(one.key, one.reason) for one in skips(source)] == [
        (f"{disk}/9/9.png", "missing_image")
    ]
    # Nobody's files are read where links may not lead there.
    for closed in ({"no_follow_links": True}, {"link_roots": (str(path),)}):
        assert {one.reason for one in skips(opened(path, **closed))} == {"missing_image"}
    (*_, gone) = items(opened(path, link_roots=(str(tmp_path),)))
    assert [one.key for one in skips(opened(path, link_roots=(str(tmp_path),)))] == [gone.key]


def test_kohyas_captions_beside_images_are_read(tmp_path: Path) -> None:
    files: dict[str, Any] = {"10_cat/0.png": PNG, "10_cat/0.txt": "a cat"}
    files |= {"5_dog/1.png": PNG, "5_dog/1.caption": "a dog"}
    assert told(write_files(tmp_path, files)) == [("10_cat/0", "a cat"), ("5_dog/1", "a dog")]
