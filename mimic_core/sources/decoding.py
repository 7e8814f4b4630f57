"""Decodes one image from standard input to raw RGB on standard output.

``images`` runs it as a program for images that might be slow, so that they can be stopped.
"""

from __future__ import annotations

import io
import sys
import warnings

from PIL import Image

try:
    import resource
except ImportError:  # Windows, where the time is the only limit
    resource = None  # type: ignore[assignment]

from mimic_core.sources.images import FORMATS, ImageError, to_rgb
from mimic_core.sources.limits import MAX_DECODE_BYTES


def main() -> None:
    """Write the pixels, or the reason and detail of an ``ImageError`` to standard error."""
    warnings.simplefilter("ignore")
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_DECODE_BYTES, MAX_DECODE_BYTES))
    try:
        with Image.open(io.BytesIO(sys.stdin.buffer.read()), formats=FORMATS) as image:
            image.load()
            pixels = to_rgb(image).tobytes()
    except ImageError as error:
        sys.exit(str(error))
    except Exception as error:  # noqa: BLE001 - as in decode_image
        sys.exit(f"corrupt_image: {type(error).__name__}: {error}")
    sys.stdout.buffer.write(pixels)


if __name__ == "__main__":
    main()
