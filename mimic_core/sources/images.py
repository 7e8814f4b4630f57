"""Image bytes by locator, and bytes to an RGB image.

The decoder does what open_clip's own preprocessing does and no more: Pillow, first frame of an
animation, ``convert("RGB")``. The EXIF orientation is NOT applied, since the training pipelines of
CLIP models do not apply it: the model is to see what it saw in training.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import stat
import warnings
from pathlib import Path

from PIL import Image
from PIL import __version__ as _pillow_version

from mimic_core.sources.source import Unusable

DECODER = f"Pillow {_pillow_version}"
MAX_PIXELS = 100_000_000  # 300 MB as RGB, in every worker
MAX_IMAGE_BYTES = 256 * 1024 * 1024

# Pillow's other plugins call programs or read further files; pools have no use for them.
# Pillow names the buffer with its address, which differs from run to run.
_ADDRESS = re.compile(r"<_io\.BytesIO object at 0x[0-9a-f]+>")
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


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
            "missing_image", f"{name} is an absolute path; only relative ones are read"
        )
    if clean == ".." or clean.startswith("../"):
        raise ImageError("missing_image", f"{name} leads out of the pool's folder")
    return clean


def require_inside(root: Path, path: Path) -> None:
    """Refuse a ``path`` whose links lead out of ``root``."""
    real = os.path.realpath(path)
    if os.path.commonpath([real, os.path.realpath(root)]) != os.path.realpath(root):
        raise ImageError(
            "missing_image", f"{path.name} is a link that leads out of the pool's folder"
        )


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


def decode_image(data: bytes) -> Image.Image:
    """Decode a whole image to RGB, as open_clip's preprocessing would see it.

    Raises:
        ImageError: ``corrupt_image`` or, above ``MAX_PIXELS``, ``oversized_image``.
    """
    if not data:
        raise ImageError("corrupt_image", "the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files, one per image
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _check_pixels(image.width * image.height)
                image.load()
                return image.convert("RGB")
        except ImageError:
            raise
        except Image.DecompressionBombError as error:
            raise ImageError("oversized_image", str(error)) from error
        except Exception as error:  # hostile bytes make Pillow's plugins raise errors of any type
            detail = _ADDRESS.sub("these bytes", str(error))
            raise ImageError("corrupt_image", f"{type(error).__name__}: {detail}") from error


def _check_pixels(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise ImageError("oversized_image", f"{pixels} pixels, the limit is {MAX_PIXELS}")
