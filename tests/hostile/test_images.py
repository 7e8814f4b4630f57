"""Image files that were made to break decoding: each is a skip with a reason; the rest goes on."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mimic_core.sources.images import ImageError, decode_image
from tests.core.sources_pools import image_bytes, write_files
from tests.hostile.pools import PNG, outcome
from tests.hostile.runner import Hostile

JPEG = image_bytes(size=(64, 48), kind="JPEG")


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose header claims a size and whose pixels are all zero."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"\0" * min(64 << 20, height * (1 + width * 3)), 1)
    parts = [chunk(b"IHDR", header), *more, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def progressive(scans: int) -> bytes:
    """A progressive JPEG that goes over its pixels many times more than it has to."""
    out = io.BytesIO()
    Image.new("RGB", (2000, 2000), (9, 99, 199)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * scans + data[-2:]


def tiff(*entries: tuple[int, int, int, int], after: int = 0) -> bytes:
    """A little-endian TIFF of one directory; entries are tag, type, count, value."""
    body = b"".join(struct.pack("<HHII", *one) for one in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + struct.pack("<I", after)


SHAPE = [(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
BOMB = zlib.compress(bytes(200 << 20), 9)

CASES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "corrupt_image"),
    "zeros": (bytes(4096), "corrupt_image"),
    "noise": (bytes(range(256)) * 40, "corrupt_image"),
    "text": (b"this is no image", "corrupt_image"),
    "html": (b"<!DOCTYPE html><html>404</html>", "corrupt_image"),
    "json": (b'{"error": "quota"}', "corrupt_image"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "corrupt_image"),
    "svg": (b"<svg xmlns='x'><script/></svg>", "unread_format"),
    "pdf": (b"%PDF-1.7\n1 0 obj", "unread_format"),
    "zip": (b"PK\x03\x04" + bytes(60), "unread_format"),
    "gzip": (b"\x1f\x8b\x08" + bytes(60), "unread_format"),
    "psd": (b"8BPS\0\1" + bytes(60), "unread_format"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(60), "unread_format"),
    "film": (b"\0\0\0\x18ftypisom" + bytes(60), "unread_format"),
    "jxl": (b"\xff\x0a" + bytes(60), "unread_format"),
    "jp2": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60), "unread_format"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "corrupt_image"),
    "ppm": (b"P6 2 2 255\n" + bytes(12), "corrupt_image"),
    "jpeg cut off": (JPEG[: len(JPEG) // 2], "corrupt_image"),
    "jpeg header alone": (JPEG[:20], "corrupt_image"),
    "jpeg of a thousand scans": (progressive(1000), "oversized_image"),
    "jpeg of no size": (JPEG.replace(struct.pack(">HH", 48, 64), bytes(4)), "corrupt_image"),
    "jpeg of a giant size": (
        JPEG.replace(struct.pack(">HH", 48, 64), b"\xff" * 4),
        "oversized_image",
    ),
    "png cut off": (image_bytes(size=(64, 64))[:-30], "corrupt_image"),
    "png of too many pixels": (png(10_001, 10_000), "oversized_image"),
    "png of four billion pixels": (png(65_535, 65_535), "oversized_image"),
    "png of a negative width": (png(0xFFFFFFFF, 1), "oversized_image"),
    "png of no width": (png(0, 5), "corrupt_image"),
    "png with a bomb for a profile": (png(4, 4, chunk(b"iCCP", b"x\0\0" + BOMB)), "corrupt_image"),
    "png with a bomb for a comment": (png(4, 4, chunk(b"zTXt", b"x\0\0" + BOMB)), "corrupt_image"),
    "png with a chunk beyond its end": (
        PNG[:33] + struct.pack(">I", 0x7FFFFFFF) + b"IDAT" + PNG[33:],
        "corrupt_image",
    ),
    "png of an unknown kind": (png(4, 4, colour=5), "corrupt_image"),
    "gif of a giant canvas": (b"GIF89a\xff\xff\xff\xff\0\0\0;", "corrupt_image"),
    "gif without a frame": (b"GIF89a\4\0\4\0\0\0\0;", "corrupt_image"),
    "bmp of a giant size": (
        b"BM" + bytes(12) + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, *[0] * 6),
        "oversized_image",
    ),
    "bmp cut off": (image_bytes(kind="BMP", size=(64, 64))[:200], "corrupt_image"),
    "webp cut off": (image_bytes(kind="WEBP", size=(64, 64))[:40], "corrupt_image"),
    "avif cut off": (image_bytes(kind="AVIF", size=(64, 64))[:-20], "corrupt_image"),
    "tiff of billions of strips": (
        tiff(*SHAPE, (273, 4, 0xFFFFFFFF, 8), (279, 4, 0xFFFFFFFF, 8)),
        "corrupt_image",
    ),
    "tiff in a circle": (tiff(*SHAPE, (273, 4, 1, 8), (279, 4, 1, 16), after=8), "good"),
    "tiff without pixels": (tiff(*SHAPE), "corrupt_image"),
    "tiff of fractions": (image_bytes(0.5, mode="F", kind="TIFF"), "unread_format"),
    "tiff of 32 bits": (image_bytes(99_999, mode="I", kind="TIFF"), "unread_format"),
    "tiff of a giant size": (
        tiff((256, 4, 1, 99_999), (257, 4, 1, 99_999), *SHAPE[2:]),
        "corrupt_image",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_image_made_to_break_decoding_is_one_skip(hostile: Hostile, name: str) -> None:
    data, reason = CASES[name]
    pool = write_files(
        hostile.root / "pool", {"a.jpg": data, "a.txt": "x", "b.png": PNG, "b.txt": "y"}
    )
    found = hostile.call(outcome, pool, hostile.out)
    expected = {"good": 2} if reason == "good" else {"good": 1, reason: 1}
    if name.endswith(("profile", "comment")) or "circle" in name:
        # Some versions of the decoder pass over what they cannot use; nothing else may happen.
        assert found["good"] + found["corrupt_image"] + found["oversized_image"] == 2
        return
    assert found == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_damage_anywhere_gives_an_image_or_a_reason(hostile: Hostile, kind: str) -> None:
    data = image_bytes(size=(24, 18), kind=kind)

    def all_damages() -> None:
        for place in range(0, len(data), max(1, len(data) // 60)):
            for change in (b"\0", b"\xff", b"\x7f"):
                broken = data[:place] + change * 3 + data[place + 3 :]
                with contextlib.suppress(ImageError):
                    decode_image(broken)

    hostile.call(all_damages)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _circle(path: Path) -> None:
    path.symlink_to(path)


def _nothing(path: Path) -> None:
    path.symlink_to(path.with_name("gone.jpg"))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(8 << 40)  # eight terabytes of nothing


PLACES: dict[str, Any] = {"pipe": _pipe, "endless": _endless, "circle": _circle}
PLACES |= {"nothing": _nothing, "sparse": _sparse}


@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_image_file_is_one_skip(hostile: Hostile, name: str) -> None:
    pool = write_files(hostile.root / "pool", {"a.txt": "x", "b.png": PNG, "b.txt": "y"})
    PLACES[name](pool / "a.jpg")
    found = hostile.call(outcome, pool, hostile.out)
    reason = "oversized_image" if name == "sparse" else "missing_image"
    assert found == {"good": 1, reason: 1}


def test_a_name_that_is_not_utf8_is_one_skip(hostile: Hostile) -> None:
    pool = write_files(hostile.root / "pool", {"b.png": PNG, "b.txt": "y"})
    (pool / "\udcff\udcfe.jpg").write_bytes(PNG)
    assert hostile.call(outcome, pool, hostile.out) == {"good": 1, "missing_image": 1}


def test_a_pool_whose_own_path_is_not_utf8_is_refused(hostile: Hostile) -> None:
    pool = hostile.root / "p\udcff"
    pool.mkdir()
    (pool / "b.png").write_bytes(PNG)
    hostile.refused("score", pool, "--reference", "nowhere", "--out", hostile.out)
