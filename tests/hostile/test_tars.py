"""Tars that were made to break reading: what is whole is read, what is lost is said."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.sources.tarmembers import Gap, Member, read_members
from tests.core.sources_pools import triple
from tests.hostile.pools import PNG, outcome
from tests.hostile.runner import Hostile

BLOCK = 512


def tar(*keys: str, form: int = tarfile.USTAR_FORMAT, **options: Any) -> bytes:
    """A tar of a sample for each key."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, **options) as archive:
        for key in keys:
            for name, data in triple(key, f"caption of {key}"):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def header(name: str | bytes, kind: bytes = b"0", size: bytes | int = 0, **fields: bytes) -> bytes:
    """One header with a right checksum and whatever else."""
    block = bytearray(BLOCK)
    raw = name if isinstance(name, bytes) else name.encode()
    block[: len(raw)] = raw
    block[100:108], block[257:265] = b"0000644\0", b"ustar\x0000"
    block[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    block[156:157] = kind
    for place, value in fields.items():
        at = int(place.removeprefix("at_"))
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    """``data`` filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def pax(text: bytes, kind: bytes = b"x") -> bytes:
    """A pax header of the given records."""
    return header("pax", kind, len(text)) + padded(text)


def record(key: bytes, value: bytes) -> bytes:
    """One pax record."""
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest)
    while len(b"%d" % size) + len(rest) != size:
        size = len(b"%d" % size) + len(rest)
    return b"%d" % size + rest


MEMBER = header("a.png", size=len(PNG)) + padded(PNG) + header("a.txt", size=1) + padded(b"x")
END = bytes(2 * BLOCK)
GOOD = tar("b")
LONG = header("././@LongLink", b"L", 6) + padded(b"a.png\0")


def zeroed(data: bytes, place: int) -> bytes:
    """``data`` with one block of nothing."""
    return data[:place] + bytes(BLOCK) + data[place + BLOCK :]


EIGHT = tar(*"12345678")
OF_ONE = len(tar("1")) and 2 * BLOCK + len(padded(PNG)) + BLOCK  # bytes of a sample

CASES: dict[str, tuple[bytes, dict[str, int]]] = {
    "empty": (b"", {"unreadable_shard": 1}),
    "not a tar": (b"no tar" * 999, {"unreadable_shard": 1}),
    "an end alone": (END, {}),
    "two behind one another": (tar("a") + GOOD, {"good": 2}),
    "an end mark of one block": (MEMBER + bytes(BLOCK) + GOOD, {"good": 2}),
    "rubbish behind the end": (GOOD + b"rubbish" * 300, {"good": 1, "unreadable_shard": 1}),
    "a zeroed header of eight samples": (
        zeroed(EIGHT, 3 * OF_ONE),
        {"good": 6, "unreadable_shard": 2, "missing_image": 1},
    ),
    "a size of minus one": (
        header("a.txt", size=b"-0000000001\0") + padded(b"x") + GOOD,
        {"good": 1, "unreadable_shard": 1},
    ),
    "a negative size of GNU's": (
        header("a.txt", size=b"\xff" * 12) + padded(b"x") + GOOD,
        {"good": 1, "unreadable_shard": 1},
    ),
    "a size of 2 to the 95": (
        header("a.txt", size=b"\x80" + b"\xff" * 11) + padded(b"x") + GOOD,
        {"good": 1, "unreadable_shard": 1},
    ),
    "a size beyond the end": (
        header("a.png", size=1 << 30) + GOOD,
        {"good": 1, "unreadable_shard": 1},
    ),
    "a size that is no number": (
        header("a.png", size=b"1_000_000\0\0\0") + GOOD,
        {"good": 1, "unreadable_shard": 1},
    ),
    "20,000 long names in a chain": (LONG * 20_000 + MEMBER + END, {"good": 1}),
    "20,000 pax headers in a chain": (
        pax(record(b"path", b"a.png")) * 20_000 + MEMBER + END,
        {"good": 1},
    ),
    "a long name of a gigabyte": (
        header("././@LongLink", b"L", 1 << 30) + MEMBER + END,
        {"good": 1, "unreadable_shard": 1},
    ),
    "a pax header of a gigabyte": (
        header("pax", b"x", 1 << 30) + MEMBER + END,
        {"good": 1, "unreadable_shard": 1},
    ),
    "a long name and nothing else": (LONG + END, {"unreadable_shard": 1}),
    "a pax size of minus one": (
        pax(record(b"size", b"-1")) + MEMBER + GOOD,
        {"good": 1, "unreadable_shard": 1, "missing_image": 1},
    ),
    "a pax size of 400 digits": (
        pax(record(b"size", b"9" * 400)) + MEMBER + GOOD,
        {"good": 1, "unreadable_shard": 1, "missing_image": 1},
    ),
    "a pax size that is text": (
        pax(record(b"size", b"many")) + MEMBER + GOOD,
        {"good": 1, "unreadable_shard": 1, "missing_image": 1},
    ),
    "a pax record of no length": (pax(b"0 path=b.png\n") + MEMBER + END, {"good": 1}),
    "a pax record beyond its header": (pax(b"99 path=b.png\n") + MEMBER + END, None),  # type: ignore[dict-item]
    "pax records without sense": (pax(b"\xff\xfe =\n\n\n==") + MEMBER + END, {"good": 1}),
    "a pax name with NUL": (pax(record(b"path", b"a.png\0.txt")) + MEMBER + END, {"good": 1}),
    "a pax name that is not UTF-8": (
        pax(record(b"path", b"\xff.png")) + MEMBER + END,
        {"missing_image": 1, "empty_caption": 1},
    ),
    "suffixes that are not UTF-8": (
        MEMBER
        + header(b"a.\xff", size=1)
        + padded(b"x")
        + header(b"b.\xff.heic", size=1)
        + padded(b"x")
        + header(b"c.\xff.png", size=1)
        + padded(b"x")
        + header(b"c.\xfe.png", size=1)
        + padded(b"x")
        + header("c.txt", size=1)
        + padded(b"x")
        + END,
        {"good": 1, "unread_format": 1, "bad_metadata": 1},
    ),
    "a global name for all": (
        pax(record(b"path", b"a.png"), b"g") + MEMBER + END,
        {"empty_caption": 2},
    ),
    "a sparse file": (
        header("a.png", b"S", 0) + header("a.txt", size=1) + padded(b"x") + GOOD,
        {"good": 1, "missing_image": 1},
    ),
    "a sparse map without end": (
        header("a.png", b"S", 0, at_482=b"\1") + (bytes(504) + b"\1" + bytes(7)) * 99,
        {"unreadable_shard": 2},
    ),
    "links, devices and folders": (
        header("a.png", b"2", at_157=b"/etc/passwd")
        + header("a.txt", size=1)
        + padded(b"x")
        + header("c.png", b"3")
        + header("d.png", b"5")
        + GOOD,
        {"good": 1, "missing_image": 2, "empty_caption": 0},
    ),
    "names that lead out": (
        header("../../x.png", size=len(PNG))
        + padded(PNG)
        + header("../../x.txt", size=1)
        + padded(b"x")
        + header("/etc/y.png", size=len(PNG))
        + padded(PNG)
        + header("/etc/y.txt", size=1)
        + padded(b"x")
        + END,
        {"good": 2},  # keys are names and nothing else: no file is ever written or opened by them
    ),
    "a member without a name": (header("", size=1) + padded(b"x") + GOOD, None),  # type: ignore[dict-item]
    "a tar in a member that is cut off": (
        header("in.png", size=1 << 20) + padded(GOOD),
        {"good": 1, "unreadable_shard": 1},
    ),
    "the same key 200 times": (MEMBER * 200 + END, {"good": 200}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_tar_made_to_break_reading(hostile: Hostile, name: str) -> None:
    data, expected = CASES[name]
    pool = hostile.root / "pool"
    pool.mkdir()
    (pool / "0.tar").write_bytes(data)
    (pool / "1.tar").write_bytes(tar("other"))
    found = hostile.call(outcome, pool, hostile.out)
    assert found["good"] >= 1, "the other shard goes on"
    if expected is not None:
        found["good"] -= 1
        assert +found == {reason: count for reason, count in expected.items() if count}


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("0.tar.gz", gzip.compress),
    "zstd": ("0.tar.zst", lambda data: pa.compress(data, codec="zstd", asbytes=True)),
    "bzip2": ("0.tar.bz2", bz2.compress),
    "xz": ("0.tar.xz", lzma.compress),
}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("damage", ["cut", "flipped", "nothing", "rubbish", "bomb", "plain"])
def test_a_compressed_tar_made_to_break_reading(hostile: Hostile, kind: str, damage: str) -> None:
    name, pack = PACKED[kind]
    whole = pack(tar(*(f"{n}" for n in range(40))))
    middle = len(whole) // 2
    data = {
        "cut": whole[:middle],
        "flipped": whole[:middle] + b"\0\xff\0\xff" * 3 + whole[middle + 12 :],
        "nothing": b"",
        "rubbish": b"rubbish" * 99,
        "bomb": b"" if damage != "bomb" else pack(bytes(100 << 20)),  # takes a second to pack
        "plain": tar("a"),
    }[damage]
    pool = hostile.root / "pool"
    pool.mkdir()
    (pool / name).write_bytes(data)
    (pool / "1.tar").write_bytes(tar("other"))
    found = hostile.call(outcome, pool, hostile.out)
    assert found["good"] >= 1
    # A hundred megabytes of nothing are an end mark, unless they pass the ratio.
    assert found["unreadable_shard"] >= (0 if damage in {"bomb", "nothing"} else 1)


def test_an_xz_that_asks_for_gigabytes_is_a_skip(hostile: Hostile) -> None:
    pool = hostile.root / "pool"
    pool.mkdir()
    alone = bytes([0x5D]) + b"\xff" * 12 + bytes(64)  # the older format: a dictionary of 4 GiB
    (pool / "0.tar.xz").write_bytes(alone)
    (pool / "1.tar").write_bytes(tar("other"))
    assert hostile.call(outcome, pool, hostile.out) == {"good": 1, "unreadable_shard": 1}


def test_a_pipe_named_like_a_tar_is_not_waited_for(hostile: Hostile) -> None:
    pool: Path = hostile.root / "pool"
    pool.mkdir()
    (pool / "1.tar").write_bytes(tar("other"))
    os.mkfifo(pool / "0.tar")
    (pool / "2.tar").mkdir()
    (pool / "3.tar").symlink_to("/dev/zero")
    assert hostile.call(outcome, pool, hostile.out) == {"good": 1}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_damaged_tars_end_and_give_nothing_twice(data: st.DataObject, form: int) -> None:
    content = bytearray(tar("a", "b" * 120, "c", form=form))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    found = list(read_members(io.BytesIO(content), len(content)))
    ends = 0
    for one in found:
        start = one.start if isinstance(one, Gap) else one.offset
        assert start >= ends
        ends = start if isinstance(one, Gap) else start + one.size
    assert all(isinstance(one, Member | Gap) for one in found)
