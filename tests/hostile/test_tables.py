"""Tables that were made to break reading: rows and skips are the rows of the file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.base.errors import MimicError
from mimic_core.sources.limits import MAX_TEXT_BYTES
from tests.core.sources_pools import items, opened, write_files
from tests.hostile.pools import PNG, outcome
from tests.hostile.runner import Hostile

HEAD = b"image,caption\n"
GOOD = b"b.png,y\n"
CSV: dict[str, tuple[bytes, dict[str, int]]] = {
    "a line of 64 MB": (b"a.png," + b"x" * (64 << 20) + b"\n", {"bad_metadata": 1}),
    "a quoted cell of 64 MB": (b'a.png,"' + b"x" * (64 << 20) + b'"\n', {"bad_metadata": 1}),
    "64 MB of quotes": (b"a.png," + b'"' * (64 << 20) + b"\n", {"bad_metadata": 1}),
    "a quote that is never closed": (b'a.png,"x\n' + GOOD * 5, {"bad_metadata": 1, "good": 5}),
    "3,000 quotes that are never closed": (b'a.png,"x\n' * 3000, {"bad_metadata": 3000}),
    "rows of other widths": (b"a.png\n,\na.png,x,y\n", {"bad_metadata": 2, "empty_caption": 1}),
    "bytes that are no text": (b"a.png,\xff\xfe\n\xff.png,x\n", {"bad_metadata": 2}),
    "NUL": (b"a.png,a\0b\n", {"missing_image": 1}),
    "NUL in a path": (b"b\0.png,x\n", {"missing_image": 1}),
    "paths that lead out": (
        b"../x.png,x\n/etc/passwd,x\n../../../../etc/passwd,x\n",
        {"missing_image": 3},
    ),
    "absolute paths of two systems": (b"/x/y.png,x\nc:/x/y.png,x\n", {"missing_image": 2}),
    "urls": (b"http://example.org/a.png,x\nfile:///etc/passwd,x\n", {"missing_image": 2}),
    "a path of 100 kB": (b"a" * 100_000 + b",x\n", {"missing_image": 1}),
    "a folder": (b".,x\nfolder,x\n", {"missing_image": 2}),
    "a pipe": (b"pipe.png,x\n", {"missing_image": 1}),
    "a link in a circle": (b"circle.png,x\n", {"missing_image": 1}),
    "old line ends in a new file": (b"a.png,x\ry\n", {"missing_image": 1}),
    "two million separators": (b"," * 2_000_000 + b"\n", {"bad_metadata": 1}),
}


def pool(root: Path, name: str, table: bytes) -> Path:
    """A table among a good image, a folder, a pipe and a link in a circle."""
    write_files(root, {name: table, "b.png": PNG, "folder/x.txt": ""})
    os.mkfifo(root / "pipe.png")
    (root / "circle.png").symlink_to(root / "circle.png")
    return root


@pytest.mark.parametrize("name", CSV)
def test_a_csv_made_to_break_reading(hostile: Hostile, name: str) -> None:
    rows, expected = CSV[name]
    path = pool(hostile.root / "pool", "t.csv", HEAD + rows + GOOD)
    found = hostile.call(outcome, path, hostile.out)
    assert found == {**expected, "good": expected.get("good", 0) + 1 - found["duplicate_uid"]} | (
        {"duplicate_uid": found["duplicate_uid"]} if found["duplicate_uid"] else {}
    )


HEADS: dict[str, bytes] = {
    "empty": b"",
    "one line of 64 MB": b"x" * (64 << 20),
    "100,000 columns": b",".join(b"c%d" % n for n in range(100_000)) + b"\n",
    "100,000 columns of one name": b"image" + b",caption" * 100_000 + b"\n",
    "utf-16": "image,caption\na.png,x\n".encode("utf-16"),
    "utf-32": "image,caption\na.png,x\n".encode("utf-32"),
    "noise": bytes(range(256)) * 99,
    "not UTF-8": b"image,caption,caf\xe9\n",
    "an open quote": b'"image,caption\na.png,x\n',
    "a quote in the middle": b'"ima"ge,caption\nb.png,y\n',
    "columns that are patterns": b"^.*$,*\na.png,x\n",
    "zeros": bytes(1 << 20),
}


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("name", HEADS)
def test_a_header_that_is_none_is_refused(hostile: Hostile, name: str, suffix: str) -> None:
    path = pool(hostile.root / "pool", f"t.{suffix}", HEADS[name])
    hostile.error(outcome, path, hostile.out)


LINES: dict[str, tuple[bytes, str]] = {
    "64 MB": (b'{"image": "a.png", "caption": "' + b"x" * (64 << 20) + b'"}', "bad_metadata"),
    "nested 100,000 deep": (b"[" * 100_000, "bad_metadata"),
    "not JSON": (b"{", "bad_metadata"),
    "an array": (b"[1]", "bad_metadata"),
    "a number of 5,000 digits": (b'{"image": "b.png", "n": ' + b"9" * 5000 + b"}", "bad_metadata"),
    "NaN for a caption": (b'{"image": "b.png", "caption": NaN}', "empty_caption"),
    "NaN for an image": (b'{"image": NaN, "caption": "x"}', "bad_metadata"),
    "a list for an image": (b'{"image": ["b.png"], "caption": "x"}', "bad_metadata"),
    "an object for a caption": (b'{"image": "b.png", "caption": {}}', "bad_metadata"),
    "half a surrogate pair": (b'{"image": "\\ud800.png", "caption": "x"}', "bad_metadata"),
    "not UTF-8": (b'{"image": "b.png", "caption": "\xff"}', "bad_metadata"),
    "300 fields": (
        json.dumps({"image": "b.png", "caption": "x", **{f"{n}": n for n in range(300)}}).encode(),
        "bad_metadata",
    ),
    "a word of 100 kB": (
        json.dumps({"image": "b.png", "caption": "x" * 100_000}).encode(),
        "bad_metadata",
    ),
    "no image": (b'{"caption": "x"}', "missing_image"),
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_of_json_made_to_break_reading(hostile: Hostile, name: str) -> None:
    line, reason = LINES[name]
    good = b'{"image": "b.png", "caption": "y"}'
    path = pool(hostile.root / "pool", "t.jsonl", good + b"\n" + line + b"\n")
    assert hostile.call(outcome, path, hostile.out) == {"good": 1, reason: 1}


def test_tables_that_are_no_regular_files_are_refused(hostile: Hostile) -> None:
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        root = write_files(hostile.root / name[2:], {"b.png": PNG})
        os.mkfifo(root / name)
        hostile.error(outcome, root, hostile.out)
        hostile.error(outcome, root / name, hostile.out, says="a pipe")


def test_a_table_that_ends_nowhere_is_refused(hostile: Hostile) -> None:
    root = write_files(hostile.root / "pool", {"b.png": PNG})
    (root / "t.csv").symlink_to("/dev/zero")
    hostile.error(outcome, root, hostile.out)
    hostile.error(outcome, root / "t.csv", hostile.out, says="a device")


texts = st.text(st.sampled_from('ab",;\t\n\r\0é{}[]:\\'), max_size=60)


@settings(max_examples=120, deadline=None)
@given(text=texts, name=st.sampled_from(["t.csv", "t.tsv", "t.jsonl"]))
def test_any_text_is_a_table_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    head = '{"image": "b.png", "caption": "y"}\n' if name == "t.jsonl" else "image,caption\n"
    root = write_files(tmp_path_factory.mktemp("p"), {name: head + text, "b.png": PNG})
    try:
        found = items(opened(root))
    except MimicError:
        return
    assert len(found) <= len(text.splitlines()) + 1


def test_the_limit_of_a_line_is_to_the_byte(hostile: Hostile) -> None:
    line = b"a.png," + b"x" * (MAX_TEXT_BYTES - 7) + b"\n"
    assert len(line) == MAX_TEXT_BYTES
    path = pool(hostile.root / "pool", "t.csv", HEAD + line + b"a.png,x" + line[6:] + GOOD)
    kinds = items(opened(path))
    assert "the caption has" in kinds[0].detail  # type: ignore[union-attr]  # a skip
    assert "longer than" in kinds[1].detail  # type: ignore[union-attr]  # a skip
