"""What the browser fetches by itself, beside streamlit's messages: pictures and packed charts.

An address is made by the page that shows it and holds a digest, keyed by a secret of this server,
of what it stands for. Nobody can make one up, nothing but what a page has shown is ever served, and
the same picture has the same address: browsers keep it. All of it is shared by all tabs.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import streamlit as st

from app.drawing import pictures
from app.drawing.pictures import Picture
from app.library import roots
from mimic_core.base.schema import Locator

ROUTE = "/served/{name}"
KEPT_BYTES = 96 * 2**20  # finished bodies, newest first
KEPT_NAMES = 200_000  # addresses: about 300 bytes each

_SECRET = secrets.token_bytes(32)
_WORKERS = 2  # decoding releases the interpreter's lock, and leaves a core for the scripts


@dataclass(frozen=True, slots=True)
class Body:
    """An answer: the bytes with their type, or the words of why there are none."""

    data: bytes
    media_type: str
    missing: bool = False
    encoding: str | None = None


Maker = Callable[[], Body]


class Served:
    """Addresses, how to make what is at them, and what has been made; safe between threads."""

    def __init__(self, kept_bytes: int = KEPT_BYTES, kept_names: int = KEPT_NAMES) -> None:
        self._lock = threading.Lock()
        self._makers: OrderedDict[str, Maker] = OrderedDict()
        self._bodies: OrderedDict[str, Body] = OrderedDict()
        self._size, self._kept_bytes, self._kept_names = 0, kept_bytes, kept_names
        self.pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="pictures")
        self.ahead = ThreadPoolExecutor(1, thread_name_prefix="pictures ahead")
        self._wanted: list[str] = []

    def add(self, what: object, maker: Maker) -> str:
        """The name of ``what``, whose ``repr`` says all that decides on its bytes."""
        name = blake2b(repr(what).encode(), key=_SECRET, digest_size=16).hexdigest()
        with self._lock:
            self._makers[name] = maker
            self._makers.move_to_end(name)
            while len(self._makers) > self._kept_names:
                self._makers.popitem(last=False)
        return name

    def body(self, name: str) -> Body | None:
        """What is at that name, made now unless it has been; None for an unknown name."""
        with self._lock:
            found, maker = self._bodies.get(name), self._makers.get(name)
            if found is not None:
                self._bodies.move_to_end(name)
                return found
        if maker is None:
            return None
        made = maker()
        with self._lock:
            if name not in self._bodies:
                self._bodies[name] = made
                self._size += len(made.data)
            while self._size > self._kept_bytes and len(self._bodies) > 1:
                self._size -= len(self._bodies.popitem(last=False)[1].data)
        return made

    def prepare(self, names: Iterable[str]) -> None:
        """Make these beside the page, one by one; the newest wish takes the place of the last."""
        with self._lock:
            busy = bool(self._wanted)
            self._wanted = [name for name in names if name not in self._bodies][::-1]
        if self._wanted and not busy:
            self.ahead.submit(self._make_wanted)

    def _make_wanted(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    return
                name = self._wanted[-1]
            self.body(name)
            with self._lock:
                if self._wanted[-1:] == [name]:
                    self._wanted.pop()


SERVED = Served()


def address_of(name: str) -> str:
    """The address of a name, as the browser asks for it from any page."""
    base = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return f"{'/' + base if base else ''}{ROUTE.format(name=name)}"


def name_in(address: str) -> str:
    """The name in an address."""
    return address.rpartition("/")[2]


def png_address(png: bytes) -> str:
    """Where the browser finds a picture that was drawn here."""
    return address_of(SERVED.add(("png", png), lambda: Body(png, "image/png")))


def picture_address(root: Path, locator: Locator, *, side: int) -> str:
    """Where the browser finds the image at ``locator``, no side longer than ``side`` pixels.

    Another file at the same place has another address.
    """
    within = roots() or ()
    what = ("picture", str(root), locator, side, within, _state(root / locator.path))
    return address_of(SERVED.add(what, lambda: _picture(root, locator, side, within)))


def prepare(addresses: Iterable[str]) -> None:
    """Make what is at these addresses beside the page, after what browsers wait for."""
    SERVED.prepare([name_in(address) for address in addresses])


def picture_at(address: str) -> Picture:
    """The picture that is at an address of ``picture_address``."""
    body = SERVED.body(name_in(address))
    assert body is not None  # the address was made a moment ago
    if body.missing:
        return Picture(None, body.data.decode())
    return Picture(body.data)


def _picture(root: Path, locator: Locator, side: int, within: tuple[Path, ...]) -> Body:
    found = pictures.picture(root, locator, side=side, within=within)
    if found.data is None:
        return Body(found.reason.encode(), "text/plain; charset=utf-8", missing=True)
    return Body(found.data, "image/webp")


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of a file, or None where there is none: it may come back."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # a name with a zero byte
        return None
    return found.st_size, found.st_mtime_ns
