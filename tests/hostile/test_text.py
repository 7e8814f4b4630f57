"""Captions, labels and metadata that were made to break reading: a skip each, or kept as is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mimic_core.sources.limits import MAX_CAPTION_BYTES
from tests.core.sources_pools import write_files, write_tar
from tests.hostile.pools import PNG, outcome
from tests.hostile.runner import Hostile

DEEP = "[" * 100_000 + "]" * 100_000
CAPTIONS: dict[str, tuple[bytes, str]] = {
    "one word of 100 kB": (b"a" * 100_000, "bad_metadata"),
    "exactly the limit": (b"a" * MAX_CAPTION_BYTES, "good"),
    "one byte more": (b"a" * (MAX_CAPTION_BYTES + 1), "bad_metadata"),
    "five megabytes": (b"a " * 2_500_000, "bad_metadata"),
    "latin-1": (b"caf\xe9", "bad_metadata"),
    "utf-16": ("caption".encode("utf-16"), "bad_metadata"),
    "noise": (bytes(range(256)), "bad_metadata"),
    "cut in a character": ("é".encode()[:1], "bad_metadata"),
    "overlong encoding": (b"\xc0\xaf", "bad_metadata"),
    "half a surrogate pair": (b"\xed\xa0\x80", "bad_metadata"),
    "empty": (b"", "empty_caption"),
    "blank": (b" \t\r\n\xe2\x80\x83", "empty_caption"),
    "NUL": (b"a\0b", "good"),
    "control characters": (b"\x1b[31m\x07\x08", "good"),
    "right to left": ("\u202egnp.exe".encode(), "good"),
    "markup": (b"<script>alert(1)</script> $x$ :material/home: =1+1", "good"),
    "byte order mark": (b"\xef\xbb\xbfcaption", "good"),
    "combining marks": (("e" + "\u0301" * 4000).encode(), "good"),
}


@pytest.mark.parametrize("name", CAPTIONS)
def test_a_caption_made_to_break_reading(hostile: Hostile, name: str) -> None:
    data, reason = CAPTIONS[name]
    pool = write_files(
        hostile.root / "pool", {"a.png": PNG, "a.txt": data, "b.png": PNG, "b.txt": "y"}
    )
    found = hostile.call(outcome, pool, hostile.out)
    assert found == ({"good": 2} if reason == "good" else {"good": 1, reason: 1})
    write_tar(
        hostile.root / "tar" / "0.tar",
        [("a.png", PNG), ("a.txt", data), ("b.png", PNG), ("b.txt", b"y")],
    )
    again = hostile.call(outcome, hostile.root / "tar", hostile.out / "again")
    assert again == found


METADATA: dict[str, tuple[str, str]] = {
    "nested 100,000 deep": (f'{{"caption": "x", "n": {DEEP}}}', "bad_metadata"),
    "nested 900 deep": (f'{{"caption": "x", "n": {"[" * 900}{"]" * 900}}}', "good"),
    "no object": ("[1, 2]", "bad_metadata"),
    "not closed": ('{"caption": "x"', "bad_metadata"),
    "empty": ("", "bad_metadata"),
    "a number of 5,000 digits": ('{"caption": "x", "n": ' + "9" * 5000 + "}", "bad_metadata"),
    "a caption that is not a number": ('{"caption": NaN}', "empty_caption"),
    "an infinite caption": ('{"caption": -Infinity}', "empty_caption"),
    "a caption that is an object": ('{"caption": {"en": "x"}}', "bad_metadata"),
    "a list of lists": ('{"caption": [["x"]]}', "bad_metadata"),
    "an empty list": ('{"caption": []}', "empty_caption"),
    "half a surrogate pair": ('{"caption": "\\ud800"}', "bad_metadata"),
    "half of one in a name": ('{"caption": "x", "\\udfff": 1}', "bad_metadata"),
    "numbers that are none": ('{"caption": "x", "n": NaN, "m": Infinity}', "good"),
    "a name that is empty": ('{"caption": "x", "": 1, "*": 2, "^.*$": 3}', "good"),
    "a name twice": ('{"caption": "x", "n": 1, "n": 2}', "good"),
    "a name with NUL": ('{"caption": "x", "a\\u0000b": 1}', "good"),
    "our names": (
        '{"caption": "x", "UID": 1, "Mimic_Score": 2, "map_x": "y", "own.uid": 3}',
        "good",
    ),
    "300 fields": (
        json.dumps({"caption": "x", **{f"f{n}": n for n in range(300)}}),
        "bad_metadata",
    ),
    "a uid that is a list": ('{"caption": "x", "uid": ["a"]}', "good"),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_made_to_break_reading(hostile: Hostile, name: str) -> None:
    text, reason = METADATA[name]
    pool = write_files(
        hostile.root / "pool", {"a.png": PNG, "a.json": text, "b.png": PNG, "b.txt": "y"}
    )
    found = hostile.call(outcome, pool, hostile.out)
    assert found == ({"good": 2} if reason == "good" else {"good": 1, reason: 1})


def test_more_fields_than_a_table_can_hold_are_refused(hostile: Hostile) -> None:
    files: dict[str, bytes | str] = {}
    for n in range(9):
        fields = {f"f{n}-{m}": m for m in range(200)}
        files |= {f"{n}.png": PNG, f"{n}.json": json.dumps({"caption": "x", **fields})}
    pool = write_files(hostile.root / "pool", files)
    hostile.error(outcome, pool, hostile.out, says="too many different fields")


LABELS: dict[str, tuple[bytes, str]] = {
    "100 kB": (b"a" * 100_000, "bad_metadata"),
    "blank": (b" \n", "empty_label"),
    "latin-1": (b"caf\xe9", "bad_metadata"),
    "a path": (b"../../etc/passwd", "good"),
    "braces": (b"{} {0} {x}", "good"),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_label_made_to_break_reading(hostile: Hostile, name: str) -> None:
    data, reason = LABELS[name]
    pool: Path = hostile.root / "pool"
    write_tar(pool / "0.tar", [("a.png", PNG), ("a.cls", data), ("b.png", PNG), ("b.cls", b"y")])
    found = hostile.call(outcome, pool, hostile.out)
    assert found == ({"good": 2} if reason == "good" else {"good": 1, reason: 1})
