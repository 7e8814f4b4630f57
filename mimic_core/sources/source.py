"""What every layout of a pool offers, and the rules that all layouts share: uids, shard names.

A sample's uid is the 32 hexadecimal digits of its metadata's ``uid`` where there are any, else the
first 32 of the SHA-256 of ``[container, key, caption, ordinal]`` as canonical JSON (of a labelled
sample the caption is empty: its uid is the same whatever its label). ``container``
is the file that holds the sample, relative to the root (a captions table counts as such; empty for
loose files); ``key`` is the key or image path, or the row number where images are embedded in
Parquet; ``ordinal`` counts the container's earlier samples with the same key and caption. So a uid
does not depend on where the pool lies or in which order files are listed, a zip gives the same uids
as the folder it was made of, and equal samples still have different ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Protocol

from mimic_core.base.config import Task
from mimic_core.base.errors import SourceError
from mimic_core.base.identity import digest
from mimic_core.base.schema import Locator, Sample, Skip
from mimic_core.sources.limits import MAX_TEXT_BYTES
from mimic_core.sources.splits import split_of

# In the order in which one of several images of the same key is chosen.
IMAGE_SUFFIXES = (
    *("jpg", "png", "jpeg", "webp", "gif", "bmp", "tif", "tiff"),
    *("jpe", "jfif", "avif"),
)
# Images that are seen and skipped with a reason, so that none is missing without a word.
UNREAD_SUFFIXES = (
    *("heic", "heif", "jxl", "jp2", "j2k", "svg", "psd", "tga", "ico", "pcx", "ppm", "pgm", "pnm"),
    *("dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "exr", "hdr", "eps", "dcm"),
)
ROWS_PER_SHARD = 2048  # rows of a captions table that are scored, and resumed, as one piece
FINGERPRINT_BYTES = 64 * 1024

_OTHER = object()
_UID = re.compile(r"[0-9a-fA-F]{32}")
_SHARD_NAME_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a pool: ``names`` sorted; ``left_out`` counts by kind what is none of them."""

    names: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    unnamed: tuple[str, ...] = ()
    """images whose names are not UTF-8, as they can be shown; no table can hold them"""


class Files(Protocol):
    """The files that a table or a listing names: those of a folder or of a zip."""

    @property
    def root(self) -> Path:
        """The folder that locators are relative to."""

    @property
    def layout(self) -> str:
        """``folder`` or ``zip``."""

    @property
    def listing(self) -> Listing:
        """All files, relative to the root."""

    def open(self, name: str) -> IO[bytes]:
        """One file, seekable."""

    def read_text(self, name: str) -> bytes:
        """A caption or metadata file; raises ``Unusable`` if it is too long or not to be read."""

    def locate(self, name: str) -> Locator:
        """Where an image is; raises ``ImageError`` if it is not there or not to be read."""

    def name_of(self, image: Locator) -> str:
        """The file that ``image`` is or is in, as ``listing`` names it."""

    def identity(self, name: str) -> list[Any]:
        """What tells one content of an image file from another, as cheaply as can be."""


class Lean:
    """A dataclass that is pickled without what it has cached, so that workers start quickly."""

    def __getstate__(self) -> dict[str, Any]:
        """Only the declared fields."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # mixed into dataclasses only
        return {field.name: getattr(self, field.name) for field in fields}


class Unusable(Exception):
    """One sample cannot be used: ``reason`` is one of ``SKIP_REASONS``, ``detail`` says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)  # both, so that it can be pickled
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"

    def skip(self, key: str, shard: str) -> Skip:
        """The skip of the sample ``key``."""
        return Skip(key, shard, self.reason, self.detail)


@dataclass(slots=True)
class Notes:
    """What reading the index has met that a person should know: counts, in words."""

    own_uids: int = 0
    """samples whose uid stands in the pool itself"""
    remarks: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    """members of containers that are no part of a sample, by kind"""

    def clear(self) -> None:
        """Forget all of it."""
        self.own_uids = 0
        self.remarks.clear()
        self.unread.clear()


