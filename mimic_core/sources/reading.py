"""TODO mimic_core/sources/reading.py."""

from __future__ import annotations

from pathlib import Path

from mimic_core.base.schema import Locator
from mimic_core.sources.images import (
    ImageError,
    check_image_size,
    regular_size,
    require_inside,
    safe_relative,
)


def read_image(root: Path, locator: Locator) -> bytes:
    """The bytes of one image.

    Args:
        root: The source's root; nothing outside it is read.
        locator: As it stands in the index.

    Raises:
        ImageError: ``missing_image``, ``corrupt_image`` or ``oversized_image``.
    """
    path = root / safe_relative(locator.path)
    if locator.kind == "zip":
        from mimic_core.sources.archive import read_member

        return read_member(path, locator.member)
    if locator.kind == "parquet":
        from mimic_core.sources.tables.arrow import read_cell

        return read_cell(path, locator.member, locator.offset)
    if locator.offset == 0:  # a loose file, named by the pool's own table; a tar member never is
        require_inside(root, path)
    return _read_range(path, locator)


def _read_range(path: Path, locator: Locator) -> bytes:
    size = regular_size(path)  # also keeps open() from waiting for a pipe's other end
    length = locator.length if locator.length >= 0 else size - locator.offset
    check_image_size(length, locator.path)
    try:
        with path.open("rb") as file:
            file.seek(locator.offset)
            data = file.read(length)
    except OSError as error:
        raise ImageError("missing_image", f"{locator.path}: {error.strerror}") from error
    if len(data) != length:
        raise ImageError(
            "corrupt_image",
            f"{locator.path}: {len(data)} of {length} bytes at {locator.offset}",
        )
    return data
