"""The program that decodes one image: its pixels, or the reason why there are none."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from mimic_core.sources import decoding
from mimic_core.sources.images import ImageError


def decoded(monkeypatch: pytest.MonkeyPatch, data: bytes) -> bytes:
    """What the program writes for ``data``; the limit it sets is that of a process of its own."""
    limits: list[tuple[int, int]] = []
    if decoding.resource is not None:
        monkeypatch.setattr(decoding.resource, "setrlimit", lambda _, pair: limits.append(pair))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=written))
    decoding.main()
    assert limits in ([], [(decoding.MAX_DECODE_BYTES, decoding.MAX_DECODE_BYTES)])
    return written.getvalue()


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_pixels_row_by_row_as_red_green_blue(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (2, 1))
    image.putdata([(255, 0, 7), (1, 2, 3)])
    assert decoded(monkeypatch, png(image)) == bytes([255, 0, 7, 1, 2, 3])


def test_a_grey_image_has_three_equal_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoded(monkeypatch, png(Image.new("L", (1, 1), 9))) == bytes([9, 9, 9])


def test_what_is_no_image_is_said_as_a_skip_would_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^corrupt_image: UnidentifiedImageError: "):
        decoded(monkeypatch, b"no image")


def test_a_reason_of_ours_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = ImageError("oversized_image", "larger than the limit")

    def refuse(_: Image.Image) -> Image.Image:
        raise refused

    monkeypatch.setattr(decoding, "to_rgb", refuse)
    with pytest.raises(SystemExit) as ended:
        decoded(monkeypatch, png(Image.new("L", (1, 1))))
    assert ended.value.code == str(refused)
