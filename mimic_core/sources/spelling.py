"""File names that are written otherwise than the file is named, as tables of other machines do.

A name is resolved only where exactly one file can be meant, and each resolution is counted under
its kind, so that a person is told. Else the nearest file is named.

A name may also be the end of a file's (``1.jpg`` of ``images/1.jpg``): of several such files, the
one in the folder that holds most of the table's names, and of several such folders, the one that
the table is named for (``captions_val2017.json``, ``val2017``). A URL means the file of the name
that it ends in, if no other URL of the table ends alike.
"""

from __future__ import annotations

import difflib
import posixpath
import re
import unicodedata
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import PurePosixPath

from mimic_core.sources.guess import is_url
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
        table: The name of the table.
    """

    def __init__(self, files: Files, wanted: Iterable[str], table: str = "") -> None:
        self._files = files
        self._wanted = wanted
        self._table = PurePosixPath(table).stem.casefold()
        self._compared = 0

    def find(self, name: str, error: ImageError) -> tuple[str, str]:
        """The file that ``name`` means and how it was spelt.

        Raises:
            ImageError: None or several fit: ``error``, with the nearest file.
        """
        if is_url(name):
            return self._downloaded(name, error), "the name of a downloaded URL"
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
        ending = None if _is_absolute(_plain(spelt)) else self._ending(spelt)
        if ending is not None:
            return ending, "no folder in front of a name"
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
        if len({name.startswith("/") for name in absolute}) != 1:
            return []  # there are none, or those of two systems, which share no folder
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

    def _ending(self, spelt: str) -> str | None:
        """The file that a relative name is the end of."""
        found = self._endings(_plain(spelt))
        if len(found) > 1:
            found = [one for one in found if self._folder(one, spelt) == self._most]
        return found[0] if len(found) == 1 else None

    def _endings(self, plain: str) -> list[str]:
        files = self._by_base.get(posixpath.basename(plain), ())
        return [file for file in files if _plain(file).endswith(f"/{plain}")]

    @staticmethod
    def _folder(file: str, name: str) -> str:
        """What stands in front of ``name`` in ``file``."""
        return _plain(file).removesuffix(_plain(name))

    @cached_property
    def _by_base(self) -> dict[str, list[str]]:
        """Files by the last part of their name."""
        found: dict[str, list[str]] = {}
        for file in self._files.listing.names:
            found.setdefault(posixpath.basename(_plain(file)), []).append(file)
        return found

    @cached_property
    def _most(self) -> str | None:
        """The folder that holds most of the relative names; None where two hold as many."""
        hits = Counter(
            self._folder(file, name)
            for name in self._wanted
            for file in self._endings(_plain(name))
        )
        best = [folder for folder, count in hits.items() if count == max(hits.values())]
        if len(best) > 1:
            best = [one for one in best if self._is_named_for(posixpath.basename(one[:-1]))]
        return best[0] if len(best) == 1 else None

    def _is_named_for(self, folder: str) -> bool:
        return bool(folder) and folder in re.split(r"[^a-z0-9]+", self._table)

    def _downloaded(self, url: str, error: ImageError) -> str:
        base = _url_base(url)
        found = self._by_base.get(base, []) if base else []
        if len(found) != 1 or self._url_bases[base] != 1:
            raise error
        return found[0]

    @cached_property
    def _url_bases(self) -> Counter[str]:
        return Counter(map(_url_base, set(filter(is_url, self._wanted))))

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


def _url_base(url: str) -> str:
    """The name of the file that a URL ends in, if it has a suffix."""
    base = _plain(posixpath.basename(urllib.parse.urlsplit(url).path))
    return base if "." in base else ""


def _is_absolute(name: str) -> bool:
    return name.startswith("/") or name[1:3] == ":/"


def _stem(name: str) -> str:
    return posixpath.basename(name).rpartition(".")[0] or posixpath.basename(name)
