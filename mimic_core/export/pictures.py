"""The original bytes of a run's pictures, in the order in which the pool holds them.

Bytes are handed on as they are, never decoded and encoded again. A picture that is gone, or is not
the one that was scored, is a reason and not a file. Whether it is the same is known cheaply: a pool
whose fingerprint is that of the run is as it was. Else each picture's size in pixels is compared
with the one that was measured.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self

import polars as pl
from PIL import Image

from mimic_core.base.errors import MimicError
from mimic_core.base.progress import Progress
from mimic_core.base.schema import IMAGE_COLUMNS, Locator
from mimic_core.runs.run import Run
from mimic_core.sources.images import FORMATS, ImageError
from mimic_core.sources.opening import open_source
from mimic_core.sources.reading import ImageReader
from mimic_core.sources.source import Source

# Why a kept sample is in no file of an export, beside the reasons of skips.
REASONS = {
    "missing_image": "the picture is not where it was",
    "corrupt_image": "the picture cannot be read from the file that holds it",
    "oversized_image": "the picture passes a limit in bytes",
    "changed_image": "the picture is not the one that was scored",
    "no_file": "the picture is no file of its own",
    "no_row": "the table has no row of the sample any more",
    "no_repeats": "the sample is written zero times",
}
_BATCH = 1024  # samples between two looks at whether to stop
# What the first bytes of a picture say, and the suffix that stands for it.
_HEADS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (8, b"WEBP", "webp"),
    (0, b"GIF8", "gif"),
    (0, b"BM", "bmp"),
    (0, b"II*\0", "tif"),
    (0, b"MM\0*", "tif"),
    (4, b"ftypavi", "avif"),
)


class Unexported(NamedTuple):
    """A kept sample that no file holds, and why (``REASONS``)."""

    uid: str
    reason: str
    detail: str


class Picture(NamedTuple):
    """The picture of a row: its bytes, and the suffix that its first bytes stand for.

    Of one that stays where it is, ``path`` is its file, ``data`` is empty and the suffix its own.
    """

    number: int
    """the row's number in the rows that were asked for"""
    row: dict[str, Any]
    data: bytes
    suffix: str
    path: Path | None = None


class Account:
    """What has become of the kept samples, and what of it a person should know."""

    def __init__(self) -> None:
        self.left_out: list[Unexported] = []
        self.remarks: Counter[str] = Counter()

    @property
    def reasons(self) -> dict[str, int]:
        """How many samples are in no file, by reason."""
        return dict(sorted(Counter(one.reason for one in self.left_out).items()))


