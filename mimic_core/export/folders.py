"""Pictures as files of their own, with the original bytes: for Hugging Face's ``imagefolder``, for
open_clip's table of paths, as class folders, as links, or where they are already.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import polars as pl

from mimic_core.base.errors import ExportError
from mimic_core.base.remote import is_remote
from mimic_core.export.formats import as_text, jsonl_bytes, parquet_bytes
from mimic_core.export.pictures import Picture, portable
from mimic_core.export.work import Work, class_names, dataset_card, renamed

SAMPLES = "samples.csv"  # beside links: what names cannot say
PICTURES = ".images"  # behind the name of open_clip's table: the folder of what had to be unpacked
_IN_A_FOLDER = 10_000  # pictures; file systems and Hugging Face's hub get slow beyond
_TYPED_ROWS = 256  # Hugging Face takes the types from the first rows of a metadata.jsonl
_TIME = r"^\d{4}-\d{2}-\d{2}"
# Columns that Hugging Face's imagefolder takes for names of pictures, or makes itself.
_TAKEN = re.compile(r"image|images|(?:.+_)?file_names?")
_NOT_IN_A_NAME = re.compile(r'[\0-\x1f/\\:*?"<>|]')
# What pandas, with which open_clip reads its table, takes for a missing value.
_MISSING = pl.Series(
    [
        *(
            "",
            "#N/A",
            "#N/A N/A",
            "#NA",
            "-1.#IND",
            "-1.#QNAN",
            "-NaN",
            "-nan",
            "1.#IND",
            "1.#QNAN",
        ),
        *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    ]
)


def imagefolder(work: Work) -> None:
    """``<split>/<part>/<uid>.<suffix>`` and ``<split>/metadata.jsonl`` with all columns that have a
    value.

    Hugging Face takes the types of the columns from the first rows. Where it would take wrong ones
    there, the metadata are a ``metadata.parquet``, which says them.
    """
    parts: list[tuple[str | None, pl.DataFrame]] = []
    empty = [one.name for one in work.rows.iter_columns() if one.null_count() == len(one)]
    for split, rows in work.splits():
        names: list[str | None] = [None] * len(rows)
        folder = f"{work.name}/{split}/" if split else f"{work.name}/"
        for number, picture in enumerate(work.pictures.read(rows)):
            name = f"{number // _IN_A_FOLDER:05d}/{picture.row['uid']}.{picture.suffix}"
            work.draft.add(folder + name, picture.data)
            names[picture.number] = name
        plain = renamed(as_text(portable(rows)).drop(empty, strict=False), _TAKEN)
        plain = plain.insert_column(0, pl.Series("file_name", names, pl.String))
        parts.append((split, plain.filter(pl.col("file_name").is_not_null())))
    typed = all(_says_its_types(rows) for _, rows in parts)
    if not typed:
        work.account.remarks["metadata.parquet, as .jsonl would not say the types"] += 1
    for split, rows in parts:
        folder = f"{work.name}/{split}/" if split else f"{work.name}/"
        if typed:
            work.draft.write(f"{folder}metadata.jsonl", jsonl_bytes(rows))
        else:
            work.draft.write(f"{folder}metadata.parquet", parquet_bytes(rows))
    named = {split: f"{split}/**" for split, _ in parts if split is not None}
    if named:
        work.draft.write(f"{work.name}/README.md", dataset_card(named))


def _says_its_types(rows: pl.DataFrame) -> bool:
    """Whether the first rows show the type of each column, and no text looks like a time."""
    head = rows.head(_TYPED_ROWS)
    for column in head.iter_columns():
        there = column.drop_nulls()
        if there.is_empty():
            return False
        if column.dtype == pl.String and there.str.contains(_TIME).all():
            return False
    return True


def open_clip(work: Work) -> None:
    """A table of paths and captions, ``filepath``, ``title`` and ``uid``, as open_clip reads it.

    Pictures that are files stay where they are; those inside of others are unpacked beside it.
    """
    if class_names(work.rows) is not None:
        raise ExportError(
            "open_clip's table holds captions, and the pool has labels",
            got="labels",
            allowed="classes, webdataset, imagefolder, hf_parquet",
            next_step="choose one of these formats",
        )
    captions = work.rows["caption"]
    if missing := int(captions.is_in(_MISSING.implode()).sum()):
        work.account.remarks["captions such as NA, which pandas reads as missing"] += missing
    out = io.StringIO(newline="")
    table = csv.writer(out, delimiter="\t", lineterminator="\n")
    table.writerow(["filepath", "title", "uid"])
    for number, picture in enumerate(work.pictures.read(work.rows, stay=True)):
        row, path = picture.row, picture.path
        if path is None:
            name = f"{number // _IN_A_FOLDER:05d}/{row['uid']}.{picture.suffix}"
            name = f"{work.name}{PICTURES}/{name}"
            work.draft.add(name, picture.data)
            place = work.draft.place(name)
            if is_remote(place):
                work.account.remarks["paths in object storage, which open_clip does not open"] += 1
        else:
            place = str(path.resolve())
        table.writerow([place, row["caption"], row["uid"]])
    work.draft.write(work.name, out.getvalue().encode())


def file_list(work: Work) -> None:
    """The paths of the pictures, one a line, each once; those that are no files are left out."""
    paths: dict[str, None] = {}
    for picture in work.pictures.read(work.rows, stay=True):
        path = picture.path
        if path is None:
            work.pictures.leave_out(picture.row, "no_file", "it lies inside of another file")
        elif "\n" in str(path):
            work.pictures.leave_out(picture.row, "no_file", "its name has a line break")
        else:
            paths[str(path.resolve())] = None
    if not paths and len(work.rows):
        raise ExportError(
            "the pool's pictures are no files of their own, so there is nothing to list",
            got=work.rows["image_path"][0],
            allowed="webdataset, imagefolder, hf_parquet, or links, which unpacks them",
            next_step="choose one of these formats",
        )
    work.draft.write(work.name, "".join(f"{path}\n" for path in paths).encode())


def links(work: Work) -> None:
    """The pictures under their own names in one folder, hard-linked where that can be, and
    ``samples.csv`` with each sample's ``file_name``, caption or label, and uid.
    """
    names = _Names()
    placed: dict[tuple[Any, ...], str] = {}
    text = "caption" if class_names(work.rows) is None else "label"
    rows = []
    for picture in work.pictures.read(work.rows, stay=True):
        row = picture.row
        place = (row["image_path"], row["image_offset"], row["image_member"])
        name = placed.get(place)
        if name is None:
            name = placed[place] = names.free(_own_name(picture), row["uid"])
            _put(work, f"{work.name}/{name}", picture)
        rows.append({"file_name": name, text: row[text], "uid": row["uid"]})
    schema = dict.fromkeys(("file_name", text, "uid"), pl.String())
    table = pl.DataFrame(rows, schema=schema)
    work.draft.write(f"{work.name}/{SAMPLES}", table.write_csv().encode())


def classes(work: Work) -> None:
    """``<class>/<picture>``, or ``<split>/<class>/<picture>``, hard-linked where that can be."""
    found = class_names(work.rows)
    if found is None:
        raise ExportError(
            "class folders are for labels, and the pool has captions",
            got="captions",
            allowed="webdataset, imagefolder, hf_parquet, open_clip",
            next_step="choose one of these formats",
        )
    folders = {name: _folder_name(name) for name in found}
    twice = [
        folder for folder, count in Counter(map(str.lower, folders.values())).items() if count > 1
    ]
    if twice:
        raise ExportError(
            "two classes would share a folder",
            got=sorted(name for name, folder in folders.items() if folder.lower() in twice),
            next_step="rename one of them, or export as webdataset",
        )
    names: dict[str, _Names] = {}
    for split, rows in work.splits():
        for picture in work.pictures.read(rows, stay=True):
            folder = f"{work.name}/{split}/" if split else f"{work.name}/"
            folder += folders[picture.row["label"]]
            name = names.setdefault(folder, _Names()).free(_own_name(picture), picture.row["uid"])
            _put(work, f"{folder}/{name}", picture)


class _Names:
    """Names in one folder: each is given once, also where the file system ignores case."""

    def __init__(self) -> None:
        self._taken = {SAMPLES}

    def free(self, name: str, uid: str) -> str:
        """``name``, or where that is taken one with the uid in it."""
        for one in self._tries(name, uid):
            if one.lower() not in self._taken:
                self._taken.add(one.lower())
                return one
        raise AssertionError  # uids are there once

    @staticmethod
    def _tries(name: str, uid: str) -> Iterator[str]:
        stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
        yield name
        yield f"{stem}-{uid[:8]}{suffix}"
        yield f"{stem}-{uid}{suffix}"
        yield f"{uid}{suffix}"


def _own_name(picture: Picture) -> str:
    """The name that a picture has in the pool, with a suffix that fits its bytes."""
    row = picture.row
    name = row["image_path"] if row["image_kind"] == "range" else ""
    if row["image_kind"] == "zip":
        name = row["image_member"]
    path = PurePosixPath(name)
    if not path.suffix or row["image_offset"] > 0:
        path = PurePosixPath(f"{row['key']}.{picture.suffix}")
    base = _NOT_IN_A_NAME.sub("_", path.name).lstrip(".")
    return base[-200:] if len(base.encode()) <= 200 else f"{row['uid']}.{picture.suffix}"


def _folder_name(label: str) -> str:
    name = _NOT_IN_A_NAME.sub("_", label).rstrip(". ")
    if not name or name.startswith(".") or len(name.encode()) > 200:
        raise ExportError(
            "a class has no name that a folder can have",
            got=label,
            next_step="rename it, or export as webdataset",
        )
    return name


def _put(work: Work, name: str, picture: Picture) -> None:
    """A hard link to the picture's file, else a copy of its bytes."""
    if picture.path is None or not work.draft.link(name, picture.path):
        work.draft.add(name, work.pictures.data_of(picture))