@dataclass(frozen=True, kw_only=True)
class Source(Lean):
    """A pool of any layout: cheap to construct, picklable; the index is read when asked for.

    A column is None where there is none, or where the layout's default is meant.
    """

    files: Files
    layout: str
    """``webdataset``, ``parquet``, or ``folder`` or ``zip`` of files"""
    task: Task
    image_column: str | None = None
    caption_column: str | None = None
    label_column: str | None = None
    uid_column: str | None = None
    alone: bool = False
    """whether a single file was given, so that the files beside it are no part of the pool"""

    @property
    def root(self) -> Path:
        """The folder that locators are relative to."""
        return self.files.root

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the pieces: sorted, unique, safe in any file system."""
        raise NotImplementedError

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """All samples of ``shard`` in a fixed order; no image bytes are read."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """64 hexadecimal digits that depend on what is in the pool, not on where it lies."""
        raise NotImplementedError

    def used(self) -> Iterable[str]:
        """The names of the files that the layout reads."""
        raise NotImplementedError

    def columns_read(self) -> str:
        """Where images and texts are taken from, in words."""
        raise NotImplementedError

    @property
    def parts(self) -> Mapping[str, Source]:
        """The pools that it is made of, by name; one of no name where it is one itself."""
        return {"": self}

    def pool_of(self, shard: str) -> str:  # noqa: ARG002 - there is one part
        """The name of the part that ``shard`` belongs to."""
        return ""

    @cached_property
    def notes(self) -> Notes:
        """What this process has met so far in reading the index."""
        return Notes()

    @property
    def text_column(self) -> str | None:
        """The column of the captions or of the labels, as the task says."""
        return self.caption_column if self.task == "pairs" else self.label_column

    def unnamed(self, shard: str) -> Iterator[Skip]:
        """In the last shard, the images whose names no table can hold."""
        for name in self.files.listing.unnamed if shard == self.shards[-1] else ():
            yield Skip(name, shard, "missing_image", "its name is not UTF-8: rename the file")

    def unread(self) -> Counter[str]:
        """The files of the pool that are not read, by kind, and the members of its containers."""
        found = Counter(self.notes.unread)
        if not self.alone:
            used = set(self.used())
            found.update(kind_of(name) for name in self.files.listing.names if name not in used)
            found.update(self.files.listing.left_out)
        return found

    def sample(
        self,
        *,
        key: str,
        shard: str,
        text: str,
        image: Locator,
        meta: dict[str, Any],
        derived: Callable[[str | None], str],
        several: bool = False,
    ) -> Sample:
        """A sample whose metadata leaves out what the sample itself says already.

        Args:
            text: The caption, or the label, as the task says.
            derived: Makes a uid: of the image's own, or of nothing but the sample's place.
            several: Whether its image has several captions: then a uid in the metadata is the
                image's, and the samples get uids that are derived from it.
        """
        uid = self._given_uid(meta)
        if uid is None or several:
            uid = derived(uid)
        else:
            self.notes.own_uids += 1
        caption, label = (text, None) if self.task == "pairs" else (None, text)
        own = {"uid": uid, "key": key}
        if caption is not None:  # a column "label" beside chosen labels is another opinion
            own["caption"] = caption
        kept = {name: value for name, value in meta.items() if own.get(name, _OTHER) != value}
        if "split" not in meta:
            inside = image.kind not in ("range", "zip") or bool(image.offset)
            split = split_of(self.files.name_of(image), container=inside)
            kept |= {"split": split} if split else {}
        if isinstance(kept.get("uid"), str) and kept["uid"].lower() == uid:
            del kept["uid"]
        return Sample(uid, key, shard, caption, image, kept, label)

    def _given_uid(self, meta: Mapping[str, Any]) -> str | None:
        """The metadata's own uid in lower case, if it is 32 hexadecimal digits."""
        value = meta.get(self.uid_column or "uid")
        if isinstance(value, str) and _UID.fullmatch(value):
            return value.lower()
        if self.uid_column is not None:
            raise Unusable(
                "bad_metadata",
                f"the column {self.uid_column} holds no uid of 32 hexadecimal digits: {value!r}",
            )
        return None

    def digest(self, content: list[Any]) -> str:
        """A fingerprint: over the layout, the columns in use and the content's identities."""
        columns = [self.image_column, self.caption_column]
        if self.task == "labels":
            columns += ["labels", self.label_column]
        if self.uid_column is not None:
            columns += ["uid", self.uid_column]
        return digest([self.layout, columns, content], length=64)


