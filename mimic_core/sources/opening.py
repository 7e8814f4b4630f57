"""From a path to a source: what is there decides the layout.

A folder is, in this order: tar shards (there or one folder deeper), Parquet files with embedded
images (likewise), a captions table at its root, images with a ``.txt`` or ``.json`` beside them. A
single ``.tar``, ``.zip``, ``.parquet`` or captions table may be given as well.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path, PurePosixPath

from mimic_core.errors import SourceError
from mimic_core.schema import SourceConfig
from mimic_core.sources.archive import open_archive
from mimic_core.sources.base import IMAGE_SUFFIXES, Files, Source
from mimic_core.sources.folder import FolderFiles, require_utf8
from mimic_core.sources.guess import guess_caption, guess_image
from mimic_core.sources.pairs import PairSource
from mimic_core.sources.parquet import file_schema, image_columns, open_parquet
from mimic_core.sources.table import TableSource
from mimic_core.sources.tables import table_columns, table_suffix
from mimic_core.sources.webdataset import WebDatasetSource

ACCEPTED = (
    "a folder of .tar shards; a folder of images with a captions table (.csv, .tsv, .jsonl, "
    ".parquet) or with .txt files beside the images; a .zip of such a folder; .parquet files with "
    "embedded images; or one such file"
)


def open_source(config: SourceConfig) -> Source:
    """Open the pool at ``config.path``.

    Raises:
        SourceError: There is nothing, nothing of a known layout, or more than one reading of it;
            says what was found and what is accepted.
    """
    path = Path(config.path).expanduser()
    if not path.exists():
        raise SourceError(
            "there is no such file or folder",
            got=config.path,
            allowed=ACCEPTED,
            next_step="check the path",
        )
    return _open_folder(path, config) if path.is_dir() else _open_file(path, config)


def _open_file(path: Path, config: SourceConfig) -> Source:
    require_utf8(path.name)
    suffix = path.suffix.lower()
    if suffix == ".tar":
        return WebDatasetSource(
            path.parent, (path.name,), config.image_column, config.caption_column
        )
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
        return WebDatasetSource(path, tars, config.image_column, config.caption_column)
    tables = [name for name in names if table_suffix(name)]
    embedded = tuple(
        name
        for name in tables
        if table_suffix(name) == "parquet" and _embeds_images(path, name, config)
    )
    if embedded:
        return open_parquet(path, embedded, config)
    return _open_files(FolderFiles(path), names, path, config)


def _open_zip(path: Path, config: SourceConfig) -> Source:
    files = open_archive(path)
    return _open_files(files, files.names(), path, config)


def _open_files(files: Files, names: list[str], path: Path, config: SourceConfig) -> Source:
    """Loose images with a captions table at their root, or with texts beside them."""
    tables = [name for name in names if "/" not in name and table_suffix(name)]
    problems: list[SourceError] = []
    if tables:
        usable = _usable_tables(files, tables, config, problems)
        if usable:
            return usable
    pairs = PairSource(files, config.image_column, config.caption_column)
    if pairs.has_captions():
        return pairs
    if problems:
        raise _no_table(problems)
    raise SourceError(
        f"the {files.layout} is of no known layout",
        got=f"{path} with {_summary(names)}",
        allowed=ACCEPTED,
        next_step=_hint(names),
    )


def _hint(names: list[str]) -> str:
    """What somebody with these files probably wants to do."""
    deeper = sorted({name.split("/")[0] for name in names if "/" in name and table_suffix(name)})
    if deeper:
        return f"give the path of one folder with a table: {', '.join(deeper[:5])}"
    archives = [name for name in names if name.lower().endswith((".zip", ".gz", ".tgz"))]
    if archives:
        return f"give the path of one .zip, or unpack compressed files ({archives[0]})"
    if any(PurePosixPath(name).suffix.lower()[1:] in IMAGE_SUFFIXES for name in names):
        return "put a captions table beside the images, or a .txt beside each"
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
        "none of the pool's tables is a captions table",
        got="; ".join(f"{error.problem} ({error.got})" for error in problems),
        allowed="one table with a column of image paths and a column of captions",
        next_step="name the columns with --image-column and --caption-column",
    )


def table_source(files: Files, name: str, config: SourceConfig) -> TableSource:
    """The captions table ``name`` with its two columns."""
    with files.open(name) as file:
        columns = table_columns(file, name)
    return TableSource(
        files,
        name,
        guess_image(columns, config.image_column, name),
        guess_caption(columns, config.caption_column, name),
    )
