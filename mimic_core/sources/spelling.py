"""File names that are written otherwise than the file is named, as tables of other machines do.

A name is resolved only where exactly one file can be meant, and each resolution is counted under
its kind, so that a person is told. Else the nearest file is named.
"""

from __future__ import annotations

import difflib
import posixpath
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import PurePosixPath

from mimic_core.sources.images import ImageError
from mimic_core.sources.source import Files

_PACKED = (".zip", ".tar", ".gz", ".tgz", ".zst", ".7z", ".rar")
_COMPARED = 20  # names that are compared with all others, which takes long in a large pool

# In the order in which they are tried, each upon the ones before it.
_SPELLINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("white space around the name", str.strip),
    ("backslashes for slashes", lambda name: name.replace("\\", "/")),
    ("percent signs for characters", urllib.parse.unquote),
    ("another Unicode form", lambda name: unicodedata.normalize("NFC", name)),
    ("capitals", str.casefold),
)


class Spellings:
    """The files of a pool by every spelling of their names.

    Args:
        files: Where the images are.
        wanted: All names that the pool's table has; absolute ones are taken to share a folder.
    """

    def __init__(self, files: Files, wanted: Iterable[str]) -> None:
        self._files = files
        self._wanted = wanted
        self._compared = 0

    def find(self, name: str, error: ImageError) -> tuple[str, str]:
        """The file that ``name`` means and how it was spelt.

        Raises:
            ImageError: None or several fit: ``error``, with the nearest file.
        """
        spelt, found = name, self._by_spelling.get(_plain(name), [])
        for kind, spell in _SPELLINGS:
            spelt = posixpath.normpath(spell(spelt))
            exact = [file for file in found if _until(file, kind) == spelt]
            if len(exact) == 1:
                return exact[0], f"{kind} in a name"
        if len(found) == 1:
            return found[0], "another spelling of a name"
        below = self._below_folder(spelt)
        if below is not None:
            return below, "another folder in front of a name"
        raise ImageError(error.reason, self._explained(name, error.detail)) from error

    @cached_property
    def _by_spelling(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file in self._files.listing.names:
            found.setdefault(_plain(file), []).append(file)
        return found

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """Files by the last part of their name without its suffix."""
        found: dict[str, list[str]] = {}
        for file in self._files.listing.names:
            found.setdefault(_stem(_plain(file)), []).append(file)
        return found

    @cached_property
    def _folders(self) -> list[str]:
        """The folder that all absolute names share, and the ones above it, deepest first.

        One is stripped from all of them, so that two names can never become one file.
        """
        absolute = {_plain(name) for name in self._wanted if _is_absolute(_plain(name))}
        if not absolute:
            return []
        shared = posixpath.commonpath([posixpath.dirname(name) for name in absolute])
        folders = [shared, *map(str, PurePosixPath(shared).parents)]
        return [folder.rstrip("/") + "/" for folder in folders if folder != "."]

    @cached_property
    def _stripped(self) -> str | None:
        """The one of those folders below which most of the absolute names are files."""
        absolute = [_plain(name) for name in self._wanted if _is_absolute(_plain(name))]
        hits = {
            folder: sum(name.removeprefix(folder) in self._by_spelling for name in absolute)
            for folder in self._folders
        }
        return max(hits, key=lambda folder: hits[folder]) if any(hits.values()) else None

    def _below_folder(self, spelt: str) -> str | None:
        """The file that an absolute name means once the folder of the other machine is left out."""
        plain = _plain(spelt)
        if not _is_absolute(plain) or self._stripped is None:
            return None
        found = self._by_spelling.get(plain.removeprefix(self._stripped), ())
        return found[0] if len(found) == 1 else None

    def _explained(self, name: str, detail: str) -> str:
        plain = _plain(name)
        same = self._by_spelling.get(plain, []) or self._by_name.get(_stem(plain), [])
        if not same and self._compared < _COMPARED:
            self._compared += 1
            same = difflib.get_close_matches(plain, self._files.listing.names, n=1)
        if same:
            return f"{detail}; the nearest file is {same[0]}"
        packed = [file for file in self._files.listing.names if file.lower().endswith(_PACKED)]
        return f"{detail}; it may be in {packed[0]}: unpack that" if packed else detail


def _until(file: str, kind: str) -> str:
    """A file's own name in the spelling that is tried, of which only the last two change it."""
    name = file.replace("\\", "/")
    if kind in (_SPELLINGS[3][0], _SPELLINGS[4][0]):
        name = unicodedata.normalize("NFC", name)
    return name.casefold() if kind == _SPELLINGS[4][0] else name


def _plain(name: str) -> str:
    """``name`` in all those spellings at once: names that may mean one file are equal."""
    for _, spell in _SPELLINGS:
        name = spell(name)
    return posixpath.normpath(name) if name else name


def _is_absolute(name: str) -> bool:
    return name.startswith("/") or name[1:3] == ":/"


def _stem(name: str) -> str:
    return posixpath.basename(name).rpartition(".")[0] or posixpath.basename(name)