def kind_of(name: str) -> str:
    """The kind of a file in words: its suffix, two of them where the file is compressed."""
    suffixes = PurePosixPath(name.lower()).suffixes
    packed = len(suffixes) > 1 and suffixes[-1] in (".gz", ".zst", ".bz2", ".xz")
    return "".join(suffixes[-2:] if packed else suffixes[-1:]) or "no suffix"


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix, read or not."""
    return PurePosixPath(name).suffix.lower()[1:] in (*IMAGE_SUFFIXES, *UNREAD_SUFFIXES)


def check_size(size: int, what: str) -> None:
    """Refuse a text longer than ``MAX_TEXT_BYTES``."""
    if size > MAX_TEXT_BYTES:
        raise Unusable("bad_metadata", f"{what} has {size} bytes, the limit is {MAX_TEXT_BYTES}")


class Ordinals:
    """Counts equal (key, caption) pairs of a container: equal samples get different uids."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def uid(self, container: str, key: str, caption: str) -> str:
        """The uid of the next sample with this key and caption."""
        first = derived_uid(container, key, caption, 0)
        ordinal = self._seen.get(first, 0)
        self._seen[first] = ordinal + 1
        return first if ordinal == 0 else derived_uid(container, key, caption, ordinal)


def derived_uid(container: str, key: str, caption: str, ordinal: int) -> str:
    """The uid of a sample whose metadata names none (rule: module docstring)."""
    return digest([container, key, caption, ordinal], length=32)


def shard_names(paths: Iterable[str]) -> dict[str, str]:
    """Safe shard names of relative file paths, as name -> path in the order of the names.

    Only letters, digits, ``-`` and ``_`` stay; names that would be equal in a file system that
    ignores case get a suffix made from their path.
    """
    plain = {path: _safe_name(path) for path in sorted(set(paths))}
    taken: dict[str, int] = {}
    for name in plain.values():
        taken[name.lower()] = taken.get(name.lower(), 0) + 1
    named = {
        name if taken[name.lower()] == 1 else f"{name}-{digest(path)}": path
        for path, name in plain.items()
    }
    return dict(sorted(named.items()))


def _safe_name(path: str) -> str:
    stem = path.rsplit(".", 1)[0]
    safe = re.sub(r"[^A-Za-z0-9_]+", "-", stem).strip("-")
    return safe[:_SHARD_NAME_LENGTH] or "shard"


def row_shards(stem: str, rows: int) -> tuple[str, ...]:
    """Names of the virtual shards of a table or listing of ``rows`` rows."""
    name = _safe_name(f"{stem}.")
    return tuple(f"{name}-{part:05d}" for part in range(max(1, -(-rows // ROWS_PER_SHARD))))


def row_range(shards: tuple[str, ...], shard: str) -> range:
    """The rows of one virtual shard; the last one's range may pass the end."""
    start = shard_position(shards, shard) * ROWS_PER_SHARD
    return range(start, start + ROWS_PER_SHARD)


def shard_position(shards: tuple[str, ...], shard: str) -> int:
    """Position of ``shard``; an unknown one is a ``SourceError``."""
    if shard not in shards:
        raise SourceError(
            "the pool has no such shard",
            got=shard,
            allowed=f"{len(shards)} shards from {shards[0]} to {shards[-1]}",
            next_step="check that the pool is the one that was indexed",
        )
    return shards.index(shard)


class FileState(NamedTuple):
    """A file as it is now: a key for what a process keeps of it, so that new ones are read anew."""

    path: str
    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """The present state; raises ``OSError``."""
        status = path.stat()
        return cls(str(path), status.st_size, status.st_mtime_ns)


def file_identity(path: Path, name: str) -> list[str | int]:
    """Name, size and SHA-256 of the first and last 64 KiB: a large file's cheap identity."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(FINGERPRINT_BYTES)
            file.seek(max(len(head), size - FINGERPRINT_BYTES))
            return [name, size, hashlib.sha256(head + file.read(FINGERPRINT_BYTES)).hexdigest()]
    except OSError as error:  # a skip tells it
        return [name, -1, type(error).__name__]
