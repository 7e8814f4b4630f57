"""The bytes of one image, wherever its locator says that they are."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mimic_core.base.schema import Locator
from mimic_core.sources.archive import read_member
from mimic_core.sources.images import (
    ImageError,
    check_image_size,
    regular_size,
    require_within,
    safe_relative,
)
from mimic_core.sources.packed import read_packed
from mimic_core.sources.tables.arrow import read_cell
from mimic_core.sources.tarmembers import DamageError


def read_image(root: Path, locator: Locator, *, within: Collection[Path] = ()) -> bytes:
    """The bytes of one image.

    Args:
        root: The source's root.
        locator: As it stands in the index, which has refused links that were not to be followed.
        within: Folders that nothing is read outside of, whatever links lead there; none, no limit.

    Raises:
        ImageError: ``missing_image``, ``corrupt_image`` or ``oversized_image``.
    """
    path = root / safe_relative(locator.path)
    if within and (why := require_within(path, within)):
        raise ImageError("missing_image", why)
    size = regular_size(path)  # also keeps open() from waiting for a pipe's other end
    if locator.kind == "zip":
        return read_member(path, locator.member)
    if locator.kind == "parquet":
        return read_cell(path, locator.member, locator.offset)
    length = locator.length if locator.length >= 0 else size - locator.offset
    check_image_size(length, locator.path)
    try:
        if locator.kind == "packed":
            data = read_packed(path, locator.offset, length)
        else:
            with path.open("rb") as file:
                file.seek(locator.offset)
                data = file.read(length)
    except DamageError as error:
        raise ImageError("corrupt_image", f"{locator.path}: {error}") from error
    except OSError as error:
        raise ImageError("missing_image", f"{locator.path}: {error.strerror}") from error
    if len(data) != length:
        raise ImageError(
            "corrupt_image",
            f"{locator.path}: {len(data)} of {length} bytes at {locator.offset}",
        )
    return data
