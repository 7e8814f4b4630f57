"""Which column names the image, and whether the pool has captions or labels, and where.

A column that the user names is taken or refused, never replaced. Else the first name of the list
that the table has is taken; upper and lower case do not matter unless both are there.
"""

from __future__ import annotations

from collections.abc import Sequence
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
CAPTION_NAMES = ("caption", "text", "title", "txt", "comment", "description", "sentence")
LABEL_NAMES = ("label", "cls", "class", "class_name", "fine_label", "category", "target")
# Beside captions, the other names are as likely to be mere remarks.
_CLEARLY_LABELS = ("label", "cls")


class Columns(NamedTuple):
    """The two columns of a table that make a sample: image, and caption or label."""

    image: str
    text: str


class TextColumn(NamedTuple):
    """The column of the captions, or of the labels."""

    task: Task
    name: str


def chosen_task(config: SourceConfig) -> Task | None:
    """The task that the user's settings ask for; None leaves it to the pool.

    Raises:
        SourceError: They contradict each other.
    """
    asked: set[Task] = {config.task} if config.task else set()
    if config.caption_column is not None:
        asked.add("pairs")
    if config.label_column is not None:
        asked.add("labels")
    if len(asked) > 1:
        raise SourceError(
            "the settings ask for captions and for labels at once",
            got=f"--task {config.task}, --caption-column {config.caption_column}, "
            f"--label-column {config.label_column}",
            allowed="--task pairs with --caption-column, or --task labels with --label-column",
            next_step="leave one of them out; a caption column of a labelled pool is kept anyway",
        )
    return next(iter(asked), None)


def ambiguous_task(where: str, got: object) -> SourceError:
    """The refusal to choose between captions and labels."""
    return SourceError(
        f"{where} has captions and labels",
        got=got,
        allowed="--task pairs, --task labels",
        next_step="say with --task which of them are to be scored",
    )


def guess_text(
    columns: Sequence[str], label_columns: Sequence[str], config: SourceConfig, where: str
) -> TextColumn:
    """The column of the captions or of the labels.

    Args:
        columns: Those that can hold captions.
        label_columns: Those that can hold labels.

    Raises:
        SourceError: Neither is clear, or both are.
    """
    task = chosen_task(config)
    if task == "pairs":
        return TextColumn("pairs", guess_caption(columns, config.caption_column, where))
    if task == "labels":
        return TextColumn("labels", guess_label(label_columns, config.label_column, where))
    caption = _first_name(columns, CAPTION_NAMES, "--caption-column", where)
    label = _first_name(label_columns, LABEL_NAMES, "--label-column", where)
    if caption is not None and label is not None and label.strip().lower() in _CLEARLY_LABELS:
        raise ambiguous_task(where, [caption, label])
    if caption is not None:
        return TextColumn("pairs", caption)
    if label is not None:
        return TextColumn("labels", label)
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


def guess_image(columns: Sequence[str], chosen: str | None, where: str) -> str:
    """The column that names the image (``guess_column``)."""
    return guess_column(columns, IMAGE_NAMES, chosen, "--image-column", where)


def guess_caption(columns: Sequence[str], chosen: str | None, where: str) -> str:
    """The column that holds the caption (``guess_column``)."""
    return guess_column(columns, CAPTION_NAMES, chosen, "--caption-column", where)


def guess_label(columns: Sequence[str], chosen: str | None, where: str) -> str:
    """The column that holds the label (``guess_column``)."""
    return guess_column(columns, LABEL_NAMES, chosen, "--label-column", where)
