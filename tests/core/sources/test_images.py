"""Decoding: what open_clip would see, or an error that says why not."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from mimic_core.base.errors import ConfigError
from mimic_core.base.schema import SKIP_REASONS, Locator
from mimic_core.sources import images, limits
from mimic_core.sources.images import DECODER, ImageError, decode_image
from mimic_core.sources.reading import read_image
from tests.core.sources_pools import RED, image_bytes


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_decoder_is_named_with_its_version() -> None:
    assert f"Pillow {PIL.__version__}, 16 bits to 8" == DECODER


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_lossless_formats_give_the_written_pixels(kind: str) -> None:
    image = decode_image(image_bytes(RED, kind=kind))
    assert (image.mode, image.size) == ("RGB", (6, 4))
    assert (np.asarray(image) == RED).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_give_nearly_the_written_pixels(kind: str) -> None:
    pixel = decode_image(image_bytes(RED, kind=kind)).getpixel((2, 2))
    assert isinstance(pixel, tuple)
    assert max(abs(a - b) for a, b in zip(pixel, RED, strict=True)) <= 6


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "expected"),
    [
        ("L", 77, "PNG", (77, 77, 77)),
        ("1", 1, "PNG", (255, 255, 255)),
        ("RGBA", (1, 2, 3, 0), "PNG", (1, 2, 3)),  # transparency is dropped, not blended
        ("LA", (9, 0), "PNG", (9, 9, 9)),
        ("CMYK", (0, 255, 255, 0), "TIFF", (255, 0, 0)),
    ],
)
def test_other_modes_are_converted_as_open_clip_does(
    mode: str, colour: Any, kind: str, expected: tuple[int, int, int]
) -> None:
    data = image_bytes(colour, mode=mode, kind=kind)
    image = decode_image(data)
    assert image.getpixel((0, 0)) == expected
    with Image.open(io.BytesIO(data)) as same:  # what open_clip's image transform starts with
        assert np.array_equal(np.asarray(image), np.asarray(same.convert("RGB")))


def test_cmyk_jpeg_and_palette_with_transparency_raise_no_warning() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    transparent = saved(palette, "PNG", transparency=b"\x00\x80")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(transparent).getpixel((0, 0)) == (10, 20, 30)
        assert decode_image(image_bytes((0, 0, 0, 0), mode="CMYK", kind="JPEG")).mode == "RGB"


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in (RED, (0, 0, 255))]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data).getpixel((1, 1)) == RED


def test_exif_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter turn
    data = saved(Image.new("RGB", (8, 2), RED), "JPEG", exif=exif)
    assert decode_image(data).size == (8, 2)


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size; its content is far too short."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "corrupt_image", "the file is empty"),
        (b"no image at all", "corrupt_image", "UnidentifiedImageError"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unread_format", "the bytes are SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "unread_format", "the bytes are HEIC"),
        (b"<!DOCTYPE html><p>Not found", "corrupt_image", "the bytes are text"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "corrupt_image", "UnidentifiedImageError"),
        (image_bytes(kind="JPEG", size=(64, 64))[:-40], "corrupt_image", "truncated"),
        (image_bytes(size=(64, 64))[:-30], "corrupt_image", ""),
        (png_of(10_001, 10_000), "oversized_image", "100010000 pixels, the limit is 100000000"),
        (png_of(60_000, 60_000), "oversized_image", "decompression bomb"),
        (png_of(300, 300), "corrupt_image", ""),
    ],
)
def test_undecodable_bytes_say_why(data: bytes, reason: str, detail: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert (caught.value.reason, reason in SKIP_REASONS) == (reason, True)
    assert detail in caught.value.detail


def test_any_error_of_the_decoder_is_a_corrupt_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise ZeroDivisionError("odd header")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(ImageError, match="ZeroDivisionError: odd header"):
        decode_image(image_bytes())


def test_every_cut_and_every_flipped_byte_decodes_or_is_an_image_error() -> None:
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        data = image_bytes(kind=kind, size=(9, 9))
        for place in range(0, len(data), 7):
            for bad in (data[:place], data[:place] + b"\xff" + data[place + 1 :]):
                with contextlib.suppress(ImageError):
                    assert decode_image(bad).mode == "RGB"


def test_image_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ImageError("corrupt_image", "cut")))  # noqa: S301 - just written
    assert (error.reason, error.detail, str(error)) == (
        "corrupt_image",
        "cut",
        "corrupt_image: cut",
    )


def test_whole_files_and_ranges_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"0123456789")
    assert read_image(tmp_path, Locator("range", "a.bin")) == b"0123456789"
    assert read_image(tmp_path, Locator("range", "a.bin", 3, 4)) == b"3456"
    assert read_image(tmp_path, Locator("range", "./sub/../a.bin", 8)) == b"89"
    with pytest.raises(ImageError, match="corrupt_image"):
        read_image(tmp_path, Locator("range", "a.bin", 8, 4))


def test_huge_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 5)
    (tmp_path / "a.bin").write_bytes(b"012345")
    with pytest.raises(ImageError, match="has 6 bytes, the limit is 5"):
        read_image(tmp_path, Locator("range", "a.bin"))


# --- more formats, grey levels of 16 bits, and bounds ---------------------------------------------


def test_avif_is_read_by_its_bytes_whatever_its_name() -> None:
    image = decode_image(image_bytes((200, 30, 40), size=(32, 32), kind="AVIF"))
    assert np.abs(np.asarray(image, int) - (200, 30, 40)).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("level", "expected"), [(0, 0), (255, 0), (256, 1), (60_000, 234)])
def test_of_sixteen_bits_the_upper_eight_count(kind: str, level: int, expected: int) -> None:
    data = image_bytes(level, mode="I;16", kind=kind)
    assert decode_image(data).getpixel((0, 0)) == (expected,) * 3


@pytest.mark.parametrize(("mode", "level"), [("I", 70_000), ("I", -1), ("F", 0.5)])
def test_other_grey_levels_are_not_guessed(mode: str, level: float) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(image_bytes(level, mode=mode, kind="TIFF"))
    assert caught.value.reason == "unread_format"


def progressive(scans: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A progressive JPEG with further scans of nothing put before its end."""
    out = io.BytesIO()
    Image.new("RGB", size, (9, 99, 199)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    start = data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * scans + data[-2:]


@given(st.lists(st.sampled_from([b"\xff\xda", b"\xff", b"\xda", b"x"]), max_size=40))
def test_scans_are_counted_wherever_their_mark_begins(parts: list[bytes]) -> None:
    data = b"\xff\xd8" + b"".join(parts)
    assert images._scans(data) == max(1, data.count(b"\xff\xda"))


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    assert decode_image(progressive(20)).size == (64, 64)
    with pytest.raises(ImageError, match=r"a JPEG of \d+ scans, the limit is 100"):
        decode_image(progressive(1000))


def test_what_may_be_slow_is_decoded_in_a_process_that_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = image_bytes((1, 2, 3), size=(300, 200))
    whole = np.asarray(decode_image(data))
    monkeypatch.setattr(images, "GUARDED_PIXELS", 50)
    assert np.array_equal(np.asarray(decode_image(data)), whole)
    with pytest.raises(ImageError) as caught:
        decode_image(png_of(300, 300))
    assert (caught.value.reason, "decoder ended" in caught.value.detail) == ("corrupt_image", False)
    with pytest.raises(ImageError, match="grey levels that are no whole numbers"):
        decode_image(image_bytes(0.5, mode="F", kind="TIFF", size=(20, 20)))
    monkeypatch.setattr(images, "MAX_DECODE_SECONDS", 0.01)
    with pytest.raises(ImageError, match=r"decoding took more than 0.01 seconds"):
        decode_image(data)


def test_a_limit_of_this_machine_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIMICSCOPE_MAX_SCANS", "7")
    assert limits._limit("MAX_SCANS", 100) == 7
    monkeypatch.setenv("MIMICSCOPE_MAX_SCANS", "many")
    with pytest.raises(ConfigError, match="MIMICSCOPE_MAX_SCANS=many"):
        limits._limit("MAX_SCANS", 100)
