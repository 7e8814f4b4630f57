"""Zips that were made to break reading: an entry is a skip, a zip that is none is refused."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.core.sources_pools import write_zip
from tests.hostile.pools import PNG, outcome
from tests.hostile.runner import Hostile

NOISE = os.urandom(5000)


def zipped(
    *entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """A zip of a good sample ``b`` and the given entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in (*entries, ("b.png", PNG), ("b.txt", b"y")):
            archive.writestr(name, data)
    return out.getvalue()


def sample(data: bytes = PNG, method: int = zipfile.ZIP_DEFLATED) -> bytearray:
    """A zip whose first entry is ``a.png``."""
    return bytearray(zipped(("a.png", data), ("a.txt", b"x"), method=method))


def central(data: bytearray, number: int = 0) -> int:
    """Where the entry ``number`` of the directory at the end begins."""
    place = -1
    for _ in range(number + 1):
        place = data.index(b"PK\x01\x02", place + 1)
    return place


def lied(field: int, size: int, value: int, data: bytes = PNG) -> bytes:
    """A zip whose directory says something wrong about its first entry."""
    whole = sample(data)
    place = central(whole) + field
    whole[place : place + size] = value.to_bytes(size, "little")
    return bytes(whole)


def noise_in(method: int) -> bytes:
    """A zip whose first entry is damaged in the middle of its bytes."""
    whole = sample(NOISE, method)
    start = 30 + len("a.png")
    whole[start + 20 : start + 400] = b"\xa5" * 380
    return bytes(whole)


def linked(target: bytes) -> bytes:
    """A zip whose first entry is a link."""
    info = zipfile.ZipInfo("a.png")
    info.external_attr = 0o120777 << 16
    return zipped((info, target), ("a.txt", b"x"))


def named(name: str) -> bytes:
    """A zip with an image and a text of that name."""
    return zipped((f"{name}.png", PNG), (f"{name}.txt", b"x"))


BOTH = {"good": 2}
CASES: dict[str, tuple[Callable[[], bytes], dict[str, int] | None]] = {
    "a bomb of ratio 1,000": (
        lambda: bytes(sample(bytes(100 << 20))),
        {"good": 1, "oversized_image": 1},
    ),
    "an entry that claims 4 GB": (
        lambda: lied(24, 4, 0xFFFFFFF0),
        {"good": 1, "oversized_image": 1},
    ),
    "an entry that claims less": (lambda: lied(24, 4, 9), None),
    "an entry that claims nothing stored": (
        lambda: lied(20, 4, 0),
        {"good": 1, "corrupt_image": 1},
    ),
    "a checksum of another": (lambda: lied(16, 4, 1), {"good": 1, "corrupt_image": 1}),
    "a method that is none": (lambda: lied(10, 2, 77), {"good": 1, "corrupt_image": 1}),
    "encrypted": (lambda: lied(8, 2, 1), {"good": 1, "corrupt_image": 1}),
    "an offset beyond the end": (lambda: lied(42, 4, 0x7FFFFFFF), {"good": 1, "corrupt_image": 1}),
    "an offset into another": (lambda: lied(42, 4, 3), {"good": 1, "corrupt_image": 1}),
    "broken deflate": (lambda: noise_in(zipfile.ZIP_DEFLATED), {"good": 1, "corrupt_image": 1}),
    "broken bzip2": (lambda: noise_in(zipfile.ZIP_BZIP2), {"good": 1, "corrupt_image": 1}),
    "broken LZMA": (lambda: noise_in(zipfile.ZIP_LZMA), {"good": 1, "corrupt_image": 1}),
    "a link out": (lambda: linked(b"/etc/passwd"), {"good": 1, "missing_image": 1}),
    "a link to itself": (lambda: linked(b"a.png"), {"good": 1, "missing_image": 1}),
    "names that lead out": (lambda: named("../../a"), {"good": 1, "missing_image": 1}),
    "absolute names": (lambda: named("/etc/a"), {"good": 1, "missing_image": 1}),
    "backslashes that lead out": (lambda: named("..\\..\\a"), {"good": 1, "missing_image": 1}),
    "a name of 60,000 characters": (lambda: named("a" * 60_000), BOTH),
    "a name with a line break": (lambda: named("a\nb"), BOTH),
    "a name twice": (lambda: zipped(("b.png", b"first"), ("b.txt", b"z")), {"good": 1}),
    "a folder named like an image": (lambda: zipped(("c.png/", b"")), {"good": 1}),
    "a zip in the zip": (lambda: zipped(("c.zip", bytes(sample()))), {"good": 1}),
    "20,000 empty entries": (
        lambda: zipped(*((f"e/{n}", b"") for n in range(20_000))),
        {"good": 1},
    ),
    "a comment of 60 kB": (
        lambda: bytes(sample()[:-2]) + struct.pack("<H", 60_000) + b"c" * 60_000,
        BOTH,
    ),
    "something in front": (lambda: b"#!/bin/sh\n" * 99 + bytes(sample()), BOTH),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", CASES)
def test_a_zip_with_an_entry_made_to_break_reading(hostile: Hostile, name: str) -> None:
    make, expected = CASES[name]
    path = hostile.root / "pool.zip"
    path.write_bytes(make())
    found = hostile.call(outcome, path, hostile.out)
    assert found["good"] >= 1, "the other sample goes on"
    if expected is not None:
        assert found == expected


def _cut(data: bytearray) -> bytes:
    return bytes(data[: len(data) // 2])


def _end(data: bytearray, field: int, size: int, value: int) -> bytes:
    place = data.rindex(b"PK\x05\x06") + field
    data[place : place + size] = value.to_bytes(size, "little")
    return bytes(data)


def _nothing() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("notes.md", "nothing")
    return out.getvalue()


REFUSED: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "rubbish": lambda: b"rubbish" * 99,
    "cut in half": lambda: _cut(sample()),
    "an end alone": lambda: b"PK\x05\x06" + bytes(18),
    "a directory beyond the end": lambda: _end(sample(), 16, 4, 0x7FFFFFFF),
    "a directory of another size": lambda: _end(sample(), 12, 4, 0x7FFFFFFF),
    "all encrypted": lambda: bytes(sample()).replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"
    ),
    "no sample": _nothing,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_zip_that_is_none_is_refused(hostile: Hostile, name: str) -> None:
    path = hostile.root / "pool.zip"
    path.write_bytes(REFUSED[name]())
    hostile.error(outcome, path, hostile.out)


def test_tables_in_zips_are_bounded(hostile: Hostile) -> None:
    path = write_zip(hostile.root / "p.zip", {"t.csv": "image,caption\n" + "x" * (100 << 20)})
    hostile.error(outcome, path, hostile.out, says="compressed")


def test_a_pipe_named_like_a_zip_is_refused(hostile: Hostile) -> None:
    path: Path = hostile.root / "p.zip"
    os.mkfifo(path)
    hostile.error(outcome, path, hostile.out, says="a pipe")
    hostile.refused("score", path, "--reference", "nowhere", "--out", hostile.out, says="a pipe")
