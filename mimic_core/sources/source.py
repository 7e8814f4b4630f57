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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from mimic_core.base.config import Task
from mimic_core.base.errors import SourceError
from mimic_core.base.identity import digest
from mimic_core.base.schema import Locator, Sample, Skip

# In the order in which one of several images of the same key is chosen.
IMAGE_SUFFIXES = ("jpg", "png", "jpeg", "webp", "gif", "bmp", "tif", "tiff")
MAX_TEXT_BYTES = 4 * 1024 * 1024  # one caption or one sample's metadata
MAX_FIELDS = 256  # metadata fields of one sample
ROWS_PER_SHARD = 2048  # rows of a captions table that are scored, and resumed, as one piece
FINGERPRINT_BYTES = 64 * 1024

_UID = re.compile(r"[0-9a-fA-F]{32}")
_SHARD_NAME_LENGTH = 80


class Source(Protocol):
    """A pool: cheap to construct, picklable; the index is read when asked for."""

    @property
    def root(self) -> Path:
        """The folder that locators are relative to."""

    @property
    def layout(self) -> str:
        """``webdataset``, ``folder``, ``zip`` or ``parquet``."""

    @property
    def image_column(self) -> str | None:
        """The column (or member suffix) that holds the image, as used; None where there is none."""

    @property
    def task(self) -> Task:
        """Whether its images go with captions or with labels."""

    @property
    def caption_column(self) -> str | None:
        """The column (or metadata field) that holds the caption, as used."""

    @property
    def label_column(self) -> str | None:
        """The column (or metadata field) that holds the label, as used."""

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the pieces: sorted, unique, safe in any file system."""

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """All samples of ``shard`` in a fixed order; no image bytes are read."""

    def fingerprint(self) -> str:
        """64 hexadecimal digits that depend on what is in the pool, not on where it lies."""


class Files(Protocol):
    """The files that a table or a listing names: those of a folder or of a zip."""

    @property
    def root(self) -> Path:
        """The folder that locators are relative to."""

    @property
    def layout(self) -> str:
        """``folder`` or ``zip``."""

    def names(self) -> list[str]:
        """All files, relative to the folder of the table, sorted."""

    def open(self, name: str) -> IO[bytes]:
        """One file, seekable."""

    def read_text(self, name: str) -> bytes:
        """A caption or metadata file; raises ``Unusable`` if it is too long or not to be read."""

    def locate(self, name: str) -> Locator:
        """Where an image is; raises ``ImageError`` if it is not there or not to be read."""

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


def given_uid(meta: Mapping[str, Any]) -> str | None:
    """The metadata's own uid in lower case, if it is 32 hexadecimal digits."""
    value = meta.get("uid")
    return value.lower() if isinstance(value, str) and _UID.fullmatch(value) else None


def make_sample(
    *, uid: str, key: str, shard: str, text: str, task: Task, image: Locator, meta: dict[str, Any]
) -> Sample:
    """A sample whose metadata leaves out what the sample itself says already.

    Args:
        text: The caption, or the label, as ``task`` says.
    """
    caption, label = (text, None) if task == "pairs" else (None, text)
    own = {"uid": uid, "key": key}
    if task == "pairs":  # a column "label" beside the chosen labels is another opinion, and stays
        own["caption"] = text
    kept = {name: value for name, value in meta.items() if name not in own or value != own[name]}
    if isinstance(kept.get("uid"), str) and kept["uid"].lower() == uid:
        del kept["uid"]
    return Sample(uid, key, shard, caption, image, kept, label)


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
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(FINGERPRINT_BYTES)
        file.seek(max(len(head), size - FINGERPRINT_BYTES))
        return [name, size, hashlib.sha256(head + file.read(FINGERPRINT_BYTES)).hexdigest()]


def pool_fingerprint(source: Source, content: list[Any]) -> str:
    """64 hexadecimal digits over the layout, the columns in use and the content's identities."""
    columns = [source.image_column, source.caption_column]
    if source.task == "labels":
        columns += ["labels", source.label_column]
    return digest([source.layout, columns, content], length=64)
