"""Images of samples for the screen: thumbnails and whole pictures, or the reason there is none."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mimic_core.base.errors import RemoteError
from mimic_core.base.schema import SKIP_REASONS, Locator
from mimic_core.sources.images import ImageError, decode_image
from mimic_core.sources.reading import read_image

THUMB_SIDE = 240  # pixels: a tile is about 160 wide, and many screens have two pixels in one
FULL_SIDE = 1400  # a larger picture would only be shrunk by the browser


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as the bytes of a WebP, or the reason why it cannot be shown."""

    data: bytes | None
    reason: str = ""


def picture(root: Path, locator: Locator, *, side: int, within: Collection[Path] = ()) -> Picture:
    """The image at ``locator``, no side longer than ``side`` pixels.

    Nothing outside of the folders ``within`` is read, whatever links lead there; none, no limit.

    An image that cannot be read is an ordinary answer here, not an exception: its sample still has
    scores, and the screen says what is wrong with the image.
    """
    try:
        image = decode_image(read_image(root, locator, within=within), shown_at=side)
    except ImageError as error:
        return Picture(None, SKIP_REASONS.get(error.reason, error.reason))
    except RemoteError as error:
        return Picture(None, error.problem)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2)
    out = io.BytesIO()
    image.save(out, format="WEBP", quality=82, method=2)
    return Picture(out.getvalue())
