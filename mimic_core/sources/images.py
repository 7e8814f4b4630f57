"""Image bytes to an RGB image, and what a pool may name as an image.

The decoder does what open_clip's own preprocessing does and no more: Pillow, first frame of an
animation, ``convert("RGB")``. The EXIF orientation is NOT applied, since the training pipelines of
CLIP models do not apply it: the model is to see what it saw in training. Grey images of 16 bits are
the exception: ``convert`` would make all but black of them white, so their upper eight bits count.

Limits keep one image from taking memory or minutes (``limits``); what could still be slow is
decoded in a process of its own, which is killed when its time is over.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from PIL import __version__ as _pillow_version

from mimic_core.sources.limits import (
    GUARDED_BYTES,
    GUARDED_PIXELS,
    MAX_DECODE_SECONDS,
    MAX_IMAGE_BYTES,
    MAX_PIXELS,
    MAX_SCANS,
)
from mimic_core.sources.source import Unusable

DECODER = f"Pillow {_pillow_version}, 16 bits to 8"

# Pillow's other plugins call programs or read further files; pools have no use for them.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# Pillow names the buffer with its address, which differs from run to run.
_ADDRESS = re.compile(r"<_io\.BytesIO object at 0x[0-9a-f]+>")
_HEADS: tuple[tuple[int, bytes, str], ...] = (  # place, bytes, what they say
    *((4, b"ftyp" + brand, "HEIC") for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")),
    (4, b"ftyp", "MP4 or another film"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"<svg", "SVG"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"\x1f\x8b", "gzip"),
)
_SCAN = 0xDAFF  # the two bytes before each pass over a JPEG's pixels, as a number
_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"{", b"version https://git-lfs")


class ImageError(Unusable):
    """The image of one sample is missing or cannot be decoded."""


def safe_relative(name: str) -> str:
    """``name`` as a normalised relative path that stays below its root.

    Raises:
        ImageError: It is empty, absolute, a URL, or leads out of the root.
    """
    if not name or "\0" in name:
        raise ImageError("missing_image", "no image is named" if not name else "a NUL in the name")
    if "://" in name:
        raise ImageError("missing_image", f"{name} is a URL; images have to be downloaded first")
    clean = posixpath.normpath(name)
    if posixpath.isabs(clean) or Path(name).is_absolute():
        raise ImageError(
            "missing_image",
            f"{name} is an absolute path, of which no end is a file of the pool; give the folder "
            "that it is below with --image-root",
        )
    if clean == ".." or clean.startswith("../"):
        raise ImageError("missing_image", f"{name} leads out of the pool's folder")
    return clean


def require_within(path: Path, roots: Iterable[str | Path]) -> str | None:
    """Why ``path``, its links followed, lies below none of ``roots``; None where it does."""
    real = os.path.realpath(path)
    for root in map(os.path.realpath, roots):
        if os.path.commonpath([real, root]) == root:
            return None
    return f"{path.name} is a link that leads out of the pool's folder"


def regular_size(path: Path) -> int:
    """Size in bytes of a regular file; anything else is an ``ImageError``."""
    try:
        status = path.stat()
    except OSError as error:
        raise ImageError("missing_image", f"{path.name}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("missing_image", f"{path.name} is not a file")
    return status.st_size


def check_image_size(size: int, name: str) -> None:
    """Refuse an image file larger than ``MAX_IMAGE_BYTES``."""
    if size > MAX_IMAGE_BYTES:
        raise ImageError(
            "oversized_image", f"{name} has {size} bytes, the limit is {MAX_IMAGE_BYTES}"
        )


def decode_image(data: bytes, *, shown_at: int | None = None) -> Image.Image:
    """Decode a whole image to RGB, as open_clip's preprocessing would see it.

    Args:
        data: The bytes of the file.
        shown_at: For the screen alone: the image will be shrunk to that many pixels, so a JPEG may
            be decoded at a half, quarter or eighth of its size, which takes a fraction of the time.

    Raises:
        ImageError: ``corrupt_image``, ``unread_format`` or, beyond a limit, ``oversized_image``.
    """
    if not data:
        raise ImageError("corrupt_image", "the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files, one per image
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                pixels = image.width * image.height
                if pixels > MAX_PIXELS:
                    raise ImageError(
                        "oversized_image", f"{pixels} pixels, the limit is {MAX_PIXELS}"
                    )
                if pixels * _scans(data) > GUARDED_PIXELS or len(data) > GUARDED_BYTES:
                    return _decode_apart(data, image.size)
                if shown_at is not None:
                    image.draft("RGB", (2 * shown_at, 2 * shown_at))
                image.load()
                return to_rgb(image)
        except ImageError:
            raise
        except Image.DecompressionBombError as error:
            raise ImageError("oversized_image", str(error)) from error
        except Exception as error:  # hostile bytes make Pillow's plugins raise errors of any type
            raise _undecodable(data, error) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image as RGB; of grey levels with 16 bits the upper eight."""
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min(initial=0) < 0 or levels.max(initial=0) > 0xFFFF:
            raise ImageError("unread_format", "grey levels of more than 16 bits")
        if image.mode != "I" or levels.max(initial=0) > 0xFF:
            image = Image.fromarray((levels >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ImageError("unread_format", "grey levels that are no whole numbers")
    return image.convert("RGB")


def _undecodable(data: bytes, error: Exception) -> ImageError:
    """What the bytes are, where their first ones say it, else what the decoder says."""
    avif = data.startswith((b"ftypavif", b"ftypavis"), 4)  # which is read, and so damaged
    for place, head, what in () if avif else _HEADS:
        if data.startswith(head, place):
            return ImageError(
                "unread_format", f"the bytes are {what}, which is not read; convert it to JPEG"
            )
    if data.lstrip()[:32].lower().startswith(_PAGES):
        return ImageError("corrupt_image", f"the bytes are text: {data.strip()[:60]!r}")
    detail = _ADDRESS.sub("these bytes", str(error))
    return ImageError("corrupt_image", f"{type(error).__name__}: {detail}")


def _scans(data: bytes) -> int:
    """How often a JPEG goes over all its pixels; 1 for other formats.

    Raises:
        ImageError: More than ``MAX_SCANS`` times, which only an attack has a use for.
    """
    if not data.startswith(b"\xff\xd8"):
        return 1
    # The mark may also stand in a thumbnail or a comment. In pairs of bytes from both starts, which
    # is six times as fast as counting it in the bytes.
    pairs = [np.frombuffer(data, "<u2", (len(data) - start) // 2, offset=start) for start in (0, 1)]
    scans = sum(int(np.count_nonzero(part == _SCAN)) for part in pairs)
    if scans > MAX_SCANS:
        raise ImageError("oversized_image", f"a JPEG of {scans} scans, the limit is {MAX_SCANS}")
    return max(1, scans)


def _decode_apart(data: bytes, size: tuple[int, int]) -> Image.Image:
    """Decode in a process of its own, which is killed after ``MAX_DECODE_SECONDS``."""
    package = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mimic_core.sources.decoding"],
            input=data,
            capture_output=True,
            timeout=MAX_DECODE_SECONDS,
            env={**os.environ, "PYTHONPATH": str(package)},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ImageError(
            "oversized_image", f"decoding took more than {MAX_DECODE_SECONDS} seconds"
        ) from error
    if done.returncode == 0:
        return Image.frombytes("RGB", size, done.stdout)
    reason, _, detail = done.stderr.decode(errors="replace").strip().partition(": ")
    if reason not in ("unread_format", "corrupt_image"):
        reason, detail = "corrupt_image", f"the decoder ended with {done.returncode}"
    raise ImageError(reason, detail)
