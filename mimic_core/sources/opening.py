"""From a path to a source: what is there decides the layout, and what it holds the task.

A folder is, in this order: tar shards, with DataComp's metadata beside them or without, or tables
of Lance, Arrow, Mosaic's MDS or Parquet with embedded images (there or one folder deeper), a table
of captions or labels at its root, tables in its folders as imagefolder or COCO has them, images
with a text or ``.json`` beside them, a table of captions and URLs, class folders; at last,
containers in any folder. A zip is one of those but the first. A single file may be given as well.

A pool has captions or labels. Where the settings do not say which, captions win over the names of
folders, but not over a clear label of each sample: then the user is asked.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from mimic_core.base.config import SourceConfig, Task
from mimic_core.base.errors import SourceError
from mimic_core.base.remote import RemotePath
from mimic_core.sources.archive import open_archive
from mimic_core.sources.bucket import BucketFiles
from mimic_core.sources.folder import FolderFiles, is_run
from mimic_core.sources.layouts import (
    beside,
    class_folders,
    coco,
    datacomp,
    embedded,
    imagefolder,
    mds,
    metadata,
    table,
    webdataset,
)
from mimic_core.sources.offers import Offer, Place
from mimic_core.sources.path import ACCEPTED, is_pattern, pattern_root, pool_path
from mimic_core.sources.patterns import PatternFiles
from mimic_core.sources.pools import together
from mimic_core.sources.source import IMAGE_SUFFIXES, Source, kind_of
from mimic_core.sources.tables.loading import table_suffix
from mimic_core.sources.texts import printable

CONTAINERS = (webdataset.offer, embedded.lance, embedded.arrow, mds.offer, embedded.parquet)
LAYOUTS = (
    datacomp.offer,
    *CONTAINERS,
    *(table.offer, imagefolder.offer, coco.offer, beside.offer, metadata.offer),
    class_folders.offer,
)

_SHOWN = 6


def open_source(config: SourceConfig) -> Source:
    """Open the pool, or the pools, of ``config``.

    Raises:
        SourceError: There is nothing, nothing of a known layout, or more than one reading of it;
            says what was found and what is accepted. Or several pools go with different things.
    """
    if not config.also:
        return _open_one(config)
    return together({one.path: _open_one(one) for one in config.each()})


def _open_one(config: SourceConfig) -> Source:
    task = _chosen_task(config)
    place = _place(config)
    tries = [(layout, place) for layout in LAYOUTS]
    if place.alone is None:
        tries += [(layout, place.deeper()) for layout in CONTAINERS]
    problems = []
    for layout, where in tries:
        found = layout(where, task)
        if isinstance(found, Offer):
            return _decided(found)
        if found is not None:
            problems.append(found)
    raise _no_layout(place, problems, task)


def _chosen_task(config: SourceConfig) -> Task | None:
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


def _decided(offer: Offer) -> Source:
    """The one reading of a pool; of two, the captions unless there are clearly labels as well."""
    if len(offer.sources) > 1 and offer.clearly_labels:
        raise SourceError(
            f"{offer.where} has captions and labels",
            got=[offer.found["pairs"], offer.found["labels"]],
            allowed="--task pairs, --task labels",
            next_step="say with --task which of them are to be scored",
        )
    return offer.sources.get("pairs") or offer.sources["labels"]


def _place(config: SourceConfig) -> Place:
    """The files at ``config.path``."""
    if is_pattern(config.path):
        folder, pattern = pool_path(config), pattern_root(config.path)[1]
        selected = PatternFiles(
            folder, not config.no_follow_links, config.link_roots, pattern=pattern
        )
        selected.require_files(config.path)
        return Place(folder, selected, config, deep=True)
    path = pool_path(config)
    if isinstance(path, RemotePath):
        return _remote_place(path, config)
    folder = path if path.is_dir() else path.parent
    files = FolderFiles(folder, not config.no_follow_links, config.link_roots)
    if path.is_dir() and path.suffix.lower() == ".lance":  # one table, as a file would be
        beside = FolderFiles(path.parent, not config.no_follow_links, config.link_roots)
        return Place(path, beside, config, alone=path.name)
    if path.is_dir():
        if is_run(path):
            raise SourceError(
                "this is a run of Mimicscope, not a pool",
                got=config.path,
                next_step="give the pool that it was made of, or look at it with show",
            )
        if [PurePosixPath(name).suffix.lower() for name in files.listing.names] == [".zip"]:
            path = path / files.listing.names[0]  # all that a download has left there
        else:
            return Place(path, files, config)
    if path.suffix.lower() == ".zip":
        return Place(path, open_archive(path), config)
    return Place(path, files, config, alone=path.name)


def _remote_place(path: RemotePath, config: SourceConfig) -> Place:
    """The same in object storage; a zip is refused, which is read from this machine alone."""
    if path.suffix.lower() == ".zip":
        os.fspath(path)
    if path.is_dir():
        return Place(path, BucketFiles(path), config)
    return Place(path, BucketFiles(path.parent, alone=path.name), config, alone=path.name)


def _no_layout(place: Place, problems: list[SourceError], task: Task | None) -> SourceError:
    """Why the pool is of no layout: what almost fits, else what is there."""
    if problems:
        return problems[0]
    if place.alone is not None:
        return SourceError(
            "the file is of no known layout",
            got=printable(place.alone),
            allowed=ACCEPTED,
            next_step="unpack compressed files; give the path of the pool itself",
        )
    names = place.names
    held = ", ".join([_summary(names), *_counts(place.files.listing.left_out)])
    hint = None if task == "pairs" else class_folders.hint(place)
    return SourceError(
        f"the {place.files.layout} is of no known layout",
        got=f"{place.path} with {held}",
        allowed=ACCEPTED,
        next_step=hint or _hint(names),
    )


def _hint(names: Iterable[str]) -> str:
    """What somebody with these files probably wants to do."""
    tables = [name for name in names if table_suffix(name)]
    if tables:
        deeper = dict.fromkeys(name.rpartition("/")[0] for name in tables)
        return f"give the path of one folder with a table: {', '.join([*deeper][:5])}"
    archives = [name for name in names if name.lower().endswith((".zip", ".gz", ".7z", ".rar"))]
    if archives:
        return f"give the path of one .zip, or unpack compressed files ({archives[0]})"
    if any(PurePosixPath(name).suffix.lower()[1:] in IMAGE_SUFFIXES for name in names):
        return (
            "put a table of captions or labels beside the images, a .txt beside each, or sort "
            "them into class folders (<class>/<image> or <split>/<class>/<image>)"
        )
    return "give the path of the pool itself"


def _summary(names: Iterable[str]) -> str:
    """What a listing holds, by kind."""
    return ", ".join(_counts(Counter(map(kind_of, names)))) or "no files"


def _counts(found: Mapping[str, int]) -> list[str]:
    return [f"{count} x {kind}" for kind, count in Counter(found).most_common(_SHOWN)]
