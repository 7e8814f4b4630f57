"""Which column names the image, and which the caption or the label.

A column that the user names is taken or refused, never replaced. Else the first name of the list
that the table has is taken; upper and lower case do not matter unless both are there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from mimic_core.base.config import SourceConfig, Task
from mimic_core.base.errors import SourceError

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
# Of images that were not downloaded, or under another name.
URL_NAMES = ("url", "image_url", "img_url", "image_link")
CAPTION_NAMES = (
    *("caption", "captions", "text", "title", "txt", "comment", "description", "sentence"),
    *("sentences", "conversations"),  # of JSON; the rule is that of ``texts.captions_of``
)
LABEL_NAMES = ("label", "cls", "class", "class_name", "fine_label", "category", "target")
# Beside captions, the other names are as likely to be mere remarks.
_CLEARLY_LABELS = ("label", "cls")


_URL = re.compile(r"https?://\S+", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Whether a cell is the address of something in the web."""
    return _URL.fullmatch(text.strip()) is not None


@cache
def known_names() -> frozenset[str]:
    """All names of columns that are known, in lower case."""
    return frozenset((*IMAGE_NAMES, *URL_NAMES, *CAPTION_NAMES, *LABEL_NAMES, "uid", "key", "id"))


class Columns(NamedTuple):
    """The two columns of a table that make a sample: image, and caption or label."""

    image: str
    text: str


def clearly_labels(column: str | None) -> bool:
    """Whether a column of that name holds labels even where there are captions."""
    return column is not None and column.strip().lower() in _CLEARLY_LABELS


def text_columns(
    columns: Sequence[str],
    label_columns: Sequence[str],
    config: SourceConfig,
    task: Task | None,
    where: str,
) -> dict[Task, str]:
    """The columns of the captions and of the labels, as far as ``task`` leaves them open.

    Args:
        columns: Those that can hold captions.
        label_columns: Those that can hold labels.

    Raises:
        SourceError: Neither is clear.
    """
    if task == "pairs":
        option = "--caption-column"
        return {"pairs": guess_column(columns, CAPTION_NAMES, config.caption_column, option, where)}
    if task == "labels":
        option = "--label-column"
        return {
            "labels": guess_column(label_columns, LABEL_NAMES, config.label_column, option, where)
        }
    guessed: dict[Task, str | None] = {
        "pairs": _first_name(columns, CAPTION_NAMES, "--caption-column", where),
        "labels": _first_name(label_columns, LABEL_NAMES, "--label-column", where),
    }
    found = {asked: column for asked, column in guessed.items() if column is not None}
    if found:
        return found
    raise SourceError(
        f"{where} has no column that is clearly the caption or the label",
        got=f"columns {', '.join(dict.fromkeys([*columns, *label_columns])) or 'none'}",
        allowed=f"captions: {', '.join(CAPTION_NAMES)}; labels: {', '.join(LABEL_NAMES)}",
        next_step="name it with --caption-column or --label-column",
    )


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
    found = _first_name(columns, names, option, where)
    if found is not None:
        return found
    raise SourceError(
        f"{where} has no column that is clearly the {option.split('-')[2]}",
        got=f"columns {listed}",
        allowed=", ".join(names),
        next_step=f"name it with {option}",
    )


def _first_name(
    columns: Sequence[str], names: Sequence[str], option: str, where: str
) -> str | None:
    """The first of ``names`` among ``columns``, as it is written there."""
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
    return None


def guess_image(
    columns: Sequence[str], chosen: str | None, where: str, names: Sequence[str] = IMAGE_NAMES
) -> str:
    """The column that names the image (``guess_column``)."""
    return guess_column(columns, names, chosen, "--image-column", where)
