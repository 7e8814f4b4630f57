"""Where the files of an export go in object storage: under their own names, the manifest last.

Object storage has no folders to rename, so whoever reads goes by the manifest: where it is, all of
the export is there. Before the first file a mark is written, ``.<name>.partial``; it goes when the
manifest has come. A mark without a manifest is what a killed export has left, and the next one of
that name removes all of it. There are no locks: of two exports that write to one name at once, the
one that began first finds the mark exchanged and ends in an error.

A file that is written piece by piece lies beside the cache until it is whole, and then goes up, so
this machine's disk holds a few shards and never the export.
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mimic_core.base import blocks
from mimic_core.base.errors import ExportError, RemoteError
from mimic_core.base.remote import RemotePath, forget
from mimic_core.export.destination import Draft, Sink, manifest_bytes
from mimic_core.export.folders import PICTURES
from mimic_core.export.record import MANIFEST_SUFFIX

_AT_ONCE = 8  # uploads
_WAITING = 16  # files that have been handed over and are not up yet


def remove_unfinished(out: RemotePath) -> None:
    """Remove what a killed export to ``out`` has left; a whole one stays.

    Raises:
        RemoteError: It cannot be removed.
    """
    mark = _mark(out)
    forget(mark)
    if not mark.exists():
        return
    if not out.with_name(out.name + MANIFEST_SUFFIX).exists():
        _remove_files(out)
    mark.unlink(missing_ok=True)


class BucketDraft(Draft):
    """The files of one export to ``out`` in object storage; used as ``Draft`` is.

    Raises:
        RemoteError: Object storage takes no more, or another export to that name has begun.
        ExportError: This machine's disk is full.
    """

    def __init__(self, out: RemotePath) -> None:
        super().__init__(blocks.beside_cache("exports") / out.name)
        self._out = out
        self._mark = json.dumps({"export": out.name, "token": uuid.uuid4().hex}).encode()
        self._begun = self._whole = False
        self._sent: dict[str, int] = {}
        self._going_up: deque[Future[Any]] = deque()
        self._uploads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="upload")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._uploads.shutdown(cancel_futures=True)
        if self._begun and not self._whole:
            with suppress(RemoteError, OSError):  # else the next one of that name does it
                if self._is_ours():
                    _remove_files(self._out)
                    _mark(self._out).unlink(missing_ok=True)
        super().__exit__(kind, error, trace)

    def require_space(self, needed: int) -> None:
        """Nothing: a bucket has no end, and this disk holds a few shards at a time."""

    def place(self, name: str) -> str:
        """Where a reader will find ``name``: its URL."""
        return str(self._out.parent / name)

    @contextmanager
    def open(self, name: str) -> Iterator[Sink]:
        """A file that the manifest lists, sent when it is whole."""
        with super().open(name) as sink:
            yield sink
        path = self._path(name)

        def send() -> None:
            (self._out.parent / name).upload(path)
            path.unlink()

        self._send(name, self.files[-1].bytes, send)

    def add(self, name: str, data: bytes) -> None:
        """One of many files, which the manifest only counts."""
        self._send(name, len(data), lambda: (self._out.parent / name).write_bytes(data))
        self._many_in = name.split("/", maxsplit=1)[0]

    def link(self, name: str, source: Path) -> bool:  # noqa: ARG002 - as of a folder
        """False: there are no links."""
        return False

    def commit(self, manifest: str, said: dict[str, Any], *, replace: bool = False) -> list[str]:  # noqa: ARG002 - what may be replaced went first
        """Wait for all files, make sure that they are there, and write the manifest.

        Returns:
            The names of files and folders beside it.

        Raises:
            RemoteError: They are not as they were sent, or another export has begun.
        """
        self._begin()
        while self._going_up:
            self._going_up.popleft().result()
        names = sorted({name.split("/", maxsplit=1)[0] for name in self._sent})
        there = self._there(names)
        if there != self._sent or not self._is_ours():
            wrong = sorted(
                name for name in {*there, *self._sent} if there.get(name) != self._sent.get(name)
            )
            raise RemoteError(
                "another export writes to the same name",
                got=f"{self.place(wrong[0])}: {there.get(wrong[0], 'no')} bytes" if wrong
                else str(self._out),
                allowed=f"{self._sent.get(wrong[0], 'no')} bytes, as they were sent" if wrong
                else None,
                next_step="wait until it has ended, or choose another name",
            )  # fmt: skip
        self._out.with_name(manifest).write_bytes(manifest_bytes(said))
        self._whole = True
        _mark(self._out).unlink(missing_ok=True)
        return names

    def _files_in(self, folder: str) -> Iterable[tuple[str, int]]:
        return [(name, size) for name, size in self._sent.items() if name.startswith(f"{folder}/")]

    def _send(self, name: str, size: int, send: Callable[[], Any]) -> None:
        self._begin()
        self._sent[name] = size
        self._going_up.append(self._uploads.submit(send))
        while len(self._going_up) > _WAITING:
            self._going_up.popleft().result()

    def _begin(self) -> None:
        """Mark the name, and remove what is replaced: its manifest first, as it holds no more."""
        if self._begun:
            return
        try:
            _mark(self._out).write_bytes(self._mark)
        except FileNotFoundError as error:
            raise ExportError(
                "there is no such bucket",
                got=str(self._out),
                next_step="create it, or check its name",
            ) from error
        self._begun = True
        self._out.with_name(self._out.name + MANIFEST_SUFFIX).unlink(missing_ok=True)
        _remove_files(self._out)

    def _is_ours(self) -> bool:
        """Whether no other export to that name has begun."""
        mark = _mark(self._out)
        forget(mark)
        return mark.exists() and mark.read_range(0, mark.stat().st_size) == self._mark

    def _there(self, names: list[str]) -> dict[str, int]:
        """What object storage now has under ``names``, and the sizes in bytes."""
        forget(self._out)
        found = {}
        for name in names:
            place = self._out.with_name(name)
            if name in self._sent:
                found[name] = place.stat().st_size if place.exists() else -1
            else:
                found |= {f"{name}/{one}": size for one, size in place.listing().items()}
        return found


def _mark(out: RemotePath) -> RemotePath:
    found: RemotePath = out.with_name(f".{out.name}.partial")
    return found


def _remove_files(out: RemotePath) -> None:
    for place in (out, out.with_name(out.name + PICTURES)):
        place.remove_tree()