class Pictures:
    """The pictures of ``run``; what cannot be handed on is written into ``account``. Use it in a
    ``with`` statement.

    Args:
        within: Folders that nothing is read outside of; none, no limit.

    Raises:
        RunError: The pool is no longer where it was scored.
    """

    def __init__(
        self, run: Run, account: Account, progress: Progress, *, within: Collection[Path] = ()
    ) -> None:
        self._root = run.features.source_root()
        self._account = account
        self._progress = progress
        self._reader = ImageReader(self._root, within=within)
        self._as_scored = pool_of(run)[1]
        if not self._as_scored:
            progress.note(
                "the pool is not just as it was scored: each picture's size in pixels is compared"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def read(self, rows: pl.DataFrame, *, stay: bool = False) -> Iterator[Picture]:
        """The pictures of ``rows``, in ``pool_order``; each row that has none is left out.

        Args:
            stay: Those that are files of their own are looked at, and not read.
        """
        for start in range(0, len(rows), _BATCH):
            self._progress.check()
            before = len(self._account.left_out)
            batch = rows.slice(start, _BATCH)
            for index, row in enumerate(batch.iter_rows(named=True), start):
                try:
                    yield self._picture(index, row, stay=stay)
                except ImageError as error:
                    self.leave_out(row, error.reason, error.detail)
            self._progress.advance(len(batch), skipped=len(self._account.left_out) - before)

    def leave_out(self, row: Mapping[str, Any], reason: str, detail: str) -> None:
        """The sample of ``row`` is in no file."""
        self._account.left_out.append(Unexported(row["uid"], reason, detail))

    def data_of(self, picture: Picture) -> bytes:
        """The bytes of a picture, also of one that was to stay where it is."""
        return picture.data or self._reader.read(locator_of(picture.row))

    def _picture(self, index: int, row: dict[str, Any], *, stay: bool) -> Picture:
        locator, path = locator_of(row), None
        if locator.kind == "range" and locator.offset == 0:  # before a tar's member is a header
            path, size = self._reader.find(locator)
            if locator.length not in (-1, size):
                raise ImageError(
                    "changed_image", f"{locator.path}: {size} bytes, {locator.length} when scored"
                )
            if stay and self._as_scored:
                return Picture(index, row, b"", path.suffix.lower().lstrip("."), path)
        data = self._reader.read(locator)
        if not self._as_scored:
            _require_same(data, row)
        return Picture(index, row, data, suffix_of(data, row), path if stay else None)


def pool_order(rows: pl.DataFrame) -> pl.DataFrame:
    """``rows`` as the pool holds them, so that each file of it is read once and forwards.

    That is the order of the run's table, in which ``rows`` are; only of a compressed tar, where the
    way back is long, the order of the bytes.
    """
    packed = pl.col("image_kind") == "packed"
    if not (rows["image_kind"] == "packed").any():
        return rows
    place = pl.int_range(pl.len())
    return rows.sort(
        pl.when(packed).then(place.min().over("image_path")).otherwise(place),
        pl.when(packed).then("image_offset").otherwise(0),
        maintain_order=True,
    )


def portable(rows: pl.DataFrame) -> pl.DataFrame:
    """The columns that mean something where the samples go: all but the places of the images.

    Of caption and label it is the one that the pool has.
    """
    empty = "caption" if rows["label"].null_count() < len(rows) else "label"
    return rows.drop(*IMAGE_COLUMNS, empty)


def locator_of(row: Mapping[str, Any]) -> Locator:
    """Where the picture of a row of the run's table is."""
    return Locator(*(row[name] for name in IMAGE_COLUMNS))


def suffix_of(data: bytes, row: Mapping[str, Any]) -> str:
    """The suffix that the first bytes stand for, else the picture's own."""
    for place, head, suffix in _HEADS:
        if data.startswith(head, place):
            return suffix
    own = PurePosixPath(row["image_member"] or row["image_path"]).suffix.lower().lstrip(".")
    return own if own.isalnum() and row["image_kind"] in ("zip", "range") else "img"


def picture_bytes(rows: pl.DataFrame) -> int:
    """About how many bytes the pictures of ``rows`` have: what the index knows of them."""
    return int(rows["image_length"].clip(lower_bound=0).sum() or 0)


def pool_of(run: Run) -> tuple[Source | None, bool]:
    """The pool of a run as it can be opened now, None where it cannot, and whether it is known to
    be as it was scored: its fingerprint says so.
    """
    config, root = run.record.config.source, run.features.source_root()
    found = None
    for path in dict.fromkeys([config.path, str(root / Path(config.path).name), str(root)]):
        try:
            source = open_source(config.model_copy(update={"path": path}))
            if source.fingerprint() == run.features.info["fingerprint"]:
                return source, True
        except (MimicError, OSError):
            continue
        found = found or source
    return found, False


def _require_same(data: bytes, row: Mapping[str, Any]) -> None:
    """Refuse a picture of another size in pixels than was measured."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                found = image.size
    except Exception as error:  # hostile bytes make Pillow's plugins raise errors of any type
        raise ImageError("changed_image", f"the bytes there are no picture: {error}") from error
    measured = (row["width"], row["height"])
    if None not in measured and found != measured:
        raise ImageError(
            "changed_image", f"{found[0]} x {found[1]} pixels, scored {measured[0]} x {measured[1]}"
        )
