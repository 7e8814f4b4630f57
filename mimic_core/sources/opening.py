"""From a path to a source: what is there decides the layout.

A folder is, in this order: tar shards (there or one folder deeper), Parquet files with embedded
images (likewise), a table of captions or labels at its root, images with a ``.txt`` or ``.json``
beside them, class folders. A single ``.tar``, ``.zip``, ``.parquet`` or table may be given as well.

A pool has captions or labels. Where the settings do not say which, captions win over the names of
folders, but not over a clear label of each sample: then the user is asked.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from pathlib import Path, PurePosixPath

from mimic_core.base.config import SourceConfig, Task
from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Sample
from mimic_core.sources.archive import open_archive
from mimic_core.sources.folder import FolderFiles, require_utf8
from mimic_core.sources.guess import ambiguous_task, chosen_task, guess_image, guess_text
from mimic_core.sources.layouts.beside import PairSource
from mimic_core.sources.layouts.class_folders import (
    ClassSource,
    class_folders,
    folders_of_classes,
    guessed_classes,
)
from mimic_core.sources.layouts.parquet import file_schema, image_columns, open_parquet
from mimic_core.sources.layouts.table import TableSource
from mimic_core.sources.layouts.webdataset import WebDatasetSource
from mimic_core.sources.path import ACCEPTED, pool_path
from mimic_core.sources.source import IMAGE_SUFFIXES, Files, Source
from mimic_core.sources.tables.loading import table_columns, table_suffix

PEEKED_SAMPLES = 64  # of a tar, to see whether it holds captions or labels


def open_source(config: SourceConfig) -> Source:
    """Open the pool at ``config.path``.

    Raises:
        SourceError: There is nothing, nothing of a known layout, or more than one reading of it;
            says what was found and what is accepted.
    """
    path = pool_path(config)
    return _open_folder(path, config) if path.is_dir() else _open_file(path, config)


def _open_file(path: Path, config: SourceConfig) -> Source:
    require_utf8(path.name)
    suffix = path.suffix.lower()
    if suffix == ".tar":
        return _open_tars(path.parent, (path.name,), config)
    if suffix == ".zip":
        return _open_zip(path, config)
    if suffix == ".parquet" and _embeds_images(path.parent, path.name, config):
        return open_parquet(path.parent, (path.name,), config)
    if table_suffix(path.name):
        return table_source(FolderFiles(path.parent), path.name, config)
    raise SourceError(
        "the file is of no known layout",
        got=path.name,
        allowed=ACCEPTED,
        next_step="unpack compressed tar files; give the path of the pool itself",
    )


def _open_folder(path: Path, config: SourceConfig) -> Source:
    names = _listing(path)
    tars = tuple(name for name in names if name.lower().endswith(".tar"))
    if tars:
        return _open_tars(path, tars, config)
    tables = [name for name in names if table_suffix(name)]
    embedded = tuple(
        name
        for name in tables
        if table_suffix(name) == "parquet" and _embeds_images(path, name, config)
    )
    if embedded:
        return open_parquet(path, embedded, config)
    return _open_files(FolderFiles(path), names, path, config)


def _open_tars(root: Path, paths: tuple[str, ...], config: SourceConfig) -> WebDatasetSource:
    """Tar shards; what their first samples have decides the task where the user does not."""

    def reading(task: Task) -> WebDatasetSource:
        columns = config.image_column, config.caption_column, config.label_column
        return WebDatasetSource(root, paths, *columns, task)

    task = chosen_task(config)
    if task is not None:
        return reading(task)
    labels = reading("labels")
    if not _has_samples(labels):
        return reading("pairs")
    if _has_samples(reading("pairs")):
        raise ambiguous_task("the pool", [".txt or .json captions", ".cls labels"])
    return labels


def _has_samples(source: WebDatasetSource) -> bool:
    first = itertools.islice(source.index(source.shards[0]), PEEKED_SAMPLES)
    return any(isinstance(one, Sample) for one in first)


def _open_zip(path: Path, config: SourceConfig) -> Source:
    files = open_archive(path)
    return _open_files(files, files.names(), path, config)


def _open_files(files: Files, names: list[str], path: Path, config: SourceConfig) -> Source:
    """Images with a table at their root, with texts beside them, or in class folders."""
    task = chosen_task(config)
    tables = [name for name in names if "/" not in name and table_suffix(name)]
    problems: list[SourceError] = []
    if tables:
        usable = _usable_tables(files, tables, config, problems)
        if usable:
            return usable
    pairs = PairSource(files, config.image_column, config.caption_column)
    if task != "labels" and pairs.has_captions():
        return pairs
    # A column that the user names is not the name of a folder.
    if task != "pairs" and config.label_column is None:
        every = files.names()
        # Where there is a table, its names are meant, unless the user wants labels.
        if class_folders(every) if task == "labels" else guessed_classes(every):
            return ClassSource(files)
    if problems:
        raise _no_table(problems)
    raise SourceError(
        f"the {files.layout} is of no known layout",
        got=f"{path} with {_summary(names)}",
        allowed=ACCEPTED,
        next_step=(None if task == "pairs" else _classes_hint(files, path)) or _hint(names),
    )


def _classes_hint(files: Files, path: Path) -> str | None:
    """What to do where only a part of the pool lies in class folders, as in Kaggle's train/ beside
    a test/ without labels.
    """
    parts = folders_of_classes(files.names())
    if not parts:
        return None
    if files.layout == "zip":
        return f"unpack it, and give the path of its folder with the classes: {', '.join(parts)}"
    return f"give the path of a folder with the classes: {path / parts[0]}"


def _hint(names: list[str]) -> str:
    """What somebody with these files probably wants to do."""
    deeper = sorted({name.split("/")[0] for name in names if "/" in name and table_suffix(name)})
    if deeper:
        return f"give the path of one folder with a table: {', '.join(deeper[:5])}"
    archives = [name for name in names if name.lower().endswith((".zip", ".gz", ".tgz"))]
    if archives:
        return f"give the path of one .zip, or unpack compressed files ({archives[0]})"
    if any(PurePosixPath(name).suffix.lower()[1:] in IMAGE_SUFFIXES for name in names):
        return (
            "put a table of captions or labels beside the images, a .txt beside each, or sort "
            "them into class folders (<class>/<image> or <split>/<class>/<image>)"
        )
    return "give the path of the pool itself"


def _embeds_images(root: Path, name: str, config: SourceConfig) -> bool:
    """Whether a Parquet file holds images rather than their paths."""
    embedded = image_columns(file_schema(root, name))
    return bool(embedded) and config.image_column in (None, *embedded)


def _listing(path: Path) -> list[str]:
    """Files of the folder and of its folders, as sorted relative names without hidden ones."""
    names = []
    for entry in os.scandir(path):
        if entry.name.startswith("."):
            continue
        if entry.is_file():
            names.append(entry.name)
        elif entry.is_dir():
            inner = os.scandir(entry.path)
            names += [f"{entry.name}/{file.name}" for file in inner if file.name[0] != "."]
    for name in names:
        require_utf8(name)
    return sorted(names)


def _summary(names: list[str]) -> str:
    """What a listing holds, by suffix."""
    suffixes = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in names)
    shown = [f"{count} x {suffix}" for suffix, count in suffixes.most_common(6)]
    return ", ".join(shown) or "no files"


def _usable_tables(
    files: Files, tables: list[str], config: SourceConfig, problems: list[SourceError]
) -> TableSource | None:
    """The one captions table among ``tables``; why the others are none goes to ``problems``.

    Raises:
        SourceError: Several tables have both columns.
    """
    usable = []
    for name in tables:
        try:
            usable.append(table_source(files, name, config))
        except SourceError as error:
            problems.append(error)
    if len(usable) > 1:
        raise SourceError(
            "the pool has several captions tables",
            got=[source.table for source in usable],
            next_step="give the path of the one table to use, or move the others away",
        )
    return usable[0] if usable else None


def _no_table(problems: list[SourceError]) -> SourceError:
    """Why none of the tables is a captions table."""
    if len(problems) == 1:
        return problems[0]
    return SourceError(
        "none of the pool's tables is a table of captions or labels",
        got="; ".join(f"{error.problem} ({error.got})" for error in problems),
        allowed="one table with a column of image paths and a column of captions or labels",
        next_step="name the columns with --image-column and --caption-column or --label-column",
    )


def table_source(files: Files, name: str, config: SourceConfig) -> TableSource:
    """The table ``name`` with its two columns."""
    with files.open(name) as file:
        columns = table_columns(file, name)
    image = guess_image(columns, config.image_column, name)
    text = guess_text(columns, columns, config, name)
    if text.task == "labels":
        return TableSource(files, name, image, None, text.name)
    return TableSource(files, name, image, text.name)
