"""Which column names the image and which the caption.

A column that the user names is taken or refused, never replaced. Else the first name of the list
that the table has is taken; upper and lower case do not matter unless both are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mimic_core.errors import SourceError

IMAGE_NAMES = (
    "file_name",  # Hugging Face imagefolder
    "filepath",  # open_clip
    "filename",
    "file_path",
    "image_path",
    "image_file",
    "image_name",
    "image",
    "img_path",
    "img",
    "path",
    "file",
    "jpg",  # img2dataset's Parquet output
)
CAPTION_NAMES = ("caption", "text", "title", "txt", "comment", "description", "sentence")


class Columns(NamedTuple):
    """The two columns of a table that make a sample."""

    image: str
    caption: str


def guess_column(
    columns: Sequence[str], names: Sequence[str], chosen: str | None, option: str, where: str
) -> str:
    """The chosen column, or the first of ``names`` among ``columns``.

    Raises:
        SourceError: There is none, or two differ only in case; lists the columns.
    """
    listed = ", ".join(columns) or "none"
    if chosen is not None:
        if columns.count(chosen) != 1:
            raise SourceError(
                f"{where} has no such column",
                got=chosen,
                allowed=listed,
                next_step=f"correct {option}",
            )
        return chosen
    for name in names:
        found = [column for column in columns if column.strip().lower() == name]
        if len(found) > 1:
            raise SourceError(
                f"{where} has several columns named {name}",
                got=found,
                next_step=f"rename one of them, or choose with {option}",
            )
        if found:
            return found[0]
    raise SourceError(
        f"{where} has no column that is clearly the {option.split('-')[2]}",
        got=f"columns {listed}",
        allowed=", ".join(names),
        next_step=f"name it with {option}",
    )


def guess_image(columns: Sequence[str], chosen: str | None, where: str) -> str:
    """The column that names the image (``guess_column``)."""
    return guess_column(columns, IMAGE_NAMES, chosen, "--image-column", where)


def guess_caption(columns: Sequence[str], chosen: str | None, where: str) -> str:
    """The column that holds the caption (``guess_column``)."""
    return guess_column(columns, CAPTION_NAMES, chosen, "--caption-column", where)
